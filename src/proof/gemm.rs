//! Products, with all their forms, tiles and epilogues.

use super::flat::exact;
use super::*;
use crate::device::Grid;
use crate::device::kernels::{Form, Setting, Unit, gemm};

use Float::{Bf16, F16, F32};

const FORMS: [Form; 3] = [Form::Nt, Form::Nn, Form::Tn];

/// Values for parameters that a plan leaves to the sizes: warps along M and N, fragments of a warp, buffers.
#[derive(Clone, Copy, Debug)]
struct Tile {
    settings: [(&'static str, i64); 5],
}

impl Tile {
    const fn new(wm: i64, wn: i64, mi: i64, nj: i64, stages: i64) -> Option<Tile> {
        Some(Tile { settings: [("WM", wm), ("WN", wn), ("MI", mi), ("NJ", nj), ("STAGES", stages)] })
    }

    /// Rows and columns.
    fn sides(&self) -> [usize; 2] {
        let [wm, wn, mi, nj, _] = self.settings.map(|(_, x)| x as usize);
        [wm * mi * 16, wn * nj * 8]
    }

    /// The plan with this tile instead of its own.
    fn apply(&self, plan: &mut Plan, [m, n, batch]: [usize; 3], bytes: usize) {
        let [bm, bn] = self.sides();
        plan.variant.settings.retain(|(name, _)| !self.settings.iter().any(|(other, _)| name == other));
        // WM is 2 wherever it is not said.
        let own = self.settings.into_iter().filter(|setting| *setting != ("WM", 2));
        plan.variant.settings.extend(own.map(|(name, x)| (name, Setting::Number(x))));
        let shared = self.settings[4].1 as usize * (bm + bn) * 32 * bytes;
        let threads = 32 * (self.settings[0].1 * self.settings[1].1) as u32;
        let blocks = [(m.div_ceil(bm) * n.div_ceil(bn)) as u32, 1, batch as u32];
        plan.grid = Grid { blocks, threads: [threads, 1, 1], shared };
    }
}

#[derive(Clone, Copy)]
struct Product {
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

const SMALL: Option<Tile> = Tile::new(2, 2, 2, 4, 3);

pub(super) fn cases(cases: &mut Vec<Case>) {
    let mut add = |product: Product, typical: bool| {
        let file = if matches!(product.unit, Unit::F32(_)) { "sgemm.ptx" } else { "gemm.ptx" };
        cases.push(Case::new(file, &["gemm"], product.name(), move |trial| product.check(trial)).typical(typical));
    };
    for (unit, own) in [(Unit::Bf16, Bf16), (Unit::F16, F16), (Unit::Tf32, F32)] {
        for form in FORMS {
            let one = Product { unit, to: own, form, f: "none", sizes: [64, 64, 64, 1], tile: SMALL, full: false };
            add(one, false);
            add(Product { to: F32, sizes: [67, 131, 45, 2], f: "gelu_tanh", full: true, ..one }, false);
            add(Product { sizes: [5, 3, 1, 1], tile: Tile::new(2, 2, 2, 4, 4), full: true, ..one }, false);
            let tile = Tile::new(2, 2, 4, 8, 4);
            add(Product { sizes: [130, 72, 100, 1], tile, f: "silu", full: true, ..one }, false);
        }
    }
    for f in ["gelu_erf", "relu", "tanh", "sigmoid"] {
        let sizes = [33, 40, 32, 1];
        add(Product { unit: Unit::Bf16, to: Bf16, form: Form::Nt, f, sizes, tile: SMALL, full: true }, false);
    }
    for form in FORMS {
        let sizes = [150, 300, 70, 1];
        let one = Product { unit: Unit::Bf16, to: Bf16, form, f: "none", sizes, tile: None, full: false };
        add(one, false);
        add(Product { tile: Tile::new(2, 4, 4, 8, 4), ..one }, false);
        // More than one band of 8 rows of tiles.
        add(Product { tile: SMALL, sizes: [580, 70, 33, 1], ..one }, false);
    }
    for (unit, form) in [Unit::Bf16, Unit::Tf32].into_iter().flat_map(|unit| FORMS.map(|form| (unit, form))) {
        let (sizes, tile) = ([128, 128, 64, 1], Tile::new(2, 2, 4, 8, 3));
        add(Product { unit, to: F32, form, f: "none", sizes, tile, full: false }, true);
    }
    for form in FORMS {
        let unit = Unit::F32(true);
        let one = Product { unit, to: F32, form, f: "none", sizes: [100, 70, 33, 1], tile: None, full: false };
        add(Product { sizes: [128, 128, 64, 1], ..one }, true);
        add(one, false);
        add(Product { unit: Unit::F32(false), sizes: [67, 131, 45, 1], ..one }, false);
        add(Product { sizes: [67, 131, 45, 2], f: "gelu_tanh", full: true, ..one }, false);
        add(Product { unit: Unit::F32(false), sizes: [5, 3, 1, 1], full: true, ..one }, false);
        add(Product { to: Bf16, sizes: [132, 40, 20, 1], f: "silu", full: true, ..one }, false);
    }
    cases.push(Case::new("sgemm.ptx", &["gemm"], "f32 nt onto what is there".into(), onto));
}

impl Product {
    fn name(&self) -> String {
        let Product { unit, to, form, f, sizes: [m, n, k, batch], tile, full } = *self;
        let unit = match unit {
            Unit::Bf16 => "bf16",
            Unit::F16 => "f16",
            Unit::Tf32 => "tf32",
            Unit::F32(true) => "f32",
            Unit::F32(false) => "f32 unaligned",
        };
        let form = match form {
            Form::Nt => "nt",
            Form::Nn => "nn",
            Form::Tn => "tn",
        };
        let mut name = format!("{unit} {form} {m} x {n} x {k} to {}", to.name());
        name += &if batch > 1 { format!(", {batch} of them") } else { String::new() };
        name += &if f != "none" { format!(", {f}") } else { String::new() };
        name += if full { ", bias and sum" } else { "" };
        name += &tile.map_or(String::new(), |tile| format!(", tile {} x {}", tile.sides()[0], tile.sides()[1]));
        name
    }

    fn plan(&self) -> Plan {
        let [m, n, _, batch] = self.sizes;
        let mut plan = gemm(self.unit, self.form, self.to, self.f, [m, n, batch]);
        if let Some(tile) = self.tile {
            tile.apply(&mut plan, [m, n, batch], if self.unit == Unit::Tf32 { 4 } else { 2 });
        }
        plan
    }

    fn check(&self, trial: &Trial<'_>) -> Result<()> {
        let &Product { unit, to, form, f, sizes: [m, n_, k, batch], full, .. } = self;
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
        let (pa, pb, pbias) = (trial.put_as(from, &a)?, trial.put_as(from, &b)?, trial.put(&bias)?);
        let (pc, pz) = (trial.result(to, &old, full.into())?, trial.room_for(to, batch * strides[2])?);
        let mut args = vec![pa.into(), pb.into(), pc.into(), given(full, pbias), given(full, pc), given(full, pz)];
        args.extend([m, n_, k, lda, ldb, ldc].map(n));
        args.extend(strides.map(|x| Arg::U64(x as u64)));
        trial.run(&self.plan(), &args)?;

        let got = trial.get_as(to, pc, batch * strides[2])?;
        let side = if full { trial.get_as(to, pz, batch * strides[2])? } else { vec![] };
        let [mut y, mut want, mut z, mut want_z, mut chain] = [const { Vec::new() }; 5];
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
                chain.push(f64::from((0..k).fold(0.0f32, |sum, l| (a(l) as f32).mul_add(b(l) as f32, sum))));
            }
        }
        trial.close("C", &y, &want, bound(to));
        if !chain.is_empty() {
            trial.same("C, one chain over k, as on the CPU", &y, &chain);
        }
        if full {
            trial.close("z", &z, &want_z, bound(to));
            let between = |x: &[f64]| -> Vec<f64> {
                (0..batch * m).flat_map(|row| x[row * ldc + n_..(row + 1) * ldc].iter().copied()).collect()
            };
            trial.same("what lies between rows", &between(&got), &between(&ro));
        }
        Ok(())
    }
}

/// A chain that begins with what is there.
fn onto(trial: &Trial<'_>) -> Result<()> {
    let (m, n_, k) = (9, 12, 20);
    let [a, b, c] = [(0, m * k), (1, n_ * k), (2, m * n_)].map(|(i, len)| normal(i, len, 1.0));
    let (pa, pb, pc) = (trial.put(&a)?, trial.put(&b)?, trial.put(&c)?);
    let mut args = vec![pa.into(), pb.into(), pc.into(), NONE, pc.into(), NONE];
    args.extend([m, n_, k, k, k, n_].map(n));
    args.extend([Arg::U64(0); 3]);
    trial.run(&gemm(Unit::F32(true), Form::Nt, F32, "none", [m, n_, 1]), &args)?;
    let chain = |i: usize| (0..k).fold(c[i], |sum, l| a[i / n_ * k + l].mul_add(b[i % n_ * k + l], sum));
    let want: Vec<f64> = (0..m * n_).map(|i| f64::from(chain(i))).collect();
    trial.same("C", &trial.get_as(F32, pc, m * n_)?, &want);
    Ok(())
}
