//! How numbers lie in files: plain, or in blocks that share a scale.
//!
//! | format | numbers | bytes | value of q |
//! |--------|---------|-------|------------|
//! | F32, F16, BF16 | 1 | 4, 2, 2 | as it is |
//! | Q8_0 | 32 | 34 | d · q, q an i8 |
//! | Q4_0 | 32 | 18 | d · (q − 8), q 4 bits |
//! | Q4_1 | 32 | 20 | d · q + m |
//! | Q4_K | 256 | 144 | (d · s) · q − (e · m), s and m 6 bits for each 32 numbers |
//! | Q6_K | 256 | 210 | (d · s) · (q − 32), q 6 bits, s an i8 for each 16 numbers |
//!
//! d, e and the m of Q4_1 are f16. The blocks are llama.cpp's (`ggml-quants.c`); values and Q8_0's choice of q are the same bits
//! as there: each product and sum is rounded, nothing is fused.

use half::{bf16, f16};
use safetensors::Dtype;

/// How the numbers of a tensor lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// f32.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits and a scale for 32 numbers.
    Q8_0,
    /// 4 bits and a scale for 32 numbers.
    Q4_0,
    /// 4 bits, a scale and a least value for 32 numbers.
    Q4_1,
    /// 4 bits, in blocks of blocks.
    Q4K,
    /// 6 bits, in blocks of blocks.
    Q6K,
}

