//! Multi-head attention with streaming softmax: softmax(scale · Q Kᵀ) V without its T × T matrix, forward and backward.
//!
//! Keys are walked in blocks of 64 from key 0. A query row keeps the running maximum of its scores and the sum of their
//! exponentials (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018) beside an unnormalised output, as in
//! FlashAttention-2 (Dao, 2023); the backward pass recomputes the probabilities of a block from the saved logarithm of the sum.
//! Blocks above the diagonal are skipped, and inside the blocks that the diagonal cuts so is nearly all that is masked.
//!
//! For one query row x with scores sⱼ = scale · x·kⱼ over the keys j that it sees, m the running maximum and l the sum:
//!
//! ```text
//! m' = max(m, max sⱼ)        pⱼ = exp(sⱼ − m')        α = exp(m − m')       over the keys of one block
//! l' = α l + Σ pⱼ            o' = α o + Σ pⱼ vⱼ       in the end: out = o / l, lse = m + log l
//!
//! δ = Σ out ∘ dout           pⱼ = exp(sⱼ − lse)       dsⱼ = scale · pⱼ (dout·vⱼ − δ)
//! dx = Σⱼ dsⱼ kⱼ             dkⱼ = Σₓ dsⱼ x           dvⱼ = Σₓ pⱼ dout
//! ```
//!
//! Each sum over keys or queries is one chain in ascending order, whichever task computes which part, and a query row's chain
//! does not depend on the rows computed with it: so results are equal for any number of threads and on every instruction set,
//! and a token decoded against cached keys equals the same row of a whole sequence, bit for bit.
//!
//! In [`Precision::Bf16`] the operands of all products are rounded to bf16, to nearest even: q, k, v, dout, and of p and ds
//! what goes into the sums of the outer lines; l adds p as it was. All else is in f32. The chains run over pairs as those of
//! the matrix product do (`gemm/form.rs`): of x·k and dout·v along the row, of the others along keys or queries from an even
//! one on. A masked p or ds is a 0 where the other of its pair is not masked: so a NaN spreads to one query before it.

/// Defines `fn name(simd: Simd, form: Form, args…)` that runs a body, generic over a vector and a
/// [`Layout`](crate::cpu::gemm::form::Layout), with those of the level and the form; else as [`simd_fn!`](crate::simd_fn).
macro_rules! form_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        $vis fn $name(simd: $crate::cpu::Simd, form: $crate::cpu::gemm::form::Form, $($arg: $ty),*) {
            use $crate::cpu::{Simd, Vector, gemm::form, simd as level};
            #[inline(always)]
            fn single_body<V: Vector>($($arg: $ty),*) {
                $body::<V, form::Single>($($arg),*);
            }
            #[inline(always)]
            fn rounded_body<V: Vector>($($arg: $ty),*) {
                $body::<V, form::Rounded>($($arg),*);
            }
            #[inline(always)]
            fn pairs_body<V: Vector>($($arg: $ty),*) {
                $body::<V, form::Pairs<form::Plain>>($($arg),*);
            }
            $crate::simd_fn! { fn single($($arg: $ty),*) = single_body }
            // The form of each level without instructions of its own: see `Form::of`.
            $crate::simd_fn! { fn bf16($($arg: $ty),*) = rounded_body, scalar pairs_body }
            #[cfg(target_arch = "x86_64")]
            form::native::avx512bf16! {
                fn native($($arg: $ty),*) {
                    $body::<level::F32x16, form::Pairs<form::native::Native>>($($arg),*);
                }
            }
            match (form, simd) {
                (form::Form::Single, _) => single(simd, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: such a level exists only where its instructions do.
                (_, Simd::Avx512(bf16)) if bf16.present() => unsafe { native($($arg),*) },
                _ => bf16(simd, $($arg),*),
            }
        }
    };
}

mod backward;
mod forward;
mod pack;
mod product;
mod view;

use super::Cpu;
use super::gemm::Precision;
use super::gemm::form::Form;
use view::Rows;
pub use view::{Layout, View, ViewMut};

/// Keys in a block: part of the numeric contract, since the running maximum moves once a block.
const KEYS: usize = 64;

