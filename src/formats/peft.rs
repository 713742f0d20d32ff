//! Adapters as Hugging Face's PEFT has them: a directory with `adapter_config.json` and `adapter_model.safetensors`, of
//! low-rank corrections to the weights of a base model that lies elsewhere.
//!
//! ```text
//! W' = W + s · B·A                        LoRA: A (r, in), B (out, r), s = alpha/r, or alpha/√r (rsLoRA)
//! W' = m ∘ (W + s · B·A) / ‖W + s · B·A‖  DoRA: m (out), the norm of each row (Liu et al. 2024, arXiv 2402.09353, eq. 5)
//! ```
//! Read, they are merged into weights as these are read from the base's file, so whatever a model can be used for an adapted
//! one can; several follow one another. Tensors are named by the module of `transformers` that they belong to:
//! `base_model.model.MODULE.lora_A.weight`, `….lora_B.weight`, `….lora_magnitude_vector`.

use super::block::Format;
use super::hf;
use super::weights::images;
use super::{Pretrained, SCORE_TENSOR};
use crate::data::Tokenizer;
use crate::data::map::Map;
use crate::data::tokenizer::TOKENIZER_FILE;
use crate::error::{Error, Result};
use crate::model::{Gpt, Positions};
use crate::nn::lora::{GPT2, PREFIX, module};
use crate::params::Image;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map as Json, Value};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// What an adapter is.
pub const CONFIG: &str = "adapter_config.json";
/// Its weights.
pub const MODEL: &str = "adapter_model.safetensors";

/// `adapter_config.json`, as far as kiln knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeftConfig {
    /// `LORA`.
    pub peft_type: String,
    /// What the model is for: `CAUSAL_LM`.
    #[serde(default)]
    pub task_type: Option<String>,
    /// Where the base model is.
    pub base_model_name_or_path: Option<String>,
    /// The rank.
    pub r: usize,
    /// The numerator of the scale.
    pub lora_alpha: f64,
    /// The share of a layer's input that was dropped in training.
    #[serde(default)]
    pub lora_dropout: f64,
    /// The modules that are adapted: the ends of their names.
    pub target_modules: Value,
    /// Which biases were trained: `none`.
    #[serde(default = "none")]
    pub bias: String,
    /// Whether the base stores weights as (in, out), as GPT-2 does.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    /// Whether the scale is alpha/√r.
    #[serde(default)]
    pub use_rslora: bool,
    /// Whether rows have a norm of their own.
    #[serde(default)]
    pub use_dora: bool,
    /// Modules that are replaced as a whole.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// Modules with an alpha of their own.
    #[serde(default)]
    pub alpha_pattern: Json<String, Value>,
    /// Modules with a rank of their own; it is read from their tensors.
    #[serde(default)]
    pub rank_pattern: Json<String, Value>,
    /// How A and B began.
    #[serde(default)]
    pub init_lora_weights: Value,
    /// Whether it is for use, not for training.
    #[serde(default)]
    pub inference_mode: bool,
}

fn none() -> String {
    "none".into()
}

impl PeftConfig {
    /// Of an adapter of these modules, of all that the model has: their names' ends where these tell them, else whole names.
    pub fn lora(base: &str, [rank, alpha, dropout]: [f64; 3], chosen: &[String], all: &[String]) -> PeftConfig {
        let end = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
        let ends: BTreeSet<String> = chosen.iter().map(|name| end(name)).collect();
        let all_of_them = all.iter().filter(|name| ends.contains(&end(name))).count() == chosen.len();
        let targets: Vec<String> = if all_of_them { ends.into_iter().collect() } else { chosen.to_vec() };
        PeftConfig {
            peft_type: "LORA".into(),
            task_type: Some("CAUSAL_LM".into()),
            base_model_name_or_path: Some(base.to_owned()),
            r: rank as usize,
            lora_alpha: alpha,
            lora_dropout: dropout,
            target_modules: targets.into(),
            bias: none(),
            fan_in_fan_out: false,
            use_rslora: false,
            use_dora: false,
            modules_to_save: None,
            alpha_pattern: Json::new(),
            rank_pattern: Json::new(),
            init_lora_weights: true.into(),
            inference_mode: true,
        }
    }

