//! One vector type per instruction set, one kernel body for all of them.
//!
//! A kernel is written once, `#[inline(always)] fn body<V: Vector>(…)`, and [`simd_fn!`](crate::simd_fn) instantiates it
//! under the instruction sets of each [`Simd`] level. Every operation of [`Vector`] is exactly rounded or a bit operation,
//! so a lane's result does not depend on the level; sums go through [`Lanes`], whose order does not either. That is what
//! makes results equal bit for bit on every level (the numeric contract of docs/architecture.md).

use crate::error::{Error, Result};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The instruction sets that a kernel can run on. A value is only made for a processor that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// Plain Rust over arrays of eight; on x86-64 with the hardware's fused multiply-add.
    Scalar(Proof),
    /// AVX2 and FMA: 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2(Proof),
    /// AVX-512 F, BW, DQ and VL: 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512(Bf16),
    /// NEON, in every AArch64: 8 lanes in two registers.
    #[cfg(target_arch = "aarch64")]
    Neon(Proof),
}

/// Whether the AVX-512 level may use the instructions of AVX512_BF16: products of bf16 pairs, summed in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bf16(bool);

/// Can only be made inside this module, after the instruction set was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proof(());

impl Bf16 {
    /// Whether instructions on bf16 pairs may be used.
    pub fn present(self) -> bool {
        self.0
    }
}

impl Simd {
    /// The levels that this processor can run, slowest first: none on an x86-64 without fused multiply-add (before 2013), on
    /// which every product would be computed in software.
    pub fn available() -> Vec<Simd> {
        #[cfg(target_arch = "x86_64")]
        {
            if !is_x86_feature_detected!("fma") {
                return Vec::new();
            }
            let mut levels = vec![Simd::Scalar(Proof(()))];
            if is_x86_feature_detected!("avx2") {
                levels.push(Simd::Avx2(Proof(())));
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    levels.push(Simd::Avx512(Bf16(false)));
                    if is_x86_feature_detected!("avx512bf16") {
                        levels.push(Simd::Avx512(Bf16(true)));
                    }
                }
            }
            levels
        }
        #[cfg(target_arch = "aarch64")]
        {
            vec![Simd::Scalar(Proof(())), Simd::Neon(Proof(()))]
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        vec![Simd::Scalar(Proof(()))]
    }

    /// The fastest level of this processor, or the one that `KILN_SIMD` names.
    ///
    /// # Errors
    /// `KILN_SIMD` names no level, or one that this processor lacks; it has none.
    pub fn detect() -> Result<Simd> {
        match std::env::var("KILN_SIMD") {
            Ok(name) if !name.is_empty() => Simd::named(&name),
            _ => Simd::available().last().copied().ok_or_else(|| {
                let hint = "use one of 2013 or later, or an emulator of one (qemu -cpu max)";
                Error::device("this processor has no fused multiply-add (FMA)", hint)
            }),
        }
    }

    /// The level called `scalar`, `avx2`, `avx512`, `avx512bf16` or `neon`.
    ///
    /// # Errors
    /// There is no such level, or this processor lacks it.
    pub fn named(name: &str) -> Result<Simd> {
        let levels = Simd::available();
        levels.iter().copied().find(|level| level.name() == name).ok_or_else(|| {
            let names: Vec<_> = levels.iter().map(|level| level.name()).collect();
            Error::config(
                "KILN_SIMD",
                format!("this processor has no level '{name}'"),
                format!("use one of: {}; or unset it", names.join(", ")),
            )
        })
    }

    /// `scalar`, `avx2`, `avx512`, `avx512bf16` or `neon`.
    pub fn name(self) -> &'static str {
        match self {
            Simd::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512(bf16) if bf16.present() => "avx512bf16",
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Simd::Neon(_) => "neon",
        }
    }
}

