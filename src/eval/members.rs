//! Signs that a text was trained on.

use super::Score;
use flate2::{Compression, write::ZlibEncoder};
use std::io::Write;

/// The share of a text's tokens that min-k % looks at (Shi et al. 2024, arXiv 2310.16789, section 3).
const LEAST: f64 = 0.2;

/// Numbers that are high where a text was trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signs {
    /// ln p by the token (Yeom et al. 2018, arXiv 1709.01604).
    pub loss: f64,
    /// ln p by the byte of the text once zlib has packed it: what is likely because it is plain does not count (Carlini et al. 2021, arXiv
    /// 2012.07805, section 5).
    pub zlib: f64,
    /// The mean ln p of its least likely fifth.
    pub min_k: f64,
}

impl Signs {
    /// Their names.
    pub const NAMES: [&str; 3] = ["loss", "zlib", "min_k"];

    /// The numbers, in that order.
    pub fn all(&self) -> [f64; 3] {
        [self.loss, self.zlib, self.min_k]
    }

    pub(super) fn new(score: &Score, text: &str) -> Signs {
        let mut least = score.each.clone();
        least.sort_by(f32::total_cmp);
        least.truncate(((least.len() as f64 * LEAST).ceil() as usize).max(1));
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        let bytes =
            packed.write_all(text.as_bytes()).and_then(|()| packed.finish()).map_or(text.len(), |all| all.len());
        Signs {
            loss: score.nats / score.each.len().max(1) as f64,
            zlib: score.nats / bytes.max(1) as f64,
            min_k: least.iter().map(|&x| f64::from(x)).sum::<f64>() / least.len().max(1) as f64,
        }
    }
}