/// What attention computes beside its operands.
///
/// Queries (B, Tq, H, D) attend to keys and values (B, Tk, Hkv, D); H is a multiple of Hkv, and each group of H / Hkv query
/// heads in order shares one head of keys (grouped queries). Outputs are (B, Tq, H, D).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Whether query i sees only keys 0 to i + Tk − Tq, the last query all keys; needs Tq ≤ Tk.
    pub causal: bool,
    /// The factor of the scores, above 0.
    pub scale: f32,
    /// What the operands of products are rounded to.
    pub precision: Precision,
}

impl Attention {
    /// Causal attention for heads of `dim` numbers, with the usual scale 1/√dim, in f32.
    pub fn causal(dim: usize) -> Attention {
        Attention { causal: true, ..Attention::full(dim) }
    }

    /// Attention to all keys, with the usual scale 1/√dim, in f32.
    pub fn full(dim: usize) -> Attention {
        Attention { causal: false, scale: 1.0 / (dim as f32).sqrt(), precision: Precision::F32 }
    }

    /// out = softmax(scale · q kᵀ) v, and lse (B, H, Tq), the logarithm of each query's sum of exponentials, which
    /// [`backward`](Attention::backward) needs.
    ///
    /// # Panics
    /// The shapes do not fit, or there are no queries or no keys.
    pub fn forward(&self, cpu: &Cpu, q: View, k: View, v: View, out: ViewMut, lse: &mut [f32]) {
        let problem = Problem::new(cpu, self, q, k, v);
        assert_eq!(out.shape(), q.shape(), "attention: out");
        assert_eq!(lse.len(), problem.batch * problem.heads * problem.queries, "attention: lse");
        forward::forward(cpu, &problem, None, &out, lse);
        cpu.count_flops(4 * problem.pairs() * problem.dim as u64);
    }

    /// out = softmax(scale · q Kᵀ) V where K and V are the keys and values in `cache` and then k and v, which are added to it:
    /// the rows of [`forward`](Attention::forward) over all keys that belong to the last queries, bit for bit. Repacks
    /// nothing that is in the cache.
    ///
    /// # Panics
    /// The shapes do not fit, there is nothing new, the cache has no room for it, or the precision is not f32.
    pub fn forward_cached(&self, cpu: &Cpu, [q, k, v]: [View; 3], cache: Cache, out: ViewMut) {
        let mut problem = Problem::new(cpu, self, q, k, v);
        assert_eq!(self.precision, Precision::F32, "attention: a cache holds f32");
        problem.keys += cache.past;
        let (shape, keys) = ([problem.batch, problem.kv_heads, problem.dim], problem.keys);
        assert!(keys <= cache.room, "attention: {keys} keys in a cache for {}", cache.room);
        assert_eq!(cache.data.len(), Cache::len(shape, cache.room), "attention: a cache for {} keys", cache.room);
        assert_eq!(out.shape(), q.shape(), "attention: out");
        let mut lse = cpu.scratch.take(problem.batch * problem.heads * problem.queries);
        cpu.count_flops(4 * problem.pairs() * problem.dim as u64);
        forward::forward(cpu, &problem, Some(cache), &out, &mut lse);
    }

    /// The gradients `grads` of q, k and v from `dout`, that of out; `lse` and `out` are those of
    /// [`forward`](Attention::forward). With `accumulate` they are added to what the gradients hold.
    ///
    /// # Panics
    /// The shapes do not fit, or there are no queries or no keys.
    pub fn backward(
        &self,
        cpu: &Cpu,
        [q, k, v]: [View; 3],
        out: View,
        dout: View,
        lse: &[f32],
        grads: [ViewMut; 3],
        accumulate: bool,
    ) {
        let problem = Problem::new(cpu, self, q, k, v);
        assert!(out.shape() == q.shape() && dout.shape() == q.shape(), "attention: out and dout");
        assert_eq!(lse.len(), problem.batch * problem.heads * problem.queries, "attention: lse");
        assert_eq!(grads.each_ref().map(ViewMut::shape), [q, k, v].map(|x| x.shape()), "attention: gradients");
        backward::backward(cpu, &problem, out, dout, lse, grads, accumulate);
        cpu.count_flops(10 * problem.pairs() * problem.dim as u64);
    }
}

/// Keys and values of earlier tokens, as the kernel reads them: for each of the B · Hkv heads, blocks of 64 keys, transposed
/// (D, 64), each followed by its values (64, D rounded up to 16).
pub struct Cache<'a> {
    /// [`Cache::len`] floats. What lies beyond the `past` keys does not matter.
    pub data: &'a mut [f32],
    /// How many keys it was made for.
    pub room: usize,
    /// How many are in it.
    pub past: usize,
}