/// Defines `fn name(simd: Simd, args…)` that runs a generic body with the vector type of the level.
///
/// The body must be `#[inline(always)]`, as must every helper and closure on its way, so that all of it is compiled with
/// the level's instructions. `= body, scalar other` has another one for the scalar level.
#[macro_export]
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $crate::simd_fn! { $(#[$meta])* $vis fn $name($($arg: $ty),*) $(-> $ret)? = $body, scalar $body }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident,
     scalar $scalar:ident) => {
        $(#[$meta])*
        $vis fn $name(simd: $crate::cpu::Simd, $($arg: $ty),*) $(-> $ret)? {
            use $crate::cpu::simd;
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<simd::F32x16>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<simd::F32x8>($($arg),*)
                }
                #[target_feature(enable = "fma")]
                fn scalar($($arg: $ty),*) $(-> $ret)? {
                    $scalar::<simd::Portable>($($arg),*)
                }
                // SAFETY: a `Simd` level exists only where its instructions do.
                #[allow(unsafe_code)]
                unsafe {
                    match simd {
                        simd::Simd::Avx512(_) => avx512($($arg),*),
                        simd::Simd::Avx2(_) => avx2($($arg),*),
                        simd::Simd::Scalar(_) => scalar($($arg),*),
                    }
                }
            }
            #[cfg(target_arch = "aarch64")]
            {
                #[target_feature(enable = "neon")]
                fn neon($($arg: $ty),*) $(-> $ret)? {
                    $body::<simd::F32x8>($($arg),*)
                }
                if let simd::Simd::Neon(_) = simd {
                    // SAFETY: a `Simd` level exists only where its instructions do.
                    #[allow(unsafe_code)]
                    return unsafe { neon($($arg),*) };
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                // Where the baseline has fused multiply-add, as on AArch64, so has this.
                let _ = simd;
                $scalar::<simd::Portable>($($arg),*)
            }
        }
    };
}

/// As [`simd_fn!`](crate::simd_fn), of the scalar level alone: the function must not be called on others.
#[macro_export]
macro_rules! scalar_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        $vis fn $name(_: $crate::cpu::Simd, $($arg: $ty),*) {
            use $crate::cpu::simd::Portable;
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "fma")]
                fn scalar($($arg: $ty),*) {
                    $body::<Portable>($($arg),*)
                }
                // SAFETY: on x86-64 every `Simd` level has these instructions.
                #[allow(unsafe_code)]
                unsafe {
                    scalar($($arg),*)
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            $body::<Portable>($($arg),*)
        }
    };
}

