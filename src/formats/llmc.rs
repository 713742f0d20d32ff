//! llm.c's checkpoints of a GPT-2: 256 i32 (magic, version, context, V, blocks, heads, C, V rounded up), then each kind of tensor
//! of all blocks, end to end. Version 3 is f32, version 5 bf16 (<https://github.com/karpathy/llm.c>, `train_gpt2.py`).
//!
//! Linear weights are (out, in), as in memory; the embedding has rows up to a multiple of 128. The tokenizer is GPT-2's; where
//! the vocabulary is another, a `tokenizer.json` is looked for beside the file: `NAME.tokenizer.json`, then `tokenizer.json`.

use super::block::Format;
use super::weights::{Place, Weights, images};
use super::{Pretrained, check_size};
use crate::data::Tokenizer;
use crate::data::map::Map;
use crate::data::tokenizer::TOKENIZER_FILE;
use crate::error::{Error, Result};
use crate::model::hf::MAX_CONTEXT;
use crate::model::{Gpt, GptConfig, Mlp, Positions, Size};
use crate::ops::activation::Activation;
use crate::params::Image;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The first number of the file.
pub const MAGIC: i32 = 20_240_326;
/// Bytes of the header.
pub const HEADER: usize = 256 * 4;
/// The rows of the embedding are a multiple of this.
const ROWS: usize = 128;

/// The tensors of a file in their order: those outside of blocks, and those of which each block has one.
const ORDER: [(&str, bool); 16] = [
    ("wte.weight", false),
    ("wpe.weight", false),
    ("ln_1.weight", true),
    ("ln_1.bias", true),
    ("attn.c_attn.weight", true),
    ("attn.c_attn.bias", true),
    ("attn.c_proj.weight", true),
    ("attn.c_proj.bias", true),
    ("ln_2.weight", true),
    ("ln_2.bias", true),
    ("mlp.c_fc.weight", true),
    ("mlp.c_fc.bias", true),
    ("mlp.c_proj.weight", true),
    ("mlp.c_proj.bias", true),
    ("ln_f.weight", false),
    ("ln_f.bias", false),
];

/// The names of the tensors in the order of the file.
pub fn names(layers: usize) -> impl Iterator<Item = String> {
    ORDER.into_iter().flat_map(move |(name, inside)| {
        let n = if inside { layers } else { 1 };
        (0..n).map(move |i| if inside { format!("h.{i}.{name}") } else { name.to_owned() })
    })
}

/// The header for a model.
///
/// # Errors
/// The format has no such model.
pub fn header(config: &GptConfig, format: Format) -> Result<[u8; HEADER]> {
    let plain = config.positions == Positions::Learned && config.mlp == Mlp::Plain(Activation::GeluTanh);
    let shaped = config.hidden == 4 * config.d && config.tied && config.eps as f32 == 1e-5;
    if !plain || !shaped {
        let hint = "a Llama, or another GPT-2, is written with: --to hf or --to gguf";
        let problem = "llm.c has GPT-2 only: GELU by tanh between 4·d channels, a tied head, an epsilon of 1e-5";
        return Err(Error::usage(problem, hint));
    }
    let version = match format {
        Format::F32 => 3,
        Format::Bf16 => 5,
        _ => return Err(Error::usage("llm.c's checkpoints are in f32 or bf16", "give --dtype f32 or --dtype bf16")),
    };
    let GptConfig { vocab, context, layers, heads, d, .. } = *config;
    let mut header = [0; HEADER];
    let sizes = [context, vocab, layers, heads, d, rows(vocab)].map(|n| n as i32);
    let numbers = [MAGIC, version].into_iter().chain(sizes);
    header.chunks_exact_mut(4).zip(numbers).for_each(|(bytes, n)| bytes.copy_from_slice(&n.to_le_bytes()));
    Ok(header)
}