    /// The numerator of the scale of a module.
    fn alpha(&self, module: &str) -> f64 {
        let own = |(name, alpha): (&String, &Value)| {
            (module == name || module.ends_with(&format!(".{name}"))).then(|| alpha.as_f64()).flatten()
        };
        self.alpha_pattern.iter().find_map(own).unwrap_or(self.lora_alpha)
    }

    fn check(&self, file: &Path) -> Result<()> {
        let wrong = |at: &str, expected: &str, found: String| {
            Err(Error::format(file, at, expected, found, "merge it into its base with PEFT (merge_and_unload)"))
        };
        if self.peft_type != "LORA" {
            return wrong("peft_type", "\"LORA\"", format!("{:?}", self.peft_type));
        }
        if self.bias != "none" {
            return wrong("bias", "\"none\"", format!("{:?}", self.bias));
        }
        match &self.modules_to_save {
            Some(modules) if modules.iter().any(|module| module != "score") => {
                wrong("modules_to_save", "none, or that of a reward model", format!("{modules:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// The correction of a module's weights.
struct Delta {
    /// (r, in).
    a: Vec<f32>,
    /// (out, r).
    b: Vec<f32>,
    /// (out).
    magnitude: Option<Vec<f32>>,
    rank: usize,
    scale: f32,
}

/// Corrections of a model's weights, by the names of tensors in files.
pub struct Adapter {
    path: PathBuf,
    deltas: HashMap<String, Delta>,
}

impl Adapter {
    /// Whether it corrects a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.deltas.contains_key(name)
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Corrects the weights (out, in) of the tensor `image`, where it is one of the adapter's.
    pub fn merge(&self, image: &Image, w: &mut [f32]) {
        let Some(Delta { a, b, magnitude, rank, scale }) = self.deltas.get(&image.name) else { return };
        let (_, columns) = image.shape.as_matrix();
        w.par_chunks_mut(columns).enumerate().for_each(|(i, w)| {
            for (b, a) in b[i * rank..][..*rank].iter().zip(a.chunks_exact(columns)) {
                let by = scale * b;
                w.iter_mut().zip(a).for_each(|(w, a)| *w += by * a);
            }
            if let Some(magnitude) = magnitude {
                let norm = w.iter().map(|w| f64::from(*w) * f64::from(*w)).sum::<f64>().sqrt() as f32;
                let by = if norm > 0.0 { magnitude[i] / norm } else { 0.0 };
                w.iter_mut().for_each(|w| *w *= by);
            }
        });
    }
}

/// A tensor's shape and elements.
type Numbers = (Vec<usize>, Vec<f32>);

/// Whether `dir` is an adapter.
pub fn is_at(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
}

/// The base model of the adapter `dir`: a path as from the current folder or, where there is none, as from the adapter's.
///
/// # Errors
/// The adapter names none, or it is not there.
pub fn base(dir: &Path) -> Result<PathBuf> {
    let file = dir.join(CONFIG);
    let config: PeftConfig = hf::json(&file)?;
    let wrong = |found: &str| {
        let hint = format!("write the base model's path there, in {}", file.display());
        Error::format(&file, "base_model_name_or_path", "a model on this machine", found, hint)
    };
    let name = config.base_model_name_or_path.ok_or_else(|| wrong("none"))?;
    let beside = dir.join(&name);
    match PathBuf::from(&name) {
        path if path.exists() => Ok(path),
        _ if beside.exists() => Ok(beside),
        _ => Err(wrong(&format!("{name:?}, which is not there"))),
    }
}

/// The model that the adapter `dir` makes of `base`; with the adapter's tokenizer, where it came with one.
///
/// # Errors
/// A file is missing or damaged, the adapter is of a kind that kiln has not, or belongs to another model.
pub fn open(dir: &Path, base: Pretrained) -> Result<Pretrained> {
    let file = dir.join(CONFIG);
    let config: PeftConfig = hf::json(&file)?;
    config.check(&file)?;
    let path = dir.join(MODEL);
    let map = Map::open(&path)?;
    let (start, header) = hf::header(&path, &map)?;
    let wrong = |name: &str, expected: String, found: String| {
        Error::format(&path, name, expected, found, "the adapter belongs to another base model")
    };
    let before = if base.config.positions == Positions::Learned { GPT2 } else { "" };
    let (_, decls) = Gpt::new(base.config.clone());
    let mut known: HashMap<String, Image> = HashMap::new();
    for image in images(&decls).filter(|image| image.shape.len() == 2) {
        if let Some(module) = module(&image.name) {
            known.insert(format!("{before}{module}"), image);
        }
    }
    let mut parts: HashMap<String, [Option<Numbers>; 3]> = HashMap::new();
    let mut score = None;
    for name in header.names() {
        const ENDS: [&str; 3] = [".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"];
        let info = header.info(&name).expect("a name of the header");
        let Some(format) = Format::of(info.dtype) else {
            return Err(wrong(&name, "F32, F16 or BF16".into(), format!("{:?}", info.dtype)));
        };
        let (from, to) = info.data_offsets;
        let mut x = vec![0.0; info.shape.iter().product()];
        format.decode(&map[start + from..start + to], &mut x);
        if let Some(bad) = x.iter().find(|x| !x.is_finite()) {
            return Err(wrong(&name, "finite numbers".into(), bad.to_string()));
        }
        let tensor = name.strip_prefix(PREFIX).unwrap_or(&name);
        if tensor == SCORE_TENSOR && info.shape == [1, base.config.d] {
            score = Some(x);
            continue;
        }
        let end = ENDS.iter().position(|end| tensor.ends_with(end));
        let Some((module, end)) = end.and_then(|i| Some((tensor.strip_suffix(ENDS[i])?, i))) else {
            return Err(wrong(&name, "lora_A, lora_B or lora_magnitude_vector of a layer".into(), "another".into()));
        };
        if !known.contains_key(module) {
            return Err(wrong(&name, "a linear layer of the base".into(), format!("{module:?}, which it has not")));
        }
        parts.entry(module.to_owned()).or_default()[end] = Some((info.shape.clone(), x));
    }
    map.check()?;
    if parts.is_empty() {
        return Err(wrong("header", "tensors of adapted layers".into(), "none".into()));
    }
    let mut deltas = HashMap::new();
    for (module, [a, b, magnitude]) in parts {
        let image = &known[&module];
        let (out, inner) = image.shape.as_matrix();
        let shapes = [&a, &b].map(|x| x.as_ref().map(|(shape, _)| shape.clone()));
        let rank = shapes[0].as_ref().and_then(|shape| shape.first().copied()).unwrap_or_default();
        let expected = [Some(vec![rank, inner]), Some(vec![out, rank])];
        let fits = magnitude.as_ref().is_none_or(|(shape, _)| shape.iter().product::<usize>() == out);
        let dora = magnitude.is_some() == config.use_dora;
        let (Some((_, a)), Some((_, b)), true) = (a, b, shapes == expected && rank > 0 && fits && dora) else {
            let expected = format!("lora_A (r, {inner}), lora_B ({out}, r) and, of a DoRA, a vector of {out}");
            return Err(wrong(&module, expected, format!("shapes {shapes:?}")));
        };
        let by = if config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        let scale = (config.alpha(&module) / by) as f32;
        let delta = Delta { a, b, magnitude: magnitude.map(|(_, x)| x), rank, scale };
        deltas.insert(image.name.clone(), delta);
    }
    let file = dir.join(TOKENIZER_FILE);
    let tokenizer = if file.is_file() { Some(Tokenizer::load(&file)?) } else { base.tokenizer().cloned() };
    let (mut weights, score) = (base.weights, score.or(base.score));
    weights.adapt(Adapter { path, deltas });
    Ok(Pretrained { score, ..Pretrained::new(dir, base.config, tokenizer, weights)? })
}