/// A register of f32 lanes. Arithmetic is by the operators; each is exactly rounded, lane by lane.
pub trait Vector:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// Lanes in a register: 8 or 16. Divides 64.
    const W: usize;
    /// The same lanes as 32-bit integers.
    type Bits: Bits;
    /// One truth value a lane.
    type Mask: Copy;

    /// `x` in every lane.
    fn splat(x: f32) -> Self;
    /// Reads `W` numbers from `p`, at any alignment.
    ///
    /// # Safety
    /// `p` must be valid for reading `W` floats.
    unsafe fn load_ptr(p: *const f32) -> Self;
    /// Writes `W` numbers to `p`, at any alignment.
    ///
    /// # Safety
    /// `p` must be valid for writing `W` floats.
    unsafe fn store_ptr(self, p: *mut f32);
    /// Reads `W` signed bytes from `p` as floats.
    ///
    /// # Safety
    /// `p` must be valid for reading `W` bytes.
    unsafe fn load_i8(p: *const i8) -> Self;
    /// The low halves of the `W` bytes at `p`, and the high ones, as numbers from 0 to 15.
    ///
    /// # Safety
    /// There are as many bytes.
    #[inline(always)]
    unsafe fn load_halves(p: *const u8) -> [Self; 2] {
        // SAFETY: the caller promises these bytes.
        let byte = |i: usize| if i < Self::W { unsafe { *p.add(i) } } else { 0 };
        let [low, high] = [0, 4].map(|shift| std::array::from_fn::<i8, 16, _>(|i| (byte(i) >> shift & 15) as i8));
        // SAFETY: the arrays have 16 bytes.
        unsafe { [Self::load_i8(low.as_ptr()), Self::load_i8(high.as_ptr())] }
    }
    /// Reads `x`, at most `W` numbers; the lanes beyond hold 0.
    fn load_partial(x: &[f32]) -> Self;
    /// Writes the first `x.len()` lanes, at most `W`.
    fn store_partial(self, x: &mut [f32]);
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Clears the sign bit.
    fn abs(self) -> Self;
    /// `if self > b { self } else { b }`: `b` where either is NaN.
    fn max(self, b: Self) -> Self;
    /// `if self < b { self } else { b }`: `b` where either is NaN.
    fn min(self, b: Self) -> Self;
    /// `self > b`; false where either is NaN.
    fn gt(self, b: Self) -> Self::Mask;
    /// Whether the mask is true in all lanes.
    fn all(mask: Self::Mask) -> bool;
    /// Whether a lane is NaN.
    fn is_nan(self) -> Self::Mask;
    /// `self` where the mask is true, else `other`.
    fn select(self, mask: Self::Mask, other: Self) -> Self;
    /// The lanes' bit patterns.
    fn bits(self) -> Self::Bits;
    /// The floats with these bit patterns.
    fn from_bits(bits: Self::Bits) -> Self;
    /// Transposes the `W × W` matrix whose rows are the first `W` registers.
    fn transpose(rows: &mut [Self; 16]);
    /// The first 4 columns of the `W` rows that start `row` floats apart from `p` on.
    ///
    /// # Safety
    /// 4 floats must be readable at each row.
    #[inline(always)]
    unsafe fn columns(p: *const f32, row: usize) -> [Self; 4] {
        let mut columns = [[0.0; 16]; 4];
        for i in 0..4 * Self::W {
            // SAFETY: as the caller promises.
            columns[i % 4][i / 4] = unsafe { *p.add(i / 4 * row + i % 4) };
        }
        [Self::load(&columns[0]), Self::load(&columns[1]), Self::load(&columns[2]), Self::load(&columns[3])]
    }
    /// Asks for the cache line of `p`, which need not be valid.
    fn prefetch(_p: *const f32) {}
    /// The lanes in order, `W` of them; the rest is 0.
    fn to_array(self) -> [f32; 16];

    /// Reads the first `W` numbers of `x`.
    #[inline(always)]
    fn load(x: &[f32]) -> Self {
        assert!(x.len() >= Self::W);
        // SAFETY: the slice holds at least `W` floats.
        unsafe { Self::load_ptr(x.as_ptr()) }
    }
    /// Writes to the first `W` numbers of `x`.
    #[inline(always)]
    fn store(self, x: &mut [f32]) {
        assert!(x.len() >= Self::W);
        // SAFETY: the slice holds at least `W` floats.
        unsafe { self.store_ptr(x.as_mut_ptr()) }
    }
    /// The first `w` numbers of `x`; where `w < W` the lanes beyond hold 0. With [`each`], the full case costs no branch.
    #[inline(always)]
    fn at(x: &[f32], w: usize) -> Self {
        if w == Self::W { Self::load(x) } else { Self::load_partial(&x[..w]) }
    }
    /// Like [`at`](Vector::at), but the lanes beyond hold `fill`.
    #[inline(always)]
    fn at_or(x: &[f32], w: usize, fill: f32) -> Self {
        if w == Self::W {
            return Self::load(x);
        }
        let mut lanes = [fill; 16];
        lanes[..w].copy_from_slice(&x[..w]);
        Self::load(&lanes)
    }
    /// Writes the first `w` lanes to `x`.
    #[inline(always)]
    fn put(self, x: &mut [f32], w: usize) {
        if w == Self::W { self.store(x) } else { self.store_partial(&mut x[..w]) }
    }
    /// Writes the transpose of the `W` × `W` matrix at `x` (row i at `x + i · x_row`) to `y`.
    ///
    /// # Safety
    /// `W` floats must be readable at each row of `x` and writable at each row of `y`.
    #[inline(always)]
    unsafe fn transpose_at(x: *const f32, x_row: usize, y: *mut f32, y_row: usize) {
        let mut rows = [Self::splat(0.0); 16];
        for (i, row) in rows.iter_mut().enumerate().take(Self::W) {
            // SAFETY: the caller promises the rows of `x`.
            *row = unsafe { Self::load_ptr(x.add(i * x_row)) };
        }
        Self::transpose(&mut rows);
        for (i, row) in rows.iter().enumerate().take(Self::W) {
            // SAFETY: the caller promises the rows of `y`.
            unsafe { row.store_ptr(y.add(i * y_row)) };
        }
    }
    /// `self · 2ⁿ`, rounded once, for a `self` that is 0 or of magnitude ½ to 2 and integers n of magnitude at most 250.
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        // In two steps, the first exact, since 2ⁿ itself need not be a normal number. Adding 1.5 · 2²³ leaves n in the
        // low bits.
        let magic = Self::splat(12_582_912.0);
        let n = (n + magic).bits().sub(magic.bits());
        let half = n.shr::<1>();
        let rest = n.sub(half);
        let bias = Self::Bits::splat(127);
        self * Self::from_bits(half.add(bias).shl::<23>()) * Self::from_bits(rest.add(bias).shl::<23>())
    }
    /// [`ldexp`](Vector::ldexp) where 2ⁿ is a normal number: n from −126 to 127.
    #[inline(always)]
    fn ldexp_normal(self, n: Self) -> Self {
        let n = (n + Self::splat(12_582_912.0)).bits();
        self * Self::from_bits(n.shl::<23>().add(Self::Bits::splat(127 << 23)))
    }
    /// The magnitude of `self` with the sign of `sign`.
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        let mask = Self::Bits::splat(i32::MIN);
        Self::from_bits(self.abs().bits().or(sign.bits().and(mask)))
    }
}

