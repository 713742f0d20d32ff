//! Attention against a naive f64 twin, in f32 and in bf16; the numeric contract: bits do not depend on threads, level or, in
//! f32, the other rows.

use kiln::cpu::attention::{Attention, Cache, Layout, View, ViewMut};
use kiln::cpu::gemm::Precision;
use kiln::cpu::{Cpu, Simd};
use kiln::device::Device;
use kiln::params::Params;
use kiln::rng::{Purpose, Stream};
use kiln::tape::{Pass, Tape};
use kiln::tensor::Tensor;

/// One problem: B, H, Hkv, Tq, Tk, D.
#[derive(Clone, Copy, Debug)]
struct Case {
    b: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    causal: bool,
    precision: Precision,
}

const fn case(b: usize, heads: usize, kv_heads: usize, queries: usize, keys: usize, dim: usize, causal: bool) -> Case {
    Case { b, heads, kv_heads, queries, keys, dim, causal, precision: Precision::F32 }
}

const CASES: [Case; 19] = [
    case(2, 2, 2, 1, 1, 8, true),
    case(1, 3, 3, 5, 5, 24, true),
    case(1, 1, 1, 63, 63, 64, true),
    case(2, 2, 1, 64, 64, 32, true),
    case(1, 2, 2, 65, 65, 64, true),
    case(1, 6, 2, 130, 130, 80, true),
    case(1, 4, 1, 70, 70, 5, true),
    case(1, 1, 1, 200, 200, 1, true),
    case(1, 1, 1, 260, 260, 16, true),
    case(2, 2, 2, 1, 130, 64, true),
    case(1, 2, 1, 7, 130, 24, true),
    case(1, 2, 1, 64, 65, 32, true),
    case(1, 1, 1, 100, 163, 17, true),
    case(1, 2, 2, 33, 150, 128, true),
    case(1, 2, 2, 65, 65, 24, false),
    case(1, 2, 1, 5, 130, 64, false),
    case(2, 2, 2, 130, 5, 8, false),
    case(1, 1, 1, 100, 63, 33, false),
    case(5, 4, 4, 66, 66, 40, true),
];

impl Case {
    fn q_shape(&self) -> [usize; 4] {
        [self.b, self.queries, self.heads, self.dim]
    }
    fn k_shape(&self) -> [usize; 4] {
        [self.b, self.keys, self.kv_heads, self.dim]
    }
    fn attention(&self) -> Attention {
        let attention = if self.causal { Attention::causal(self.dim) } else { Attention::full(self.dim) };
        Attention { precision: self.precision, ..attention }
    }
    fn bf16(self) -> Case {
        Case { precision: Precision::Bf16, ..self }
    }
    fn q_len(&self) -> usize {
        self.q_shape().iter().product()
    }
    fn k_len(&self) -> usize {
        self.k_shape().iter().product()
    }
    /// q, k, v, dout, contiguous.
    fn operands(&self) -> [Vec<f32>; 4] {
        [self.q_len(), self.k_len(), self.k_len(), self.q_len()].map({
            let mut tensor = 0;
            move |len| {
                tensor += 1;
                normals(tensor, len)
            }
        })
    }
}

fn normals(tensor: u32, len: usize) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Stream::new(3, Purpose::Test, tensor, 0).normals(1.0, &mut x);
    x
}

/// out, lse, dq, dk, dv: what kiln gives for contiguous operands.
fn run(cpu: &Cpu, case: &Case, [q, k, v, dout]: &[Vec<f32>; 4]) -> [Vec<f32>; 5] {
    let (q_layout, k_layout) = (Layout::contiguous(case.q_shape()), Layout::contiguous(case.k_shape()));
    let views = [View::new(q, q_layout), View::new(k, k_layout), View::new(v, k_layout)];
    // Outputs must be written everywhere: NaN would stay.
    let nan = |len| vec![f32::NAN; len];
    let (mut out, mut lse) = (nan(case.q_len()), nan(case.b * case.heads * case.queries));
    case.attention().forward(cpu, views[0], views[1], views[2], ViewMut::new(&mut out, q_layout), &mut lse);
    let (mut dq, mut dk, mut dv) = (nan(case.q_len()), nan(case.k_len()), nan(case.k_len()));
    let grads = [ViewMut::new(&mut dq, q_layout), ViewMut::new(&mut dk, k_layout), ViewMut::new(&mut dv, k_layout)];
    let (out_view, dout_view) = (View::new(&out, q_layout), View::new(dout, q_layout));
    case.attention().backward(cpu, views, out_view, dout_view, &lse, grads, false);
    [out, lse, dq, dk, dv]
}

