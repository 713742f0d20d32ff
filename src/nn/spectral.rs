//! Spectral normalisation of a layer's weights.

use super::Builder;
use crate::params::{Init, Kind, ParamId};
use crate::tape::{Tape, Var};

/// Divides the weights of a layer by their largest singular value. Buffer: `NAME.weight_u` (out), where the power iteration
/// came to.
#[derive(Clone, Copy, Debug)]
pub struct Spectral {
    u: ParamId,
    last: bool,
}

impl Spectral {
    /// For the weights `weight`, whose results' channels are along the first axis or along the `last`.
    pub fn new(p: &mut Builder, weight: ParamId, last: bool) -> Spectral {
        let decl = &p.decls[weight.0 as usize];
        let channels = if last { decl.shape.last_dim() } else { decl.shape[0] };
        let name = format!("{}_u", decl.name);
        Spectral { u: p.param(name, [channels], Kind::Buffer, Init::Normal(1.0)), last }
    }

    /// Weights as a layer uses them: divided by their norm where it is so. In a training pass the iteration moves on, one
    /// step each time.
    pub(super) fn weight<'t>(tape: &'t Tape, weight: ParamId, spectral: Option<Spectral>) -> Var<'t> {
        let w = tape.param(weight);
        let Some(Spectral { u, last }) = spectral else { return w };
        let [y, next] = w.spectral(tape.buffer(u), last);
        if tape.pass().training {
            tape.update(u, next);
        }
        y
    }
}
