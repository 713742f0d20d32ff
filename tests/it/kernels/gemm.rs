//! Products, with all their forms, tiles and epilogues.

use super::flat::exact;
use super::*;
use kiln::device::kernels::{Form, Setting, Unit, gemm};
use kiln::device::sim::Class;

use Float::{Bf16, F16, F32};

const FORMS: [Form; 3] = [Form::Nt, Form::Nn, Form::Tn];

/// Values for parameters that a plan leaves to the sizes, and the tile that they give.
type Tile = ([(&'static str, i64); 5], [usize; 2]);

#[derive(Clone, Copy)]
struct Case {
    unit: Unit,
    to: Float,
    form: Form,
    f: &'static str,
    /// M, N, K and the number of products.
    sizes: [usize; 4],
    /// The planned one if none.
    tile: Option<Tile>,
    /// Whether there are a bias, a side result and something to add.
    full: bool,
}

/// Warps along M and N, fragments and buffers.
const fn tile(wm: i64, wn: i64, mi: i64, nj: i64, stages: i64) -> Option<Tile> {
    let settings = [("WM", wm), ("WN", wn), ("MI", mi), ("NJ", nj), ("STAGES", stages)];
    Some((settings, [(wm * mi * 16) as usize, (wn * nj * 8) as usize]))
}

impl Case {
    fn plan(&self) -> Plan {
        let [m, n, _, batch] = self.sizes;
        let mut plan = gemm(self.unit, self.form, self.to, self.f, [m, n, batch]);
        if let Some((settings, [bm, bn])) = self.tile {
            plan.variant.settings.retain(|(name, _)| !settings.iter().any(|(other, _)| name == other));
            // WM is 2 wherever it is not said.
            let own = settings.into_iter().filter(|setting| *setting != ("WM", 2));
            plan.variant.settings.extend(own.map(|(name, x)| (name, Setting::Number(x))));
            let bytes = if self.unit == Unit::Tf32 { 4 } else { 2 };
            let shared = settings[4].1 as usize * (bm + bn) * 32 * bytes;
            let threads = 32 * (settings[0].1 * settings[1].1) as u32;
            let blocks = [(m.div_ceil(bm) * n.div_ceil(bn)) as u32, 1, batch as u32];
            plan.grid = Grid { blocks, threads: [threads, 1, 1], shared };
        }
        plan
    }

    fn check(&self) -> Counters {
        let &Case { unit, to, form, f, sizes: [m, n_, k, batch], full, .. } = self;
        let bench = Bench::new();
        let from = match unit {
            Unit::Bf16 => Bf16,
            Unit::F16 => F16,
            _ => F32,
        };
        // Rows are multiples of 16 bytes, and wider than need be where all is tried; plain f32 takes any.
        let pitch = |x: usize, t: Float| match unit {
            Unit::F32(false) => x,
            _ => x.next_multiple_of(16 / t.bytes()) + if full { 16 / t.bytes() } else { 0 },
        };
        let (rows_a, cols_a) = if form == Form::Tn { (k, m) } else { (m, k) };
        let (rows_b, cols_b) = if form == Form::Nt { (n_, k) } else { (k, n_) };
        let (lda, ldb, ldc) = (pitch(cols_a, from), pitch(cols_b, from), pitch(n_, to));
        let strides = [rows_a * lda, rows_b * ldb, m * ldc];
        let [a, b, old] = [0, 1, 2].map(|i| normal(i as u32, batch * strides[i], 1.0));
        let bias = normal(3, n_, 1.0);
        let operand = |x: &[f32]| match unit {
            // To 10 bits of mantissa, ties away from 0.
            Unit::Tf32 => x.iter().map(|x| f64::from(f32::from_bits((x.to_bits() + 0x1000) & !0x1fff))).collect(),
            _ => round(from, x),
        };
        let (ra, rb, ro) = (operand(&a), operand(&b), round(to, &old));
        let (pa, pb, pbias) = (bench.put_as(from, &a), bench.put_as(from, &b), bench.put(&bias));
        let (pc, pz) = (bench.result(to, &old, full.into()), bench.room_for(to, batch * strides[2]));
        let given = |p: Ptr| if full { p.into() } else { NONE };
        let mut args = vec![pa.into(), pb.into(), pc.into(), given(pbias), given(pc), given(pz)];
        args.extend([m, n_, k, lda, ldb, ldc].map(n));
        args.extend(strides.map(|x| Arg::U64(x as u64)));
        let counters = bench.run(&self.plan(), &args);

        let what = format!("{unit:?} {form:?} to {to:?}, {m} x {n_} x {k}, {f}");
        let got = bench.get_as(to, pc, batch * strides[2]);
        let side = if full { bench.get_as(to, pz, batch * strides[2]) } else { vec![] };
        let (mut y, mut want, mut z, mut want_z) = (vec![], vec![], vec![], vec![]);
        for (s, i, j) in (0..batch * m * n_).map(|x| (x / (m * n_), x / n_ % m, x % n_)) {
            let at = s * strides[2] + i * ldc + j;
            let a = |l: usize| ra[s * strides[0] + if form == Form::Tn { l * lda + i } else { i * lda + l }];
            let b = |l: usize| rb[s * strides[1] + if form == Form::Nt { j * ldb + l } else { l * ldb + j }];
            let dot = (0..k).map(|l| a(l) * b(l)).sum::<f64>() + if full { f64::from(bias[j]) } else { 0.0 };
            y.push(got[at]);
            want.push(exact(f, dot) + if full { ro[at] } else { 0.0 });
            if full {
                z.push(side[at]);
                want_z.push(dot);
            } else if matches!(unit, Unit::F32(_)) {
                let chain = (0..k).fold(0.0f32, |sum, l| (a(l) as f32).mul_add(b(l) as f32, sum));
                assert_eq!(got[at], f64::from(chain), "{what}: one chain over k, as on the CPU");
            }
        }
        close(&what, &y, &want, bound(to));
        close(&format!("{what}: z"), &z, &want_z, bound(to));
        if full {
            let between = (0..batch * m).flat_map(|row| row * ldc + n_..(row + 1) * ldc);
            assert!(between.into_iter().all(|i| got[i] == ro[i]), "{what}: what lies between rows was written");
        }
        counters
    }
}

const SMALL: Option<Tile> = tile(2, 2, 2, 4, 3);

#[test]
fn tensor_cores_multiply_in_all_forms() {
    for (unit, own) in [(Unit::Bf16, Bf16), (Unit::F16, F16), (Unit::Tf32, F32)] {
        for form in FORMS {
            let case = Case { unit, to: own, form, f: "none", sizes: [64, 64, 64, 1], tile: SMALL, full: false };
            case.check();
            Case { to: F32, sizes: [67, 131, 45, 2], f: "gelu_tanh", full: true, ..case }.check();
            Case { sizes: [5, 3, 1, 1], tile: tile(2, 2, 2, 4, 4), full: true, ..case }.check();
            Case { sizes: [130, 72, 100, 1], tile: tile(2, 2, 4, 8, 4), f: "silu", full: true, ..case }.check();
        }
    }
    for f in ["gelu_erf", "relu", "tanh", "sigmoid"] {
        let sizes = [33, 40, 32, 1];
        Case { unit: Unit::Bf16, to: Bf16, form: Form::Nt, f, sizes, tile: SMALL, full: true }.check();
    }
}

#[test]
fn planned_and_large_tiles_multiply() {
    for form in FORMS {
        let case =
            Case { unit: Unit::Bf16, to: Bf16, form, f: "none", sizes: [150, 300, 70, 1], tile: None, full: false };
        case.check();
        Case { tile: tile(2, 4, 4, 8, 4), ..case }.check();
        // More than one band of 8 rows of tiles.
        Case { tile: SMALL, sizes: [580, 70, 33, 1], ..case }.check();
    }
}

#[test]
fn tensor_cores_meet_no_bank_twice_and_no_sector_in_vain() {
    for (unit, form) in [Unit::Bf16, Unit::Tf32].into_iter().flat_map(|unit| FORMS.map(|form| (unit, form))) {
        let case =
            Case { unit, to: F32, form, f: "none", sizes: [128, 128, 64, 1], tile: tile(2, 2, 4, 8, 3), full: false };
        let counters = case.check();
        assert!(counters.class(Class::Mma).warp > 0);
        assert_eq!(counters.shared.steps, counters.shared.ideal, "{unit:?} {form:?}: banks");
        assert_eq!(counters.global.steps, counters.global.ideal, "{unit:?} {form:?}: sectors");
    }
}

#[test]
fn f32_is_the_chain_of_the_cpu() {
    for form in FORMS {
        let unit = Unit::F32(true);
        let case = Case { unit, to: F32, form, f: "none", sizes: [100, 70, 33, 1], tile: None, full: false };
        let counters = case.check();
        assert_eq!(counters.shared.steps, counters.shared.ideal, "{form:?}: banks");
        Case { unit: Unit::F32(false), sizes: [67, 131, 45, 1], ..case }.check();
        Case { sizes: [67, 131, 45, 2], f: "gelu_tanh", full: true, ..case }.check();
        Case { unit: Unit::F32(false), sizes: [5, 3, 1, 1], full: true, ..case }.check();
        Case { to: Bf16, sizes: [132, 40, 20, 1], f: "silu", full: true, ..case }.check();
    }
}

#[test]
fn f32_begins_its_chain_with_what_is_there() {
    let bench = Bench::new();
    let (m, n_, k) = (9, 12, 20);
    let [a, b, c] = [(0, m * k), (1, n_ * k), (2, m * n_)].map(|(i, len)| normal(i, len, 1.0));
    let (pa, pb, pc) = (bench.put(&a), bench.put(&b), bench.put(&c));
    let mut args = vec![pa.into(), pb.into(), pc.into(), NONE, pc.into(), NONE];
    args.extend([m, n_, k, k, k, n_].map(n));
    args.extend([Arg::U64(0); 3]);
    bench.run(&gemm(Unit::F32(true), Form::Nt, F32, "none", [m, n_, 1]), &args);
    let chain = |i: usize| (0..k).fold(c[i], |sum, l| a[i / n_ * k + l].mul_add(b[i % n_ * k + l], sum));
    assert_eq!(bench.get::<f32>(pc, m * n_), (0..m * n_).map(chain).collect::<Vec<_>>());
}
