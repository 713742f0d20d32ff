//! Loops over flat slices, in parallel where they are long.

use super::simd::each;
use super::{Cpu, Vector, chunks};
use crate::simd_fn;

/// Elements a task: long enough that waking a thread is worth it, short enough to balance.
pub const CHUNK: usize = 16_384;

simd_fn! {
    /// `y = beta y + x` on one thread, with `beta` 0 (overwrite) or 1 (add).
    pub fn add_chunk(beta: f32, y: &mut [f32], x: &[f32]) = add_chunk_body
}

#[inline(always)]
fn add_chunk_body<V: Vector>(beta: f32, y: &mut [f32], x: &[f32]) {
    if beta == 0.0 {
        y.copy_from_slice(x);
    } else {
        map2::<V>(
            y,
            x,
            #[inline(always)]
            |y, x| y + x,
        );
    }
}

/// `y[i] = f(y[i], x[i])`, register by register.
#[inline(always)]
pub fn map2<V: Vector>(y: &mut [f32], x: &[f32], f: impl Fn(V, V) -> V) {
    assert_eq!(y.len(), x.len());
    each::<V>(
        y.len(),
        #[inline(always)]
        |i, w| f(V::at(&y[i..], w), V::at(&x[i..], w)).put(&mut y[i..], w),
    );
}

/// `y[i] = f(a[i], b[i])`, register by register.
#[inline(always)]
pub fn map2_into<V: Vector>(y: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(V, V) -> V) {
    assert!(y.len() == a.len() && y.len() == b.len());
    each::<V>(
        y.len(),
        #[inline(always)]
        |i, w| f(V::at(&a[i..], w), V::at(&b[i..], w)).put(&mut y[i..], w),
    );
}

/// `y = beta y + x` with `beta` 0 (overwrite) or 1 (add).
pub fn add_to(cpu: &Cpu, beta: f32, y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len());
    cpu.threads.each(chunks(y, CHUNK), |i, y| add_chunk(cpu.simd, beta, y, &x[i * CHUNK..][..y.len()]));
}

/// `table[ids[i]] += rows[i]` for rows of `c` channels, repeated ids in the order of i whatever the threads: each task
/// owns a band of channels.
pub fn scatter_add(cpu: &Cpu, table: &mut [f32], ids: &[i32], rows: &[f32], c: usize) {
    const BAND: usize = 64;
    assert_eq!(rows.len(), ids.len() * c);
    assert!(ids.iter().all(|&id| (id as usize) < table.len() / c), "an id beyond the table of {}", table.len() / c);
    let table = super::Tiles::new(table);
    cpu.threads.run(c.div_ceil(BAND), &|band| {
        let (first, n) = (band * BAND, BAND.min(c - band * BAND));
        for (&id, row) in ids.iter().zip(rows.chunks_exact(c)) {
            // SAFETY: the id is inside the table, and only this task touches these channels.
            let y = unsafe { std::slice::from_raw_parts_mut(table.ptr(id as usize * c + first), n) };
            add_chunk(cpu.simd, 1.0, y, &row[first..first + n]);
        }
    });
}

simd_fn! {
    /// `y = beta y + scale x` on one thread, with `beta` 0 (overwrite) or 1 (add).
    pub fn add_scaled_chunk(beta: f32, y: &mut [f32], scale: f32, x: &[f32]) = add_scaled_body
}
#[inline(always)]
fn add_scaled_body<V: Vector>(beta: f32, y: &mut [f32], scale: f32, x: &[f32]) {
    let s = V::splat(scale);
    if beta == 0.0 {
        map2::<V>(
            y,
            x,
            #[inline(always)]
            |_, x| x * s,
        );
    } else {
        map2::<V>(
            y,
            x,
            #[inline(always)]
            |y, x| x.fma(s, y),
        );
    }
}

/// `y = beta y + scale x` with `beta` 0 (overwrite) or 1 (add).
pub fn add_scaled(cpu: &Cpu, beta: f32, y: &mut [f32], scale: f32, x: &[f32]) {
    assert_eq!(y.len(), x.len());
    cpu.threads.each(chunks(y, CHUNK), |i, y| {
        add_scaled_chunk(cpu.simd, beta, y, scale, &x[i * CHUNK..][..y.len()]);
    });
}
/// `y = beta y + f(i, w)`, register by register, with `beta` 0 (overwrite) or 1 (add): how a gradient is written.
#[inline(always)]
pub fn accumulate<V: Vector>(beta: f32, y: &mut [f32], mut f: impl FnMut(usize, usize) -> V) {
    if beta == 0.0 {
        each::<V>(
            y.len(),
            #[inline(always)]
            |i, w| f(i, w).put(&mut y[i..], w),
        );
    } else {
        each::<V>(
            y.len(),
            #[inline(always)]
            |i, w| (V::at(&y[i..], w) + f(i, w)).put(&mut y[i..], w),
        );
    }
}
