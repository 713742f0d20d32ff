//! Writing with a GPT in candle on the CPU, token by token with cached keys and values, timed: the peer of
//! `kiln bench decode`.
//!
//!     decode-candle nano|tiny|gpt2 PROMPT TOKENS
//!
//! Speaks the protocol of `--serve` (see ../README.md). A repetition reads a prompt of PROMPT random tokens and chooses the
//! likeliest next one, then writes TOKENS more. f32, batch 1; the number of threads is rayon's: `RAYON_NUM_THREADS`.
use anyhow::{Context, Result, bail};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::kv_cache::KvCache;
use candle_nn::ops::softmax_last_dim;
use candle_nn::{LayerNorm, Linear, Module};
use serde_json::json;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

struct Config {
    vocab: usize,
    layers: usize,
    heads: usize,
    d: usize,
    positions: usize,
    bias: bool,
}

impl Config {
    fn named(name: &str) -> Option<Config> {
        let config = |[vocab, layers, heads, d, positions]: [usize; 5], bias| Config { vocab, layers, heads, d, positions, bias };
        Some(match name {
            "tiny" => config([65, 6, 6, 384, 256], false),
            "nano" => config([8192, 4, 4, 256, 256], true),
            "gpt2" => config([50304, 12, 12, 768, 1024], true),
            _ => return None,
        })
    }
}

struct Block {
    ln_1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    ln_2: LayerNorm,
    fc: Linear,
    out: Linear,
    cache: KvCache,
}

struct Gpt {
    config: Config,
    wte: Tensor,
    wpe: Tensor,
    blocks: Vec<Block>,
    ln_f: LayerNorm,
}

impl Gpt {
    fn new(config: Config) -> Result<Gpt> {
        let dev = &Device::Cpu;
        let normal = |rows: usize, columns: usize| Tensor::randn(0f32, 0.02, (rows, columns), dev);
        let linear = |inner: usize, out: usize| -> Result<Linear> {
            let bias = config.bias.then(|| Tensor::zeros(out, DType::F32, dev)).transpose()?;
            Ok(Linear::new(normal(out, inner)?, bias))
        };
        let d = config.d;
        let norm = || -> Result<LayerNorm> {
            let (gain, bias) = (Tensor::ones(d, DType::F32, dev)?, Tensor::zeros(d, DType::F32, dev)?);
            Ok(LayerNorm::new(gain, bias, 1e-5))
        };
        let block = |_| -> Result<Block> {
            Ok(Block {
                ln_1: norm()?,
                qkv: linear(d, 3 * d)?,
                proj: linear(d, d)?,
                ln_2: norm()?,
                fc: linear(d, 4 * d)?,
                out: linear(4 * d, d)?,
                cache: KvCache::new(2, config.positions),
            })
        };
        let (wte, wpe) = (normal(config.vocab, d)?, normal(config.positions, d)?);
        let blocks = (0..config.layers).map(block).collect::<Result<_>>()?;
        let ln_f = norm()?;
        Ok(Gpt { wte, wpe, blocks, ln_f, config })
    }

    /// The likeliest token after `ids`, which follow `past` others.
    fn next(&mut self, ids: &[u32], past: usize) -> Result<u32> {
        let (t, d, heads) = (ids.len(), self.config.d, self.config.heads);
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let x = self.wte.index_select(&ids, 0)?.reshape((1, t, d))?;
        let mut x = x.broadcast_add(&self.wpe.narrow(0, past, t)?)?;
        let mask: Vec<f32> = (0..t * t).map(|i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = if t > 1 { Some(Tensor::from_vec(mask, (t, t), &Device::Cpu)?) } else { None };
        for block in &mut self.blocks {
            let qkv = block.qkv.forward(&block.ln_1.forward(&x)?)?;
            let part = |i: usize| -> Result<Tensor> {
                Ok(qkv.narrow(2, i * d, d)?.reshape((1, t, heads, d / heads))?.transpose(1, 2)?.contiguous()?)
            };
            let (k, v) = block.cache.append(&part(1)?, &part(2)?)?;
            let mut scores = (part(0)?.matmul(&k.t()?)? * (1.0 / ((d / heads) as f64).sqrt()))?;
            if let Some(mask) = &mask {
                scores = scores.broadcast_add(mask)?;
            }
            let y = softmax_last_dim(&scores)?.matmul(&v)?;
            let y = y.transpose(1, 2)?.contiguous()?.reshape((1, t, d))?;
            x = (x + block.proj.forward(&y)?)?;
            let m = block.fc.forward(&block.ln_2.forward(&x)?)?.gelu()?;
            x = (x + block.out.forward(&m)?)?;
        }
        let last = self.ln_f.forward(&x.narrow(1, t - 1, 1)?.contiguous()?)?.reshape((1, d))?;
        Ok(last.matmul(&self.wte.t()?)?.argmax(D::Minus1)?.to_vec1()?[0])
    }

    /// One repetition: the time to the first token, and that of the others.
    fn write(&mut self, prompt: &[u32], tokens: usize) -> Result<(Duration, Duration)> {
        self.blocks.iter_mut().for_each(|block| block.cache.reset());
        let start = Instant::now();
        let mut id = self.next(prompt, 0)?;
        let first = start.elapsed();
        for i in 0..tokens {
            id = self.next(&[id], prompt.len() + i)?;
        }
        Ok((first, start.elapsed() - first))
    }
}

/// The most memory that this process has held.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, name, prompt, tokens] = &args[..] else { bail!("usage: decode-candle nano|tiny|gpt2 PROMPT TOKENS") };
    let config = Config::named(name).context("the configurations are nano, tiny and gpt2")?;
    let (prompt, tokens): (usize, usize) = (prompt.parse()?, tokens.parse()?);
    if prompt == 0 || prompt + tokens > config.positions {
        bail!("a prompt of {prompt} and {tokens} tokens do not fit a context of {}", config.positions);
    }
    let vocab = config.vocab as u64;
    let mut gpt = Gpt::new(config)?;
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((seed >> 33) % vocab) as u32
    };
    let mut ids = || -> Vec<u32> { (0..prompt).map(|_| random()).collect() };
    gpt.write(&ids(), tokens)?;
    let threads = candle_core::utils::get_num_threads();
    let mut out = std::io::stdout();
    let ready = json!({"ready": true, "bench": "decode", "peer": "candle", "case": format!("{name} f32, prompt {prompt}"),
        "threads": threads, "unit": "tokens/s", "tokens": tokens});
    writeln!(out, "{ready}")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let (first, rest) = gpt.write(&ids(), tokens)?;
        let record = json!({"first_seconds": first.as_secs_f64(), "seconds": rest.as_secs_f64(), "tokens": tokens,
            "peak_rss_mb": peak_rss_mb()});
        writeln!(out, "{record}")?;
        out.flush()?;
    }
    Ok(())
}
