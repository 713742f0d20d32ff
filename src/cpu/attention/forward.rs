//! The forward pass: each task takes some query rows of one head through all the blocks of keys that they see.

use super::product::{Part, Product, Start};
use super::{Cache, KEYS, Problem, ViewMut, cut, pack};
use crate::cpu::gemm::form::{Form, Layout};
use crate::cpu::{Cpu, Lanes, Tiles, Vector, math};
use std::ops::Range;

/// Query rows of a task.
const QUERIES: usize = 96;
/// Query rows that meet a block of keys together: few enough that their scores stay in the first cache.
const CHUNK: usize = 24;

/// `cache` holds the keys and values before those of the problem, and gets these; without one there are none before.
pub fn forward(cpu: &Cpu, problem: &Problem, cache: Option<Cache>, out: &ViewMut, lse: &mut [f32]) {
    let past = cache.as_ref().map_or(0, |cache| cache.past);
    let cache = cache.map(|cache| (Tiles::new(cache.data), cache.room.div_ceil(KEYS)));
    let forward = Forward { cpu, problem, past, cache, out, lse: Tiles::new(lse) };
    let panels = if forward.cache.is_some() { 0 } else { problem.key_blocks() * problem.block_len() };
    problem.each_head(cpu, panels, forward.inner(), |heads| forward.heads(heads));
}

struct Forward<'a> {
    cpu: &'a Cpu,
    problem: &'a Problem<'a>,
    /// Keys that are packed already.
    past: usize,
    /// The panels of all heads of keys, and how many blocks each has room for.
    cache: Option<(Tiles<'a>, usize)>,
    out: &'a ViewMut<'a>,
    lse: Tiles<'a>,
}

