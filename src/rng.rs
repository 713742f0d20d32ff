//! Random numbers without hidden state: Philox 4x32-10, a counter-based generator.
//!
//! Every number is a pure function of `(seed, stream, step, index)`, so any step can be replayed alone, a resumed run
//! draws what the uninterrupted run would have drawn, and a CPU and a GPU that agree on the index agree on the number.
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), Philox4x32 with 10 rounds.

use rand::RngCore;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The ten-round Philox 4x32 bijection of `counter` under `key`.
#[inline(always)]
pub fn philox(mut key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let mut c = counter;
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c
}

/// Which consumer a stream belongs to: two purposes never share numbers, even under one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights.
    Init = 1,
    /// The order of training windows.
    Order = 2,
    /// Dropout masks.
    Dropout = 3,
    /// Choosing the next token.
    Sample = 4,
    /// The built-in world.
    World = 5,
    /// Tests and benchmarks.
    Test = 6,
    /// Latent variables, and noise on pictures.
    Latent = 7,
    /// What is done to pictures before a discriminator sees them.
    Augment = 8,
    /// Settings to try.
    Search = 9,
    /// What people who judge see, and on which side.
    Review = 10,
    /// Which items a statistic is taken of.
    Resample = 11,
    /// Keys of private training that is to be reproducible, and so is not private.
    Privacy = 12,
    /// Rewards by chance.
    Reward = 13,
}

/// One addressable sequence of random numbers, `(seed, purpose, tensor, step)`; the index counts inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    high: [u32; 3],
}

impl Stream {
    /// The stream of `tensor` at `step` for `purpose` under `seed`. `tensor` must be below 2^24.
    pub fn new(seed: u64, purpose: Purpose, tensor: u32, step: u64) -> Stream {
        debug_assert!(tensor < 1 << 24);
        Stream {
            key: [seed as u32, (seed >> 32) as u32],
            high: [(purpose as u32) << 24 | tensor, step as u32, (step >> 32) as u32],
        }
    }

    /// Purpose and tensor in one number, and the lowest 16 bits of the step: what a stream of a pass has beside the seed and
    /// the step of the pass.
    pub fn place(&self) -> (u32, u32) {
        (self.high[0], self.high[1] & 0xffff)
    }

    /// Four numbers of the stream: those with indices `4 * block` to `4 * block + 3`.
    #[inline(always)]
    pub fn block(&self, block: u32) -> [u32; 4] {
        philox(self.key, [block, self.high[0], self.high[1], self.high[2]])
    }

    /// The number at `index` (below 2^34).
    #[inline]
    pub fn bits(&self, index: u64) -> u32 {
        self.block((index / 4) as u32)[(index % 4) as usize]
    }