/// The definition, in f64, with operands rounded where the precision rounds them: out, lse, dq, dk, dv.
fn naive(case: &Case, operands: &[Vec<f32>; 4]) -> [Vec<f64>; 5] {
    let round = |x: f64| if case.precision == Precision::F32 { x } else { f64::from(crate::bf16::round(x as f32)) };
    let exact = operands.each_ref().map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    let [q, k, v, dout] = exact.each_ref().map(|x| x.iter().map(|&x| round(x)).collect::<Vec<_>>());
    let scale = f64::from(case.attention().scale);
    let &Case { b, heads, kv_heads, queries, keys, dim, causal, .. } = case;
    let mut y = [q.len(), b * heads * queries, q.len(), k.len(), k.len()].map(|len| vec![0.0; len]);
    for (b, h, i) in (0..b).flat_map(|b| (0..heads).flat_map(move |h| (0..queries).map(move |i| (b, h, i)))) {
        let seen = if causal { i + keys - queries + 1 } else { keys };
        let row = |t: &[f64], at: usize| t[at..at + dim].to_vec();
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let at = ((b * queries + i) * heads + h) * dim;
        let key = |j: usize| ((b * keys + j) * kv_heads + h / (heads / kv_heads)) * dim;
        let (x, dy) = (row(&q, at), row(&dout, at));
        let scores: Vec<f64> = (0..seen).map(|j| scale * dot(&x, &row(&k, key(j)))).collect();
        let largest = |n: usize| scores[..n.min(seen)].iter().cloned().fold(f64::NEG_INFINITY, f64::max);
        let max = largest(seen);
        let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
        let p: Vec<f64> = scores.iter().map(|s| (s - lse).exp()).collect();
        let dp: Vec<f64> = (0..seen).map(|j| dot(&dy, &row(&v, key(j)))).collect();
        for j in 0..seen {
            // The largest score up to the end of the key's block was subtracted when p was rounded.
            let running = largest((j / 64 + 1) * 64);
            let p = round((scores[j] - running).exp()) * (running - lse).exp();
            (0..dim).for_each(|d| y[0][at + d] += p * v[key(j) + d]);
        }
        let delta = dot(&y[0][at..at + dim], &exact[3][at..at + dim]);
        y[1][(b * heads + h) * queries + i] = lse;
        for j in 0..seen {
            let ds = round(scale * p[j] * (dp[j] - delta));
            for d in 0..dim {
                y[2][at + d] += ds * k[key(j) + d];
                y[3][key(j) + d] += ds * x[d];
                y[4][key(j) + d] += round(p[j]) * dy[d];
            }
        }
    }
    y
}

const NAMES: [&str; 5] = ["out", "lse", "dq", "dk", "dv"];

fn close(x: &[f32], y: &[f64], what: &str) {
    let largest = y.iter().fold(0.0, |m: f64, y| m.max(y.abs()));
    for (i, (&x, &y)) in x.iter().zip(y).enumerate() {
        // Written so that NaN fails.
        assert!((f64::from(x) - y).abs() <= 1e-4 * largest + 1e-6, "{what}[{i}]: {x}, not {y}");
    }
    assert_eq!(x.len(), y.len());
}

fn same_bits(x: &[f32], y: &[f32], what: &str) {
    assert_eq!(x.len(), y.len());
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        assert_eq!(x.to_bits(), y.to_bits(), "{what}[{i}]: {x:e} and {y:e}");
    }
}

