//! Sums and other folds in an order that no register is wide enough to change.

use super::Vector;

/// Sixty-four running lanes, lane i taking elements i, i + 64, …: the order of every reduction that is not a product's
/// inner sum. On 16 lanes it is 4 registers, on 8 it is 8, and the results are the same bits.
#[derive(Clone, Copy)]
pub struct Lanes<V>([V; 8]);

impl<V: Vector> Lanes<V> {
    /// Registers in use.
    const N: usize = 64 / V::W;

    /// All lanes at `x`.
    #[inline(always)]
    pub fn splat(x: f32) -> Self {
        Lanes([V::splat(x); 8])
    }

    /// The lanes of 64 elements folded by halves as far as one register; `at(i)` gives the four registers of elements from i on.
    #[inline(always)]
    pub fn register(mut at: impl FnMut(usize) -> [V; 4], f: impl Fn(V, V) -> V) -> V {
        let mut lanes = at(0);
        for r in (4..Self::N).step_by(4) {
            let more = at(r * V::W);
            lanes = [f(lanes[0], more[0]), f(lanes[1], more[1]), f(lanes[2], more[2]), f(lanes[3], more[3])];
        }
        f(f(lanes[0], lanes[2]), f(lanes[1], lanes[3]))
    }

    /// What `W` registers become when folded on by halves, each to one number: lane i is that of register i. `rows` is used
    /// up.
    #[inline(always)]
    pub fn rows(rows: &mut [V; 16], f: impl Fn(V, V) -> V) -> V {
        V::transpose(rows);
        let mut n = V::W;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                rows[i] = f(rows[i], rows[i + n]);
            }
        }
        rows[0]
    }

    /// Folds `len` elements into their lanes: `lane = f(lane, at(i, w))`, where `at` gives the register of elements
    /// `i..i + w`; the last one may be partial (`w < W`), padded with a value that `f` ignores.
    #[inline(always)]
    pub fn run(&mut self, len: usize, mut at: impl FnMut(usize, usize) -> V, f: impl Fn(V, V) -> V) {
        let mut i = 0;
        while i + 64 <= len {
            for r in 0..Self::N {
                self.0[r] = f(self.0[r], at(i + r * V::W, V::W));
            }
            i += 64;
        }
        for r in 0..Self::N {
            let left = len.saturating_sub(i + r * V::W);
            if left >= V::W {
                self.0[r] = f(self.0[r], at(i + r * V::W, V::W));
            } else if left > 0 {
                self.0[r] = f(self.0[r], at(i + r * V::W, left));
            }
        }
    }

    /// Adds `x`, which is made of the elements from `i` on, a multiple of `W`, to their lanes, and 0 where there are none: for
    /// several sums in one pass of [`each`](super::each).
    #[inline(always)]
    pub fn add(&mut self, i: usize, x: V) {
        let r = i / V::W % Self::N;
        self.0[r] = self.0[r] + x;
    }

    /// Folds the 64 lanes by halves: 64 to 32, 16, 8, 4, 2, 1; `f` must work lane by lane.
    #[inline(always)]
    pub fn fold(mut self, f: impl Fn(V, V) -> V, scalar: impl Fn(f32, f32) -> f32) -> f32 {
        let mut n = Self::N;
        while n > 1 {
            n /= 2;
            for r in 0..n {
                self.0[r] = f(self.0[r], self.0[r + n]);
            }
        }
        let mut lanes = self.0[0].to_array();
        let mut w = V::W;
        while w > 1 {
            w /= 2;
            for i in 0..w {
                lanes[i] = scalar(lanes[i], lanes[i + w]);
            }
        }
        lanes[0]
    }

    /// The sum of all lanes.
    #[inline(always)]
    pub fn sum(self) -> f32 {
        self.fold(
            #[inline(always)]
            |a, b| a + b,
            #[inline(always)]
            |a, b| a + b,
        )
    }

    /// The largest lane.
    #[inline(always)]
    pub fn max(self) -> f32 {
        self.fold(
            #[inline(always)]
            |a, b| a.max(b),
            #[inline(always)]
            |a, b| if a > b { a } else { b },
        )
    }
}