impl Cache<'_> {
    /// The floats of a cache for `room` keys, given B, Hkv and D.
    pub fn len([batch, kv_heads, dim]: [usize; 3], room: usize) -> usize {
        batch * kv_heads * room.div_ceil(KEYS) * KEYS * (dim + padded(dim))
    }
}

/// `dim` rounded up to whole registers of every level.
fn padded(dim: usize) -> usize {
    dim.next_multiple_of(16)
}

/// The operands, their sizes, and who sees whom.
struct Problem<'a> {
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    /// The length of packed rows: [`padded`]`(dim)`.
    width: usize,
    causal: bool,
    scale: f32,
    /// What the products multiply.
    form: Form,
}

impl<'a> Problem<'a> {
    fn new(cpu: &Cpu, attention: &Attention, q: View<'a>, k: View<'a>, v: View<'a>) -> Problem<'a> {
        let [batch, queries, heads, dim] = q.shape();
        let [_, keys, kv_heads, _] = k.shape();
        assert!(k.shape() == [batch, keys, kv_heads, dim] && v.shape() == k.shape(), "attention: keys and values");
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "attention: {heads} heads on {kv_heads} heads of keys");
        assert!(queries > 0 && keys > 0 && dim > 0, "attention: {queries} queries on {keys} keys of {dim} numbers");
        let Attention { causal, scale, precision } = *attention;
        assert!(!causal || queries <= keys, "attention: {queries} queries on {keys} keys");
        assert!(scale > 0.0, "attention: scale {scale}");
        let (width, form) = (padded(dim), Form::of(cpu.simd, precision));
        Problem { q, k, v, batch, heads, kv_heads, queries, keys, dim, width, causal, scale, form }
    }

    /// The length of a packed column: `dim` and what fills it up.
    fn depth(&self) -> usize {
        self.dim.next_multiple_of(self.form.group())
    }

    /// The length of a row packed as a left operand.
    fn left_width(&self) -> usize {
        self.width / self.form.span()
    }

    /// Query heads that share one head of keys.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Floats of a packed block of keys and values.
    fn block_len(&self) -> usize {
        KEYS * (self.depth() + self.width)
    }

    fn key_blocks(&self) -> usize {
        self.keys.div_ceil(KEYS)
    }

    /// How far query i sees into the keys from j on: key j + c if c ≤ this, for c below [`KEYS`].
    fn sight(&self, i: usize, j: usize) -> isize {
        if self.causal { (i + self.keys - self.queries) as isize - j as isize } else { KEYS as isize }
    }

    /// Pairs of a query and a key that it sees, over all heads.
    fn pairs(&self) -> u64 {
        let (q, k) = (self.queries as u64, self.keys as u64);
        let pairs = if self.causal { q * (k - q) + q * (q + 1) / 2 } else { q * k };
        pairs * (self.batch * self.heads) as u64
    }

    /// Whether the B · Hkv heads of keys keep all threads busy, each on one thread, where its data stay in one core's cache;
    /// else heads are shared out inside.
    fn is_wide(&self, cpu: &Cpu) -> bool {
        let threads = cpu.threads.count();
        threads == 1 || self.batch * self.kv_heads >= 2 * threads
    }

    /// Calls `task` with ranges of the B · Hkv heads of keys: one at a time in parallel where they are many, else all at once.
    /// `task` takes scratch for `panels` floats a head, and in its iterations for `inner` floats.
    fn each_head(&self, cpu: &Cpu, panels: usize, inner: usize, task: impl Fn(std::ops::Range<usize>) + Sync) {
        let (heads, threads) = (self.batch * self.kv_heads, cpu.threads.count());
        if self.is_wide(cpu) {
            cpu.scratch.reserve([(threads.min(heads), panels), (threads.min(heads), inner)]);
            cpu.threads.run(heads, &|head| task(head..head + 1));
        } else {
            cpu.scratch.reserve([(1, heads * panels), (threads, inner)]);
            task(0..heads);
        }
    }
}

/// `part(sight)` where causality cuts a block, else all of it.
fn cut(sight: isize, part: fn(isize) -> product::Part) -> product::Part {
    if sight >= KEYS as isize - 1 { product::Part::All } else { part(sight) }
}
