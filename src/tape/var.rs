//! What a value on a tape is asked for, and where backward passes start.

use super::{Lent, Ref, Tape, Var};
use crate::device::Device;
use crate::params::Params;
use crate::tensor::{Out, Shape, Spec, Tensor};

impl<'t> Var<'t> {
    /// The tape that holds the value.
    pub fn tape(self) -> &'t Tape {
        self.tape
    }

    /// The value.
    pub fn value(self) -> Tensor {
        self.tape.nodes.borrow()[self.at.node as usize].y[self.at.out as usize].clone()
    }

    /// The shape of the value.
    pub fn shape(self) -> Shape {
        *self.tape.nodes.borrow()[self.at.node as usize].y[self.at.out as usize].shape()
    }

    /// Result `i` of the operation that made this value.
    pub fn output(self, i: usize) -> Var<'t> {
        Var { at: Ref { out: i as u8, ..self.at }, ..self }
    }

    /// How many results the operation that made this value has.
    pub fn outputs(self) -> usize {
        self.tape.nodes.borrow()[self.at.node as usize].y.len()
    }

    /// After a backward pass: the gradient of a [`Tape::variable`]; `None` where nothing flowed into it.
    pub fn grad(self) -> Option<Tensor> {
        self.tape.nodes.borrow()[self.at.node as usize].dy[self.at.out as usize].clone()
    }

    /// Walks the tape backwards from this scalar and adds to the gradients of `params`. With `last`, this is the last
    /// pass before an update: the squares of each gradient are summed when it is written for the last time.
    ///
    /// Every node is let go of as soon as it is passed: read values (the loss) before.
    pub fn backward(self, params: &mut Params, last: bool) {
        assert_eq!(self.shape().numel(), 1, "backward starts from a scalar, not from {:?}", self.shape());
        let mut one = Out::new(&self.tape.device, Spec::f32(self.shape()));
        match &self.tape.device {
            Device::Cpu(_) => one.f32_mut()[0] = 1.0,
            Device::Gpu(gpu) => gpu.fill(one.ptr(), 1f32.to_bits(), 1),
        }
        // Its operation may have other results, of which the loss is not a function.
        let Ref { node, out } = self.at;
        self.tape.nodes.borrow_mut()[node as usize].dy[out as usize] = Some(one.freeze());
        self.walk_back(params, last);
    }

    /// [`backward`](Var::backward) from any operation, given the gradients `dy` of the loss with respect to its results.
    pub fn backward_from(self, dy: &[Tensor], params: &mut Params, last: bool) {
        {
            let top = &mut self.tape.nodes.borrow_mut()[self.at.node as usize];
            assert_eq!(dy.len(), top.y.len(), "backward_from: one gradient a result");
            for (slot, (dy, y)) in top.dy.iter_mut().zip(dy.iter().zip(&top.y)) {
                assert_eq!(dy.shape(), y.shape(), "the gradient of a value has its shape");
                *slot = Some(dy.clone());
            }
        }
        self.walk_back(params, last);
    }

    fn walk_back(self, params: &mut Params, last: bool) {
        if let Some(Lent { id, out, beta }) = self.tape.lent.take() {
            params.take_back(id, out, beta != 0.0);
        }
        self.tape.walk(0..self.tape.used.get(), Some(params), last);
    }
}