/// Where f32 and f64 fall on different sides of a midpoint, one element of an operand differs by a place of bf16; they are
/// few. A rounding that is missing or too many would move all.
#[test]
fn equals_the_definition_in_bf16() {
    let cpu = Cpu::with(Simd::detect().unwrap(), 2);
    for case in CASES.map(Case::bf16) {
        let operands = case.operands();
        for ((x, y), name) in run(&cpu, &case, &operands).iter().zip(naive(&case, &operands)).zip(NAMES) {
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
            let error = norm(&mut x.iter().zip(&y).map(|(&x, y)| f64::from(x) - y)) / norm(&mut y.iter().copied());
            assert!(error < 1.5e-4, "{case:?} {name}: {error}");
        }
    }
}

/// The operation takes its precision from the pass.
#[test]
fn a_pass_in_bf16_attends_in_bf16() {
    let case = case(2, 4, 2, 67, 67, 24, true).bf16();
    let [sizes, heads] = [[case.b, case.queries], [case.heads, case.kv_heads]];
    let width = (case.heads + 2 * case.kv_heads) * case.dim;
    let (qkv, dout) = (normals(1, case.b * case.queries * width), normals(2, case.q_len()));
    let cpu = Cpu::with(Simd::detect().unwrap(), 1);
    let layout = Layout::contiguous(case.q_shape());
    let views = View::packed(&qkv, sizes, heads, case.dim);
    let (mut out, mut lse) = (vec![0.0; case.q_len()], vec![0.0; case.b * case.heads * case.queries]);
    case.attention().forward(&cpu, views[0], views[1], views[2], ViewMut::new(&mut out, layout), &mut lse);
    let mut grads = vec![0.0; qkv.len()];
    let grad_views = ViewMut::packed(&mut grads, sizes, heads, case.dim);
    let (y, dy) = (View::new(&out, layout), View::new(&dout, layout));
    case.attention().backward(&cpu, views, y, dy, &lse, grad_views, false);

    let device = Device::cpu(2).expect("a CPU");
    let (mut tape, mut params) = (Tape::new(&device), Params::new(&device, &[], 0));
    tape.begin(&params, Pass { precision: Precision::Bf16, ..Pass::default() });
    let x = tape.variable(Tensor::from_slice(&device, &qkv, [case.b, case.queries, width]));
    let y = x.attention(case.heads, case.kv_heads);
    same_bits(y.value().f32(), &out, "y");
    y.backward_from(&[Tensor::from_slice(&device, &dout, y.shape())], &mut params, true);
    same_bits(x.grad().expect("a gradient").f32(), &grads, "gradient");
}

#[test]
fn equals_the_definition() {
    let cpu = Cpu::with(Simd::detect().unwrap(), 2);
    for case in CASES {
        let operands = case.operands();
        for ((x, y), name) in run(&cpu, &case, &operands).iter().zip(naive(&case, &operands)).zip(NAMES) {
            close(x, &y, &format!("{case:?} {name}"));
        }
    }
}

