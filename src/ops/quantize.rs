//! Vector quantisation: each row becomes the nearest row of a codebook; and the codebook follows the rows.
//!
//! ```text
//! nearest     id_i = argmin_k ‖x_i − e_k‖²           the lowest k of several
//!             y_i = e_{id_i}
//! move        N_k ← γ N_k + (1 − γ) n_k              n_k: the rows i with id_i = k
//!             m_k ← γ m_k + (1 − γ) Σ x_i            over those rows
//!             where N_k < dead: N_k ← 1, m_k ← x_r   r drawn by the stream, a number for each code
//!             e_k = m_k / N_k
//! ```
//! x: (…, D), e, m: (K, D), N: (K), ids (…) i32. Backward of `nearest`: straight through, `dx = dy`; codebooks have no
//! gradient. A code that dies begins anew at a row of this batch: so do all in the first batch, where N is 0.
//!
//! A distance is one chain of fused multiply-adds over D, the sums of `move` go over the rows in order: the same bits on the
//! CPU and on a GPU.
//!
//! Sources: van den Oord, Vinyals, Kavukcuoglu 2017 (arXiv 1711.00937), appendix A.1; Dhariwal et al. 2020 (arXiv
//! 2005.00341), section 3.1, for dead codes.

use super::{Case, Fill, Input};
use crate::cpu::elementwise::scatter_add;
use crate::cpu::reduce::ROWS;
use crate::cpu::simd::each;
use crate::cpu::{Vector, chunks};
use crate::device::{Arg, Gpu, kernels};
use crate::launch::{at, float, n};
use crate::rng::{Purpose, Stream};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{DType, Out, Shape, Spec, Tensor, Tensors};

/// The nearest rows of a codebook. Inputs: x, e. Results: y, and the ids.
#[derive(Clone, Copy, Debug)]
pub struct Nearest;

simd_fn! {
    /// The squared distance of a row from each code; `codes` (D, K).
    fn distances(x: &[f32], codes: &[f32], to: &mut [f32]) = distances_body
}

#[inline(always)]
fn distances_body<V: Vector>(x: &[f32], codes: &[f32], to: &mut [f32]) {
    let k = to.len();
    each::<V>(
        k,
        #[inline(always)]
        |j, w| {
            let mut sum = V::splat(0.0);
            for (d, x) in x.iter().enumerate() {
                let difference = V::splat(*x) - V::at(&codes[d * k + j..], w);
                sum = difference.fma(difference, sum);
            }
            sum.put(&mut to[j..], w);
        },
    );
}

/// The first of the smallest.
fn argmin<T: PartialOrd>(x: &[T]) -> usize {
    (1..x.len()).fold(0, |best, i| if x[i] < x[best] { i } else { best })
}

impl Op for Nearest {
    fn name(&self) -> &'static str {
        "nearest"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let ([shape, codes], axes) = ([x[0].shape, x[1].shape], x[0].shape.len() - 1);
        assert!(codes.len() == 2 && codes[1] == shape.last_dim(), "nearest: x is {shape:?}, the codebook {codes:?}");
        assert!(codes.numel() > 0, "nearest: an empty codebook");
        Specs::from_iter([x[0], Spec { shape: Shape::new(&shape[..axes]), dtype: DType::I32 }])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, (k, d)) = (x[0].cpu(), x[1].shape().as_matrix());
        let (x, codes) = (x[0].f32(), x[1].f32());
        let [y, ids] = y else { unreachable!("two results") };
        let mut turned = cpu.scratch.take(k * d);
        turned.iter_mut().enumerate().for_each(|(i, to)| *to = codes[i % k * d + i / k]);
        let mut room = cpu.scratch.take(ids.numel().div_ceil(ROWS) * k);
        let turned = &turned[..];
        let parts = (chunks(y.f32_mut(), ROWS * d), chunks(ids.as_mut_slice::<i32>(), ROWS), chunks(&mut room, k));
        cpu.threads.each(parts, |i, (y, ids, distance)| {
            let rows = x[i * ROWS * d..].chunks_exact(d).zip(y.chunks_exact_mut(d));
            for ((x, y), id) in rows.zip(ids) {
                distances(cpu.simd, x, turned, distance);
                let best = argmin(distance);
                *id = best as i32;
                y.copy_from_slice(&codes[best * d..][..d]);
            }
        });
        Tensors::new()
    }

    fn backward(&self, _x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        assert!(!dx.wants(1), "a codebook has no gradient");
        dx.give(0, dy[0].clone().expect("the gradient of the rows; ids have none"));
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let ((k, d), rows) = (x[1].shape().as_matrix(), y[1].numel());
        let args = [at(&x[0]), at(&x[1]), at(&y[0]), at(&y[1]), n(rows), n(k), n(d)];
        gpu.launch(kernels::codes_nearest(float(&x[0]), rows), &args);
        Tensors::new()
    }

    fn launch_backward(
        &self,
        _gpu: &Gpu,
        x: &[Tensor],
        y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        self.backward(x, y, saved, dy, dx);
    }

    fn reads(&self) -> Reads {
        Reads { x: 0, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let d = x[1].shape[1];
        let distance = |x: &[f64], e: &[f64]| x.iter().zip(e).map(|(x, e)| (x - e).powi(2)).sum::<f64>();
        let ids: Vec<usize> =
            x[0].rows().map(|row| argmin(&x[1].rows().map(|e| distance(row, e)).collect::<Vec<_>>())).collect();
        let y = ids.iter().flat_map(|&id| x[1].data[id * d..][..d].to_vec()).collect();
        let axes = Shape::new(&x[0].shape[..x[0].shape.len() - 1]);
        vec![Array64::new(x[0].shape, y), Array64::from_fn(axes, |i| ids[i] as f64)]
    }
}

