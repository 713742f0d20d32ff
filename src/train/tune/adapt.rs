//! What is trained of a model that is there: all of it, or adapters beside frozen weights.

use super::section::{Held, Method, TuneModel, TuneRecipe, means, patterns};
use crate::cpu::gemm::Precision;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::formats::peft::PeftConfig;
use crate::model::{Gpt, GptConfig, Positions};
use crate::nn::lora::{is_adapter, module};
use crate::ops::attention::PACKED;
use crate::params::{Decl, Hold, Kind};
use crate::train::lm::Lm;
use crate::train::sampler;
use crate::train::setup::Setup;
use serde_json::Value;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// How each parameter is held.
pub(in crate::train) type HoldOf = Box<dyn Fn(&Decl) -> Hold>;

/// The modules that have an adapter, of all that may.
fn chosen(model: &TuneModel, decls: &[Decl]) -> Result<[Vec<String>; 2]> {
    let matrices = decls.iter().filter(|decl| decl.kind == Kind::Matrix);
    let images = matrices.flat_map(Decl::images);
    let all: Vec<String> = images.filter_map(|image| module(&image.name).map(str::to_owned)).collect();
    let patterns = patterns("model.targets", &model.targets)?;
    let chosen: Vec<String> = all.iter().filter(|name| means(&patterns, name)).cloned().collect();
    if chosen.is_empty() {
        let mut ends: Vec<&str> = all.iter().filter_map(|name| name.rsplit('.').next()).collect();
        ends.sort_unstable();
        ends.dedup();
        let problem = format!("no linear layer is called so: {:?}", model.targets);
        return Err(Error::config("model.targets", problem, format!("the model has {}", ends.join(", "))));
    }
    Ok([chosen, all])
}

/// Whether a device can do it.
pub(in crate::train) fn supported(recipe: &TuneRecipe, config: &GptConfig, device: &Device) -> Result<()> {
    Setup::of(recipe).supported(device)?;
    let (TuneModel { method, rank, frozen, .. }, precision) = (&recipe.model, recipe.train.precision);
    Lm::supported(config, precision, device)?;
    let Device::Gpu(_) = device else { return Ok(()) };
    if recipe.data.packing {
        return Err(Error::config("data.packing", PACKED, "set it to false: each example has a row of its own"));
    }
    if *method == Method::Dora {
        let hint = "set it to \"lora\", or train on the CPU (--device cpu)";
        return Err(Error::config("model.method", "DoRA has no kernels for a GPU", hint));
    }
    let half = precision == Precision::Bf16;
    if *frozen != if half { Held::Bf16 } else { Held::F32 } {
        let problem = format!("on a GPU frozen weights are held in train.precision, {}", precision.name());
        return Err(Error::config("model.frozen", problem, format!("set it to {:?}", precision.name())));
    }
    if *method == Method::Lora && half && !rank.is_multiple_of(8) {
        let problem = format!("rows of {rank} elements: those of a GPU's products in bf16 are multiples of 8");
        return Err(Error::config("model.rank", problem, "take a multiple of 8, or train.precision = \"f32\""));
    }
    Ok(())
}

/// The model `config` with what is trained of it: its parameters, and how each is held.
///
/// # Errors
/// Patterns of the recipe mean no layer, or all parameters.
pub(in crate::train) fn layout(
    model: &TuneModel,
    config: &GptConfig,
    device: &Device,
) -> Result<(Gpt, Vec<Decl>, HoldOf)> {
    let (mut gpt, mut decls) = Gpt::new(config.clone());
    let on_gpu = matches!(device, Device::Gpu(_));
    let frozen = model.frozen.hold();
    // A GPU's kernels take vectors in f32.
    let held = move |decl: &Decl| if on_gpu && decl.kind == Kind::Vector { Hold::Frozen } else { frozen };
    let hold: HoldOf = match model.method {
        Method::Lora | Method::Dora => {
            let patterns = patterns("model.targets", &model.targets)?;
            chosen(model, &decls)?;
            gpt.adapt(&mut decls, &model.lora(), &|name| means(&patterns, name));
            Box::new(move |decl| if is_adapter(&decl.name) { Hold::Train } else { held(decl) })
        }
        Method::Full => {
            let patterns = patterns("model.freeze", &model.freeze)?;
            let stays = move |decl: &Decl| decl.images().iter().all(|image| means(&patterns, &image.name));
            if decls.iter().all(&stays) {
                let hint = "leave some of them out";
                return Err(Error::config("model.freeze", "nothing is left to train", hint));
            }
            Box::new(move |decl| if stays(decl) { held(decl) } else { Hold::Train })
        }
    };
    Ok((gpt, decls, hold))
}

/// `adapter_config.json` of what is trained, or `config.json`.
///
/// # Errors
/// As of [`layout`].
pub(in crate::train) fn files_of(model: &TuneModel, config: &GptConfig) -> Result<Value> {
    Ok(match model.method {
        Method::Full => config.to_json(),
        Method::Lora | Method::Dora => {
            let TuneModel { base, rank, alpha, dropout, rslora, .. } = model;
            let [chosen, all] = chosen(model, &Gpt::new(config.clone()).1)?;
            let path = base.as_deref().unwrap_or(Path::new(""));
            let numbers = [*rank as f64, f64::from(*alpha), f64::from(*dropout)];
            let peft = PeftConfig::lora(&path.to_string_lossy(), numbers, &chosen, &all);
            let peft = PeftConfig {
                use_rslora: *rslora,
                use_dora: model.method == Method::Dora,
                fan_in_fan_out: config.positions == Positions::Learned,
                ..peft
            };
            serde_json::to_value(peft).expect("plain data")
        }
    })
}

/// Where the base of a recipe lies now: a run may go on, and is another model then; what an adapter belongs to is one of its checkpoints.
///
/// # Errors
/// There is none.
pub(in crate::train) fn place(model: &TuneModel) -> Result<Option<PathBuf>> {
    Ok(model.base.as_deref().map(sampler::place).transpose()?.map(|(path, _)| absolute(&path)))
}

/// The recipe, with this base.
pub(in crate::train) fn with_base(recipe: &TuneRecipe, base: Option<PathBuf>) -> Cow<'_, TuneRecipe> {
    match base == recipe.model.base {
        true => Cow::Borrowed(recipe),
        false => Cow::Owned(TuneRecipe { model: TuneModel { base, ..recipe.model.clone() }, ..recipe.clone() }),
    }
}

/// A path that means the same from any folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or(path.to_owned())
}
