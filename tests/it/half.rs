//! bf16 and f16 conversion, at every SIMD level, against an independent implementation in integers: all 65,536 values to
//! f32 and back, and f32 values on and beside every midpoint of two neighbours.

use half::{bf16, f16};
use kiln::cpu::Simd;
use kiln::cpu::convert::ConvertTo;

/// A 16-bit float format: bits of exponent and mantissa.
#[derive(Clone, Copy)]
struct Format {
    exponent: u32,
    mantissa: u32,
}

const BF16: Format = Format { exponent: 8, mantissa: 7 };
const F16: Format = Format { exponent: 5, mantissa: 10 };

impl Format {
    fn infinity(self) -> u32 {
        ((1 << self.exponent) - 1) << self.mantissa
    }

    /// The exponent of the last place of a subnormal number.
    fn least(self) -> i32 {
        2 - (1 << (self.exponent - 1)) - self.mantissa as i32
    }

    fn is_nan(self, bits: u16) -> bool {
        u32::from(bits) & 0x7fff > self.infinity()
    }

    /// The value of `bits`, which is not NaN.
    fn value(self, bits: u16) -> f32 {
        let magnitude = u32::from(bits) & 0x7fff;
        let (e, m) = (magnitude >> self.mantissa, magnitude & ((1 << self.mantissa) - 1));
        let value = if magnitude == self.infinity() {
            f64::INFINITY
        } else if e == 0 {
            f64::from(m) * 2f64.powi(self.least())
        } else {
            f64::from(m | 1 << self.mantissa) * 2f64.powi(self.least() + e as i32 - 1)
        };
        if bits >> 15 == 1 { -value as f32 } else { value as f32 }
    }

    /// The number nearest to `x`, ties to even: x = m · 2ᵉ is divided by the last place, and the remainder decides. `None`
    /// for NaN.
    fn nearest(self, x: f32) -> Option<u16> {
        let bits = x.to_bits();
        let (sign, e, m) = ((bits >> 31 << 15) as u16, (bits >> 23 & 255) as i32, u64::from(bits & 0x7f_ffff));
        let magnitude = match (e, m) {
            (255, 0) => self.infinity(),
            (255, _) => return None,
            _ => {
                let (m, e) = if e == 0 { (m, -149) } else { (m | 1 << 23, e - 150) };
                let top = e + m.checked_ilog2().unwrap_or(0) as i32;
                let last = (top - self.mantissa as i32).max(self.least());
                // m has 24 bits: more than 40 places down, nothing is left of it.
                let q = match last - e {
                    shift @ 1.. => {
                        let shift = shift.min(40);
                        let (q, rest, half) = (m >> shift, m & ((1 << shift) - 1), 1 << (shift - 1));
                        q + u64::from(rest > half || (rest == half && q % 2 == 1))
                    }
                    shift => m << -shift,
                };
                // A carry moves into the exponent, as it should.
                ((((last - self.least()) as u32) << self.mantissa) + q as u32).min(self.infinity())
            }
        };
        Some(sign | magnitude as u16)
    }

    /// f32 values to try: each finite number, infinity, each midpoint (the last one is where infinity begins), and their
    /// neighbours in f32, with both signs.
    fn probes(self) -> Vec<f32> {
        let mut probes = vec![f32::NAN, -f32::NAN, f32::MAX, f32::from_bits(1), f32::from_bits(0x7f80_0001)];
        for bits in 0..self.infinity() as u16 {
            let (low, step) = (f64::from(self.value(bits)), (bits >> self.mantissa).max(1));
            let half = 2f64.powi(self.least() + i32::from(step) - 2);
            for x in [low as f32, (low + half) as f32] {
                let at = x.to_bits();
                probes.extend([at.saturating_sub(1), at, at + 1].map(f32::from_bits));
            }
        }
        let negative: Vec<f32> = probes.iter().map(|x| -x).collect();
        probes.extend(negative);
        probes
    }
}

/// Checks one format, given its conversions at a level: f32 to bits, and bits to f32.
fn check(name: &str, format: Format, narrow: impl Fn(&[f32]) -> Vec<u16>, widen: impl Fn(&[u16]) -> Vec<f32>) {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let wide = widen(&all);
    for (&bits, &x) in all.iter().zip(&wide) {
        if format.is_nan(bits) {
            assert!(x.is_nan(), "{name}: {bits:#06x} is NaN and became {x}");
            assert_eq!(x.is_sign_negative(), bits >> 15 == 1, "{name}: {bits:#06x}: the sign of NaN");
        } else {
            assert_eq!(x.to_bits(), format.value(bits).to_bits(), "{name}: {bits:#06x} became {x}");
        }
    }
    for (x, bits) in all.iter().zip(narrow(&wide)) {
        assert!(*x == bits || (format.is_nan(*x) && format.is_nan(bits)), "{name}: {x:#06x} came back as {bits:#06x}");
    }
    let probes = format.probes();
    for (x, got) in probes.iter().zip(narrow(&probes)) {
        match format.nearest(*x) {
            Some(want) => assert_eq!(got, want, "{name}: {x:e} ({:#010x})", x.to_bits()),
            None => assert!(format.is_nan(got), "{name}: NaN {:#010x} became {got:#06x}", x.to_bits()),
        }
    }
}

#[test]
fn all_conversions_at_every_level() {
    fn convert<A: ConvertTo<B>, B: Clone>(simd: Simd, x: &[A], zero: B) -> Vec<B> {
        let mut y = vec![zero; x.len()];
        A::convert(simd, 0.0, x, &mut y);
        y
    }
    for simd in Simd::available() {
        check(
            &format!("bf16, {}", simd.name()),
            BF16,
            |x| convert(simd, x, bf16::ZERO).into_iter().map(bf16::to_bits).collect(),
            |x| convert(simd, &x.iter().map(|&x| bf16::from_bits(x)).collect::<Vec<_>>(), 0.0f32),
        );
        check(
            &format!("f16, {}", simd.name()),
            F16,
            |x| convert(simd, x, f16::ZERO).into_iter().map(f16::to_bits).collect(),
            |x| convert(simd, &x.iter().map(|&x| f16::from_bits(x)).collect::<Vec<_>>(), 0.0f32),
        );
    }
}
