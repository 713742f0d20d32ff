//! A whole training step of a model of pictures, on random ones.

use super::{Case, Part, Started, Unit, Work};
use crate::cpu::gemm::Precision;
use crate::data::images::{Dims, Pictures};
use crate::error::Result;
use crate::model::{GanConfig, VaeConfig};
use crate::rng::{Purpose, Stream};
use crate::train::pictures::gan::GanRecipe;
use crate::train::pictures::vae::VaeRecipe;
use crate::train::pictures::{GanTask, VaeTask, gan, vae};
use crate::train::{Objective, Trainer};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// The models, by the names of their recipes.
pub const NAMES: [&str; 3] = ["vae-mlp", "vae-conv", "dcgan"];

/// As MNIST's.
const DIMS: Dims = Dims { height: 28, width: 28, channels: 1 };
const SHAPE: [usize; 3] = [28, 28, 1];

/// B.
const BATCH: usize = 128;

/// Pictures to draw batches from.
const PICTURES: usize = 4096;

/// The step of the recipe called `name`, on 128 pictures of 28 × 28; `None` where there is no such recipe.
pub fn case(name: &str, precision: Precision) -> Option<Case> {
    let name = *NAMES.iter().find(|known| **known == name)?;
    Some(Case::new("step", format!("{name} {}", precision.name()), spec(name, precision), move |device| {
        let set = [format!("train.precision={}", precision.name()), format!("train.batch={BATCH}")];
        let pictures = pictures();
        Ok(match name {
            "dcgan" => {
                let recipe = GanRecipe::from_toml(gan::DEFAULT, Path::new(name), &set)?;
                let config = GanConfig::dcgan(SHAPE);
                started(GanTask::trainer(&recipe, Some(&pictures), config, device)?, precision)?
            }
            _ => {
                let text = if name == "vae-conv" { vae::CONV } else { vae::DEFAULT };
                let recipe = VaeRecipe::from_toml(text, Path::new(name), &set)?;
                let config = if name == "vae-conv" { VaeConfig::conv(SHAPE) } else { VaeConfig::mlp(SHAPE) };
                started(VaeTask::trainer(&recipe, Some(&pictures), config, device)?, precision)?
            }
        })
    }))
}

/// What a peer needs in order to build the same model.
fn spec(name: &str, precision: Precision) -> Value {
    json!({"pictures": name, "batch": BATCH, "precision": precision.name()})
}

fn pictures() -> Pictures {
    let stream = Stream::new(1, Purpose::Test, 0, 0);
    let values = (0..PICTURES * DIMS.values()).map(|i| stream.bits(i as u64) as u8).collect();
    Pictures::new(DIMS, values, None, Vec::new())
}

/// The step, to be timed: the making of its batch is part of it.
fn started<O: Objective + 'static>(mut trainer: Trainer<O>, precision: Precision) -> Result<Started> {
    let work = Work { flops: trainer.flops_per_step(), precision, ..Work::default() };
    let mut steps = 0;
    let mut step = move || {
        let start = Instant::now();
        trainer.step(steps)?;
        steps += 1;
        Ok(vec![start.elapsed().as_secs_f64()])
    };
    // A GPU's third step records itself.
    for _ in 0..3 {
        step()?;
    }
    Ok(Started { parts: vec![Part::whole(work, Unit::Pictures(BATCH))], repeat: Box::new(step) })
}