/// Rows of the embedding for so many tokens.
pub fn rows(vocab: usize) -> usize {
    vocab.next_multiple_of(ROWS)
}

/// Where the tokenizer of a checkpoint is written to: `NAME.tokenizer.json` beside `NAME.bin`.
pub fn tokenizer_of(path: &Path) -> PathBuf {
    path.with_extension(TOKENIZER_FILE)
}

/// Opens the file `path`.
///
/// # Errors
/// It is no checkpoint of version 3 or 5, or is not as long as its header says.
pub fn open(path: &Path) -> Result<Pretrained> {
    let map = Map::open(path)?;
    let wrong = |at: &str, expected: String, found: String| {
        Error::format(path, at, expected, found, "the file is damaged or no checkpoint of llm.c: get it again")
    };
    if map.len() < HEADER {
        return Err(wrong("size", format!("a header of {HEADER} bytes"), format!("{} bytes", map.len())));
    }
    let number = |i: usize| i32::from_le_bytes([map[4 * i], map[4 * i + 1], map[4 * i + 2], map[4 * i + 3]]);
    if number(0) != MAGIC {
        return Err(wrong("start", MAGIC.to_string(), number(0).to_string()));
    }
    let format = match number(1) {
        3 => Format::F32,
        5 => Format::Bf16,
        other => return Err(wrong("version", "3 (f32) or 5 (bf16)".into(), other.to_string())),
    };
    let count = |i: usize, what: &str| {
        let n = usize::try_from(number(i)).ok().filter(|n| (1..=MAX_CONTEXT).contains(n));
        n.ok_or_else(|| wrong(what, "a positive number".into(), number(i).to_string()))
    };
    let (context, vocab) = (count(2, "maxT")?, count(3, "V")?);
    let size = Size { vocab, context, layers: count(4, "L")?, heads: count(5, "NH")?, d: count(6, "C")? };
    let padded = count(7, "Vp")?;
    if padded < vocab || !size.d.is_multiple_of(size.heads) {
        return Err(wrong(
            "sizes",
            "Vp of at least V, and C a multiple of NH".into(),
            format!("Vp {padded}, {size:?}"),
        ));
    }
    let config = GptConfig::gpt2(size);
    let (numbers, bytes) = (config.parameters() + ((padded - vocab) * size.d) as f64, format.block().1);
    if numbers * bytes as f64 != (map.len() - HEADER) as f64 {
        let expected = format!("{} bytes for the model of the header", numbers * bytes as f64 + HEADER as f64);
        return Err(wrong("size", expected, format!("{} bytes", map.len())));
    }
    check_size(&config, std::iter::repeat_n(map.len(), size.layers), path)?;
    let (_, decls) = Gpt::new(config.clone());
    let mut left: HashMap<String, Image> = images(&decls).map(|image| (image.name.clone(), image)).collect();
    let (mut places, mut at) = (HashMap::new(), HEADER);
    for name in names(size.layers) {
        let image = left.remove(&name).expect("a GPT-2 has these tensors");
        let end = at + image.shape.numel() * bytes;
        places.insert(name.clone(), Place { map: 0, bytes: at..end, format, transposed: false, heads: 0 });
        at = if name == ORDER[0].0 { end + (padded - vocab) * size.d * bytes } else { end };
    }
    map.check()?;
    let tokenizer = tokenizer(path, vocab)?;
    Pretrained::new(path, config, tokenizer, Weights::new(vec![map], places))
}

fn tokenizer(path: &Path, vocab: usize) -> Result<Option<Tokenizer>> {
    let gpt2 = || Tokenizer::gpt2();
    let files = [tokenizer_of(path), path.with_file_name(TOKENIZER_FILE)];
    match files.iter().find(|file| file.is_file()) {
        Some(file) => Tokenizer::load(file).map(Some),
        // Some round the vocabulary up.
        None if (50_257..=50_304).contains(&vocab) => Ok(Some(gpt2())),
        None => Ok(None),
    }
}
