//! What a model keeps of the tokens that it has read, so that the next ones need not read them again: the keys and values of
//! every block.
//!
//! They stand packed as attention's kernel reads them (see [`attention::Cache`]), so that a new
//! token adds its own and moves nothing else. What comes out equals the computation without a cache bit for bit, however the
//! tokens are cut into pieces.

use super::GptConfig;
use crate::cpu::attention::{self, Attention, Layout, View, ViewMut};
use crate::device::Device;
use crate::tape::Var;
use crate::tensor::{Out, Spec};

/// Keys and values of `batch` sequences of equal length.
pub struct Cache {
    /// Those of each block.
    layers: Vec<Out>,
    batch: usize,
    /// H and Hkv.
    heads: [usize; 2],
    /// D: numbers in a head.
    dim: usize,
    room: usize,
    len: usize,
}

impl Cache {
    /// An empty cache for `batch` sequences in lockstep, with room for the whole context of a model of this shape.
    pub fn new(device: &Device, config: &GptConfig, batch: usize) -> Cache {
        Cache::with_room(device, config, batch, config.context)
    }

    /// An empty cache for `batch` sequences of at most `room` tokens in lockstep, whose memory is taken once: 8 bytes for each
    /// channel of the keys of a block and each token (D rounded up to 16 for the values, the room to 64).
    pub fn with_room(device: &Device, config: &GptConfig, batch: usize, room: usize) -> Cache {
        let (heads, dim) = ([config.heads, config.kv_heads], config.head_dim);
        let spec = Spec::f32([attention::Cache::len([batch, heads[1], dim], room)]);
        let layers = (0..config.layers).map(|_| Out::new(device, spec)).collect();
        Cache { layers, batch, heads, dim, room, len: 0 }
    }

    /// How many tokens of each sequence have been read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many tokens of each sequence it has room for.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Forgets all but the first `len` tokens: to go on from a shared beginning, or from nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = len.min(self.len);
    }

    /// Causal self-attention of block `layer`: packed queries, keys and values (B, T, (H + 2·Hkv)·D) of new tokens, turned by
    /// their positions where the model has it so, over all tokens read and these, to (B, T, H·D). Keys and values are kept; `advance` counts them.
    ///
    /// # Panics
    /// The shape does not fit, or the room does not suffice.
    pub fn attend<'t>(&mut self, layer: usize, qkv: Var<'t>) -> Var<'t> {
        let (x, [heads, kv_heads], dim) = (qkv.value(), self.heads, self.dim);
        let (b, t) = (x.shape()[0], x.shape()[1]);
        assert_eq!(x.shape()[..], [self.batch, t, (heads + 2 * kv_heads) * dim], "attend: queries, keys and values");
        let mut y = Out::new(x.device(), Spec::f32([b, t, heads * dim]));
        let views = View::packed(x.f32(), [b, t], self.heads, dim);
        let cache = attention::Cache { data: self.layers[layer].f32_mut(), room: self.room, past: self.len };
        let out = ViewMut::new(y.f32_mut(), Layout::contiguous([b, t, heads, dim]));
        Attention::causal(dim).forward_cached(x.cpu(), views, cache, out);
        qkv.tape().constant(y.freeze())
    }

    /// All blocks have seen `tokens` more.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}
