//! The header of a GGUF file that is written: metadata, then names, shapes, formats and offsets.

use super::super::block::Format;
use super::config::Said;
use super::header::Value;
use super::{config, vocab};
use crate::data::Tokenizer;
use crate::error::Result;
use crate::model::GptConfig;

/// Tensors start at multiples of this.
pub const ALIGNMENT: usize = 32;

/// Metadata for a model called `name` with matrices in `format`, and the factors of RoPE's frequencies where there are any.
///
/// # Errors
/// GGUF files cannot say what the model is.
pub fn metadata(model: &GptConfig, tokenizer: Option<&Tokenizer>, name: &str, format: Format) -> Result<Said> {
    let (mut keys, factors) = config::write(model)?;
    let kind = match format {
        Format::F16 => 1,
        Format::Q8_0 => 7,
        Format::Bf16 => 32,
        _ => 0,
    };
    let mut put = |key: &str, value: Value| keys.push((format!("general.{key}"), value));
    put("type", Value::Text("model".into()));
    put("name", Value::Text(name.into()));
    put("file_type", Value::Unsigned(kind));
    put("quantization_version", Value::Unsigned(2));
    if let Some(tokenizer) = tokenizer {
        keys.extend(vocab::write(tokenizer, model.vocab));
    }
    Ok((keys, factors))
}

/// What llama.cpp calls a tensor of `model` that Hugging Face calls `name`, and so many heads whose rows are interleaved in it;
/// `None` where it has no such part.
pub fn tensor(model: &GptConfig, name: &str) -> Option<(String, usize)> {
    Some((config::Family::of(model).tensor(name)?, config::heads(model, name)))
}

/// The format of a tensor of `shape` in a file whose matrices are in `format`: vectors and positions stay F32, and rows that are
/// no whole blocks become F16, as llama.cpp has it.
pub fn format(name: &str, shape: &[usize], format: Format) -> Format {
    match shape {
        [_] => Format::F32,
        _ if name.starts_with("position_embd") => Format::F32,
        [.., last] if format.bytes(*last).is_none() => Format::F16,
        _ => format,
    }
}

/// The bytes before the first tensor's: `tensors` are names, shapes (the first axis first) and formats.
pub fn header(keys: &[(String, Value)], tensors: &[(&str, &[usize], Format)]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        text(&mut bytes, key);
        let (kind, plain) = match value {
            // Every number of these files that is no list is below 2³².
            Value::Unsigned(n) => (4u32, (*n as u32).to_le_bytes().to_vec()),
            Value::Signed(n) => (5, (*n as i32).to_le_bytes().to_vec()),
            Value::Float(x) => (6, (*x as f32).to_le_bytes().to_vec()),
            Value::Bool(flag) => (7, vec![u8::from(*flag)]),
            Value::Text(_) => (8, Vec::new()),
            Value::Texts(_) | Value::Numbers(_) => (9, Vec::new()),
        };
        bytes.extend(kind.to_le_bytes());
        bytes.extend(plain);
        match value {
            Value::Text(value) => text(&mut bytes, value),
            Value::Texts(list) => {
                bytes.extend([&8u32.to_le_bytes()[..], &(list.count() as u64).to_le_bytes()].concat());
                list.iter().for_each(|value| text(&mut bytes, value));
            }
            Value::Numbers(list) => bytes.extend(list.list()),
            _ => {}
        }
    }
    let mut offset = 0u64;
    for (name, shape, format) in tensors {
        text(&mut bytes, name);
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|&side| bytes.extend((side as u64).to_le_bytes()));
        bytes.extend(format.code().0.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        let size = format.bytes(shape.iter().product()).expect("whole blocks");
        offset += size.next_multiple_of(ALIGNMENT) as u64;
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
