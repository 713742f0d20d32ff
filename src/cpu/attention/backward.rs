//! The backward pass: cells of 64 queries by 64 keys, five products each.
//!
//! A cell adds to the gradients of its queries and of its keys. dq takes its cells by ascending keys, dk and dv by ascending
//! queries, so a cell can run once its neighbours before it in both directions are done: within one head in plain order, and
//! where heads are too few for the threads, along the diagonals of the grid, whose cells share nothing. Recomputing the
//! probabilities for dq and for dk, dv apart would cost seven products.

use super::product::{self, Part, Product, Start};
use super::{KEYS, Problem, Rows, View, ViewMut, cut, pack};
use crate::cpu::gemm::form::{Form, Layout};
use crate::cpu::{Cpu, Tiles, Vector, math};
use std::ops::Range;

/// Queries of a cell.
const QUERIES: usize = 64;

pub fn backward(
    cpu: &Cpu,
    problem: &Problem,
    out: View,
    dout: View,
    lse: &[f32],
    grads: [ViewMut; 3],
    accumulate: bool,
) {
    let backward = Backward { cpu, problem, out, dout, lse, grads, accumulate };
    problem.each_head(cpu, backward.size(), 2 * QUERIES * KEYS, |heads| backward.heads(heads));
}

struct Backward<'a> {
    cpu: &'a Cpu,
    problem: &'a Problem<'a>,
    out: View<'a>,
    dout: View<'a>,
    lse: &'a [f32],
    grads: [ViewMut<'a>; 3],
    accumulate: bool,
}

/// What one head of keys, with one of its query heads at a time, needs in scratch: rows are padded to `width`. Pairs take
/// half of their place, but queries and dout are there twice: in each block of 64 rows first the pairs along a row, then
/// those of two rows.
#[derive(Clone, Copy)]
struct Panels {
    /// By blocks of 64 keys, (dim, 64) each, dim filled up.
    keys_t: *mut f32,
    values_t: *mut f32,
    /// (Tk, width), Tk rounded up to blocks.
    keys: *mut f32,
    dk: *mut f32,
    dv: *mut f32,
    /// (Tq, width).
    queries: *mut f32,
    dout: *mut f32,
    dq: *mut f32,
    /// Σ out ∘ dout (Tq).
    delta: *mut f32,
}

