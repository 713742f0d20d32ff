//! Directories as Hugging Face's `transformers` has them: `config.json`, `model.safetensors` or several such files with an
//! index, `tokenizer.json` and what belongs to it.
//!
//! Other people's names are read too: with the prefix `transformer.` or without, a bare `LlamaModel`'s without `model.`; the masks
//! and tables that old files have beside the weights are passed over. A tied model may have its head in the file as well; where
//! that is not the embedding, it counts, as in `transformers`.

use super::block::Format;
use super::header::Header;
use super::weights::{Place, Weights, images};
use super::{Pretrained, SCORE_TENSOR, check_size};
use crate::data::Tokenizer;
use crate::data::map::Map;
use crate::data::tokenizer::TOKENIZER_FILE;
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use crate::model::{Gpt, GptConfig, Positions};
use safetensors::Dtype;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// The architecture.
pub const CONFIG: &str = "config.json";
/// The weights, where they are in one file.
pub const MODEL: &str = "model.safetensors";
/// Which file each tensor is in, where there are several.
const INDEX: &str = "model.safetensors.index.json";
/// Bytes of the longest JSON file that is read.
const MAX_TEXT: u64 = 1 << 26;
const TOGETHER: &str = "the files of a model belong together: copy all of them";

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// A tensor in a file.
struct Found {
    map: usize,
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    start: usize,
    end: usize,
}

/// Reads a JSON file.
pub(super) fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&disk::text(&Os, path, MAX_TEXT)?).map_err(|e| {
        Error::format(path, format!("line {}", e.line()), "JSON as transformers writes it", &e, "get the file again")
    })
}

/// Opens the directory `dir`.
///
/// # Errors
/// A file is missing or damaged; the model is of no kind that kiln has, or lacks tensors or has others.
pub fn open(dir: &Path) -> Result<Pretrained> {
    let file = dir.join(CONFIG);
    let mut config = GptConfig::from_json(&json::<Value>(&file)?, &file)?;
    let (maps, found) = tensors(dir)?;
    let learned = config.positions == Positions::Learned;
    let mut tensors = HashMap::new();
    for one in found {
        if passed_over(&one.name) {
            continue;
        }
        let path = maps[one.map].path();
        if let Some(other) = tensors.insert(canonical(&one.name, learned), one) {
            return Err(Error::format(path, other.name, "one tensor of that meaning", "two", TOGETHER));
        }
    }
    untie(&mut config, &mut tensors, &maps);
    let score = tensors.remove(SCORE_TENSOR).map(|one| score(&one, &maps, config.d)).transpose()?;
    check_size(&config, tensors.values().map(|one| one.shape.iter().product()), maps[0].path())?;
    let (_, decls) = Gpt::new(config.clone());
    let mut places = HashMap::new();
    for image in images(&decls) {
        let mut stored = image.shape.to_vec();
        if image.transposed {
            stored.reverse();
        }
        let expected = format!("a tensor of shape {stored:?} in F32, F16 or BF16");
        let wrong = |path: &Path, found: String| {
            let hint = "the file belongs to another model than config.json: copy the files of a model together";
            Error::format(path, &image.name, &expected, found, hint)
        };
        let Some(one) = tensors.remove(&image.name) else {
            return Err(wrong(maps[0].path(), "none of that name".into()));
        };
        let Some(format) = Format::of(one.dtype).filter(|_| one.shape == stored) else {
            return Err(wrong(maps[one.map].path(), format!("shape {:?} in {:?}", one.shape, one.dtype)));
        };
        let place = Place { map: one.map, bytes: one.start..one.end, format, transposed: image.transposed, heads: 0 };
        places.insert(image.name, place);
    }
    if let Some(other) = tensors.values().map(|one| &one.name).min() {
        let expected = format!("{} tensors that the model has", places.len());
        let hint = "the file belongs to another model: check its config.json";
        return Err(Error::format(maps[0].path(), "header", expected, format!("also {other}"), hint));
    }
    let file = dir.join(TOKENIZER_FILE);
    let tokenizer = if file.is_file() { Some(Tokenizer::load(&file)?) } else { None };
    Ok(Pretrained { score, ..Pretrained::new(dir, config, tokenizer, Weights::new(maps, places))? })
}

