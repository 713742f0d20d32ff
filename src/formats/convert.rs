//! A model from its files into those of another program, one tensor at a time.
//!
//! Everything is written under a hidden name beside its place, synced and renamed: OUT is whole or absent.

use super::block::Format;
use super::tensors::{header, transpose};
use super::weights::{images, row};
use super::{Pretrained, gguf, hf, llmc};
use crate::data::Tokenizer;
use crate::data::atomic::{AtomicFile, write_atomic};
use crate::disk::{self, Disk, Os};
use crate::error::{AtPath, Error, Result};
use crate::model::{Gpt, GptConfig, Positions};
use crate::params::Image;
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// What a model is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A directory for `transformers`.
    Hf,
    /// A GGUF file for llama.cpp.
    Gguf,
    /// A checkpoint for llm.c.
    Llmc,
}

impl Target {
    /// What the name of a path asks for.
    pub fn of(path: &Path) -> Target {
        match path.extension().and_then(|end| end.to_str()) {
            Some("gguf") => Target::Gguf,
            Some("bin") => Target::Llmc,
            _ => Target::Hf,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// As what.
    pub target: Target,
    /// How the numbers of matrices lie there.
    pub format: Format,
    /// Elements of all tensors.
    pub parameters: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// A tensor to be written.
struct Piece {
    name: String,
    /// As it stands in the file.
    shape: Vec<usize>,
    format: Format,
    from: From,
    transposed: bool,
    /// Not 0: the rows of so many heads are interleaved.
    heads: usize,
    /// So many zeros follow.
    pad: usize,
}

/// Where a tensor's numbers come from.
enum From {
    Image(Image),
    Numbers(Vec<f32>),
}

impl Piece {
    fn of(image: Image, name: String, format: Format) -> Piece {
        Piece {
            name,
            shape: image.shape.to_vec(),
            format,
            from: From::Image(image),
            transposed: false,
            heads: 0,
            pad: 0,
        }
    }

    fn numel(&self) -> usize {
        self.shape.iter().product::<usize>() + self.pad
    }

    fn size(&self) -> usize {
        self.format.bytes(self.numel()).expect("whole blocks")
    }

    /// The bytes of the file.
    fn bytes(&self, model: &Pretrained) -> Result<Vec<u8>> {
        let mut x = match &self.from {
            From::Numbers(numbers) => numbers.clone(),
            From::Image(image) => {
                let mut x = vec![0.0; image.shape.numel()];
                // A bias that the model lacks adds nothing.
                if model.weights.has(&image.name) {
                    model.weights.read(image, &mut x)?;
                }
                x
            }
        };
        if self.transposed {
            // The shape is already the file's.
            x = transpose(&x, &[self.shape[1], self.shape[0]]);
        }
        if let Some(dim) = self.shape[0].checked_div(self.heads) {
            let columns = self.shape[1..].iter().product::<usize>();
            let mut y = vec![0.0; x.len()];
            for (i, x) in x.chunks_exact(columns).enumerate() {
                y[row(i, dim) * columns..][..columns].copy_from_slice(x);
            }
            x = y;
        }
        x.resize(self.numel(), 0.0);
        if let Some(large) = x.iter().find(|x| x.abs() > self.format.max()) {
            let problem = format!("{}: {large} is too large for {}", self.name, self.format.code().1);
            return Err(Error::usage(problem, "give --dtype bf16 or --dtype f32"));
        }
        let block = self.format.block().0;
        let parts: Vec<Vec<u8>> = x
            .par_chunks((1 << 16) / block * block)
            .map(|x| {
                let mut bytes = Vec::with_capacity(self.format.bytes(x.len()).unwrap_or(0));
                self.format.encode(x, &mut bytes);
                bytes
            })
            .collect();
        Ok(parts.concat())
    }
}

/// Writes the model as `target` to `out`, its matrices in `format` (`None`: the narrowest that loses nothing). `progress` is told of bytes done and of all.
///
/// # Errors
/// There is something at `out`; the target has no such model or format; a value is too large for the format.
pub fn convert(
    model: &Pretrained,
    out: &Path,
    target: Target,
    format: Option<Format>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Written> {
    if Os.kind(out).at(out)?.is_some() {
        return Err(Error::usage(format!("{} is there already", out.display()), "choose another --out, or remove it"));
    }
    disk::make_dirs(&Os, disk::parent(out))?;
    let format = format.unwrap_or_else(|| model.weights.plain(target == Target::Gguf));
    // GPT-2 has biases everywhere but in kiln; zeros do nothing.
    let bias = model.config.bias || model.config.positions == Positions::Learned;
    let config = GptConfig { bias, ..model.config.clone() };
    let images: Vec<Image> = images(&Gpt::new(config.clone()).1).collect();
    let written = |pieces: &[Piece]| Written {
        target,
        format,
        parameters: pieces.iter().map(Piece::numel).sum(),
        bytes: pieces.iter().map(Piece::size).sum(),
    };
    match target {
        Target::Hf => {
            let pieces = hf_pieces(&config, images, format)?;
            directory(model, &config, out, format, &pieces, progress)?;
            Ok(written(&pieces))
        }
        Target::Gguf => {
            let name = out.file_stem().unwrap_or_default().to_string_lossy();
            let (keys, factors) = gguf::write::metadata(&config, model.tokenizer(), &name, format)?;
            let pieces = gguf_pieces(&config, images, factors, format)?;
            let tensors: Vec<_> =
                pieces.iter().map(|piece| (&piece.name[..], &piece.shape[..], piece.format)).collect();
            write(model, out, &gguf::write::header(&keys, &tensors), &pieces, gguf::write::ALIGNMENT, progress)?;
            Ok(written(&pieces))
        }
        Target::Llmc => {
            let header = llmc::header(&config, format)?;
            let pieces = llmc_pieces(&config, images, format);
            if let Some(tokenizer) = model.tokenizer().filter(|tokenizer| tokenizer.json() != Tokenizer::gpt2().json())
            {
                write_atomic(&Os, &llmc::tokenizer_of(out), tokenizer.json().as_bytes())?;
            }
            write(model, out, &header, &pieces, 1, progress)?;
            Ok(written(&pieces))
        }
    }
}

/// Writes a file: the header, then the tensors, each at a multiple of `alignment` after it.
fn write(
    model: &Pretrained,
    path: &Path,
    header: &[u8],
    pieces: &[Piece],
    alignment: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let (mut done, all) = (0, pieces.iter().map(Piece::size).sum());
    let mut file = AtomicFile::create(&Os, path)?;
    file.write(header)?;
    for piece in pieces {
        progress(done, all);
        let mut bytes = piece.bytes(model)?;
        done += bytes.len();
        bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        file.write(&bytes)?;
    }
    progress(done, all);
    file.commit()
}

fn hf_pieces(config: &GptConfig, images: Vec<Image>, format: Format) -> Result<Vec<Piece>> {
    if format == Format::Q8_0 {
        return Err(Error::usage("a Hugging Face directory has no q8_0", "give --to gguf, or --dtype bf16"));
    }
    let prefix = if config.positions == Positions::Learned { "transformer." } else { "" };
    let piece = |image: Image| {
        let name =
            if image.name.starts_with("lm_head.") { image.name.clone() } else { format!("{prefix}{}", image.name) };
        let transposed = image.transposed;
        let mut piece = Piece { transposed, ..Piece::of(image, name, format) };
        if transposed {
            piece.shape.reverse();
        }
        piece
    };
    Ok(images.into_iter().map(piece).collect())
}

fn gguf_pieces(
    config: &GptConfig,
    images: Vec<Image>,
    factors: Option<Vec<f32>>,
    format: Format,
) -> Result<Vec<Piece>> {
    let factors = factors.map(|factors| Piece {
        name: gguf::ROPE_FACTORS.to_owned(),
        shape: vec![factors.len()],
        format: Format::F32,
        from: From::Numbers(factors),
        transposed: false,
        heads: 0,
        pad: 0,
    });
    let piece = |image: Image| {
        let Some((name, heads)) = gguf::write::tensor(config, &image.name) else {
            let problem = format!("GGUF files have no tensor like {}", image.name);
            return Err(Error::usage(problem, "convert it with: --to hf"));
        };
        let format = gguf::write::format(&name, &image.shape, format);
        Ok(Piece { heads, ..Piece::of(image, name, format) })
    };
    factors.into_iter().map(Ok).chain(images.into_iter().map(piece)).collect()
}

fn llmc_pieces(config: &GptConfig, images: Vec<Image>, format: Format) -> Vec<Piece> {
    let mut images: HashMap<String, Image> = images.into_iter().map(|image| (image.name.clone(), image)).collect();
    let piece = |name: String| {
        let image = images.remove(&name).expect("a GPT-2 has these tensors");
        let pad = if name == "wte.weight" { (llmc::rows(config.vocab) - config.vocab) * config.d } else { 0 };
        Piece { pad, ..Piece::of(image, name, format) }
    };
    llmc::names(config.layers).map(piece).collect()
}

/// Fills a hidden folder and gives it its name.
fn directory(
    model: &Pretrained,
    config: &GptConfig,
    out: &Path,
    format: Format,
    pieces: &[Piece],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let temporary = disk::temporary(out);
    disk::remove_all(&Os, &temporary)?;
    Os.create_dir(&temporary).at(&temporary)?;
    let mut fill = || {
        write(model, &temporary.join(hf::MODEL), &safetensors_header(pieces), pieces, 1, progress)?;
        for (name, text) in texts(config, model.tokenizer(), format) {
            write_atomic(&Os, &temporary.join(name), text.as_bytes())?;
        }
        Os.rename(&temporary, out).at(out)?;
        Os.sync_dir(disk::parent(out)).at(out)
    };
    let done = fill();
    if done.is_err() {
        let _ = Os.remove_all(&temporary);
    }
    done
}

fn safetensors_header(pieces: &[Piece]) -> Vec<u8> {
    let mut end = 0;
    let info = |piece: &Piece| {
        let start = end;
        end += piece.size();
        let dtype = match piece.format {
            Format::F16 => Dtype::F16,
            Format::Bf16 => Dtype::BF16,
            _ => Dtype::F32,
        };
        (piece.name.clone(), TensorInfo { dtype, shape: piece.shape.clone(), data_offsets: (start, end) })
    };
    header(pieces.iter().map(info).collect())
}

/// The files of a directory beside its weights.
fn texts(config: &GptConfig, tokenizer: Option<&Tokenizer>, format: Format) -> Vec<(String, String)> {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("plain data") + "\n";
    let mut json = config.to_json();
    json["torch_dtype"] = match format {
        Format::F16 => "float16",
        Format::Bf16 => "bfloat16",
        _ => "float32",
    }
    .into();
    let Some(tokenizer) = tokenizer else { return vec![(hf::CONFIG.to_owned(), pretty(&json))] };
    let spelled = |id: Option<u32>| id.and_then(|id| tokenizer.spelling(id));
    let ends = tokenizer.ends();
    let (start, end) = (tokenizer.start(), ends.last().copied());
    let named = |key: &str| tokenizer.id(tokenizer.setting(key)?.as_str()?);
    let bos = named("bos_token").or(start);
    json["bos_token_id"] = bos.into();
    json["eos_token_id"] = end.into();
    json["pad_token_id"] = named("pad_token").into();
    let generation = json!({"bos_token_id": bos, "eos_token_id": ends, "pad_token_id": named("pad_token")});
    let mut texts =
        vec![(hf::CONFIG.to_owned(), pretty(&json)), ("generation_config.json".to_owned(), pretty(&generation))];
    texts.extend(tokenizer.files().map(|(name, text)| (name.to_owned(), text.to_owned())));
    if tokenizer.files().all(|(name, _)| name != "tokenizer_config.json") {
        let settings = json!({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
            "model_max_length": config.context, "bos_token": spelled(bos), "eos_token": spelled(end)});
        texts.push(("tokenizer_config.json".to_owned(), pretty(&settings)));
    }
    texts
}
