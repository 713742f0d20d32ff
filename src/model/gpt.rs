//! A decoder-only transformer: GPT-2, Llama, and what lies between.
//!
//! ```text
//! x = E[ids] (+ P[0..T])                               (B, T, C)
//! each block:  x = x + proj(attention(qkv(norm_1(x))))
//!              x = x + mlp(norm_2(x))
//! logits = last(x)·Wᵀ                                  (B, T, V)
//!
//!             positions           norm       mlp(x)                       head W
//! GPT-2       learned: P          LayerNorm  out(f(up(x)))                E, tied
//! Llama       RoPE on q and k     RMSNorm    out(silu(gate(x)) · up(x))   its own
//! ```
//! Each part is a field of [`GptConfig`]. Parameter names are Hugging Face's (`hf.rs`). The residual additions are fused
//! into the norms that follow them, so a block passes on its stream and what is still to be added to it.
//!
//! Sources: Radford et al. 2019 ("Language models are unsupervised multitask learners"), Touvron et al. 2023 (arXiv
//! 2302.13971); initialisation as in the former: normal with deviation 0.02, and 0.02/√(2·layers) for the two projections
//! into the stream.

use super::Cache;
use super::config::{GptConfig, Mlp, Positions};
use super::hf::{self, Names};
use crate::device::Device;
use crate::nn::{Builder, Embedding, Linear, LoraConfig, Norm, Start, lora};
use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;
use crate::ops::rope::RopeTable;
use crate::params::{Decl, ParamId, Params};
use crate::rng::Purpose;
use crate::tape::{Tape, Var};
use crate::tensor::{DType, Out, Spec, Tensor};
use arrayvec::ArrayVec;
use std::cell::RefCell;
use std::sync::OnceLock;

/// The layers of the model; the values of its parameters are in [`Params`].
pub struct Gpt {
    config: GptConfig,
    tokens: Embedding,
    positions: Option<Embedding>,
    blocks: Vec<Block>,
    last: Norm,
    head: Embedding,
    /// Made in the first pass, on its device.
    attention: OnceLock<Heads>,
}

#[derive(Clone, Copy)]
struct Block {
    norm_1: Norm,
    qkv: Linear,
    proj: Linear,
    norm_2: Norm,
    gate: Option<Linear>,
    up: Linear,
    activation: Option<Activation>,
    out: Linear,
    dropout: f32,
}

/// Drops a share `p` of the channels, in training.
fn drop(x: Var<'_>, p: f32) -> Var<'_> {
    if p == 0.0 { x } else { x.dropout(p, x.tape().stream(Purpose::Dropout)) }
}

impl Block {
    /// From the stream and, but for the first block, what is still to be added to it: the stream with the attention's part
    /// added, and the MLP's part, which is still to be added. `attend` maps packed queries, keys and values
    /// (B, T, (H + 2·Hkv)·D), not yet turned, to (B, T, H·D); `see` is shown what the MLP's last matrix reads.
    fn apply<'t>(
        &self,
        x: &[Var<'t>],
        attend: impl FnOnce(Var<'t>) -> Var<'t>,
        see: impl FnOnce(Var<'t>),
    ) -> [Var<'t>; 2] {
        let (n, x) = self.norm_1.apply(x[0], x.get(1).copied());
        let a = attend(self.qkv.apply(n));
        let (n, x) = self.norm_2.apply(x, Some(drop(self.proj.apply(a), self.dropout)));
        let up = self.up.apply_with(n, self.activation);
        let m = match self.gate {
            Some(gate) => gate.apply(n).swiglu(up),
            None => up,
        };
        see(m);
        [x, drop(self.out.apply(m), self.dropout)]
    }
}

/// Queries, keys and values, and how their positions are told apart.
#[derive(Clone)]
struct Heads {
    heads: usize,
    kv_heads: usize,
    rope: Option<RopeTable>,
}

impl Heads {
    /// Packed queries, keys and values with the former two turned by their positions, of which the first is `offset`, where
    /// the model has it so.
    fn turn<'t>(&self, qkv: Var<'t>, offset: usize) -> Var<'t> {
        match &self.rope {
            Some(table) => qkv.rope(table, self.heads + self.kv_heads, offset),
            None => qkv,
        }
    }

    /// The causal attention of whole rows or, where tokens have `places`, of the documents in them. Turned queries and keys
    /// know of the distance between them only, so documents need not begin at position 0.
    fn attend<'t>(&self, qkv: Var<'t>, places: Option<&Tensor>) -> Var<'t> {
        let turned = self.turn(qkv, 0);
        match places {
            Some(places) => turned.attention_within(qkv.tape().constant(places.clone()), self.heads, self.kv_heads),
            None => turned.attention(self.heads, self.kv_heads),
        }
    }

    /// The causal attention in block `layer` of parts of sequences, each over what its cache holds: qkv (1, N, …) to (1, N, H·D).
    fn go_on<'t>(&self, layer: usize, qkv: Var<'t>, parts: &mut [Part]) -> Var<'t> {
        let (tape, qkv) = (qkv.tape(), qkv.value());
        let (n, width) = (qkv.shape()[1], qkv.shape()[2]);
        let channels = width / (self.heads + 2 * self.kv_heads) * self.heads;
        let mut y = Out::new(tape.device(), Spec::f32([1, n, channels]));
        let mut row = 0;
        for Part { ids, cache, .. } in parts {
            let own = tape.constant(qkv.view(row * width, [1, ids.len(), width]));
            let turned = self.turn(own, cache.len()).value();
            cache.attend(layer, &turned, &mut y.f32_mut()[row * channels..][..ids.len() * channels]);
            row += ids.len();
        }
        tape.constant(y.freeze())
    }
}