    /// Uniform in [0, 1) with 24 random bits, at `index`.
    #[inline]
    pub fn uniform(&self, index: u64) -> f32 {
        (self.bits(index) >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// From N(0, 1), at `index`, by the Box-Muller transform: numbers of a pair (2k, 2k + 1) of the stream give the radius
    /// √(−2 log u), u from 23 bits above 0 to 1, and the angle, 25 bits. Operations draw the same rounded to f32
    /// ([`normal_pair`](crate::cpu::math::normal_pair)), all devices the same bits.
    pub fn normal(&self, index: u64) -> f64 {
        let [a, b] = [index & !1, index | 1].map(|i| self.bits(i));
        let u = 1.0 - f64::from(a >> 9) / 8_388_608.0;
        let part = f64::from(b >> 7 & 0x7f_ffff) / 8_388_608.0 - 0.5;
        let (sin, cos) = libm::sincos(std::f64::consts::FRAC_PI_2 * (f64::from(b >> 30) + part));
        (-2.0 * libm::log(u)).sqrt() * if index & 1 == 0 { cos } else { sin }
    }

    /// Fills `out` with normal deviates of the given standard deviation and mean 0, by the Box-Muller transform in
    /// f64 (from `libm`, so that every platform gets the same bits).
    pub fn normals(&self, std: f32, out: &mut [f32]) {
        self.normals_from(0, std, out);
    }

    /// The deviates of [`normals`](Stream::normals) from that at index `4 * block` on.
    pub fn normals_from(&self, block: u32, std: f32, out: &mut [f32]) {
        for (block, out) in (block..).zip(out.chunks_mut(4)) {
            let bits = self.block(block);
            let mut z = [0.0f64; 4];
            for pair in 0..2 {
                // u in (0, 1], so that its logarithm is finite.
                let u = (f64::from(bits[2 * pair]) + 1.0) / 4_294_967_296.0;
                let angle = std::f64::consts::TAU * f64::from(bits[2 * pair + 1]) / 4_294_967_296.0;
                let radius = (-2.0 * libm::log(u)).sqrt();
                let (sin, cos) = libm::sincos(angle);
                (z[2 * pair], z[2 * pair + 1]) = (radius * cos, radius * sin);
            }
            for (out, z) in out.iter_mut().zip(z) {
                *out = (z * f64::from(std)) as f32;
            }
        }
    }

    /// A sequential reader of this stream from its start, for code that wants `rand`'s traits.
    pub fn rng(self) -> Rng {
        Rng { stream: self, index: 0, block: [0; 4] }
    }
}

/// A [`Stream`] read in order; implements [`rand::RngCore`], so that `rand`'s distributions work on it.
#[derive(Clone, Debug)]
pub struct Rng {
    stream: Stream,
    index: u64,
    block: [u32; 4],
}

impl Rng {
    /// A reader for `purpose` under `seed`; `tensor` and `step` select independent streams.
    pub fn new(seed: u64, purpose: Purpose, tensor: u32, step: u64) -> Rng {
        Stream::new(seed, purpose, tensor, step).rng()
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `0..n` (`n` at least 1), by Lemire's multiply-and-shift with rejection: exactly uniform.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "below: the range is empty");
        loop {
            let m = u64::from(self.next_u32()) * u64::from(n);
            if m as u32 >= n.wrapping_neg() % n {
                return (m >> 32) as u32;
            }
        }
    }
}

impl RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        let lane = (self.index % 4) as usize;
        if lane == 0 {
            self.block = self.stream.block((self.index / 4) as u32);
        }
        self.index += 1;
        self.block[lane]
    }

    fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    fn fill_bytes(&mut self, dst: &mut [u8]) {
        for chunk in dst.chunks_mut(4) {
            chunk.copy_from_slice(&self.next_u32().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors of the authors' Random123 distribution (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 2], [!0; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normals_have_the_asked_mean_and_deviation() {
        let mut x = vec![0.0; 1 << 16];
        Stream::new(7, Purpose::Test, 0, 0).normals(0.5, &mut x);
        let n = x.len() as f64;
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        // Standard errors: 0.002 for the mean, 0.0014 for the deviation; five of each.
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((var.sqrt() - 0.5).abs() < 0.007, "deviation {}", var.sqrt());
    }

    #[test]
    fn streams_are_addressable_and_distinct() {
        let s = Stream::new(1, Purpose::Test, 3, 9);
        let mut rng = s.rng();
        for i in 0..100 {
            assert_eq!(rng.next_u32(), s.bits(i));
        }
        assert_ne!(s.bits(0), Stream::new(1, Purpose::Test, 3, 10).bits(0));
        assert_ne!(s.bits(0), Stream::new(1, Purpose::Test, 4, 9).bits(0));
        assert_ne!(s.bits(0), Stream::new(2, Purpose::Test, 3, 9).bits(0));
    }

    #[test]
    fn below_is_uniform() {
        let mut rng = Rng::new(3, Purpose::Test, 0, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        // Five standard deviations of a binomial count around 10,000 are 463.
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 463), "{counts:?}");
    }
}
