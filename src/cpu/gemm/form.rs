//! What panels hold, in each [`Precision`], and how it is multiplied.
//!
//! In bf16 the operands are rounded while they are packed: to the nearest value, ties to even; what is smaller than 2⁻¹²⁶
//! becomes 0, what exceeds the largest bf16 by half a place infinity, and NaN stays NaN. That is what AVX-512's
//! `vcvtneps2bf16` does, and what `vdpbf16ps` takes a denormal operand for.
//!
//! ```text
//! vdpbf16ps    sum += x[2i + 1] · y[2i + 1]     each a fused multiply-add, rounded to nearest even;
//!              sum += x[2i]     · y[2i]         a sum smaller than 2⁻¹²⁶ counts as 0
//! ```
//! Levels without it do the same on numbers widened to f32, and so add the second element of each pair first; only sums
//! below 2⁻¹²⁶ they keep. An odd depth ends with a pair whose second element is 0.
//!
//! Source: Intel, "Architecture instruction set extensions programming reference", VDPBF16PS and VCVTNE2PS2BF16.

use super::Precision;
use super::pack::Stored;
use crate::cpu::{Bits, Simd, Vector};
use std::marker::PhantomData;

/// What a panel holds: rows, each with one number or one pair of each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu) enum Form {
    /// Row k holds elements k.
    Single,
    /// As `Single`, rounded to bf16, and rows 2i and 2i + 1 exchanged.
    Rounded,
    /// Row i holds, in 32 bits a lane, elements 2i and 2i + 1 in bf16, the former in the lower half.
    Pairs,
}

impl Form {
    /// The form for a level: pairs where there are instructions for them, and in plain Rust, which so defines them.
    pub fn of(simd: Simd, precision: Precision) -> Form {
        match (precision, simd) {
            (Precision::F32, _) => Form::Single,
            (Precision::Bf16, Simd::Scalar(_)) => Form::Pairs,
            #[cfg(target_arch = "x86_64")]
            (Precision::Bf16, Simd::Avx512(bf16)) if bf16.present() => Form::Pairs,
            (Precision::Bf16, _) => Form::Rounded,
        }
    }

    /// Rows of a panel that is `depth` elements deep.
    pub fn rows(self, depth: usize) -> usize {
        depth.next_multiple_of(self.group()) / self.span()
    }

    /// Elements that there must be together, the last filled up with 0.
    pub fn group(self) -> usize {
        if self == Form::Single { 1 } else { 2 }
    }

    /// Elements of a lane in a row.
    pub fn span(self) -> usize {
        if self == Form::Pairs { 2 } else { 1 }
    }
}

/// A [`Form`] in registers of a level.
pub(in crate::cpu) trait Layout<V: Vector> {
    /// [`Form::span`].
    const SPAN: usize;
    /// [`Form::group`].
    const GROUP: usize;
    /// A row comes from the one whose number differs in these bits.
    const FLIP: usize;
    /// `W` rows of one lane, whose elements are `x`: `SPAN · W` of them, or fewer; what is missing is 0.
    fn along<T: Stored>(x: &[T]) -> V;
    /// Row `row` of `W` lanes; `at(k)` gives their elements k.
    fn across(row: usize, at: impl Fn(usize) -> V) -> V;
    /// `sum` and what a row adds to it.
    fn multiply(x: V, y: V, sum: V) -> V;
}

/// [`Form::Single`].
pub(in crate::cpu) struct Single;

impl<V: Vector> Layout<V> for Single {
    const SPAN: usize = 1;
    const GROUP: usize = 1;
    const FLIP: usize = 0;
    #[inline(always)]
    fn along<T: Stored>(x: &[T]) -> V {
        T::load_some(x)
    }
    #[inline(always)]
    fn across(row: usize, at: impl Fn(usize) -> V) -> V {
        at(row)
    }
    #[inline(always)]
    fn multiply(x: V, y: V, sum: V) -> V {
        x.fma(y, sum)
    }
}

/// [`Form::Rounded`].
pub(in crate::cpu) struct Rounded;

impl<V: Vector> Layout<V> for Rounded {
    const SPAN: usize = 1;
    const GROUP: usize = 2;
    const FLIP: usize = 1;
    #[inline(always)]
    fn along<T: Stored>(x: &[T]) -> V {
        round(T::load_some(x))
    }
    #[inline(always)]
    fn across(row: usize, at: impl Fn(usize) -> V) -> V {
        round(at(row ^ 1))
    }
    #[inline(always)]
    fn multiply(x: V, y: V, sum: V) -> V {
        x.fma(y, sum)
    }
}

/// [`Form::Pairs`], computed by `P`.
pub(in crate::cpu) struct Pairs<P>(PhantomData<P>);

