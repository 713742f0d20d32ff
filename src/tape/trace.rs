//! What a tape ran, kept to be looked at.

use super::{Node, Ref, Tape};
use crate::tensor::Tensor;
use std::cell::RefCell;

/// An operation as it ran.
#[derive(Clone)]
pub struct Traced {
    /// Its name.
    pub op: &'static str,
    /// Its node; the first are the parameters, in their order.
    pub node: u32,
    /// What it read: nodes, and which of their results.
    pub x: Vec<(u32, u8)>,
    /// Its results.
    pub y: Vec<Tensor>,
    /// The gradients of the loss with respect to them, once the backward pass came by; `None`: zero.
    pub dy: Vec<Option<Tensor>>,
}

/// Where operations are kept, if they are.
#[derive(Default)]
pub(super) struct Trace(RefCell<Option<Vec<Traced>>>);

impl Trace {
    pub(super) fn forward(&self, op: &'static str, x: impl Iterator<Item = Ref>, node: usize, y: &[Tensor]) {
        if let Some(all) = &mut *self.0.borrow_mut() {
            let x = x.map(|at| (at.node, at.out)).collect();
            all.push(Traced { op, node: node as u32, x, y: y.to_vec(), dy: vec![None; y.len()] });
        }
    }

    pub(super) fn backward(&self, id: usize, node: &Node) {
        let mut all = self.0.borrow_mut();
        let own = all.iter_mut().flatten().rev().find(|traced| traced.node == id as u32);
        if let Some(traced) = own {
            traced.dy = node.dy.to_vec();
        }
    }
}

impl Tape {
    /// From now on keeps what every operation makes and, once the way back comes by, its gradients: to look at a step, at the price of all its memory. Blocks
    /// that are [recomputed](Tape::recompute) are seen twice.
    pub fn trace(&mut self) {
        *self.trace.0.get_mut() = Some(Vec::new());
    }

    /// What ran since [`trace`](Tape::trace), in order; ends it.
    pub fn traced(&mut self) -> Vec<Traced> {
        self.trace.0.get_mut().take().unwrap_or_default()
    }
}