impl Forward<'_> {
    /// Floats of a task's scores, sums and, in bf16, queries.
    fn inner(&self) -> usize {
        let p = self.problem;
        CHUNK * KEYS + QUERIES * p.width + if p.form == Form::Single { 0 } else { QUERIES * p.left_width() }
    }

    /// The outputs of all queries on a range of heads of keys, of the B · Hkv there are.
    fn heads(&self, heads: Range<usize>) {
        let size = self.problem.block_len();
        match self.cache {
            Some((panels, room)) => self.over(heads.clone(), panels, heads.start * room * size, room * size),
            None => {
                let blocks = self.problem.key_blocks();
                let mut panels = self.cpu.scratch.take(heads.len() * blocks * size);
                self.over(heads, Tiles::new(&mut panels), 0, blocks * size);
            }
        }
    }

    /// The same, given the panels of these heads: from element `base` on, `pitch` floats a head.
    fn over(&self, heads: Range<usize>, panels: Tiles, base: usize, pitch: usize) {
        let (p, size) = (self.problem, self.problem.block_len());
        let first = self.past / KEYS;
        let blocks = p.key_blocks() - first;
        self.cpu.threads.run(heads.len() * blocks, &|task| {
            let (head, block) = (heads.start + task / blocks, first + task % blocks);
            let (b, h) = (head / p.kv_heads, head % p.kv_heads);
            // What is new in this block, its first key at column `c`.
            let start = self.past.max(block * KEYS);
            let (n, c) = (p.keys.min((block + 1) * KEYS) - start, start % KEYS);
            let columns = if c == 0 { KEYS } else { n };
            // SAFETY: the block is this task's, (dim, 64) for the keys and (64, width) for the values.
            unsafe {
                let keys = panels.ptr(base + task / blocks * pitch + block * size);
                let values = keys.add(KEYS * p.depth() + c * p.width);
                pack::transpose(self.cpu.simd, p.form, p.k.rows(b, start - self.past, h, n), keys.add(c), columns);
                pack::copy(self.cpu.simd, p.form, p.v.rows(b, start - self.past, h, n), values, p.width);
            }
        });
        let (parts, group) = (p.queries.div_ceil(QUERIES), p.group());
        self.cpu.threads.run(heads.len() * group * parts, &|task| {
            // The last queries see the most keys: the longest tasks first.
            let (head, i) = (task % (heads.len() * group), (parts - 1 - task / (heads.len() * group)) * QUERIES);
            self.queries(heads.start * group + head, i, panels.ptr(base + head / group * pitch));
        });
    }

    /// The outputs of queries from i on of one of the B · H heads, its keys and values packed in `panels`.
    fn queries(&self, head: usize, i: usize, panels: *const f32) {
        let (p, simd) = (self.problem, self.cpu.simd);
        let (b, h, n) = (head / p.heads, head % p.heads, QUERIES.min(p.queries - i));
        let mut scratch = self.cpu.scratch.take(self.inner());
        let (scores, sums) = scratch.split_at_mut(CHUNK * KEYS);
        let (sums, left) = sums.split_at_mut(QUERIES * p.width);
        let (scores, sums) = (scores.as_mut_ptr(), sums.as_mut_ptr());
        let mut softmax = [Softmax { max: [f32::NEG_INFINITY; 32], sum: [0.0; 32], alpha: [0.0; 32] }; QUERIES / CHUNK];
        let q = p.q.rows(b, i, h, n);
        pack::ask_all(simd, q.part(0, CHUNK.min(n)));
        let (a, a_row) = if p.form == Form::Single {
            (q.ptr, q.stride)
        } else {
            // SAFETY: q has n rows of dim numbers, and n ≤ QUERIES packed ones fit.
            unsafe { pack::left(simd, p.form, q, left.as_mut_ptr(), p.width) };
            (left.as_ptr(), p.left_width())
        };
        for j in (0..p.keys).step_by(KEYS) {
            // SAFETY: the panels of block j, packed.
            let keys = unsafe { panels.add(j / KEYS * p.block_len()) };
            for (c, softmax) in (0..n).step_by(CHUNK).zip(&mut softmax) {
                let (rows, sight) = (CHUNK.min(n - c), p.sight(i + c, j));
                if sight + (rows as isize) < 1 {
                    continue;
                }
                if j == 0 {
                    let next = c + rows;
                    pack::ask_all(simd, q.part(next, CHUNK.min(n - next)));
                }
                let block = Block { scores, rows, keys: KEYS.min(p.keys - j), sight, scale: p.scale };
                // SAFETY: a has n ≥ c + rows rows of dim numbers, scores CHUNK rows of KEYS, sums QUERIES rows of width, and the
                // panels (dim, KEYS) and (KEYS, width); scores and sums are this task's.
                unsafe {
                    let scores = Product {
                        form: p.form,
                        a: a.add(c * a_row),
                        a_row,
                        a_step: 1,
                        b: keys,
                        b_step: KEYS,
                        c: scores,
                        c_row: KEYS,
                        rows,
                        cols: KEYS,
                        steps: p.dim,
                        start: Start::Zero,
                        part: cut(sight, Part::Columns),
                    };
                    scores.multiply(simd);
                    softmax_block(simd, p.form, &block, softmax);
                    let values = Product {
                        form: p.form,
                        a: block.scores,
                        a_row: KEYS,
                        a_step: 1,
                        b: keys.add(KEYS * p.depth()),
                        b_step: p.width,
                        c: sums.add(c * p.width),
                        c_row: p.width,
                        rows,
                        cols: p.width,
                        steps: block.keys,
                        start: if j == 0 { Start::Zero } else { Start::Scaled(softmax.alpha.as_ptr()) },
                        part: cut(sight, Part::Until),
                    };
                    values.multiply(simd);
                }
            }
        }
        for (c, softmax) in (0..n).step_by(CHUNK).zip(&softmax) {
            let rows = CHUNK.min(n - c);
            let out = self.out.rows(b, i + c, h, rows);
            // SAFETY: these rows of out and lse belong to this task.
            unsafe {
                let lse = std::slice::from_raw_parts_mut(self.lse.ptr(head * p.queries + i + c), rows);
                finish(simd, softmax, sums.add(c * p.width), p.width, out, lse);
            }
        }
    }
}

/// The state of the streaming softmax of a chunk of query rows.
#[derive(Clone, Copy)]
struct Softmax {
    /// The largest scaled score so far.
    max: [f32; 32],
    /// Σ exp(score − max).
    sum: [f32; 32],
    /// exp(max before the newest block − max).
    alpha: [f32; 32],
}

/// The raw scores (rows, 64) of a chunk on a block of keys.
struct Block {
    scores: *mut f32,
    rows: usize,
    keys: usize,
    sight: isize,
    scale: f32,
}

impl Block {
    /// The keys that row r sees.
    #[inline(always)]
    fn seen(&self, r: usize) -> usize {
        self.keys.min((self.sight + r as isize + 1).max(0) as usize)
    }
}

form_fn! {
    /// Turns scores into exp(score − max), as the left operand of the next product, and brings the state up to date. Those of
    /// masked keys are undefined in f32.
    fn softmax_block(x: &Block, state: &mut Softmax) = softmax_body
}

