//! Muon: momentum, made orthogonal, for the matrices of hidden layers.
//!
//! ```text
//! g = clip · dL/dW
//! m = μ m + (1 − μ) g,   u = μ m + (1 − μ) g           u: Nesterov's look ahead
//! W = W − lr (s · orthogonal(u) + wd · W)
//! ```
//! orthogonal(u) has u's singular vectors and, in place of its singular values, numbers around 1 (0.7 to 1.2): five
//! iterations of Newton and Schulz with a quintic whose slope at 0 is as steep as it can be.
//!
//! ```text
//! X = u / ‖u‖_F;   five times:  A = X·Xᵀ,  X = (a I + b A + c A²)·X
//! ```
//! The polynomial commutes with X, so a matrix with more rows than columns takes A = Xᵀ·X and multiplies from the right:
//! A is always as small as it can be, and nothing is transposed. Packed queries, keys and values are orthogonalised one
//! by one. All products are our own f32 GEMM, so the update has the same bits for any threads and instruction set
//! (PyTorch's `torch.optim.Muon` computes them in bf16).
//!
//! Sources: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); Liu et al. 2025 (arXiv 2502.16982) for weight decay
//! and the second scale.

use crate::cpu::elementwise::{CHUNK, add_scaled};
use crate::cpu::gemm::{Mat, MatMut, Precision, gemm};
use crate::cpu::reduce::square_sum;
use crate::cpu::simd::each;
use crate::cpu::{Cpu, Vector, chunks};
use crate::params::{Group, Matrix, Slices};
use crate::simd_fn;
use serde::{Deserialize, Serialize};

/// The settings of Muon; its one moment is in the [`Group`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// The learning rate for each unit of AdamW's: both follow one schedule.
    pub lr_ratio: f64,
    /// μ.
    pub momentum: f64,
    /// Decoupled decay.
    pub weight_decay: f64,
    /// s.
    pub scale: MuonScale,
}

/// How large an update is, by its matrix's (rows, columns).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MuonScale {
    /// 0.2·√max(rows, columns): the root mean square of AdamW's updates, so that AdamW's learning rate serves.
    #[default]
    MatchRmsAdamw,
    /// √max(1, rows/columns): Jordan's own; learning rates are then around 0.02.
    Original,
}

impl MuonScale {
    fn of(self, Matrix { rows, cols, .. }: Matrix) -> f64 {
        match self {
            MuonScale::MatchRmsAdamw => 0.2 * (rows.max(cols) as f64).sqrt(),
            MuonScale::Original => (rows as f64 / cols as f64).max(1.0).sqrt(),
        }
    }
}

impl Default for Muon {
    fn default() -> Muon {
        Muon { lr_ratio: 1.0, momentum: 0.95, weight_decay: 0.1, scale: MuonScale::default() }
    }
}

/// The coefficients a, b, c of the quintic.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;
/// Below this norm an update vanishes with its gradient.
const EPS: f64 = 1e-7;

simd_fn! {
    /// `m = μ m + (1 − μ) clip g`, `u = μ m + (1 − μ) clip g`; `mu` is [μ, 1 − μ].
    fn look_ahead(clip: f32, mu: [f32; 2], u: &mut [f32], m: &mut [f32], g: &[f32]) = look_ahead_body
}

#[inline(always)]
fn look_ahead_body<V: Vector>(clip: f32, mu: [f32; 2], u: &mut [f32], m: &mut [f32], g: &[f32]) {
    let (clip, [mu, rest]) = (V::splat(clip), mu.map(V::splat));
    each::<V>(
        u.len(),
        #[inline(always)]
        |i, n| {
            let g = V::at(&g[i..], n) * clip * rest;
            let m_ = V::at(&m[i..], n).fma(mu, g);
            m_.put(&mut m[i..], n);
            m_.fma(mu, g).put(&mut u[i..], n);
        },
    );
}

simd_fn! {
    /// `w = keep w − step u`.
    fn apply(keep: f32, step: f32, w: &mut [f32], u: &[f32]) = apply_body
}

#[inline(always)]
fn apply_body<V: Vector>(keep: f32, step: f32, w: &mut [f32], u: &[f32]) {
    let (keep, step) = (V::splat(keep), V::splat(-step));
    each::<V>(
        w.len(),
        #[inline(always)]
        |i, n| V::at(&u[i..], n).fma(step, V::at(&w[i..], n) * keep).put(&mut w[i..], n),
    );
}

