//! Token embeddings, with learned positions added where there are any: `y[b, t] = E[ids[b, t]] + P[start + t]`.
//!
//! ids: (B, T) i32; E: (V, C); P: (at least start + T, C); y: (B, T, C). E and P may be bf16 or in 8 bits, without
//! gradients then.
//!
//! Backward: each row of dy is added to the row of dE that its id names, and to the row of dP of its position. A column of
//! dE belongs to one task, which takes the tokens in order, so that the sum does not depend on the threads.

use super::{Case, Input};
use crate::cpu::convert::ConvertTo;
use crate::cpu::elementwise::add_chunk;
use crate::cpu::{Simd, chunks};
use crate::device::Gpu;
use crate::device::kernels::{self, Float};
use crate::launch::{at, fill, flag, float, maybe, n};
use crate::tape::{Array64, Dx, Need, Op, Specs, Var};
use crate::tensor::{DType, Out, Spec, Tensor, Tensors};
use half::bf16;

/// Inputs: ids, E, then P with `positions`. Result: y.
#[derive(Clone, Copy, Debug)]
pub struct Embedding {
    /// Where learned positions are added: that of the first token.
    pub positions: Option<usize>,
    /// The type of y: f32, or on a GPU that of the tables.
    pub dtype: DType,
}

/// Rows a task in the forward pass.
const ROWS: usize = 64;

/// `y = beta y + row i of table`, with `beta` 0 or 1.
fn add_row(simd: Simd, beta: f32, table: &Tensor, i: usize, y: &mut [f32]) {
    let row = i * y.len()..(i + 1) * y.len();
    match table.dtype() {
        DType::Bf16 => bf16::convert(simd, beta, &table.as_slice()[row], y),
        DType::Q8 => table.q8().row(i, beta, y),
        DType::Q4 => table.q4().row(i, beta, y),
        _ => add_chunk(simd, beta, y, &table.f32()[row]),
    }
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let (b, t, c) = (x[0].shape[0], x[0].shape[1], x[1].shape[1]);
        let fits = |start| x[2].shape[0] >= start + t && x[2].shape[1] == c;
        assert!(self.positions.is_none_or(fits), "embedding: positions {:?}", x[2].shape);
        Specs::from_iter([Spec { shape: [b, t, c].into(), dtype: self.dtype }])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, ids, t, c) = (x[0].cpu(), x[0].i32(), x[0].shape()[1], x[1].shape()[1]);
        cpu.threads.each(chunks(y[0].f32_mut(), ROWS * c), |i, y| {
            for (row, y) in y.chunks_exact_mut(c).enumerate() {
                let row = i * ROWS + row;
                add_row(cpu.simd, 0.0, &x[1], ids[row] as usize, y);
                if let Some(start) = self.positions {
                    add_row(cpu.simd, 1.0, &x[2], start + row % t, y);
                }
            }
        });
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, ids) = (x[0].cpu(), x[0].i32());
        let (t, c) = (x[0].shape()[1], x[1].shape()[1]);
        let dy = dy[0].as_ref().expect("one result").f32();
        if dx.wants(1) {
            let mut out = dx.out(1);
            if out.beta == 0.0 {
                cpu.threads.each(chunks(out.f32_mut(), 1 << 16), |_, rows| rows.fill(0.0));
            }
            crate::cpu::elementwise::scatter_add(cpu, out.f32_mut(), ids, dy, c);
        }
        if let Some(start) = self.positions
            && dx.wants(2)
        {
            let mut out = dx.out(2);
            let beta = out.beta;
            cpu.threads.each(chunks(out.f32_mut(), c), |position, row| {
                if !(start..start + t).contains(&position) {
                    if beta == 0.0 {
                        row.fill(0.0);
                    }
                    return;
                }
                for (b, dy) in dy.chunks_exact(t * c).enumerate() {
                    add_chunk(cpu.simd, if b == 0 { beta } else { 1.0 }, row, &dy[(position - start) * c..][..c]);
                }
            });
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (y, t, c) = (&y[0], x[0].shape()[1], x[1].shape()[1]);
        let start = self.positions.unwrap_or(0);
        let args = [at(&x[0]), at(&x[1]), maybe(x.get(2)), at(y), n(c), n(t), n(start)];
        gpu.launch(kernels::embedding("embedding_fwd", float(y), float(&x[1]), x[0].numel(), c), &args);
        Tensors::new()
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        _y: &[Tensor],
        _saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let dy = dy[0].as_ref().expect("one result");
        let (ids, [b, t], c) = (&x[0], [x[0].shape()[0], x[0].shape()[1]], x[1].shape()[1]);
        let plan = |entry, rows| kernels::embedding(entry, float(dy), Float::F32, rows, c);
        if dx.wants(1) {
            let out = dx.out(1);
            if out.beta == 0.0 {
                fill(gpu, &out, 0.0);
            }
            let args = [at(ids), at(dy), at(&out), n(ids.numel()), n(c)];
            gpu.launch(plan("embedding_bwd", ids.numel()), &args);
        }
        if let Some(start) = self.positions
            && dx.wants(2)
        {
            let out = dx.out(2);
            if out.beta == 0.0 && out.shape()[0] > t {
                fill(gpu, &out, 0.0);
            }
            let args = [at(dy), at(&out), n(b), n(t), n(c), n(start), flag(out.beta != 0.0)];
            gpu.launch(plan("position_bwd", t), &args);
        }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let (b, t, c) = (x[0].shape[0], x[0].shape[1], x[1].shape[1]);
        vec![Array64::from_fn([b, t, c], |i| {
            let (row, j) = (i / c, i % c);
            let position = self.positions.map(|start| x[2].data[(start + row % t) * c + j]);
            x[1].data[x[0].data[row] as usize * c + j] + position.unwrap_or(0.0)
        })]
    }
}

impl<'t> Var<'t> {
    /// The rows of the table (V, C) that these ids (B, T) name, plus the learned positions from `start` on, if any:
    /// (B, T, C).
    pub fn embedding(self, table: Var<'t>, positions: Option<Var<'t>>, start: usize) -> Var<'t> {
        let op = Embedding { positions: positions.map(|_| start), dtype: self.tape().activations() };
        match positions {
            Some(positions) => self.tape().apply(op, &[self, table, positions]),
            None => self.tape().apply(op, &[self, table]),
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let inputs = |b, t, v, c, positions: Option<usize>| {
        let mut inputs = vec![Input::ids([b, t], v), Input::normal([v, c]).param()];
        inputs.extend(positions.map(|p| Input::normal([p, c]).param()));
        inputs
    };
    let f32 = DType::F32;
    vec![
        Case::check("2x3 of 5x8", Embedding { positions: None, dtype: f32 }, inputs(2, 3, 5, 8, None)),
        Case::check("2x3 of 5x8, 4 positions", Embedding { positions: Some(0), dtype: f32 }, inputs(2, 3, 5, 8, Some(4))),
        Case::check("2x3 of 5x8, from position 2 of 6", Embedding { positions: Some(2), dtype: f32 }, inputs(2, 3, 5, 8, Some(6))),
        Case::check("3x50 of 7x130", Embedding { positions: Some(0), dtype: f32 }, inputs(3, 50, 7, 130, Some(50))),
        Case::bench("16x256 of 8192x256", Embedding { positions: Some(0), dtype: f32 }, inputs(16, 256, 8192, 256, Some(256))),
    ]
}