impl Backward<'_> {
    /// Floats of one head's panels.
    fn size(&self) -> usize {
        let p = self.problem;
        let (keys, queries) = (p.key_blocks() * KEYS, p.queries.next_multiple_of(QUERIES));
        keys * (2 * p.depth() + 3 * p.width) + queries * (3 * p.width + 1)
    }

    fn panels(&self, scratch: &Tiles, head: usize) -> Panels {
        let p = self.problem;
        let (keys, queries) = (p.key_blocks() * KEYS, p.queries.next_multiple_of(QUERIES));
        let mut at = head * self.size();
        let mut cut = |len| {
            at += len;
            scratch.ptr(at - len)
        };
        Panels {
            keys_t: cut(keys * p.depth()),
            values_t: cut(keys * p.depth()),
            keys: cut(keys * p.width),
            dk: cut(keys * p.width),
            dv: cut(keys * p.width),
            queries: cut(queries * p.width),
            dout: cut(queries * p.width),
            dq: cut(queries * p.width),
            delta: cut(queries),
        }
    }

    /// The gradients on a range of heads of keys, of the B · Hkv there are.
    fn heads(&self, heads: Range<usize>) {
        let (p, threads) = (self.problem, &self.cpu.threads);
        let (rows, cols) = (p.queries.div_ceil(QUERIES), p.key_blocks());
        let mut scratch = self.cpu.scratch.take(heads.len() * self.size());
        let scratch = Tiles::new(&mut scratch);
        // Calls `f(head, its panels, i)` for each head and each i below n, in parallel where this is not inside a loop.
        let each = |n: usize, f: &(dyn Fn(usize, &Panels, usize) + Sync)| {
            threads.run(heads.len() * n, &|task| f(heads.start + task / n, &self.panels(&scratch, task / n), task % n));
        };
        each(cols, &|head, panels, j| self.pack_keys(head, panels, j * KEYS));
        for member in 0..p.group() {
            each(rows, &|head, panels, i| self.pack_queries(head, member, panels, i * QUERIES));
            if p.is_wide(self.cpu) {
                let panels = self.panels(&scratch, 0);
                (0..cols).for_each(|j| (0..rows).for_each(|i| self.cell(heads.start, member, &panels, i, j)));
            } else {
                for diagonal in 0..rows + cols - 1 {
                    each(cols.min(diagonal + 1), &|head, panels, j| {
                        if diagonal - j < rows {
                            self.cell(head, member, panels, diagonal - j, j);
                        }
                    });
                }
            }
            each(rows, &|head, panels, i| self.write_queries(head, member, panels, i * QUERIES));
        }
        each(cols, &|head, panels, j| self.write_keys(head, panels, j * KEYS));
    }

    fn pack_keys(&self, head: usize, panels: &Panels, j: usize) {
        let (p, simd) = (self.problem, self.cpu.simd);
        let (b, h, n) = (head / p.kv_heads, head % p.kv_heads, KEYS.min(p.keys - j));
        // SAFETY: block j of these panels is this task's alone now.
        unsafe {
            pack::transpose(simd, p.form, p.k.rows(b, j, h, n), panels.keys_t.add(j * p.depth()), KEYS);
            pack::transpose(simd, p.form, p.v.rows(b, j, h, n), panels.values_t.add(j * p.depth()), KEYS);
            pack::copy(simd, p.form, p.k.rows(b, j, h, n), panels.keys.add(j * p.width), p.width);
        }
    }

    /// The batch and query head of a member of a head's group.
    fn query_head(&self, head: usize, member: usize) -> (usize, usize) {
        let p = self.problem;
        (head / p.kv_heads, head % p.kv_heads * p.group() + member)
    }

    fn pack_queries(&self, head: usize, member: usize, panels: &Panels, i: usize) {
        let (p, simd) = (self.problem, self.cpu.simd);
        let ((b, h), n) = (self.query_head(head, member), QUERIES.min(p.queries - i));
        let (q, dout) = (p.q.rows(b, i, h, n), self.dout.rows(b, i, h, n));
        // SAFETY: block i of these panels is this task's alone now.
        unsafe {
            self.pack_both(q, panels.queries.add(i * p.width));
            self.pack_both(dout, panels.dout.add(i * p.width));
            pack::dot(simd, dout, self.out.rows(b, i, h, n), panels.delta.add(i));
        }
    }

    /// Packs a block of rows as left and as right operand.
    ///
    /// # Safety
    /// The rows must be readable and `y` (64, width) writable.
    unsafe fn pack_both(&self, x: Rows<*const f32>, y: *mut f32) {
        let (p, simd) = (self.problem, self.cpu.simd);
        // SAFETY: as the caller promises.
        unsafe {
            if p.form == Form::Pairs {
                pack::left(simd, p.form, x, y, p.width);
            }
            pack::copy(simd, p.form, x, y.add(self.right()), p.width);
        }
    }

    /// Where in a block of queries or dout the right operand starts.
    fn right(&self) -> usize {
        if self.problem.form == Form::Pairs { QUERIES * self.problem.width / 2 } else { 0 }
    }

    fn write_queries(&self, head: usize, member: usize, panels: &Panels, i: usize) {
        let p = self.problem;
        let ((b, h), n) = (self.query_head(head, member), QUERIES.min(p.queries - i));
        // SAFETY: block i of dq is this task's alone, and its sums are complete.
        unsafe {
            let dq = panels.dq.add(i * p.width);
            pack::write(self.cpu.simd, dq, p.width, self.grads[0].rows(b, i, h, n), self.accumulate);
        }
    }

    fn write_keys(&self, head: usize, panels: &Panels, j: usize) {
        let (p, simd) = (self.problem, self.cpu.simd);
        let (b, h, n) = (head / p.kv_heads, head % p.kv_heads, KEYS.min(p.keys - j));
        // SAFETY: block j of dk and dv is this task's alone, and their sums are complete.
        unsafe {
            pack::write(simd, panels.dk.add(j * p.width), p.width, self.grads[1].rows(b, j, h, n), self.accumulate);
            pack::write(simd, panels.dv.add(j * p.width), p.width, self.grads[2].rows(b, j, h, n), self.accumulate);
        }
    }

    /// Block i of the queries on block j of the keys.
    fn cell(&self, head: usize, member: usize, panels: &Panels, i: usize, j: usize) {
        let (p, simd) = (self.problem, self.cpu.simd);
        let (i, j) = (i * QUERIES, j * KEYS);
        let (rows, keys) = (QUERIES.min(p.queries - i), KEYS.min(p.keys - j));
        let sight = p.sight(i, j);
        if sight + (rows as isize) < 1 {
            return;
        }
        let (b, h) = self.query_head(head, member);
        let mut scratch = self.cpu.scratch.take(2 * QUERIES * KEYS);
        let (scores, dscores) = scratch.split_at_mut(QUERIES * KEYS);
        let (scores, dscores) = (scores.as_mut_ptr(), dscores.as_mut_ptr());
        // The first cell that writes to the gradients of these keys is that of the first block of queries to see them.
        let first = member == 0 && (i == 0 || p.sight(i - 1, j) < 0);
        let start = |first| if first { Start::Zero } else { Start::Add };
        // SAFETY: all within the panels, which only this task writes to at blocks i and j now, and the scratch above.
        unsafe {
            let (queries, dout) = (panels.queries.add(i * p.width), panels.dout.add(i * p.width));
            let wide = Product {
                form: p.form,
                a: queries,
                a_row: p.left_width(),
                a_step: 1,
                b: panels.keys_t.add(j * p.depth()),
                b_step: KEYS,
                c: scores,
                c_row: KEYS,
                rows,
                cols: KEYS,
                steps: p.dim,
                start: Start::Zero,
                part: cut(sight, Part::Columns),
            };
            wide.multiply(simd);
            Product { a: dout, b: panels.values_t.add(j * p.depth()), c: dscores, ..wide }.multiply(simd);
            let block = Block {
                scores,
                dscores,
                rows,
                keys,
                lse: self.lse[(b * p.heads + h) * p.queries + i..].as_ptr(),
                delta: panels.delta.add(i),
                part: wide.part,
                scale: p.scale,
            };
            softmax_block(simd, p.form, &block);
            // Pairs of queries have taken the places of their scores, pairs of keys those of dout·v.
            let pairs = p.form == Form::Pairs;
            let (dscores_t, step) = if pairs { (scores.add(KEYS), 2 * KEYS) } else { (dscores, KEYS) };
            let by_keys = Product {
                form: p.form,
                a: scores,
                a_row: 1,
                a_step: step,
                b: dout.add(self.right()),
                b_step: p.width,
                c: panels.dv.add(j * p.width),
                c_row: p.width,
                rows: keys,
                cols: p.width,
                steps: rows,
                start: start(first),
                part: cut(sight, Part::From),
            };
            by_keys.multiply(simd);
            let (queries, dk) = (queries.add(self.right()), panels.dk.add(j * p.width));
            Product { a: dscores_t, b: queries, c: dk, ..by_keys }.multiply(simd);
            let by_queries = Product {
                form: p.form,
                a: dscores,
                a_row: KEYS,
                a_step: 1,
                b: panels.keys.add(j * p.width),
                b_step: p.width,
                c: panels.dq.add(i * p.width),
                c_row: p.width,
                rows,
                cols: p.width,
                steps: keys,
                start: start(j == 0),
                part: cut(sight, Part::Until),
            };
            by_queries.multiply(simd);
        }
    }
}