/// The lanes of a [`Vector`] as 32-bit integers, wrapping.
pub trait Bits: Copy {
    /// `x` in every lane.
    fn splat(x: i32) -> Self;
    /// Wrapping sum.
    fn add(self, b: Self) -> Self;
    /// Wrapping difference.
    fn sub(self, b: Self) -> Self;
    /// Bitwise and.
    fn and(self, b: Self) -> Self;
    /// Bitwise or.
    fn or(self, b: Self) -> Self;
    /// Shift left by `N` bits.
    fn shl<const N: u32>(self) -> Self;
    /// Arithmetic shift right by `N` bits.
    fn shr<const N: u32>(self) -> Self;
}

/// Calls `f(i, w)` for each register of `n` elements: `i` is the first element, `w` how many there are, `W` but for the
/// last. `f` is compiled for both cases, so that full registers take no branch.
#[inline(always)]
pub fn each<V: Vector>(n: usize, mut f: impl FnMut(usize, usize)) {
    let mut i = 0;
    while i + V::W <= n {
        f(i, V::W);
        i += V::W;
    }
    if i < n {
        f(i, n - i);
    }
}

/// Eight lanes in plain Rust: the scalar level, and the base of every platform without a type of its own.
#[derive(Clone, Copy)]
pub struct Portable([f32; 8]);

/// The integer lanes of [`Portable`].
#[derive(Clone, Copy)]
pub struct PortableBits([i32; 8]);

/// An array of `f(0)` to `f(7)`. (`array::map` is not inlined by force, and then not compiled with the level's
/// instructions.)
#[inline(always)]
fn eight<T>(f: impl Fn(usize) -> T) -> [T; 8] {
    [f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)]
}

macro_rules! map {
    ($($x:expr),* => |$($v:pat_param),*| $f:expr) => {
        eight(#[inline(always)] |i| { let ($($v,)*) = ($($x[i],)*); $f })
    };
}

impl Add for Portable {
    type Output = Self;
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Portable(map!(self.0, b.0 => |a, b| a + b))
    }
}
impl Sub for Portable {
    type Output = Self;
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Portable(map!(self.0, b.0 => |a, b| a - b))
    }
}
impl Mul for Portable {
    type Output = Self;
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Portable(map!(self.0, b.0 => |a, b| a * b))
    }
}
impl Div for Portable {
    type Output = Self;
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Portable(map!(self.0, b.0 => |a, b| a / b))
    }
}
impl Neg for Portable {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Portable(map!(self.0 => |a| -a))
    }
}