/// What [`Gpt::look`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// Packed queries, keys and values (B, T, (H + 2·Hkv)·D) of a block, turned by their positions where the model does so.
    Qkv,
    /// What the last matrix of a block's MLP reads (B, T, hidden).
    Hidden,
    /// The stream (B, T, C) after a block.
    Stream,
    /// The logits (B, T, V); their block is the number of blocks.
    Logits,
}

/// Tokens of a sequence that go on from what its cache holds.
pub struct Part<'a> {
    /// The tokens, at least one.
    pub ids: &'a [u32],
    /// Of how many of them, the last ones, the logits are wanted.
    pub want: usize,
    /// What was read before, to which they are added.
    pub cache: &'a mut Cache,
}

impl Gpt {
    /// The model, and the parameters that it needs.
    pub fn new(config: GptConfig) -> (Gpt, Vec<Decl>) {
        let GptConfig { vocab, context, layers, d, hidden, bias, .. } = config;
        let names = Names::of(&config);
        let std = 0.02;
        let [start, into_stream] = [std, std / (2.0 * layers as f32).sqrt()].map(Start::Normal);
        let mut p = Builder::default();
        let tokens = Embedding::new(&mut p, names.tokens, [vocab, d], std);
        let learned = config.positions == Positions::Learned;
        let positions = learned.then(|| Embedding::new(&mut p, names.positions, [context, d], std));
        let norm_bias = bias && config.norm == NormKind::Layer;
        let norm = |p: &mut Builder, name: &str| Norm::new(p, name, config.norm, d, norm_bias, config.eps as f32);
        let block = |i: usize| {
            let name = |part: &str| format!("{}.{i}.{part}", names.block);
            Block {
                norm_1: norm(&mut p, &name(names.norm_1)),
                qkv: Linear::packed(&mut p, &name(names.qkv), d, &config.qkv_parts(), bias, start),
                proj: Linear::new(&mut p, &name(names.proj), [config.heads * config.head_dim, d], bias, into_stream),
                norm_2: norm(&mut p, &name(names.norm_2)),
                gate: (config.mlp == Mlp::SwiGlu)
                    .then(|| Linear::new(&mut p, &name(names.gate), [d, hidden], bias, start)),
                up: Linear::new(&mut p, &name(names.up), [d, hidden], bias, start),
                activation: config.mlp.activation(),
                out: Linear::new(&mut p, &name(names.out), [hidden, d], bias, into_stream),
                dropout: config.dropout,
            }
        };
        let blocks = (0..layers).map(block).collect();
        let last = norm(&mut p, names.last);
        let head = if config.tied { tokens } else { Embedding::new(&mut p, names.head, [vocab, d], std) };
        let decls = p.finish().into_iter().map(hf::store).collect();
        (Gpt { config, tokens, positions, blocks, last, head, attention: OnceLock::new() }, decls)
    }

