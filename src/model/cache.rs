//! What a model keeps of the tokens that it has read, so that the next ones need not read them again: the keys and values of
//! every block.
//!
//! They stand packed as attention's kernel reads them (see [`attention::Cache`]), so that a new
//! token adds its own and moves nothing else. What comes out equals the computation without a cache bit for bit, however the
//! tokens are cut into pieces.

use super::GptConfig;
use crate::cpu::attention::{self, Attention, Layout, View, ViewMut};
use crate::device::Device;
use crate::tensor::{Out, Spec, Tensor};

/// Keys and values of a sequence.
pub struct Cache {
    /// Those of each block.
    layers: Vec<Out>,
    /// H and Hkv.
    heads: [usize; 2],
    /// D: numbers in a head.
    dim: usize,
    room: usize,
    len: usize,
}

impl Cache {
    /// An empty cache with room for the whole context of a model of this shape.
    pub fn new(device: &Device, config: &GptConfig) -> Cache {
        Cache::with_room(device, config, config.context)
    }

    /// An empty cache for at most `room` tokens, whose memory is taken once: 8 bytes for each channel of the keys of a block
    /// and each token (D rounded up to 16 for the values, the room to 64).
    pub fn with_room(device: &Device, config: &GptConfig, room: usize) -> Cache {
        let (heads, dim) = ([config.heads, config.kv_heads], config.head_dim);
        let spec = Spec::f32([attention::Cache::len([1, heads[1], dim], room)]);
        let layers = (0..config.layers).map(|_| Out::new(device, spec)).collect();
        Cache { layers, heads, dim, room, len: 0 }
    }

    /// Bytes of a cache for `room` tokens.
    pub fn bytes(config: &GptConfig, room: usize) -> usize {
        config.layers * Spec::f32([attention::Cache::len([1, config.kv_heads, config.head_dim], room)]).bytes()
    }

    /// How many tokens have been read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many tokens it has room for.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Makes room for `room` tokens, if it has less; what has been read is kept.
    pub fn reserve(&mut self, device: &Device, room: usize) {
        if room <= self.room {
            return;
        }
        let sizes = [1, self.heads[1], self.dim];
        let spec = Spec::f32([attention::Cache::len(sizes, room)]);
        for layer in &mut self.layers {
            let mut larger = Out::new(device, spec);
            // A head's blocks lie together, whatever follows them.
            let [from, to] = [self.room, room].map(|room| attention::Cache::len([1, 1, self.dim], room));
            for (to, from) in larger.f32_mut().chunks_exact_mut(to).zip(layer.f32_mut().chunks_exact(from)) {
                to[..from.len()].copy_from_slice(from);
            }
            *layer = larger;
        }
        self.room = room;
    }

    /// Forgets all but the first `len` tokens: to go on from a shared beginning, or from nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = len.min(self.len);
    }

    /// Causal self-attention of block `layer`: packed queries, keys and values (1, T, (H + 2·Hkv)·D) of new tokens, turned by
    /// their positions where the model has it so, over all tokens read and these, to `y` (T, H·D). Keys and values are kept;
    /// `advance` counts them.
    ///
    /// # Panics
    /// The shape does not fit, or the room does not suffice.
    pub fn attend(&mut self, layer: usize, qkv: &Tensor, y: &mut [f32]) {
        let ([heads, kv_heads], dim, t) = (self.heads, self.dim, qkv.shape()[1]);
        assert_eq!(qkv.shape()[..], [1, t, (heads + 2 * kv_heads) * dim], "attend: queries, keys and values");
        let views = View::packed(qkv.f32(), [1, t], self.heads, dim);
        let cache = attention::Cache { data: self.layers[layer].f32_mut(), room: self.room, past: self.len };
        Attention::causal(dim).forward_cached(
            qkv.cpu(),
            views,
            cache,
            ViewMut::new(y, Layout::contiguous([1, t, heads, dim])),
        );
    }

    /// All blocks have seen `tokens` more.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}