impl Vector for Portable {
    const W: usize = 8;
    type Bits = PortableBits;
    type Mask = [bool; 8];

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Portable([x; 8])
    }
    #[inline(always)]
    unsafe fn load_ptr(p: *const f32) -> Self {
        // SAFETY: the caller promises eight readable floats; arrays of f32 may be read unaligned.
        Portable(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32) {
        // SAFETY: the caller promises eight writable floats.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn load_partial(x: &[f32]) -> Self {
        let mut v = [0.0; 8];
        v[..x.len()].copy_from_slice(x);
        Portable(v)
    }
    #[inline(always)]
    fn store_partial(self, x: &mut [f32]) {
        x.copy_from_slice(&self.0[..x.len()]);
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Portable(map!(self.0, b.0, c.0 => |a, b, c| a.mul_add(b, c)))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Portable(map!(self.0 => |a| a.sqrt()))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Portable(map!(self.0 => |a| a.abs()))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Portable(map!(self.0, b.0 => |a, b| if a > b { a } else { b }))
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Portable(map!(self.0, b.0 => |a, b| if a < b { a } else { b }))
    }
    #[inline(always)]
    fn gt(self, b: Self) -> [bool; 8] {
        map!(self.0, b.0 => |a, b| a > b)
    }
    #[inline(always)]
    fn all(mask: [bool; 8]) -> bool {
        mask == [true; 8]
    }
    #[inline(always)]
    fn is_nan(self) -> [bool; 8] {
        map!(self.0 => |a| a.is_nan())
    }
    #[inline(always)]
    fn select(self, mask: [bool; 8], other: Self) -> Self {
        Portable(map!(mask, self.0, other.0 => |m, a, b| if m { a } else { b }))
    }
    #[inline(always)]
    fn bits(self) -> PortableBits {
        PortableBits(map!(self.0 => |a| a.to_bits() as i32))
    }
    #[inline(always)]
    fn from_bits(bits: PortableBits) -> Self {
        Portable(map!(bits.0 => |a| f32::from_bits(a as u32)))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller promises eight readable bytes.
        let x = unsafe { p.cast::<[i8; 8]>().read_unaligned() };
        Portable(map!(x => |x| f32::from(x)))
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; 16]) {
        let old = *rows;
        for (i, row) in rows.iter_mut().take(8).enumerate() {
            *row = Portable(eight(
                #[inline(always)]
                |j| old[j].0[i],
            ));
        }
    }
    #[inline(always)]
    fn to_array(self) -> [f32; 16] {
        let mut out = [0.0; 16];
        out[..8].copy_from_slice(&self.0);
        out
    }
}

impl Bits for PortableBits {
    #[inline(always)]
    fn splat(x: i32) -> Self {
        PortableBits([x; 8])
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        PortableBits(map!(self.0, b.0 => |a, b| a.wrapping_add(b)))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        PortableBits(map!(self.0, b.0 => |a, b| a.wrapping_sub(b)))
    }
    #[inline(always)]
    fn and(self, b: Self) -> Self {
        PortableBits(map!(self.0, b.0 => |a, b| a & b))
    }
    #[inline(always)]
    fn or(self, b: Self) -> Self {
        PortableBits(map!(self.0, b.0 => |a, b| a | b))
    }
    #[inline(always)]
    fn shl<const N: u32>(self) -> Self {
        PortableBits(map!(self.0 => |a| a << N))
    }
    #[inline(always)]
    fn shr<const N: u32>(self) -> Self {
        PortableBits(map!(self.0 => |a| a >> N))
    }
}

mod lanes;
pub use lanes::Lanes;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub use x86::{F32x8, F32x16};
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
pub use neon::F32x8;