    /// Adapts the linear layers whose modules' names `target` chooses, as `config` says; adds what they need to `decls`, which
    /// [`new`](Gpt::new) gave.
    pub fn adapt(&mut self, decls: &mut Vec<Decl>, config: &LoraConfig, target: &dyn Fn(&str) -> bool) {
        let before = if self.config.positions == Positions::Learned { lora::GPT2 } else { "" };
        for Block { qkv, proj, gate, up, out, .. } in &mut self.blocks {
            for linear in [qkv, proj].into_iter().chain(gate).chain([up, out]) {
                linear.adapt(decls, config, before, target);
            }
        }
    }

    /// Gives what of adapters hangs on the model's weights its first values, once these are there.
    pub fn start_adapters(&self, params: &mut Params) {
        for Block { qkv, proj, gate, up, out, .. } in &self.blocks {
            for linear in [qkv, proj].into_iter().chain(gate).chain([up, out]) {
                linear.magnitudes(params);
            }
        }
    }

    /// The shape of the model.
    pub fn config(&self) -> &GptConfig {
        &self.config
    }

    /// The matrix (V, C) of the token embeddings.
    pub fn tokens(&self) -> ParamId {
        self.tokens.id()
    }

    /// The matrix (V, C) of the head.
    pub fn head(&self) -> ParamId {
        self.head.id()
    }