/// The raw scores and dout·v of a cell, (rows, 64) each.
struct Block {
    scores: *mut f32,
    dscores: *mut f32,
    rows: usize,
    keys: usize,
    lse: *const f32,
    delta: *const f32,
    part: Part,
    scale: f32,
}

form_fn! {
    /// Turns scores into probabilities p and dout·v into the gradients ds of x·k, as left operands. Masked elements become
    /// anything in f32, in bf16 0 where the other of a pair is not masked. In [`Form::Pairs`] the scores of queries 2i and
    /// 2i + 1 become the pairs of their p, then those of their ds, and each row of `dscores` begins with its pairs of ds.
    fn softmax_block(x: &Block) = softmax_body
}

#[inline(always)]
fn softmax_body<V: Vector, L: Layout<V>>(x: &Block) {
    if L::GROUP == 2 {
        return softmax_rounded::<V, L>(x);
    }
    let scale = V::splat(x.scale);
    for r in 0..x.rows {
        // SAFETY: the rows are `KEYS` long, and lse and delta hold a number for each.
        unsafe {
            let (scores, dscores) = (x.scores.add(r * KEYS), x.dscores.add(r * KEYS));
            let (less, delta) = (V::splat(-*x.lse.add(r)), V::splat(*x.delta.add(r)));
            for c in (0..product::columns(x.part, KEYS, r)).step_by(V::W) {
                let p = math::exp(V::load_ptr(scores.add(c)).fma(scale, less));
                p.store_ptr(scores.add(c));
                (p * scale * (V::load_ptr(dscores.add(c)) - delta)).store_ptr(dscores.add(c));
            }
        }
    }
}