/// The twin's gradients are those of its output: central differences along a random direction.
#[test]
fn the_definition_has_these_gradients() {
    for case in [CASES[1], CASES[5], CASES[10], CASES[15]] {
        let operands = case.operands();
        let loss = |operands: &[Vec<f32>; 4]| -> f64 {
            naive(&case, operands)[0].iter().zip(&operands[3]).map(|(y, &dy)| y * f64::from(dy)).sum()
        };
        let grads = naive(&case, &operands);
        for (i, name) in ["dq", "dk", "dv"].iter().enumerate() {
            let direction = normals(9, operands[i].len());
            let along = |step: f32| {
                let mut moved = operands.clone();
                moved[i].iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
                // What f32 made of the step counts.
                let dx: Vec<f64> =
                    moved[i].iter().zip(&operands[i]).map(|(x, y)| f64::from(*x) - f64::from(*y)).collect();
                (loss(&moved), grads[2 + i].iter().zip(&dx).map(|(g, dx)| g * dx).sum::<f64>())
            };
            let ((up, expect_up), (down, expect_down)) = (along(1e-3), along(-1e-3));
            let (found, expected) = (up - down, expect_up - expect_down);
            assert!((found - expected).abs() <= 1e-4 * expected.abs() + 1e-7, "{case:?} {name}: {found}, {expected}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_level() {
    for case in CASES.into_iter().chain(CASES.map(Case::bf16)) {
        let operands = case.operands();
        let expected = run(&Cpu::with(Simd::detect().unwrap(), 1), &case, &operands);
        for level in Simd::available() {
            for threads in [1, 2, 3, 5] {
                let found = run(&Cpu::with(level, threads), &case, &operands);
                for ((x, y), name) in found.iter().zip(&expected).zip(NAMES) {
                    same_bits(x, y, &format!("{case:?} {name}, {} on {threads} threads", level.name()));
                }
            }
        }
    }
}

/// One query against cached keys gives the bits of the same row of the whole sequence, in a cache with room for more.
#[test]
fn bits_of_a_row_do_not_depend_on_the_others() {
    let cpu = Cpu::with(Simd::detect().unwrap(), 2);
    let case = case(2, 4, 2, 133, 133, 24, true);
    let mut operands = case.operands();
    // Large and tiny scores, so that maxima move and probabilities vanish.
    operands[0].iter_mut().enumerate().for_each(|(i, x)| *x *= [0.1, 1.0, 30.0][i / 96 % 3]);
    let [out, lse, ..] = run(&cpu, &case, &operands);
    let (room, dim) = (150, case.dim);
    // What lies behind the last key must not matter: NaN would spread.
    let cache = |x: &[f32]| {
        let mut cache = vec![f32::NAN; case.b * room * case.kv_heads * dim];
        for (cache, x) in cache.chunks_mut(room * case.kv_heads * dim).zip(x.chunks(case.keys * case.kv_heads * dim)) {
            cache[..x.len()].copy_from_slice(x);
        }
        cache
    };
    let (keys, values) = (cache(&operands[1]), cache(&operands[2]));
    for n in [1, 2, 7, 64, 100] {
        for first in 0..=case.queries - n {
            if n > 1 && first % 5 != 0 {
                continue;
            }
            let seen = Layout {
                shape: [case.b, first + n, case.kv_heads, dim],
                offset: 0,
                strides: [room * case.kv_heads * dim, case.kv_heads * dim, dim],
            };
            let width = case.heads * dim;
            let rows = Layout {
                shape: [case.b, n, case.heads, dim],
                offset: first * width,
                strides: [case.queries * width, width, dim],
            };
            let (mut y, mut y_lse) = (vec![0.0; case.q_len()], vec![0.0; case.b * case.heads * n]);
            let [q, k, v] = [(&operands[0], rows), (&keys, seen), (&values, seen)].map(|(x, at)| View::new(x, at));
            case.attention().forward(&cpu, q, k, v, ViewMut::new(&mut y, rows), &mut y_lse);
            for b in 0..case.b {
                let at = (b * case.queries + first) * width..(b * case.queries + first + n) * width;
                same_bits(&y[at.clone()], &out[at], &format!("rows {first}..{}", first + n));
                for h in 0..case.heads {
                    let (at, to) = ((b * case.heads + h) * n, (b * case.heads + h) * case.queries + first);
                    same_bits(&y_lse[at..at + n], &lse[to..to + n], "lse");
                }
            }
        }
    }
}

/// However a sequence is cut into pieces, attending to a cache gives the bits of the whole; the cache starts full of NaN, has
/// room to spare, and is the same afterwards for every level and thread count.
#[test]
fn a_cache_gives_the_bits_of_the_whole_sequence() {
    for case in [
        case(1, 2, 2, 150, 150, 64, true),
        case(2, 4, 2, 133, 133, 24, true),
        case(3, 6, 1, 70, 70, 5, true),
        case(1, 1, 1, 129, 129, 16, true),
    ] {
        let mut operands = case.operands();
        operands[0].iter_mut().enumerate().for_each(|(i, x)| *x *= [0.1, 1.0, 30.0][i / 96 % 3]);
        let [want, ..] = run(&Cpu::with(Simd::detect().unwrap(), 1), &case, &operands);
        for (level, threads) in Simd::available().into_iter().flat_map(|level| [1, 2, 3].map(|n| (level, n))) {
            let cpu = Cpu::with(level, threads);
            for pieces in [vec![1; case.keys], vec![case.keys], vec![63, 1, 1, 4], vec![5, 60, 2], vec![64, 1]] {
                let room = case.keys + 3;
                let mut data = vec![f32::NAN; Cache::len([case.b, case.kv_heads, case.dim], room)];
                let mut past = 0;
                for piece in pieces.into_iter().chain([1000]) {
                    let n = piece.min(case.keys - past);
                    if n == 0 {
                        break;
                    }
                    let part = |tokens, heads| Layout {
                        shape: [case.b, n, heads, case.dim],
                        offset: past * heads * case.dim,
                        strides: [tokens * heads * case.dim, heads * case.dim, case.dim],
                    };
                    let (rows, new) = (part(case.queries, case.heads), part(case.keys, case.kv_heads));
                    let mut out = vec![0.0; case.q_len()];
                    let [q, k, v] = [(0, rows), (1, new), (2, new)].map(|(i, at)| View::new(&operands[i], at));
                    let cache = Cache { data: &mut data, room, past };
                    case.attention().forward_cached(&cpu, [q, k, v], cache, ViewMut::new(&mut out, rows));
                    let width = case.heads * case.dim;
                    for b in 0..case.b {
                        let at = (b * case.queries + past) * width..(b * case.queries + past + n) * width;
                        let what = format!("{case:?} {n} after {past}, {} on {threads} threads", level.name());
                        same_bits(&out[at.clone()], &want[at], &what);
                    }
                    past += n;
                }
                assert_eq!(past, case.keys);
            }
        }
    }
}

#[test]
#[should_panic(expected = "9 keys in a cache for 8")]
fn a_full_cache_takes_no_more() {
    let cpu = Cpu::with(Simd::detect().unwrap(), 1);
    let (x, mut y, at) = (vec![0.0; 8], vec![0.0; 8], Layout::contiguous([1, 1, 1, 8]));
    let mut data = vec![0.0; Cache::len([1, 1, 8], 8)];
    let cache = Cache { data: &mut data, room: 8, past: 8 };
    Attention::causal(8).forward_cached(&cpu, [View::new(&x, at); 3], cache, ViewMut::new(&mut y, at));
}

/// A masked key contributes nothing at all: not even NaN or infinity in its key and value change an earlier query. In
/// bf16 that holds for those before the pair of keys that it belongs to.
#[test]
fn masked_keys_contribute_nothing() {
    let cpu = Cpu::with(Simd::detect().unwrap(), 2);
    let case = case(1, 2, 2, 150, 150, 32, true);
    let operands = case.operands();
    let [expected, ..] = run(&cpu, &case, &operands);
    let [in_bf16, ..] = run(&cpu, &case.bf16(), &operands);
    for first in [1, 2, 10, 63, 64, 65, 77, 149] {
        let mut poisoned = operands.clone();
        let width = case.kv_heads * case.dim;
        poisoned[1][first * width..].fill(f32::NAN);
        poisoned[2][first * width..].fill(f32::INFINITY);
        let [out, ..] = run(&cpu, &case, &poisoned);
        same_bits(&out[..first * width], &expected[..first * width], &format!("before key {first}"));
        assert!(out[first * width..].iter().all(|x| x.is_nan()));
        let (pair, [out, ..]) = (first / 2 * 2, run(&cpu, &case.bf16(), &poisoned));
        same_bits(&out[..pair * width], &in_bf16[..pair * width], &format!("in bf16, before key {first}"));
        assert!(out[first * width..].iter().all(|x| x.is_nan()));
    }
}

/// Scratch is lent out as it is: NaN left there by an earlier product must not come back.
#[test]
fn what_scratch_holds_does_not_matter() {
    let cpu = Cpu::with(Simd::detect().unwrap(), 2);
    for case in CASES.into_iter().chain(CASES.map(Case::bf16)) {
        let operands = case.operands();
        run(&cpu, &case, &operands.each_ref().map(|x| vec![f32::NAN; x.len()]));
        let found = run(&cpu, &case, &operands);
        for ((x, y), name) in found.iter().zip(&run(&Cpu::with(cpu.simd, 1), &case, &operands)).zip(NAMES) {
            same_bits(x, y, &format!("{case:?} {name}"));
        }
    }
}

#[test]
fn packed_operands_and_gradients_give_the_same_bits() {
    let cpu = Cpu::with(Simd::detect().unwrap(), 2);
    for case in CASES.into_iter().chain(CASES.map(Case::bf16)).filter(|case| case.queries == case.keys) {
        let operands = case.operands();
        let [out, lse, dq, dk, dv] = run(&cpu, &case, &operands);
        let (sizes, heads, dim) = ([case.b, case.keys], [case.heads, case.kv_heads], case.dim);
        let (q_width, k_width) = (case.heads * dim, case.kv_heads * dim);
        let pack = |q: &[f32], k: &[f32], v: &[f32]| -> Vec<f32> {
            let rows = q.chunks(q_width).zip(k.chunks(k_width)).zip(v.chunks(k_width));
            rows.flat_map(|((q, k), v)| [q, k, v].concat()).collect()
        };
        let qkv = pack(&operands[0], &operands[1], &operands[2]);
        let [q, k, v] = View::packed(&qkv, sizes, heads, dim);
        let layout = Layout::contiguous(case.q_shape());
        let (mut y, mut y_lse) = (vec![0.0; out.len()], vec![0.0; lse.len()]);
        case.attention().forward(&cpu, q, k, v, ViewMut::new(&mut y, layout), &mut y_lse);
        same_bits(&y, &out, "out");
        same_bits(&y_lse, &lse, "lse");
        let before = normals(7, qkv.len());
        for accumulate in [false, true] {
            let mut grads = before.clone();
            let (y, dout) = (View::new(&y, layout), View::new(&operands[3], layout));
            let views = ViewMut::packed(&mut grads, sizes, heads, dim);
            case.attention().backward(&cpu, [q, k, v], y, dout, &lse, views, accumulate);
            let mut expected = pack(&dq, &dk, &dv);
            if accumulate {
                expected.iter_mut().zip(&before).for_each(|(x, y)| *x += y);
            }
            same_bits(&grads, &expected, &format!("{case:?} gradients, accumulate: {accumulate}"));
        }
    }
}

#[test]
fn large_scores_stay_finite() {
    let cpu = Cpu::with(Simd::detect().unwrap(), 1);
    let case = case(1, 1, 1, 130, 130, 16, true);
    let mut operands = case.operands();
    // Scores of magnitude 80 to 1000.
    for x in &mut operands[..2] {
        x.iter_mut().for_each(|x| *x *= 8.0);
    }
    let found = run(&cpu, &case, &operands);
    let expected = naive(&case, &operands);
    assert!(expected[1].iter().any(|lse| *lse > 80.0));
    // Scores of 500 have 3e-5 of rounding, which exp turns into relative error.
    for ((x, y), name) in found.iter().zip(&expected).zip(NAMES) {
        close(x, y, name);
    }
}

#[test]
fn causal_work_is_counted_once_and_warm_runs_take_no_memory() {
    let case = case(2, 3, 3, 10, 12, 8, true);
    for case in [case, case.bf16()] {
        let cpu = Cpu::with(Simd::detect().unwrap(), 2);
        let operands = case.operands();
        run(&cpu, &case, &operands);
        let pairs = 2 * 3 * (10 * 2 + 55);
        assert_eq!(cpu.flops(), (4 + 10) * pairs * 8);
        let mapped = cpu.scratch.mapped();
        run(&cpu, &case, &operands);
        assert_eq!(cpu.scratch.mapped(), mapped);
    }
}

#[test]
#[should_panic(expected = "5 queries on 4 keys")]
fn causal_queries_need_keys() {
    let cpu = Cpu::with(Simd::detect().unwrap(), 1);
    let (x, mut y) = (vec![0.0; 5 * 8], vec![0.0; 5 * 8]);
    let (q, k) = (Layout::contiguous([1, 5, 1, 8]), Layout::contiguous([1, 4, 1, 8]));
    let out = ViewMut::new(&mut y, q);
    Attention::causal(8).forward(&cpu, View::new(&x, q), View::new(&x, k), View::new(&x, k), out, &mut [0.0; 5]);
}
