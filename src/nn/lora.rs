//! Low-rank adapters of linear layers: what is trained where the weights themselves are frozen.
//!
//! An adapted layer computes `x·Wᵀ + b + s · (x'·Aᵀ)·Bᵀ` ([`ops::lora`](crate::ops::lora)), x' being x with dropout. A starts
//! as PEFT starts it, uniform within 1/√in, B at 0: at first nothing changes. The scale s is alpha/r, or alpha/√r
//! (rank-stabilised). Names are those of PEFT's files: `base_model.model.MODULE.lora_A.weight` (r, in) and
//! `….lora_B.weight` (out, r), for each module of Hugging Face's model that a layer holds.
//!
//! With DoRA each adapted row has a norm of its own beside ([`ops::dora`](crate::ops::dora)), `….lora_magnitude_vector` (out),
//! which starts as the row's ([`Linear::magnitudes`]).
//!
//! Sources: Hu et al. 2021 (arXiv 2106.09685); Kalajdzievski 2023 (arXiv 2312.03732) for alpha/√r; Liu et al. 2024 (arXiv
//! 2402.09353).

use super::Linear;
use crate::cpu::reduce::square_sum;
use crate::ops::activation::Activation;
use crate::ops::lora::{MAX_SPANS, Span};
use crate::params::{Decl, Init, Kind, ParamId, Params, Stored};
use crate::rng::Purpose;
use crate::tape::Var;
use crate::tensor::Shape;

/// What the names of an adapter's tensors start with.
pub const PREFIX: &str = "base_model.model.";
/// What GPT-2's modules have before their names in a model with a head, which kiln leaves out.
pub const GPT2: &str = "transformer.";

/// Which layers are adapted, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// r: rows of A.
    pub rank: usize,
    /// The numerator of the scale.
    pub alpha: f32,
    /// The share of the channels of x' that are dropped, in training.
    pub dropout: f32,
    /// Whether the scale is alpha/√r, not alpha/r.
    pub rslora: bool,
    /// Whether rows have norms of their own.
    pub dora: bool,
}

impl LoraConfig {
    /// s.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f32;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }
}

/// The adapter of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Lora {
    a: ParamId,
    b: ParamId,
    magnitude: Option<ParamId>,
    spans: [Span; MAX_SPANS],
    scale: f32,
    dropout: f32,
}

/// The module of Hugging Face's model that the tensor `name` is the weight of.
pub fn module(name: &str) -> Option<&str> {
    name.strip_suffix(".weight")
}

/// Whether the name is that of an adapter's parameter.
pub fn is_adapter(name: &str) -> bool {
    name.starts_with(PREFIX)
}

impl Linear {
    /// Adapts the layer's modules that `target` says, if there are any; declares what that needs. `before` goes before the
    /// names of modules.
    pub fn adapt(&mut self, decls: &mut Vec<Decl>, config: &LoraConfig, before: &str, target: &dyn Fn(&str) -> bool) {
        let decl = &decls[self.weight.0 as usize];
        let (images, inner) = (decl.images(), decl.shape[1]);
        let chosen: Vec<_> = images.iter().filter(|image| module(&image.name).is_some_and(target)).collect();
        if chosen.is_empty() {
            return;
        }
        let mut spans = [Span::default(); MAX_SPANS];
        for (span, image) in spans.iter_mut().zip(&chosen) {
            *span = Span { start: image.start / inner, rows: image.shape[0] };
        }
        let (rank, net) = (config.rank, decl.net);
        let declare = |what: &str, parts: &[usize], columns: Option<usize>, init: Init| {
            let name = |module: &str| format!("{PREFIX}{before}{module}.lora_{what}");
            let names = chosen.iter().filter_map(|image| module(&image.name).map(name)).collect::<Vec<_>>();
            let rows = parts.iter().sum::<usize>();
            let (shape, kind) = match columns {
                Some(columns) => (Shape::new(&[rows, columns]), Kind::Matrix),
                None => (Shape::new(&[rows]), Kind::Vector),
            };
            let own = Decl { parts: parts.to_vec(), net, ..Decl::new(names.join(" and "), shape, kind, init) };
            Decl { stored: Stored::Parts(names), ..own }
        };
        let rows: Vec<usize> = spans.iter().map(|span| span.rows).filter(|&rows| rows > 0).collect();
        let bound = 1.0 / (inner as f32).sqrt();
        let a = declare("A.weight", &vec![rank; chosen.len()], Some(inner), Init::Uniform(bound));
        let own = [a, declare("B.weight", &rows, Some(rank), Init::Zeros)];
        let magnitude = config.dora.then(|| declare("magnitude_vector", &rows, None, Init::Ones));
        let first = decls.len() as u32;
        decls.extend(own.into_iter().chain(magnitude));
        let (scale, dropout) = (config.scale(), config.dropout);
        let magnitude = config.dora.then_some(ParamId(first + 2));
        self.lora = Some(Lora { a: ParamId(first), b: ParamId(first + 1), magnitude, spans, scale, dropout });
    }

    /// Gives the norms of adapted rows the values that they start with: those of the weights, which are there by now.
    pub fn magnitudes(&self, params: &mut Params) {
        let Some(Lora { magnitude: Some(magnitude), spans, .. }) = self.lora else { return };
        let (w, cpu) = (params.weight(self.weight).widened(), params.device().on_host());
        let columns = w.shape()[1];
        let rows = spans.iter().flat_map(|span| span.start..span.start + span.rows);
        let norm = |row: usize| square_sum(cpu.host(), &w.f32()[row * columns..][..columns]).sqrt() as f32;
        params.set_weight(magnitude, &rows.map(norm).collect::<Vec<_>>());
    }
}

impl Lora {
    /// f of the adapted layer's result.
    pub(super) fn apply<'t>(&self, x: Var<'t>, w: Var<'t>, bias: Option<Var<'t>>, f: Option<Activation>) -> Var<'t> {
        let tape = x.tape();
        let dropped = match self.dropout {
            0.0 => x,
            p => x.dropout(p, tape.stream(Purpose::Dropout)),
        };
        let ab = [self.a, self.b].map(|id| tape.param(id));
        let y = match self.magnitude {
            None => x.lora(dropped, w, ab, bias, self.scale, self.spans),
            Some(magnitude) => {
                let z = x.lora(dropped, w, ab, None, self.scale, self.spans);
                z.dora(tape.param(magnitude), w, ab, bias, self.scale, self.spans)
            }
        };
        f.map_or(y, |f| y.activate(f))
    }
}
