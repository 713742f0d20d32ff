//! Layers: which parameters they have, under which names, and how they apply them.
//!
//! A layer is a handful of parameter numbers; the values live in [`Params`](crate::params::Params) and the computation in
//! `ops`. Building a model declares its parameters in the order of the forward pass.

pub mod conv;
pub mod lora;
pub mod penalty;
pub mod spectral;

pub use conv::Conv;
pub use lora::{Lora, LoraConfig};
pub use spectral::Spectral;

use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;
use crate::params::{Decl, Init, Kind, ParamId};
use crate::tape::{Tape, Var};
use crate::tensor::Shape;

/// Collects the parameters that layers declare.
#[derive(Default)]
pub struct Builder {
    decls: Vec<Decl>,
    net: u8,
}

impl Builder {
    /// What is declared from here on belongs to network `net`; the first is 0.
    pub fn net(&mut self, net: u8) {
        self.net = net;
    }

    /// Declares a parameter.
    pub fn param(&mut self, name: String, shape: impl Into<Shape>, kind: Kind, init: Init) -> ParamId {
        let id = ParamId(self.decls.len() as u32);
        self.decls.push(Decl { net: self.net, ..Decl::new(name, shape, kind, init) });
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

/// What the parameters of a linear layer or a convolution start with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// As PyTorch's layers: weights and bias uniform within 1/√fan, the numbers that a weight's row has (of a convolution:
    /// kh·kw·(the last axis)).
    Uniform,
    /// Normal weights with this deviation (GPT-2 and DCGAN: 0.02), the bias at 0.
    Normal(f32),
}

impl Start {
    /// The initial values of the weight and of the bias.
    fn of(self, fan: usize) -> [Init; 2] {
        match self {
            Start::Uniform => [Init::Uniform(1.0 / (fan as f32).sqrt()); 2],
            Start::Normal(std) => [Init::Normal(std), Init::Zeros],
        }
    }
}

/// `y = x·Wᵀ + b`. Parameters: `NAME.weight` (out, in), `NAME.bias` (out), those of [`Spectral`] where it is one, those of
/// [`Lora`] where it is adapted.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    weight: ParamId,
    bias: Option<ParamId>,
    spectral: Option<Spectral>,
    lora: Option<Lora>,
}

impl Linear {
    /// A layer from `inner` to `out` channels.
    pub fn new(p: &mut Builder, name: &str, [inner, out]: [usize; 2], bias: bool, start: Start) -> Linear {
        Linear::packed(p, name, inner, &[out], bias, start)
    }

    /// Several layers on the same input in one: their `parts` (channels each) lie side by side in the result.
    pub fn packed(p: &mut Builder, name: &str, inner: usize, parts: &[usize], bias: bool, start: Start) -> Linear {
        let out: usize = parts.iter().sum();
        let [w, b] = start.of(inner);
        let weight = p.packed(format!("{name}.weight"), [out, inner], parts, Kind::Matrix, w);
        let bias = bias.then(|| p.packed(format!("{name}.bias"), [out], parts, Kind::Vector, b));
        Linear { weight, bias, spectral: None, lora: None }
    }

    /// The same with its weights divided by their spectral norm.
    pub fn spectral(self, p: &mut Builder) -> Linear {
        Linear { spectral: Some(Spectral::new(p, self.weight, false)), ..self }
    }

    /// x (…, in) to (…, out).
    pub fn apply<'t>(&self, x: Var<'t>) -> Var<'t> {
        self.apply_with(x, None)
    }

    /// x (…, in) to f(…, out).
    pub fn apply_with<'t>(&self, x: Var<'t>, f: Option<Activation>) -> Var<'t> {
        let tape = x.tape();
        let w = Spectral::weight(tape, self.weight, self.spectral);
        let bias = self.bias.map(|b| tape.param(b));
        match self.lora {
            Some(lora) => lora.apply(x, w, bias, f),
            None => x.linear_with(w, bias, f),
        }
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

    /// The rows (B, C) that these ids (B) name.
    pub fn rows<'t>(&self, ids: Var<'t>) -> Var<'t> {
        let b = ids.shape()[0];
        ids.reshape([b, 1]).embedding(self.table(ids.tape()), None, 0).flatten()
    }
}

/// BatchNorm of pictures, with a leaky ReLU after it. Parameters: `NAME.weight`, `NAME.bias` (C); buffers:
/// `NAME.running_mean`, `NAME.running_var` (C).
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    gain: ParamId,
    bias: ParamId,
    mean: ParamId,
    var: ParamId,
    /// How far the running statistics move in a pass; PyTorch's default is 0.1.
    pub momentum: f32,
    /// Added to the variance; PyTorch's default is 1e-5.
    pub eps: f32,
}