#[inline(always)]
fn softmax_body<V: Vector, L: Layout<V>>(x: &Block, state: &mut Softmax) {
    let scale = V::splat(x.scale);
    // As many rows together as a register has lanes.
    for first in (0..x.rows).step_by(V::W) {
        let rows = first..x.rows.min(first + V::W);
        let mut folded = [V::splat(f32::NEG_INFINITY); 16];
        for r in rows.clone() {
            // SAFETY: row r of the scores is `KEYS` long.
            folded[r - first] = unsafe { largest(x.scores.add(r * KEYS), x.seen(r)) };
        }
        let largest = Lanes::rows(
            &mut folded,
            #[inline(always)]
            |a, b| a.max(b),
        );
        let before = V::load(&state.max[first..]);
        let max = before.max(largest * scale);
        let alpha = math::exp(before - max);
        max.store(&mut state.max[first..]);
        alpha.store(&mut state.alpha[first..]);
        let mut folded = [V::splat(0.0); 16];
        for r in rows {
            let less = V::splat(-state.max[r]);
            // SAFETY: as above.
            folded[r - first] = unsafe { exponentials::<V, L>(x.scores.add(r * KEYS), x.seen(r), scale, less) };
        }
        let sum = Lanes::rows(
            &mut folded,
            #[inline(always)]
            |a, b| a + b,
        );
        V::load(&state.sum[first..]).fma(alpha, sum).store(&mut state.sum[first..]);
    }
}

/// The largest of the first `seen` of `KEYS` scores, folded to a register.
#[inline(always)]
unsafe fn largest<V: Vector>(scores: *const f32, seen: usize) -> V {
    Lanes::register(
        #[inline(always)]
        |c| {
            // SAFETY: the caller promises `KEYS` readable numbers.
            let x = unsafe { load(scores.add(c)) };
            if seen == KEYS { x } else { start(x, seen.saturating_sub(c), V::splat(f32::NEG_INFINITY)) }
        },
        #[inline(always)]
        |a, b| a.max(b),
    )
}

/// Makes the first `seen` of `KEYS` scores exp(score · scale + less), those beyond something or, in the pair of one that is
/// seen, 0; and gives the sum, folded to a register.
#[inline(always)]
unsafe fn exponentials<V: Vector, L: Layout<V>>(scores: *mut f32, seen: usize, scale: V, less: V) -> V {
    Lanes::register(
        #[inline(always)]
        |c| {
            if c >= seen {
                return [V::splat(0.0); 4];
            }
            // SAFETY: the caller promises `KEYS` numbers to read and to write.
            unsafe {
                let mut x = load::<V>(scores.add(c));
                for x in &mut x {
                    *x = x.fma(scale, less);
                }
                let p = math::exp_each(x);
                let visible = if seen == KEYS { p } else { start(p, seen - c, V::splat(0.0)) };
                for (i, p) in (if L::GROUP == 1 { p } else { visible }).iter().enumerate() {
                    p.store_ptr(scores.add(c + i * V::W));
                }
                if L::GROUP == 2 {
                    // Two registers become one, farther in front, where L has pairs.
                    for i in (0..4 * V::W).step_by(L::SPAN * V::W) {
                        let rounded = L::along(std::slice::from_raw_parts(scores.add(c + i), L::SPAN * V::W));
                        rounded.store_ptr(scores.add((c + i) / L::SPAN));
                    }
                }
                visible
            }
        },
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Four registers of numbers at `x`.
#[inline(always)]
unsafe fn load<V: Vector>(x: *const f32) -> [V; 4] {
    // SAFETY: as the caller promises.
    unsafe { [V::load_ptr(x), V::load_ptr(x.add(V::W)), V::load_ptr(x.add(2 * V::W)), V::load_ptr(x.add(3 * V::W))] }
}

/// The first `n` numbers of four registers, or all; `rest` instead of the others.
#[inline(always)]
fn start<V: Vector>(mut x: [V; 4], n: usize, rest: V) -> [V; 4] {
    const LANE: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
    for (i, x) in x.iter_mut().enumerate() {
        let n = V::splat((n as i32 - (i * V::W) as i32) as f32);
        *x = x.select(n.gt(V::load(&LANE)), rest);
    }
    x
}

crate::simd_fn! {
    /// out = sums / sum and lse = max + log(sum).
    fn finish(state: &Softmax, sums: *const f32, width: usize, out: super::Rows<*mut f32>, lse: &mut [f32]) = finish_body
}

#[inline(always)]
fn finish_body<V: Vector>(
    state: &Softmax,
    sums: *const f32,
    width: usize,
    out: super::Rows<*mut f32>,
    lse: &mut [f32],
) {
    for (r, lse) in lse.chunks_mut(V::W).enumerate() {
        let r = r * V::W;
        let x = V::load(&state.max[r..]) + math::log(V::load(&state.sum[r..]));
        x.store_partial(lse);
    }
    for r in 0..out.n {
        pack::ask::<V>(out.read(), r + pack::AHEAD);
        let by = V::splat(1.0) / V::splat(state.sum[r]);
        for d in (0..out.dim).step_by(V::W) {
            // SAFETY: sums (n, width) are readable and the rows of out this task's to write.
            unsafe { pack::store(V::load_ptr(sums.add(r * width + d)) * by, out.ptr.add(r * out.stride), out.dim, d) };
        }
    }
}