#[inline(always)]
fn softmax_rounded<V: Vector, L: Layout<V>>(x: &Block) {
    const LANE: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
    let (scale, zero) = (V::splat(x.scale), V::splat(0.0));
    for r in (0..x.rows).step_by(2) {
        // SAFETY: rows r and r + 1 are `KEYS` long, whether there is a query r + 1 or not; lse and delta hold a number
        // for each query.
        unsafe {
            let (scores, dscores) = (x.scores.add(r * KEYS), x.dscores.add(r * KEYS));
            for c in (0..product::columns(x.part, KEYS, r + 1)).step_by(2 * V::W) {
                // Of two queries, two registers of keys.
                let (mut p, mut ds) = ([[zero; 2]; 2], [[zero; 2]; 2]);
                for q in 0..2.min(x.rows - r) {
                    let (less, delta) = (V::splat(-*x.lse.add(r + q)), V::splat(*x.delta.add(r + q)));
                    for h in 0..2 {
                        let at = c + h * V::W;
                        let seen = V::splat((x.seen(r + q) - at as isize) as f32).gt(V::load(&LANE));
                        let prob = math::exp(V::load_ptr(scores.add(q * KEYS + at)).fma(scale, less));
                        let dp = V::load_ptr(dscores.add(q * KEYS + at)) - delta;
                        p[q][h] = prob.select(seen, zero);
                        ds[q][h] = (prob * scale * dp).select(seen, zero);
                    }
                }
                for i in 0..2 {
                    if L::SPAN == 2 {
                        let at = scores.add(c + i * V::W);
                        join::<V, L>(p[0][i], p[1][i]).store_ptr(at);
                        join::<V, L>(ds[0][i], ds[1][i]).store_ptr(at.add(KEYS));
                        let mut row = [0.0; 32];
                        ds[i][0].store(&mut row);
                        ds[i][1].store(&mut row[V::W..]);
                        L::along(&row[..2 * V::W]).store_ptr(dscores.add(i * KEYS + c / 2));
                    } else {
                        for h in 0..2 {
                            let at = i * KEYS + c + h * V::W;
                            join::<V, L>(p[i][h], p[i][h]).store_ptr(scores.add(at));
                            join::<V, L>(ds[i][h], ds[i][h]).store_ptr(dscores.add(at));
                        }
                    }
                }
            }
        }
    }
}

/// Pairs of x and y, or one of them rounded.
#[inline(always)]
fn join<V: Vector, L: Layout<V>>(x: V, y: V) -> V {
    L::across(
        0,
        #[inline(always)]
        |k| if k == 0 { x } else { y },
    )
}

impl Block {
    /// The number of keys that query r sees, or less than 1.
    #[inline(always)]
    fn seen(&self, r: usize) -> isize {
        let keys = self.keys as isize;
        if let Part::Columns(n) = self.part { keys.min(r as isize + n + 1) } else { keys }
    }
}
