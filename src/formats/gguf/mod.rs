//! GGUF, the files of llama.cpp: a model, its tokenizer and its chat template in one, mapped into memory.

mod config;
pub mod header;
mod vocab;
pub mod write;

pub use config::ROPE_FACTORS;
pub use header::{Header, Value};

use super::weights::{Place, Weights, images};
use super::{Pretrained, check_size};
use crate::data::map::Map;
use crate::error::{Error, Result};
use crate::model::Gpt;
use std::collections::HashMap;
use std::path::Path;

/// Opens the file `path`.
///
/// # Errors
/// It is no GGUF file of version 2 or 3, or damaged; its model is of no kind that kiln has, or lacks tensors or has others.
pub fn open(path: &Path) -> Result<Pretrained> {
    let map = Map::open(path)?;
    let header = Header::read(path, &map)?;
    let mut config = config::read(&header, path)?;
    if let Some(info) = header.tensors.get(config::ROPE_FACTORS) {
        let mut factors = vec![0.0; info.shape.iter().product::<usize>().min(1 << 16)];
        if info.format.bytes(factors.len()) == Some(info.bytes.len()) {
            info.format.decode(&map[info.bytes.clone()], &mut factors);
        }
        config = config::scaled(config, &factors, path)?;
    }
    let sizes = header.tensors.values().map(|info| info.shape.iter().product::<usize>());
    check_size(&config, sizes, path)?;
    let family = config::Family::of(&config);
    let (_, decls) = Gpt::new(config.clone());
    let mut places = HashMap::new();
    let mut left: HashMap<&str, _> = header.tensors.iter().map(|(name, info)| (name.as_str(), info)).collect();
    left.remove(config::ROPE_FACTORS);
    for image in images(&decls) {
        let name = family.tensor(&image.name).ok_or_else(|| {
            let hint = "kiln reads models of the kinds llama and gpt2 as llama.cpp writes them";
            Error::format(path, &image.name, "a part that such files have", "none", hint)
        })?;
        let expected = format!("a tensor of shape {:?}", &image.shape[..]);
        let wrong = |found: String| {
            let hint = "the file is damaged, or its model is of another kind than its metadata says: get it again";
            Error::format(path, &name, &expected, found, hint)
        };
        let info = left.remove(name.as_str()).ok_or_else(|| wrong("none of that name".into()))?;
        let heads = config::heads(&config, &image.name);
        let blocks = info.format.block().0 > 1 && image.shape.len() == 1;
        if info.shape != image.shape[..] || blocks {
            return Err(wrong(format!("shape {:?} in {}", info.shape, info.format.code().1)));
        }
        let place = Place { map: 0, bytes: info.bytes.clone(), format: info.format, transposed: false, heads };
        places.insert(image.name, place);
    }
    if let Some(other) = left.keys().min() {
        let hint = "kiln has models of the kinds llama and gpt2, with nothing added";
        return Err(Error::format(
            path,
            "tensors",
            format!("the {} of the model", places.len()),
            format!("also {other}"),
            hint,
        ));
    }
    let tokenizer = vocab::read(&header, path)?;
    map.check()?;
    Pretrained::new(path, config, tokenizer, Weights::new(vec![map], places))
}