    /// The embeddings (B, T, C) of ids (B, T), the first of them at position `start`.
    fn embed<'t>(&self, ids: Var<'t>, start: usize) -> Var<'t> {
        let tape = ids.tape();
        let positions = self.positions.map(|positions| positions.table(tape));
        ids.embedding(self.tokens.table(tape), positions, start)
    }

    /// Embeddings (B, T, C) to the normalised stream (B, T, C) that the head reads. `run(i, block, x)` applies block i, see
    /// [`Block::apply`].
    fn stream<'t>(&self, x: Var<'t>, mut run: impl FnMut(usize, Block, &[Var<'t>]) -> [Var<'t>; 2]) -> Var<'t> {
        let mut x: ArrayVec<Var, 2> = [drop(x, self.config.dropout)].into_iter().collect();
        for (i, &block) in self.blocks.iter().enumerate() {
            x = run(i, block, &x).into();
        }
        self.last.apply(x[0], x.get(1).copied()).0
    }

    /// [`stream`](Gpt::stream) of whole rows, recorded.
    fn whole<'t>(&self, ids: Var<'t>, places: Option<Var<'t>>) -> Var<'t> {
        let tape = ids.tape();
        let x = match (places, self.positions) {
            (Some(places), Some(positions)) => {
                let tokens = ids.embedding(self.tokens.table(tape), None, 0);
                tokens + places.embedding(positions.table(tape), None, 0)
            }
            _ => self.embed(ids, 0),
        };
        let places = places.map(Var::value);
        self.stream(x, |_, block, x| {
            let (heads, places) = (self.heads(tape.device()).clone(), places.clone());
            let y = tape.checkpoint(x, move |x| block.apply(x, |qkv| heads.attend(qkv, places.as_ref()), |_| ()));
            tape.spent(x);
            y
        })
    }

    fn heads(&self, device: &Device) -> &Heads {
        let GptConfig { heads, kv_heads, context, positions, .. } = self.config;
        self.attention.get_or_init(|| {
            let rope = match positions {
                Positions::Learned => None,
                Positions::Rope { theta, scaling } => {
                    Some(RopeTable::new(device, self.config.head_dim, context, theta, scaling))
                }
            };
            Heads { heads, kv_heads, rope }
        })
    }

    /// The mean negative log-likelihood of `targets` (B, T) after `ids` (B, T); `weights` and `norm` as in
    /// [`LinearXent`](crate::ops::linear_xent::LinearXent).
    pub fn loss<'t>(&self, ids: Var<'t>, targets: Var<'t>, weights: Option<Var<'t>>, norm: Option<f32>) -> Var<'t> {
        self.whole(ids, None).linear_xent(self.head.table(ids.tape()), targets, weights, norm)
    }

    /// The same of rows that hold several documents, each read as if it stood alone: `places` (B, T) says where in its
    /// document each token stands.
    pub fn packed_loss<'t>(&self, [ids, targets, places]: [Var<'t>; 3], weights: Var<'t>, norm: f32) -> Var<'t> {
        let head = self.head.table(ids.tape());
        self.whole(ids, Some(places)).linear_xent(head, targets, Some(weights), Some(norm))
    }

    /// What the head reads (B, T, C) after each of ids (B, T).
    pub fn hidden<'t>(&self, ids: Var<'t>) -> Var<'t> {
        self.whole(ids, None)
    }

    /// The logits (B, T, V) of the token after each position.
    pub fn logits<'t>(&self, ids: Var<'t>) -> Var<'t> {
        self.whole(ids, None).linear(self.head.table(ids.tape()), None)
    }

    /// Reads ids (B, T) without gradients, and shows `see` what it comes to on the way, with the number of the block.
    pub fn look(&self, ids: Var, see: &mut dyn FnMut(Site, usize, &Tensor)) {
        let tape = ids.tape();
        let see = RefCell::new(see);
        let show = |site, block, x: Var| (see.borrow_mut())(site, block, &x.value());
        let heads = self.heads(tape.device());
        tape.no_grad(|| {
            let x = self.stream(self.embed(ids, 0), |i, block, x| {
                let attend = |qkv| {
                    let turned = heads.turn(qkv, 0);
                    show(Site::Qkv, i, turned);
                    turned.attention(heads.heads, heads.kv_heads)
                };
                let y = block.apply(x, attend, |hidden| show(Site::Hidden, i, hidden));
                show(Site::Stream, i, y[0] + y[1]);
                y
            });
            show(Site::Logits, self.blocks.len(), x.linear(self.head.table(tape), None));
        });
    }

    /// [`stream`](Gpt::stream) (1, N, C) of the N tokens of all parts, each of which goes on from its cache and is added to it.
    fn continued<'t>(&self, tape: &'t Tape, parts: &mut [Part]) -> Var<'t> {
        for Part { ids, cache, .. } in &*parts {
            let (new, past, room) = (ids.len(), cache.len(), cache.room());
            assert!(past + new <= room, "{new} tokens more than {past}, with room for {room}");
        }
        let (n, c) = (parts.iter().map(|part| part.ids.len()).sum(), self.config.d);
        let mut embedded = parts.iter().map(|part| {
            let mut ids = Out::new(tape.device(), Spec { shape: [1, part.ids.len()].into(), dtype: DType::I32 });
            ids.as_mut_slice::<i32>().iter_mut().zip(part.ids).for_each(|(i, &id)| *i = id as i32);
            self.embed(tape.constant(ids.freeze()), part.cache.len())
        });
        let x = if let [_] = parts[..] {
            embedded.next().expect("one part")
        } else {
            let mut x = Out::new(tape.device(), Spec::f32([1, n, c]));
            let mut rest = x.f32_mut();
            for part in embedded {
                let own;
                (own, rest) = rest.split_at_mut(part.value().numel());
                own.copy_from_slice(part.value().f32());
            }
            tape.constant(x.freeze())
        };
        let heads = self.heads(tape.device());
        let stream =
            self.stream(x, |i, block, x| tape.scope(|| block.apply(x, |qkv| heads.go_on(i, qkv, parts), |_| ())));
        parts.iter_mut().for_each(|part| part.cache.advance(part.ids.len()));
        stream
    }

    /// The logits (N, V) of the tokens after those that are wanted, N in all, in the order of the parts; without gradients. The
    /// same bits as those of each whole sequence alone: what else is read with it makes no difference.
    ///
    /// # Panics
    /// A cache is for another shape, or has no room for the tokens; more are wanted than there are.
    pub fn logits_cached(&self, tape: &Tape, parts: &mut [Part]) -> Tensor {
        let (c, v) = (self.config.d, self.config.vocab);
        let [all, wanted] = parts.iter().fold([0, 0], |[all, wanted], part| {
            assert!(part.want <= part.ids.len(), "{} of {} tokens are wanted", part.want, part.ids.len());
            [all + part.ids.len(), wanted + part.want]
        });
        tape.no_grad(|| {
            let mut stream = self.continued(tape, parts).value();
            if wanted == 0 {
                return Out::new(tape.device(), Spec::f32([0, v])).freeze();
            }
            if wanted < all {
                let mut rows = Out::new(tape.device(), Spec::f32([1, wanted, c]));
                let (mut to, mut from) = (rows.f32_mut(), stream.f32());
                for part in parts {
                    let (own, last) = from.split_at(part.ids.len() * c);
                    let (rows, rest) = to.split_at_mut(part.want * c);
                    rows.copy_from_slice(&own[own.len() - rows.len()..]);
                    (to, from) = (rest, last);
                }
                stream = rows.freeze();
            }
            tape.constant(stream).linear(self.head.table(tape), None).value().reshape([wanted, v])
        })
    }
}