impl Muon {
    /// The moment that a group must hold, by the name it has in checkpoints.
    pub const MOMENTS: [&'static str; 1] = ["momentum_buffer"];

    /// Applies the gradients of a group of matrices, times `clip`; `lr` is AdamW's. A frozen group stays as it is.
    pub fn update(&self, cpu: &Cpu, group: &mut Group, lr: f64, clip: f64) {
        let lr = lr * self.lr_ratio;
        let mu = [self.momentum, 1.0 - self.momentum].map(|x| x as f32);
        let keep = (1.0 - lr * self.weight_decay) as f32;
        let Some(Slices { weights, grads, moments: [moment], matrices }) = group.for_update() else { return };
        for &matrix in matrices {
            let range = matrix.start..matrix.start + matrix.rows * matrix.cols;
            let (w, g, m) = (&mut weights[range.clone()], &grads[range.clone()], &mut moment[range]);
            let mut u = cpu.scratch.take(g.len());
            cpu.threads.each((chunks(&mut u, CHUNK), chunks(m, CHUNK)), |i, (u, m)| {
                look_ahead(cpu.simd, clip as f32, mu, u, m, &g[i * CHUNK..][..u.len()]);
            });
            orthogonalise(cpu, &mut u, matrix.rows, matrix.cols);
            let step = (lr * self.scale.of(matrix)) as f32;
            cpu.threads.each(chunks(w, CHUNK), |i, w| apply(cpu.simd, keep, step, w, &u[i * CHUNK..][..w.len()]));
        }
    }
}

/// Replaces the matrix `x` (rows, cols) by one with the same singular vectors and singular values around 1.
fn orthogonalise(cpu: &Cpu, x: &mut [f32], rows: usize, cols: usize) {
    let (n, [a, b, c]) = (rows.min(cols), QUINTIC);
    let scratch = |len: usize| cpu.scratch.take(len);
    let (mut square, mut poly, mut y) = (scratch(n * n), scratch(n * n), scratch(x.len()));
    let norm = square_sum(cpu, x).sqrt().max(EPS);
    add_scaled(cpu, 0.0, &mut y, (1.0 / norm) as f32, x);
    // An odd number of steps from y to x and back ends in x.
    let (mut from, mut to) = (&mut y[..], x);
    for _ in 0..ITERATIONS {
        let x = Mat::new(from, rows, cols);
        let (left, right) = if rows <= cols { (x, x.t()) } else { (x.t(), x) };
        gemm(cpu, Precision::F32, left, right, MatMut::new(&mut square, n, n), false, None);
        let polynomial = |row: usize, first: usize, piece: &mut [f32]| {
            let square = &square[row * n + first..][..piece.len()];
            piece.iter_mut().zip(square).for_each(|(p, s)| *p = c * *p + b * s);
            if let Some(diagonal) = row.checked_sub(first).and_then(|j| piece.get_mut(j)) {
                *diagonal += a;
            }
        };
        let a = Mat::new(&square, n, n);
        gemm(cpu, Precision::F32, a, a, MatMut::new(&mut poly, n, n), false, Some(&polynomial));
        let p = Mat::new(&poly, n, n);
        let (left, right) = if rows <= cols { (p, x) } else { (x, p) };
        gemm(cpu, Precision::F32, left, right, MatMut::new(to, rows, cols), false, None);
        std::mem::swap(&mut from, &mut to);
    }
}

const _: () = assert!(ITERATIONS % 2 == 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::params::{Decl, Init, Kind, Params};
    use crate::rng::{Purpose, Stream};

    /// Singular values come near 1 whatever the shape: all those of UᵀU (or UUᵀ) lie in a band around 1, so that its
    /// product with any vector keeps the vector's length but for that band.
    #[test]
    fn what_comes_out_is_nearly_orthogonal_and_the_transpose_gives_the_transpose() {
        let device = Device::cpu(2).unwrap();
        for (rows, cols) in [(5, 5), (7, 30), (30, 7), (1, 9), (64, 48)] {
            let mut x = vec![0.0; rows * cols];
            Stream::new(1, Purpose::Test, rows as u32, 0).normals(3.0, &mut x);
            let mut flipped: Vec<f32> = (0..x.len()).map(|i| x[i % rows * cols + i / rows]).collect();
            orthogonalise(device.host(), &mut x, rows, cols);
            orthogonalise(device.host(), &mut flipped, cols, rows);
            let off = (0..x.len()).map(|i| (flipped[i] - x[i % rows * cols + i / rows]).abs()).fold(0.0, f32::max);
            assert!(off < 1e-4, "{rows} x {cols}: {off}");
            // tr(UUᵀ) is the sum of the squares of min(rows, cols) singular values.
            let mean = x.iter().map(|x| x * x).sum::<f32>() / rows.min(cols) as f32;
            assert!((0.4..1.5).contains(&mean), "{rows} x {cols}: the mean square of singular values is {mean}");
        }
    }

    #[test]
    fn a_convolutions_weights_are_a_matrix_of_channels_by_patches() {
        let device = Device::cpu(1).unwrap();
        let decls = [[4, 3, 3, 2].as_slice(), &[6, 5], &[7]]
            .map(|shape| Decl::new("", crate::tensor::Shape::new(shape), Kind::Matrix, Init::Normal(1.0)));
        let mut params = Params::new(&device, &decls, 1);
        let group = &mut params.groups_mut()[0];
        let Slices { matrices, .. } = group.for_update::<0>().expect("a group that is trained");
        let sizes: Vec<[usize; 2]> = matrices.iter().map(|m| [m.rows, m.cols]).collect();
        assert_eq!(sizes, [[1, 7], [6, 5], [4, 18]]);
    }

    #[test]
    fn a_matrix_of_zeros_stays_zero() {
        let device = Device::cpu(1).unwrap();
        let mut x = vec![0.0; 12];
        orthogonalise(device.host(), &mut x, 3, 4);
        assert_eq!(x, [0.0; 12]);
    }
}