/// What makes a stream of `d` channels a reward.
fn score(one: &Found, maps: &[Map], d: usize) -> Result<Vec<f32>> {
    let map = &maps[one.map];
    let format = Format::of(one.dtype).filter(|_| one.shape == [1, d]);
    let Some(format) = format else {
        let found = format!("shape {:?} in {:?}", one.shape, one.dtype);
        let hint = "kiln has models with one number for an answer, no classifiers of texts";
        return Err(Error::format(map.path(), &one.name, format!("[1, {d}] in F32, F16 or BF16"), found, hint));
    };
    let mut x = vec![0.0; d];
    format.decode(&map[one.start..one.end], &mut x);
    map.check()?;
    Ok(x)
}

/// The files with weights, and the tensors in them.
fn tensors(dir: &Path) -> Result<(Vec<Map>, Vec<Found>)> {
    let (single, file) = (dir.join(MODEL), dir.join(INDEX));
    if single.is_file() || !file.is_file() {
        if !single.is_file() && dir.join("pytorch_model.bin").is_file() {
            let hint = "save it once more by transformers, which writes model.safetensors";
            return Err(Error::format(dir, "weights", MODEL, "pytorch_model.bin, which is code", hint));
        }
        let map = Map::open(&single)?;
        let (start, header) = header(&single, &map)?;
        let all = header.names().into_iter().map(|name| found(0, start, &header, name)).collect();
        return Ok((vec![map], all));
    }
    let index: Index = json(&file)?;
    let mut files: Vec<&String> = index.weight_map.values().collect();
    files.sort();
    files.dedup();
    let (mut maps, mut all) = (Vec::new(), Vec::new());
    for (number, name) in files.iter().enumerate() {
        if name.contains(['/', '\\']) || !name.ends_with(".safetensors") {
            return Err(Error::format(&file, "weight_map", "names of safetensors files beside it", name, TOGETHER));
        }
        let path = dir.join(name);
        let map = Map::open(&path)?;
        let (start, header) = header(&path, &map)?;
        for tensor in index.weight_map.iter().filter(|(_, file)| file == name).map(|(tensor, _)| tensor) {
            if header.info(tensor).is_none() {
                return Err(Error::format(&path, tensor, "a tensor, as the index says", "none of that name", TOGETHER));
            }
            all.push(found(number, start, &header, tensor.clone()));
        }
        maps.push(map);
    }
    if maps.is_empty() {
        return Err(Error::format(&file, "weight_map", "tensors and their files", "none", TOGETHER));
    }
    Ok((maps, all))
}

/// The header of a safetensors file, and where its tensors start.
pub(super) fn header(path: &Path, map: &Map) -> Result<(usize, Header)> {
    let header = Header::read(path, &mut &map[..], map.len() as u64)?;
    map.check()?;
    Ok((header.start() as usize, header))
}

fn found(map: usize, start: usize, header: &Header, name: String) -> Found {
    let info = header.info(&name).expect("a name of the header");
    let (from, to) = info.data_offsets;
    Found { map, shape: info.shape.clone(), dtype: info.dtype, start: start + from, end: start + to, name }
}

/// What old files have beside the weights: causal masks, and the frequencies of RoPE.
fn passed_over(name: &str) -> bool {
    [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"].iter().any(|end| name.ends_with(end))
}

/// The name that kiln has for a tensor.
fn canonical(name: &str, learned: bool) -> String {
    match learned {
        true => name.strip_prefix("transformer.").unwrap_or(name).to_owned(),
        false if ["embed_tokens.", "layers.", "norm."].iter().any(|start| name.starts_with(start)) => {
            format!("model.{name}")
        }
        false => name.to_owned(),
    }
}

/// Of a tied model: forgets the head in its file, which is the embedding; if it is not, unties the model.
fn untie(config: &mut GptConfig, tensors: &mut HashMap<String, Found>, maps: &[Map]) {
    const HEAD: &str = "lm_head.weight";
    let embedding = if config.positions == Positions::Learned { "wte.weight" } else { "model.embed_tokens.weight" };
    let (true, Some(head), Some(table)) = (config.tied, tensors.get(HEAD), tensors.get(embedding)) else { return };
    let bytes = |one: &Found| &maps[one.map][one.start..one.end];
    if head.dtype == table.dtype && bytes(head) == bytes(table) {
        tensors.remove(HEAD);
    } else {
        config.tied = false;
    }
}
