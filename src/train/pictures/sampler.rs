//! A trained model of pictures, ready to draw.

use super::draw::{Maker, draw, labels, noise};
use crate::data::images::{Dims, Grid, Sheet};
use crate::device::Device;
use crate::disk::Os;
use crate::error::{Error, Result};
use crate::formats::peft;
use crate::model::{Gan, GanConfig, Vae, VaeConfig};
use crate::params::{Decl, Hold, MEAN, Params};
use crate::tape::{Pass, Tape};
use crate::train::checkpoint;
use crate::train::tensors::Reader;
use serde_json::Value;
use std::path::Path;

/// A model of pictures with its weights.
pub struct PictureSampler {
    model: Model,
    params: Params,
    tape: Tape,
    shape: [usize; 3],
    damaged: Vec<Error>,
}

enum Model {
    Vae(Box<Vae>),
    Gan(Gan),
}

/// Whether the checkpoint at `path`, or the newest of the run there, is a model of pictures.
///
/// # Errors
/// There is no checkpoint, its `config.json` cannot be read, or it is a VQ-VAE, which needs codes to draw.
pub fn draws(path: &Path) -> Result<bool> {
    let (dir, _) = checkpoint::find(&Os, path)?;
    if peft::is_at(&dir) {
        return Ok(false);
    }
    let json: Value = checkpoint::read_json(&Os, &dir.join(checkpoint::CONFIG))?;
    if json["model_type"] == "vqvae" {
        let hint = "let a language model write codes: kiln data codes RUN --out codes.jsonl; then kiln sample GPT --through RUN";
        return Err(Error::usage(format!("{} is a VQ-VAE, which draws nothing by itself", path.display()), hint));
    }
    Ok(["vae", "gan"].iter().any(|kind| json["model_type"] == *kind))
}

impl PictureSampler {
    /// Loads a checkpoint: `path` is one, or a run, whose newest good checkpoint is taken. Where a running mean of the weights
    /// was kept, pictures are drawn with that.
    ///
    /// # Errors
    /// There is no checkpoint, it is damaged, or its files do not belong together.
    pub fn open(path: &Path, hold: Hold, device: &Device) -> Result<PictureSampler> {
        let (dir, damaged) = checkpoint::find(&Os, path)?;
        let file = dir.join(checkpoint::CONFIG);
        let json: Value = checkpoint::read_json(&Os, &file)?;
        let (model, decls, shape): (Model, Vec<Decl>, [usize; 3]) = if json["model_type"] == "gan" {
            let config = GanConfig::from_json(&json, &file)?;
            let shape = config.shape;
            let (gan, decls) = Gan::new(config);
            (Model::Gan(gan), decls, shape)
        } else {
            let config = VaeConfig::from_json(&json, &file)?;
            let shape = config.shape;
            let (vae, decls) = Vae::new(config);
            (Model::Vae(Box::new(vae)), decls, shape)
        };
        let mut params = Params::frozen(device, &decls, hold);
        checkpoint::load_weights(&Os, &dir.join(checkpoint::MODEL), &mut params)?;
        let mut means = Reader::open(&Os, &dir.join(checkpoint::OPTIM))?;
        for id in params.ids() {
            let mut values = params.weight(id).read::<f32>().into_owned();
            let images = params.images(id).to_vec();
            let name = |image: &crate::params::Image| format!("{MEAN}.{}", image.name);
            if images.iter().all(|image| means.names().contains(&name(image))) {
                for image in &images {
                    means.read(&name(image), &image.shape, image.transposed, &mut values[image.range()])?;
                }
                params.set_weight(id, &values);
            }
        }
        Ok(PictureSampler { model, params, tape: Tape::new(device), shape, damaged })
    }

    /// What is wrong with newer checkpoints of the run, which were passed over.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// The size of its pictures.
    pub fn dims(&self) -> Dims {
        let [height, width, channels] = self.shape;
        Dims { height, width, channels }
    }

    /// `n` pictures (n, H, W, C), of all classes in turn where there are any.
    pub fn pictures(&mut self, n: usize, seed: u64) -> Vec<u8> {
        let PictureSampler { model, params, tape, .. } = self;
        let drawn = match model {
            Model::Vae(vae) => pictures(&**vae, params, tape, [n, 1], None, seed),
            Model::Gan(gan) => pictures(gan, params, tape, [n, 1], None, seed),
        };
        drawn.expect("no class is asked for")
    }

    /// A sheet of so many rows and columns of pictures: of class `label`, or of all in turn.
    ///
    /// # Errors
    /// There is no such class.
    pub fn sheet(&mut self, [rows, columns]: [usize; 2], label: Option<usize>, seed: u64) -> Result<Sheet> {
        let dims = self.dims();
        let PictureSampler { model, params, tape, .. } = self;
        let pictures = match model {
            Model::Vae(vae) => pictures(&**vae, params, tape, [rows, columns], label, seed),
            Model::Gan(gan) => pictures(gan, params, tape, [rows, columns], label, seed),
        }?;
        Ok(Grid::new(columns, dims).draw(&pictures, dims))
    }
}

fn pictures<M: Maker>(
    model: &M,
    params: &Params,
    tape: &mut Tape,
    [rows, columns]: [usize; 2],
    label: Option<usize>,
    seed: u64,
) -> Result<Vec<u8>> {
    let n = rows * columns;
    match (label, model.classes()) {
        (Some(_), None) => {
            let hint = "leave --label out, or train one with --set model.conditional=true";
            return Err(Error::usage("the model was trained without labels", hint));
        }
        (Some(label), Some(classes)) if label >= classes => {
            return Err(Error::usage(format!("there is no class {label}"), format!("give 0 to {}", classes - 1)));
        }
        _ => {}
    }
    let labels = labels(model.classes(), n, columns, label);
    Ok(draw(model, params, tape, Pass::default(), &noise(model.latent(), n, seed), labels.as_deref()))
}
