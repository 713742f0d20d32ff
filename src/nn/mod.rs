//! Layers: which parameters they have, under which names, and how they apply them.
//!
//! A layer is a handful of parameter numbers; the values live in [`Params`](crate::params::Params) and the computation in
//! `ops`. Building a model declares its parameters in the order of the forward pass.

pub mod conv;

pub use conv::Conv;

use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;
use crate::params::{Decl, Init, Kind, ParamId};
use crate::tape::{Tape, Var};
use crate::tensor::Shape;

/// Collects the parameters that layers declare.
#[derive(Default)]
pub struct Builder {
    decls: Vec<Decl>,
}

impl Builder {
    /// Declares a parameter.
    pub fn param(&mut self, name: String, shape: impl Into<Shape>, kind: Kind, init: Init) -> ParamId {
        let id = ParamId(self.decls.len() as u32);
        self.decls.push(Decl::new(name, shape, kind, init));
        id
    }

    /// Declares a parameter that is several matrices (or vectors), one below the other, of so many rows each.
    fn packed(&mut self, name: String, shape: impl Into<Shape>, parts: &[usize], kind: Kind, init: Init) -> ParamId {
        let id = self.param(name, shape, kind, init);
        self.decls[id.0 as usize].parts = parts.to_vec();
        id
    }

    /// What was declared, in order.
    pub fn finish(self) -> Vec<Decl> {
        self.decls
    }
}

/// `y = x·Wᵀ + b`. Parameters: `NAME.weight` (out, in), `NAME.bias` (out).
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    weight: ParamId,
    bias: Option<ParamId>,
}

impl Linear {
    /// A layer from `inner` to `out` channels whose weights start normal with deviation `std`, its bias at 0.
    pub fn new(p: &mut Builder, name: &str, [inner, out]: [usize; 2], bias: bool, std: f32) -> Linear {
        Linear::packed(p, name, inner, &[out], bias, std)
    }

    /// Several layers on the same input in one: their `parts` (channels each) lie side by side in the result.
    pub fn packed(p: &mut Builder, name: &str, inner: usize, parts: &[usize], bias: bool, std: f32) -> Linear {
        let out: usize = parts.iter().sum();
        let weight = p.packed(format!("{name}.weight"), [out, inner], parts, Kind::Matrix, Init::Normal(std));
        let bias = bias.then(|| p.packed(format!("{name}.bias"), [out], parts, Kind::Vector, Init::Zeros));
        Linear { weight, bias }
    }

    /// x (…, in) to (…, out).
    pub fn apply<'t>(&self, x: Var<'t>) -> Var<'t> {
        self.apply_with(x, None)
    }

    /// x (…, in) to f(…, out).
    pub fn apply_with<'t>(&self, x: Var<'t>, f: Option<Activation>) -> Var<'t> {
        let tape = x.tape();
        x.linear_with(tape.param(self.weight), self.bias.map(|b| tape.param(b)), f)
    }
}

/// LayerNorm or RMSNorm. Parameters: `NAME.weight` (C), `NAME.bias` (C).
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    kind: NormKind,
    gain: ParamId,
    bias: Option<ParamId>,
    eps: f32,
}

impl Norm {
    /// A norm over `channels`, its gain at 1 and its bias at 0.
    pub fn new(p: &mut Builder, name: &str, kind: NormKind, channels: usize, bias: bool, eps: f32) -> Norm {
        let gain = p.param(format!("{name}.weight"), [channels], Kind::Vector, Init::Ones);
        let bias = bias.then(|| p.param(format!("{name}.bias"), [channels], Kind::Vector, Init::Zeros));
        Norm { kind, gain, bias, eps }
    }

    /// Adds `r` (if any) to `x` and normalises: the normalised value, and the sum.
    pub fn apply<'t>(&self, x: Var<'t>, r: Option<Var<'t>>) -> (Var<'t>, Var<'t>) {
        let tape = x.tape();
        x.norm(self.kind, r, tape.param(self.gain), self.bias.map(|b| tape.param(b)), self.eps)
    }
}

/// A table of embeddings. Parameter: `NAME.weight` (rows, C).
#[derive(Clone, Copy, Debug)]
pub struct Embedding {
    weight: ParamId,
}

impl Embedding {
    /// A table whose entries start normal with deviation `std`.
    pub fn new(p: &mut Builder, name: &str, [rows, channels]: [usize; 2], std: f32) -> Embedding {
        let shape = [rows, channels];
        Embedding { weight: p.param(format!("{name}.weight"), shape, Kind::Embedding, Init::Normal(std)) }
    }

    /// The table's number.
    pub fn id(&self) -> ParamId {
        self.weight
    }

    /// The table, as a value of this pass.
    pub fn table<'t>(&self, tape: &'t Tape) -> Var<'t> {
        tape.param(self.weight)
    }
}