/// A codebook's next state. Inputs: x, ids, N, m. Results: e, N, m.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// γ.
    pub decay: f32,
    /// The count below which a code dies.
    pub dead: f32,
    /// Where dead codes' rows come from.
    pub stream: Stream,
}

impl Move {
    /// The row at which code `k` begins anew, of so many.
    fn row(&self, k: usize, rows: usize) -> usize {
        ((u64::from(self.stream.bits(k as u64)) * rows as u64) >> 32) as usize
    }
}

impl Op for Move {
    fn name(&self) -> &'static str {
        "move_codes"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let (rows, d) = x[0].shape.as_matrix();
        assert!(rows > 0 && x[1].shape.numel() == rows, "move_codes: an id for each row");
        assert!(x[3].shape[..] == [x[2].shape[0], d], "move_codes: sums {:?} of rows of {d}", x[3].shape);
        Specs::from_iter([x[3], x[2], x[3]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, (k, d)) = (x[0].cpu(), x[3].shape().as_matrix());
        let (rows, ids, old_counts, old_sums) = (x[0].f32(), x[1].i32(), x[2].f32(), x[3].f32());
        let [codes, counts, sums] = y else { unreachable!("three results") };
        let (codes, counts, sums) = (codes.f32_mut(), counts.f32_mut(), sums.f32_mut());
        let mut of_batch = cpu.scratch.take(k);
        of_batch.fill(0.0);
        ids.iter().for_each(|&id| of_batch[id as usize] += 1.0);
        cpu.threads.each(chunks(sums, ROWS * d), |_, sums| sums.fill(0.0));
        scatter_add(cpu, sums, ids, rows, d);
        let (keep, of_batch) = (1.0 - self.decay, &of_batch[..]);
        cpu.threads.each((chunks(codes, d), chunks(counts, 1), chunks(sums, d)), |k, (codes, count, sums)| {
            count[0] = self.decay * old_counts[k] + keep * of_batch[k];
            sums.iter_mut().zip(&old_sums[k * d..]).for_each(|(new, old)| *new = self.decay * old + keep * *new);
            if count[0] < self.dead {
                count[0] = 1.0;
                sums.copy_from_slice(&rows[self.row(k, ids.len()) * d..][..d]);
            }
            codes.iter_mut().zip(&*sums).for_each(|(code, sum)| *code = sum / count[0]);
        });
        Tensors::new()
    }

    fn backward(&self, _x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], _dy: &[Option<Tensor>], _dx: &mut Dx) {
        unreachable!("state has no gradient");
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let ((k, d), (tensor, micro)) = (x[3].shape().as_matrix(), self.stream.place());
        let pointers = [&x[0], &x[1], &x[2], &x[3], &y[0], &y[1], &y[2]].map(at);
        let numbers = [n(x[1].numel()), n(d), Arg::U32(tensor), Arg::U32(micro)];
        let floats = [self.decay, 1.0 - self.decay, self.dead].map(Arg::F32);
        gpu.launch(
            kernels::codes_move(float(&x[0]), k, d),
            &[&pointers[..], &[gpu.state().into()], &numbers, &floats].concat(),
        );
        Tensors::new()
    }

    fn reads(&self) -> Reads {
        Reads { x: 0, y: 0, again: 0 }
    }

    fn state(&self) -> u8 {
        0b111
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let (d, decay, rows) = (x[3].shape[1], f64::from(self.decay), x[1].data.len());
        let (mut counts, mut sums) = (x[2].clone(), x[3].clone());
        for k in 0..counts.data.len() {
            let of: Vec<usize> = (0..rows).filter(|&i| x[1].data[i] as usize == k).collect();
            counts.data[k] = decay * counts.data[k] + (1.0 - decay) * of.len() as f64;
            for j in 0..d {
                let sum: f64 = of.iter().map(|i| x[0].data[i * d + j]).sum();
                sums.data[k * d + j] = decay * sums.data[k * d + j] + (1.0 - decay) * sum;
            }
            if counts.data[k] < f64::from(self.dead) {
                counts.data[k] = 1.0;
                sums.data[k * d..][..d].copy_from_slice(&x[0].data[self.row(k, rows) * d..][..d]);
            }
        }
        vec![Array64::from_fn(sums.shape, |i| sums.data[i] / counts.data[i / d]), counts, sums]
    }
}