impl<V: Vector, P: Pairing<V>> Layout<V> for Pairs<P> {
    const SPAN: usize = 2;
    const GROUP: usize = 2;
    const FLIP: usize = 0;
    #[inline(always)]
    fn along<T: Stored>(x: &[T]) -> V {
        T::pairs::<V, P>(x)
    }
    #[inline(always)]
    fn across(row: usize, at: impl Fn(usize) -> V) -> V {
        P::join(at(2 * row), at(2 * row + 1))
    }
    #[inline(always)]
    fn multiply(x: V, y: V, sum: V) -> V {
        P::dot(x, y, sum)
    }
}

/// What is done with pairs.
pub(in crate::cpu) trait Pairing<V: Vector> {
    /// Lane i of `first` and of `second`, rounded, to pair i.
    fn join(first: V, second: V) -> V;
    /// The lanes of `low`, then those of `high`, rounded, to `W` pairs of neighbours.
    fn neighbours(low: V, high: V) -> V;
    /// `sum` and the products of the pairs' second, then of their first elements.
    fn dot(x: V, y: V, sum: V) -> V;
}

/// The nearest numbers with the bits of bf16, in f32.
#[inline(always)]
pub(super) fn round<V: Vector>(x: V) -> V {
    let int = V::Bits::splat;
    let bits = x.bits();
    // Half of the last place, less one where the kept part is even: what is just half then stays.
    let rounded = V::from_bits(bits.add(int(0x7fff)).add(bits.shr::<16>().and(int(1))));
    // The carry of a NaN's payload could leave infinity.
    let rounded = V::from_bits(bits.or(int(0x40_0000))).select(x.is_nan(), rounded);
    let (sign, upper) = (V::from_bits(int(i32::MIN)), V::from_bits(int(!0xffff)));
    let kept = sign.select(V::splat(f32::MIN_POSITIVE).gt(x.abs()), upper);
    V::from_bits(rounded.bits().and(kept.bits()))
}

/// The second elements of pairs, widened.
#[inline(always)]
fn second<V: Vector>(pairs: V) -> V {
    V::from_bits(pairs.bits().and(V::Bits::splat(!0xffff)))
}

/// The first elements of pairs, widened.
#[inline(always)]
fn first<V: Vector>(pairs: V) -> V {
    V::from_bits(pairs.bits().shl::<16>())
}

/// Pairs on any level.
pub(in crate::cpu) struct Plain;

impl<V: Vector> Pairing<V> for Plain {
    #[inline(always)]
    fn join(first: V, second: V) -> V {
        let low = round(first).bits().shr::<16>().and(V::Bits::splat(0xffff));
        V::from_bits(low.or(round(second).bits()))
    }
    #[inline(always)]
    fn neighbours(low: V, high: V) -> V {
        let (low, high) = (low.to_array(), high.to_array());
        let (mut first, mut second) = ([0.0; 16], [0.0; 16]);
        for i in 0..V::W {
            let (half, at) = if 2 * i < V::W { (&low, 2 * i) } else { (&high, 2 * i - V::W) };
            (first[i], second[i]) = (half[at], half[at + 1]);
        }
        Self::join(V::load(&first), V::load(&second))
    }
    #[inline(always)]
    fn dot(x: V, y: V, sum: V) -> V {
        first(x).fma(first(y), second(x).fma(second(y), sum))
    }
}

/// The instructions for pairs of AVX-512: to be used in functions that enable AVX512_BF16 only.
#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) mod native {
    use super::Pairing;
    use crate::cpu::simd::F32x16;
    use std::arch::x86_64::*;

    pub struct Native;

    /// What functions with [`Native`] in them are compiled for.
    macro_rules! avx512bf16 {
        ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
            $(#[$meta])*
            #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
            $vis fn $($rest)*
        };
    }
    pub(in crate::cpu) use avx512bf16;

    impl Pairing<F32x16> for Native {
        #[inline(always)]
        fn join(first: F32x16, second: F32x16) -> F32x16 {
            // SAFETY: only functions that enable the instructions use this type; vectors are bits.
            unsafe {
                let apart: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second.0, first.0));
                // Lane i takes 16-bit numbers i and 16 + i.
                let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let both =
                    _mm512_or_si512(lanes, _mm512_slli_epi32::<16>(_mm512_add_epi32(lanes, _mm512_set1_epi32(16))));
                F32x16(_mm512_castsi512_ps(_mm512_permutexvar_epi16(both, apart)))
            }
        }
        #[inline(always)]
        fn neighbours(low: F32x16, high: F32x16) -> F32x16 {
            // SAFETY: as above.
            unsafe { F32x16(std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high.0, low.0))) }
        }
        #[inline(always)]
        fn dot(x: F32x16, y: F32x16, sum: F32x16) -> F32x16 {
            // SAFETY: as above.
            unsafe {
                let [x, y] = [x.0, y.0].map(|v| std::mem::transmute::<__m512, __m512bh>(v));
                F32x16(_mm512_dpbf16_ps(sum.0, x, y))
            }
        }
    }
}
