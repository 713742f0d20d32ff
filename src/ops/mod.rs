//! The operations, one file each: formula, shapes, forward, backward, and the f64 definition that they are checked
//! against. To add one, write its file and name it in the table below; the sweep and the benchmarks pick it up.

pub mod check;
mod fused;
mod norm_parts;

use crate::rng::{Purpose, Stream};
use crate::tape::Op;
use crate::tensor::{DType, Shape, Spec};

/// One row of the operation table.
pub struct Entry {
    /// The operation's file and name.
    pub name: &'static str,
    /// Its cases: what it is checked and timed on.
    pub cases: fn() -> Vec<Case>,
}

macro_rules! table {
    ($($module:ident),* $(,)?) => {
        $(pub mod $module;)*
        /// Every operation.
        pub const TABLE: &[Entry] = &[$(Entry { name: stringify!($module), cases: $module::cases }),*];
    };
}

table! {
    // In the order in which a token meets them.
    embedding,
    norm,
    picture_norm,
    norm_tangent,
    resample,
    linear,
    lora,
    dora,
    conv,
    spectral,
    rope,
    attention,
    activation,
    slope,
    swiglu,
    dropout,
    sample,
    augment,
    blend,
    elementwise,
    reshape,
    split,
    quantize,
    linear_xent,
    token_logprob,
    loss,
    policy,
    value,
    kl,
    sphere,
    reduce,
    cast,
}

/// An operation with inputs to run it on.
pub struct Case {
    /// What is particular about it, as `B2 T5, no bias`.
    pub name: String,
    /// The operation.
    pub op: Box<dyn Op>,
    /// What goes in.
    pub inputs: Vec<Input>,
    /// What the case is for.
    pub role: Role,
    /// How far a result and a gradient may be from the reference's, as a share of the largest element.
    pub bounds: [f64; 2],
}

/// What a case is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Small: forward against the reference, gradients against its differences, levels and threads against each other.
    Check,
    /// Of real size: timed.
    Bench,
}

impl Case {
    /// A small case, for checking.
    pub fn check(name: impl Into<String>, op: impl Op, inputs: impl Into<Vec<Input>>) -> Case {
        Case { name: name.into(), op: Box::new(op), inputs: inputs.into(), role: Role::Check, bounds: [1e-5, 1e-4] }
    }

    /// The same for an operation in bf16, which rounds a gradient to 8 bits before it goes into a product.
    pub fn rounding(self) -> Case {
        Case { bounds: [1e-5, 1.0 / 256.0], ..self }
    }

    /// A case of real size, for timing.
    pub fn bench(name: impl Into<String>, op: impl Op, inputs: impl Into<Vec<Input>>) -> Case {
        Case { role: Role::Bench, ..Case::check(name, op, inputs) }
    }
}

/// An input of a case: its shape and how it is filled.
#[derive(Clone, Debug)]
pub struct Input {
    /// Shape and dtype.
    pub spec: Spec,
    /// Where its values come from.
    pub fill: Fill,
    /// Whether its gradient is asked for.
    pub grad: bool,
    /// Whether the operation rounds it to bf16: the reference is given the rounded values.
    pub rounded: bool,
    /// Whether it is a parameter in models: its gradient is f32, whatever it is held in.
    pub param: bool,
}

/// Where an input's values come from.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Normal with this mean and standard deviation.
    Normal(f32, f32),
    /// Uniform between two bounds.
    Uniform(f32, f32),
    /// Token ids below a bound.
    Ids(usize),
    /// These values.
    Values(Vec<f32>),
}

impl Input {
    /// Standard normal values, with a gradient.
    pub fn normal(shape: impl Into<Shape>) -> Input {
        Input { spec: Spec::f32(shape), fill: Fill::Normal(0.0, 1.0), grad: true, rounded: false, param: false }
    }

    /// Values around 1, as gains have, with a gradient.
    pub fn gain(shape: impl Into<Shape>) -> Input {
        Input { fill: Fill::Normal(1.0, 0.2), ..Input::normal(shape).param() }
    }

    /// Normal values scaled as weights of `(out, in)` are, 1/sqrt(in), with a gradient.
    pub fn weight(out: usize, inner: usize) -> Input {
        Input { fill: Fill::Normal(0.0, 1.0 / (inner as f32).sqrt()), ..Input::normal([out, inner]).param() }
    }

    /// Token ids below `n`.
    pub fn ids(shape: impl Into<Shape>, n: usize) -> Input {
        let spec = Spec { shape: shape.into(), dtype: DType::I32 };
        Input { spec, fill: Fill::Ids(n), grad: false, rounded: false, param: false }
    }

    /// These values, without a gradient.
    pub fn values(shape: impl Into<Shape>, values: &[f32]) -> Input {
        Input { fill: Fill::Values(values.to_vec()), ..Input::normal(shape).fixed() }
    }

    /// The same for an operation that rounds it to bf16.
    pub fn rounded(self) -> Input {
        Input { rounded: true, ..self }
    }

    /// The same as a parameter.
    pub fn param(self) -> Input {
        Input { param: true, ..self }
    }

    /// The same without a gradient.
    pub fn fixed(self) -> Input {
        Input { grad: false, ..self }
    }

    /// The values, as f32 (ids included), the same for the same `number`.
    pub fn data(&self, number: u32) -> Vec<f32> {
        let n = self.spec.shape.numel();
        let stream = Stream::new(0, Purpose::Test, number, 0);
        let mut data = vec![0.0; n];
        match &self.fill {
            Fill::Normal(mean, std) => {
                stream.normals(*std, &mut data);
                data.iter_mut().for_each(|x| *x += mean);
            }
            Fill::Uniform(low, high) => {
                for (i, x) in data.iter_mut().enumerate() {
                    *x = low + (high - low) * stream.uniform(i as u64);
                }
            }
            Fill::Ids(bound) => {
                for (i, x) in data.iter_mut().enumerate() {
                    *x = (stream.bits(i as u64) as usize % bound) as f32;
                }
            }
            Fill::Values(values) => data.copy_from_slice(values),
        }
        data
    }
}