impl<'t> Var<'t> {
    /// The nearest rows of `codebook` (K, D) to those of this value (…, D), with this value's gradient straight through; and
    /// their ids (…).
    pub fn nearest(self, codebook: Var<'t>) -> [Var<'t>; 2] {
        let y = self.tape().apply(Nearest, &[self, codebook]);
        [y, y.output(1)]
    }

    /// What a codebook and its counts and sums become after rows (…, D) that went to `ids` (…): e, N, m. See
    /// [`quantize`](self).
    pub fn move_codes(self, ids: Var<'t>, [counts, sums]: [Var<'t>; 2], op: Move) -> [Var<'t>; 3] {
        let tape = self.tape();
        let codes = tape.no_grad(|| tape.apply(op, &[self, ids, counts, sums]));
        [codes, codes.output(1), codes.output(2)]
    }
}

pub(super) fn cases() -> Vec<Case> {
    let nearest = |rows: &[usize], k: usize, d: usize| {
        let shape: Vec<usize> = rows.iter().copied().chain([d]).collect();
        // Straight through is no derivative: it is checked below.
        vec![Input::normal(Shape::new(&shape)).fixed(), Input::normal([k, d]).fixed()]
    };
    let moved = |rows: usize, k: usize, d: usize| {
        let counts = Input { fill: Fill::Uniform(0.5, 3.0), ..Input::normal([k]).fixed() };
        vec![Input::normal([rows, d]).fixed(), Input::ids([rows], k), counts, Input::normal([k, d]).fixed()]
    };
    let op = |decay| Move { decay, dead: 1.0, stream: Stream::new(super::check::SEED, Purpose::Latent, 3, 0) };
    vec![
        Case::check("nearest 2x3 of 5x8", Nearest, nearest(&[2, 3], 5, 8)),
        Case::check("nearest 150 of 67x5, three blocks", Nearest, nearest(&[150], 67, 5)),
        Case::check("nearest 3 of 1x1", Nearest, nearest(&[3], 1, 1)),
        Case::check("move 5x8, 7 rows", op(0.75), moved(7, 5, 8)),
        Case::check("move 37x130, 150 rows", op(0.875), moved(150, 37, 130)),
        Case::bench("nearest 6272 of 128x32", Nearest, nearest(&[6272], 128, 32)),
        Case::bench("move 128x32, 6272 rows", op(0.99), moved(6272, 128, 32)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;

    #[test]
    fn a_gradient_goes_straight_through_and_the_first_of_two_nearest_codes_wins() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let x = tape.variable(Tensor::from_slice(&device, &[0.9f32, 0.2, -3.0, 0.5], [4, 1]));
        let codes = tape.constant(Tensor::from_slice(&device, &[0.0f32, 1.0, 0.0], [3, 1]));
        let [y, ids] = x.nearest(codes);
        assert_eq!((ids.value().i32(), y.value().f32()), (&[1, 0, 0, 0][..], &[1.0f32, 0.0, 0.0, 0.0][..]));
        (y * y + y.scale(3.0)).sum().backward(&mut Params::new(&device, &[], 0), true);
        assert_eq!(x.grad().expect("a gradient").f32(), [5.0, 3.0, 3.0, 3.0]);
    }

    #[test]
    fn a_code_that_is_not_used_begins_anew_at_a_row() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let on = |x: &[f32], shape: &[usize]| tape.constant(Tensor::from_slice(&device, x, Shape::new(shape)));
        let rows = on(&[2.0, 4.0, 9.0], &[3, 1]);
        let ids = tape.constant(Tensor::from_slice(&device, &[0i32, 0, 0], [3]));
        let op = Move { decay: 0.5, dead: 1.0, stream: Stream::new(0, Purpose::Latent, 0, 0) };
        let [codes, counts, sums] = rows.move_codes(ids, [on(&[4.0, 1.0], &[2]), on(&[8.0, 7.0], &[2, 1])], op);
        let (codes, counts, sums) = (codes.value(), counts.value(), sums.value());
        // ½·4 + ½·3 uses, ½·8 + ½·15.
        assert_eq!((counts.f32()[0], sums.f32()[0], codes.f32()[0]), (3.5, 11.5, 11.5 / 3.5));
        assert!(counts.f32()[1] == 1.0 && [2.0, 4.0, 9.0].contains(&codes.f32()[1]) && sums.f32()[1] == codes.f32()[1]);
    }
}