impl Format {
    /// All of them, with the numbers that GGUF files give them and their names there.
    pub const ALL: [(u32, Format, &'static str); 8] = [
        (0, Format::F32, "F32"),
        (1, Format::F16, "F16"),
        (2, Format::Q4_0, "Q4_0"),
        (3, Format::Q4_1, "Q4_1"),
        (8, Format::Q8_0, "Q8_0"),
        (12, Format::Q4K, "Q4_K"),
        (14, Format::Q6K, "Q6_K"),
        (30, Format::Bf16, "BF16"),
    ];

    /// The number in GGUF files, and the name.
    pub fn code(self) -> (u32, &'static str) {
        let (code, _, name) =
            Format::ALL[Format::ALL.iter().position(|entry| entry.1 == self).expect("all are listed")];
        (code, name)
    }

    /// The plain format that safetensors files call so; `None` for other types.
    pub fn of(dtype: Dtype) -> Option<Format> {
        match dtype {
            Dtype::F32 => Some(Format::F32),
            Dtype::F16 => Some(Format::F16),
            Dtype::BF16 => Some(Format::Bf16),
            _ => None,
        }
    }

    /// Numbers and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Format::F32 => (1, 4),
            Format::F16 | Format::Bf16 => (1, 2),
            Format::Q8_0 => (32, 34),
            Format::Q4_0 => (32, 18),
            Format::Q4_1 => (32, 20),
            Format::Q4K => (256, 144),
            Format::Q6K => (256, 210),
        }
    }

    /// Bytes of `n` numbers, whole blocks; `None` where they are none, or too many to count.
    pub fn bytes(self, n: usize) -> Option<usize> {
        let (numbers, bytes) = self.block();
        n.is_multiple_of(numbers).then(|| (n / numbers).checked_mul(bytes)).flatten()
    }

    /// The plain format that holds the same values: the narrowest for those that are plain, else F32.
    pub fn plain(self) -> Format {
        match self {
            Format::F16 | Format::Bf16 => self,
            _ => Format::F32,
        }
    }

    /// The values of `bytes`, which are those of `to.len()` numbers.
    pub fn decode(self, bytes: &[u8], to: &mut [f32]) {
        debug_assert_eq!(self.bytes(to.len()), Some(bytes.len()));
        let (numbers, size) = self.block();
        let blocks = bytes.chunks_exact(size).zip(to.chunks_exact_mut(numbers));
        match self {
            Format::F32 => blocks.for_each(|(b, y)| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Format::F16 => blocks.for_each(|(b, y)| y[0] = half(b)),
            Format::Bf16 => blocks.for_each(|(b, y)| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            Format::Q8_0 => blocks.for_each(|(b, y)| {
                let d = half(b);
                y.iter_mut().zip(&b[2..]).for_each(|(y, &q)| *y = f32::from(q as i8) * d);
            }),
            Format::Q4_0 => blocks.for_each(|(b, y)| {
                let d = half(b);
                nibbles(&b[2..], y, |q| (f32::from(q) - 8.0) * d);
            }),
            Format::Q4_1 => blocks.for_each(|(b, y)| {
                let (d, m) = (half(b), half(&b[2..]));
                nibbles(&b[4..], y, |q| f32::from(q) * d + m);
            }),
            Format::Q4K => blocks.for_each(|(b, y)| q4_k(b, y)),
            Format::Q6K => blocks.for_each(|(b, y)| q6_k(b, y)),
        }
    }

    /// Appends the bytes of `x`, whole blocks. Only plain formats and Q8_0 are written.
    pub fn encode(self, x: &[f32], to: &mut Vec<u8>) {
        match self {
            Format::F32 => to.extend_from_slice(bytemuck::cast_slice(x)),
            Format::F16 => x.iter().for_each(|&x| to.extend(f16::from_f32(x).to_le_bytes())),
            Format::Bf16 => x.iter().for_each(|&x| to.extend(bf16::from_f32(x).to_le_bytes())),
            Format::Q8_0 => x.chunks_exact(32).for_each(|x| {
                let d = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
                let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
                to.extend(f16::from_f32(d).to_le_bytes());
                // `round` takes halves away from zero.
                to.extend(x.iter().map(|x| (x * inverse).round() as i8 as u8));
            }),
            _ => unreachable!("{self:?} is never written"),
        }
    }

    /// The largest value that can be written.
    pub fn max(self) -> f32 {
        match self {
            // Above, rounding gives infinity.
            Format::F16 => 65_519.0,
            Format::Q8_0 => 65_519.0 * 127.0,
            _ => f32::MAX,
        }
    }
}

fn half(b: &[u8]) -> f32 {
    f16::from_le_bytes([b[0], b[1]]).to_f32()
}

/// The low halves of the bytes are the first half of the numbers, the high ones the second.
fn nibbles(b: &[u8], y: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = y.split_at_mut(b.len());
    for ((low, high), b) in low.iter_mut().zip(high).zip(b) {
        (*low, *high) = (value(b & 15), value(b >> 4));
    }
}

/// d, e, 12 bytes of scales, 128 bytes of which 32 hold 64 numbers.
fn q4_k(b: &[u8], y: &mut [f32]) {
    let (d, e, scales) = (half(b), half(&b[2..]), &b[4..16]);
    for (i, y) in y.chunks_exact_mut(32).enumerate() {
        let (s, m) = match i {
            0..4 => (scales[i] & 63, scales[i + 4] & 63),
            // 4 bits of each in the last bytes, 2 in the upper bits of the first.
            _ => (scales[i + 4] & 15 | scales[i - 4] >> 6 << 4, scales[i + 4] >> 4 | scales[i] >> 6 << 4),
        };
        let (d, m, shift) = (d * f32::from(s), e * f32::from(m), i % 2 * 4);
        let quants = &b[16 + i / 2 * 32..][..32];
        y.iter_mut().zip(quants).for_each(|(y, q)| *y = d * f32::from(q >> shift & 15) - m);
    }
}

/// 128 bytes of low halves, 64 of upper quarters, 16 scales, d.
fn q6_k(b: &[u8], y: &mut [f32]) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half(&b[208..]));
    for (i, y) in y.chunks_exact_mut(16).enumerate() {
        let d = d * f32::from(scales[i] as i8);
        // 128 numbers are four groups of 32: the low halves of 64 bytes, then their high ones.
        let (part, group, within) = (i / 8, i / 2 % 4, i % 2 * 16);
        let low = &low[64 * part + group % 2 * 32 + within..][..16];
        let high = &high[32 * part + within..][..16];
        for ((y, low), high) in y.iter_mut().zip(low).zip(high) {
            let q = low >> (group / 2 * 4) & 15 | (high >> (group * 2) & 3) << 4;
            *y = d * (f32::from(q) - 32.0);
        }
    }
}