impl BatchNorm {
    /// A norm of `channels`, its gain normal around 1 with deviation `std` (DCGAN: 0.02), its bias at 0.
    pub fn new(p: &mut Builder, name: &str, channels: usize, std: f32) -> BatchNorm {
        let mut vector = |what: &str, kind, init| p.param(format!("{name}.{what}"), [channels], kind, init);
        BatchNorm {
            gain: vector("weight", Kind::Vector, Init::Around(1.0, std)),
            bias: vector("bias", Kind::Vector, Init::Zeros),
            mean: vector("running_mean", Kind::Buffer, Init::Zeros),
            var: vector("running_var", Kind::Buffer, Init::Ones),
            momentum: 0.1,
            eps: 1e-5,
        }
    }

    /// x (N, …, C) to f of its norm, f a leaky ReLU of `slope` (0: a ReLU, 1: nothing). In a training pass by the batch's
    /// statistics, and the running ones move; else by these.
    pub fn apply<'t>(&self, x: Var<'t>, slope: f32) -> Var<'t> {
        let tape = x.tape();
        let [mean, var] = [self.mean, self.var].map(|id| tape.buffer(id));
        let vectors = [tape.param(self.gain), tape.param(self.bias), mean, var];
        if !tape.pass().training {
            return x.batchnorm_given(vectors, self.eps, slope);
        }
        let [y, mean, var] = x.batchnorm(vectors, self.momentum, self.eps, slope);
        tape.update(self.mean, mean);
        tape.update(self.var, var);
        y
    }
}

/// GroupNorm of pictures, with a leaky ReLU after it. Parameters: `NAME.weight`, `NAME.bias` (C).
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm {
    groups: usize,
    gain: ParamId,
    bias: ParamId,
    /// Added to the variance; PyTorch's default is 1e-5.
    pub eps: f32,
}

impl GroupNorm {
    /// A norm of `channels` in `groups`, its gain at 1 and its bias at 0.
    pub fn new(p: &mut Builder, name: &str, groups: usize, channels: usize) -> GroupNorm {
        let gain = p.param(format!("{name}.weight"), [channels], Kind::Vector, Init::Ones);
        let bias = p.param(format!("{name}.bias"), [channels], Kind::Vector, Init::Zeros);
        GroupNorm { groups, gain, bias, eps: 1e-5 }
    }

    /// x (N, …, C) to f of its norm, f a leaky ReLU of `slope` (0: a ReLU, 1: nothing).
    pub fn apply<'t>(&self, x: Var<'t>, slope: f32) -> Var<'t> {
        let tape = x.tape();
        x.groupnorm(self.groups, tape.param(self.gain), tape.param(self.bias), self.eps, slope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Pass;
    use crate::tensor::Tensor;

    #[test]
    fn running_statistics_move_in_training_passes_only_and_no_optimizer_sees_them() {
        let device = Device::cpu(2).expect("a CPU");
        let mut p = Builder::default();
        let norm = BatchNorm::new(&mut p, "bn", 1, 0.0);
        let mut params = Params::new(&device, &p.finish(), 0);
        let mut tape = Tape::new(&device);
        let x = Tensor::from_slice(&device, &[1.0f32, 3.0], [2, 1]);
        let mut pass = |params: &mut Params, training: bool, times: usize| {
            tape.begin(params, Pass { training, ..Pass::default() });
            let y = (0..times).map(|_| norm.apply(tape.constant(x.clone()), 1.0).value().f32().to_vec()).last();
            tape.settle(params);
            let state = [norm.mean, norm.var].map(|id| params.weight(id).item());
            (y.expect("a pass"), state)
        };
        // Mean 2, unbiased variance 2.
        let (y, state) = pass(&mut params, true, 1);
        assert!((y[1] - 1.0).abs() < 1e-4 && y[0] == -y[1], "{y:?}");
        assert!((state[0] - 0.2).abs() < 1e-6 && (state[1] - 1.1).abs() < 1e-6, "{state:?}");
        let (y, same) = pass(&mut params, false, 1);
        assert_eq!(state, same);
        assert!((y[1] - 2.8 / 1.10001f32.sqrt()).abs() < 1e-5, "{y:?}");
        // A layer that is applied twice in a pass moves them twice.
        let (_, twice) = pass(&mut params, true, 2);
        assert!((twice[0] - (2.0 - 1.8 * 0.81)).abs() < 1e-6, "{twice:?}");
        assert!(!params.is_trainable(norm.mean) && !params.is_trainable(norm.var) && params.is_trainable(norm.gain));
    }
}
