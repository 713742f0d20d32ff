//! What an operation is.

use super::{Dx, Var};
use crate::device::Gpu;
use crate::error::Error;
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};
use arrayvec::ArrayVec;
use std::any::Any;

/// The most inputs of an operation.
pub const MAX_INPUTS: usize = 8;
/// The most results of an operation.
pub const MAX_OUTPUTS: usize = 3;

/// The specs of an operation's results.
pub type Specs = ArrayVec<Spec, MAX_OUTPUTS>;

/// A plain f64 array: what references compute on. Integers are held as their values.
#[derive(Clone, Debug, PartialEq)]
pub struct Array64 {
    /// The lengths of the axes.
    pub shape: Shape,
    /// The elements, row-major.
    pub data: Vec<f64>,
}

impl Array64 {
    /// An array with these elements.
    pub fn new(shape: impl Into<Shape>, data: Vec<f64>) -> Array64 {
        let shape = shape.into();
        assert_eq!(shape.numel(), data.len());
        Array64 { shape, data }
    }

    /// An array of this shape, each element from its flat index.
    pub fn from_fn(shape: impl Into<Shape>, f: impl FnMut(usize) -> f64) -> Array64 {
        let shape = shape.into();
        Array64 { shape, data: (0..shape.numel()).map(f).collect() }
    }

    /// The elements in rows of the last axis.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(self.shape.last_dim().max(1))
    }
}

/// Whether the gradient of an input will be asked for.
pub enum Need<'a> {
    /// No.
    No,
    /// In the backward pass.
    Later,
    /// In the backward pass; but an operation that computes it in its forward pass may write it here, where the number is
    /// 0, or add it, where it is 1. It then sets the number to 1 and has handed the gradient out.
    Now(&'a mut Out, &'a mut f32),
}

impl Need<'_> {
    /// Whether it will be asked for.
    pub fn wanted(&self) -> bool {
        !matches!(self, Need::No)
    }

    /// Whether any will be.
    pub fn any(needs: &[Need]) -> bool {
        needs.iter().any(Need::wanted)
    }
}

/// What an operation's backward reads, and which results it can make again: bit i for the i-th input or result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// Inputs that `backward` or `again` reads.
    pub x: u8,
    /// Results that `backward` or `again` reads.
    pub y: u8,
    /// Results that `again` makes; none that is read.
    pub again: u8,
}

impl Reads {
    /// Everything, and nothing can be made again.
    pub const ALL: Reads = Reads { x: !0, y: !0, again: 0 };
}

/// One differentiable operation: shape rule, forward, backward and definition in one place.
pub trait Op: Any {
    /// The name in tables, profiles and messages.
    fn name(&self) -> &'static str;

    /// Shape and dtype of each result.
    ///
    /// # Panics
    /// The inputs do not fit the operation: a bug of the model.
    fn outputs(&self, x: &[Spec]) -> Specs;

    /// Computes the results `y` from `x`. `need[i]` says whether the gradient of input i will be asked for. Returns what
    /// `backward` needs beside `x` and `y`.
    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors;

    /// Given `dy`, the gradients of the results (`None`: zero), hands out the gradients of the inputs through `dx`.
    fn backward(&self, x: &[Tensor], y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx);

    /// [`forward`](Op::forward) by kernels of a GPU, on tensors that it holds.
    fn launch_forward(&self, gpu: &Gpu, _x: &[Tensor], _y: &mut [Out], _need: &mut [Need]) -> Tensors {
        gpu.fail(missing(self.name()));
        Tensors::new()
    }

    /// [`backward`](Op::backward) by kernels of a GPU, on tensors that it holds.
    fn launch_backward(
        &self,
        gpu: &Gpu,
        _x: &[Tensor],
        _y: &[Tensor],
        _saved: &[Tensor],
        _dy: &[Option<Tensor>],
        _dx: &mut Dx,
    ) {
        gpu.fail(missing(self.name()));
    }

    /// [`again`](Op::again) by kernels of a GPU.
    fn launch_again(&self, gpu: &Gpu, _i: usize, _x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], _out: &mut Out) {
        gpu.fail(missing(self.name()));
    }

    /// Which inputs and results `backward` reads. The others may have no data when it is called, only their specs.
    fn reads(&self) -> Reads {
        Reads::ALL
    }

    /// Makes result `i`, one of those that [`reads`](Op::reads) offers, again: the same bits as `forward` did.
    fn again(&self, i: usize, _x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], _out: &mut Out) {
        unreachable!("{} offers no result {i}", self.name());
    }

    /// How the first result changes as inputs move along `dx` (`None`: an input stays), as operations on the tape: see
    /// [`Tape::tangent`](super::Tape::tangent). `y` is the first result. `None` where the operation cannot say.
    fn jvp<'t>(&self, _x: &[Var<'t>], _y: Var<'t>, _dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        None
    }

    /// Results that are a layer's next state, as running statistics are: bit i for the i-th. Nothing flows back through them.
    fn state(&self) -> u8 {
        0
    }

    /// The definition of the operation: naive loops in f64.
    fn reference(&self, x: &[Array64]) -> Vec<Array64>;
}

/// No kernel does it: never a reason to do it on the CPU without a word.
fn missing(name: &str) -> Error {
    Error::device(format!("{name} has no kernels for a GPU"), "use --device cpu")
}
