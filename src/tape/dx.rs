//! How an operation's backward hands out the gradients of its inputs.

use super::{Node, Ref, What};
use crate::cpu::elementwise;
use crate::device::Device;
use crate::launch;
use crate::params::Params;
use crate::tensor::{Out, Tensor};
use std::cell::RefCell;

pub(super) struct DxState<'a> {
    pub(super) nodes: &'a mut [Node],
    pub(super) params: Option<&'a mut Params>,
    /// Nodes before this one are held fixed.
    pub(super) aside: u32,
}

impl DxState<'_> {
    fn params(&mut self) -> &mut Params {
        self.params.as_deref_mut().expect("parameters are held fixed where none are given")
    }
}

/// Where an operation's backward puts the gradients of its inputs.
pub struct Dx<'a> {
    pub(super) state: &'a RefCell<DxState<'a>>,
    pub(super) inputs: &'a [Ref],
}

/// A gradient being written. Dropping it puts it in its place.
pub struct Grad<'a> {
    out: Option<Out>,
    /// 0: what is there is arbitrary and must be overwritten. 1: add to what is there.
    pub beta: f32,
    at: Ref,
    state: &'a RefCell<DxState<'a>>,
}

impl<'a> Dx<'a> {
    /// Whether the gradient of input `i` is wanted; where not, its work is skipped.
    pub fn wants(&self, i: usize) -> bool {
        let (state, node) = (self.state.borrow(), self.inputs[i].node);
        node >= state.aside && state.nodes[node as usize].need
    }

    /// The gradient buffer of input `i`; see [`Grad::beta`].
    pub fn out(&mut self, i: usize) -> Grad<'a> {
        let at = self.inputs[i];
        let state = &mut *self.state.borrow_mut();
        let node = &mut state.nodes[at.node as usize];
        let (out, beta) = match (node.what, node.dy[at.out as usize].take()) {
            (What::Param(id), _) => state.params().lend_grad(id),
            (_, None) => {
                let y = &node.y[at.out as usize];
                (Out::new(y.device(), y.spec()), 0.0)
            }
            (_, Some(grad)) => match grad.into_out() {
                Ok(out) => (out, 1.0),
                // Someone else reads this buffer (an aliased gradient): continue on a copy.
                Err(grad) => {
                    let mut out = Out::new(grad.device(), grad.spec());
                    add_to(0.0, &mut out, &grad);
                    (out, 1.0)
                }
            },
        };
        Grad { out: Some(out), beta, at, state: self.state }
    }

    /// Gives input `i` a gradient that exists already (often `dy` itself): the first one is taken as it is, without a
    /// copy; to an earlier one it is added.
    pub fn give(&mut self, i: usize, grad: Tensor) {
        let at = self.inputs[i];
        {
            let state = &mut *self.state.borrow_mut();
            let node = &mut state.nodes[at.node as usize];
            if !matches!(node.what, What::Param(_)) && node.dy[at.out as usize].is_none() {
                let shape = *node.y[at.out as usize].shape();
                node.dy[at.out as usize] = Some(grad.reshape(shape));
                return;
            }
        }
        let mut out = self.out(i);
        add_to(out.beta, &mut out, &grad);
    }
}

/// `y = beta y + x`, with `beta` 0 or 1.
fn add_to(beta: f32, y: &mut Out, x: &Tensor) {
    match x.device() {
        Device::Cpu(host) => elementwise::add_to(&host.cpu, beta, y.f32_mut(), x.f32()),
        Device::Gpu(gpu) => launch::add_to(gpu, beta, y, x),
    }
}

impl std::ops::Deref for Grad<'_> {
    type Target = Out;
    fn deref(&self) -> &Out {
        self.out.as_ref().expect("a gradient is there until it is dropped")
    }
}

impl std::ops::DerefMut for Grad<'_> {
    fn deref_mut(&mut self) -> &mut Out {
        self.out.as_mut().expect("a gradient is there until it is dropped")
    }
}

impl Drop for Grad<'_> {
    fn drop(&mut self) {
        let Some(out) = self.out.take() else { return };
        let state = &mut *self.state.borrow_mut();
        let node = &mut state.nodes[self.at.node as usize];
        match node.what {
            What::Param(id) => state.params().return_grad(id, out),
            _ => {
                let slot = &mut node.dy[self.at.out as usize];
                *slot = Some(match slot.take() {
                    None => out.freeze(),
                    // An operation that takes the same value twice wrote two gradients for it.
                    Some(first) => {
                        let mut out = out;
                        add_to(1.0, &mut out, &first);
                        out.freeze()
                    }
                });
            }
        }
    }
}
