//! Vector-quantised autoencoders: pictures as grids of codes.

use super::draw::BATCH;
use super::task::{Exam, Painter, PictureRecipe, PictureTask, View};
use super::vae::{Pixel, channels};
use super::{misfit, shape};
use crate::data::images::{Dims, Grid, PictureBatches, Range, Sheet};
use crate::device::Device;
use crate::error::Result;
use crate::model::vqvae::perplexity;
use crate::model::{VqVae, VqVaeConfig};
use crate::params::{Decl, Params};
use crate::settings::{Schema, positive, range, require};
use crate::tape::{Pass, Tape};
use crate::tensor::{Spec, Tensor};
use crate::train::fit::Family;
use crate::train::fit::remedy::below;
use crate::train::objective::{Batch, Found, MAX_TENSORS, Objective, Turn, Values};
use crate::train::recipe::{Architecture, Section, Train};
use crate::train::task::Evaluation;
use crate::train::trainer::Trainer;
use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A recipe for a VQ-VAE.
pub type VqVaeRecipe = PictureRecipe<VqVaeModel>;

/// A VQ-VAE in training on pictures.
pub type VqVaeTask = PictureTask<VqVaeObjective>;

/// The default recipe, as TOML with comments.
pub const DEFAULT: &str = include_str!("../../../data/recipes/vqvae.toml");

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqVaeModel {
    /// Always `vqvae`.
    pub kind: VqVaeKind,
    /// Channels of the convolutions, one at least.
    pub channels: Vec<usize>,
    /// K: codes.
    pub codes: usize,
    /// D: the width of a code.
    pub width: usize,
    /// What the encoder's commitment to its codes counts.
    pub commitment: f32,
    /// What is kept of the codebook's averages in a step.
    pub decay: f32,
    /// What the decoder says of a pixel.
    pub likelihood: Pixel,
    /// The deviation of a pixel's brightness, where it is Gaussian.
    pub deviation: f64,
}

/// `model.kind` of a VQ-VAE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VqVaeKind {
    /// A vector-quantised autoencoder.
    VqVae,
}

impl VqVaeModel {
    fn config(&self, shape: [usize; 3]) -> VqVaeConfig {
        let VqVaeModel { ref channels, codes, width, commitment, decay, .. } = *self;
        let likelihood = self.likelihood.with(self.deviation);
        VqVaeConfig { shape, channels: channels.clone(), codes, width, commitment, decay, likelihood }
    }
}

impl Section for VqVaeModel {
    fn check(&self, _: &Train) -> Result<()> {
        range("model.channels", self.channels.len(), 1..=8)?;
        self.channels.iter().try_for_each(|&channels| range("model.channels", channels, 1..=65_536))?;
        range("model.codes", self.codes, 2..=16_384)?;
        range("model.width", self.width, 1..=4096)?;
        require((0.0..=1e3).contains(&self.commitment), "model.commitment", self.commitment, "0 to 1000, as 0.25")?;
        require((0.0..1.0).contains(&self.decay), "model.decay", self.decay, "from 0 to below 1, as 0.99")?;
        positive("model.deviation", self.deviation)
    }

    fn fixed(&self, _: &Train) -> Vec<(&'static str, String)> {
        vec![
            ("model.kind", format!("{:?}", self.kind)),
            ("model.channels", format!("{:?}", self.channels)),
            ("model.codes", self.codes.to_string()),
            ("model.width", self.width.to_string()),
            ("model.likelihood", format!("{:?}", self.likelihood)),
        ]
    }
}

impl Architecture for VqVaeModel {
    const SCHEMA: Schema = Schema {
        default: DEFAULT,
        optional: &["data.path", "data.size", "data.colour", "eval.max_batches"],
        free: &[],
        file: "data/recipes/vqvae.toml",
        example: "train.steps=100",
    };

    fn smaller(&self, _: &Train) -> Vec<Family> {
        let codes = Family::of("fewer codes", "model.codes", below(self.codes, 2));
        channels(&self.channels).into_iter().chain([codes]).collect()
    }
}

/// A VQ-VAE and its pictures. A micro-batch is pictures (B, H, W, C).
pub struct VqVaeObjective {
    /// The model.
    pub vqvae: VqVae,
    batches: Option<PictureBatches>,
    batch: usize,
    micros: usize,
}

impl Objective for VqVaeObjective {
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS> {
        let [h, w, c] = self.vqvae.config().shape;
        [Spec::f32([self.batch, h, w, c])].into_iter().collect()
    }

    fn fill(&self, batch: u64, micro: usize, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let pictures = x.into_iter().next().expect("pictures").numbers();
        if let Some(batches) = &self.batches {
            batches.fill(batch * self.micros as u64 + micro as u64, pictures, &mut []);
        }
        Ok(())
    }

    fn turn(&mut self, _: u8, turn: Turn, x: &Batch) -> Found {
        let Turn { tape, params, pass, micros, last } = turn;
        tape.begin(params, pass);
        let found = self.vqvae.loss(tape.constant(x[0].clone()));
        let parts = [found.reconstruction, found.commitment].map(|v| v.value());
        let loss = if micros == 1 { found.loss } else { found.loss.scale(1.0 / micros as f32) };
        let found = Found { loss: loss.value(), parts: parts.into_iter().collect() };
        loss.backward(params, last);
        found
    }

    fn parts(&self, _: u8) -> &'static [&'static str] {
        &["reconstruction", "commitment"]
    }

    fn flops(&self) -> f64 {
        0.0
    }
}

/// The ids (n, h·w) of pictures (n, H, W, C).
pub fn encode(vqvae: &VqVae, params: &Params, tape: &mut Tape, pass: Pass, pictures: &[u8]) -> Vec<i32> {
    let [h, w, c] = vqvae.config().shape;
    let mut ids = Vec::new();
    for part in pictures.chunks(BATCH * h * w * c) {
        let x: Vec<f32> = part.iter().map(|&byte| Range::Unit.value(byte)).collect();
        tape.begin(params, pass);
        let x = tape.constant(Tensor::from_slice(tape.device(), &x, [part.len() / (h * w * c), h, w, c]));
        ids.extend_from_slice(&tape.no_grad(|| vqvae.encode(x).value()).read::<i32>());
    }
    tape.reset();
    ids
}

/// The pictures (n, H, W, C) of ids (n, h·w).
pub fn decode(vqvae: &VqVae, params: &Params, tape: &mut Tape, pass: Pass, ids: &[i32]) -> Vec<u8> {
    let cells: usize = vqvae.config().grid().iter().product();
    let mut pictures = Vec::new();
    for part in ids.chunks(BATCH * cells) {
        tape.begin(params, pass);
        let ids = tape.constant(Tensor::from_slice(tape.device(), part, [part.len() / cells, cells]));
        let made = tape.no_grad(|| vqvae.picture(vqvae.decode(ids)).cast(crate::tensor::DType::F32).value());
        pictures.extend(Range::Unit.bytes(&made.read::<f32>()));
    }
    tape.reset();
    pictures
}

impl Painter for VqVaeObjective {
    type Model = VqVaeModel;
    type Config = VqVaeConfig;

    const RANGE: Range = Range::Unit;
    const WHAT: &'static str = "A vector-quantised autoencoder";
    const NEXT: [&'static str; 2] = ["kiln data codes ", " --out codes.jsonl"];

    fn config(model: &VqVaeModel, dims: Dims, _: usize) -> Result<VqVaeConfig> {
        let config = model.config(shape(dims));
        config.check().map_err(|wrong| misfit(dims, &wrong))?;
        Ok(config)
    }

    fn new(
        recipe: &VqVaeRecipe,
        config: VqVaeConfig,
        batches: Option<PictureBatches>,
        _: &Device,
    ) -> (VqVaeObjective, Vec<Decl>) {
        let (vqvae, decls) = VqVae::new(config);
        (VqVaeObjective { vqvae, batches, batch: recipe.train.batch, micros: recipe.train.accumulate }, decls)
    }

    fn to_json(&self) -> Value {
        self.vqvae.config().to_json()
    }

    /// The loss of held-out pictures, and how many codes they use.
    fn evaluate(
        trainer: &mut Trainer<VqVaeObjective>,
        exam: Exam,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let pass = trainer.eval_pass();
        let Trainer { objective: VqVaeObjective { vqvae, .. }, params, tape, .. } = trainer;
        let (held_out, config) = (exam.held_out, vqvae.config());
        let batch = exam.batch.min(held_out.len());
        let total = held_out.len().div_ceil(batch).min(exam.most);
        let (mut count, mut sums, mut ids) = (0, [0.0; 2], Vec::new());
        for i in 0..total {
            let n = batch.min(held_out.len() - i * batch);
            let [h, w, c] = config.shape;
            let mut x = vec![0.0; n * h * w * c];
            held_out.fill(i * batch, Range::Unit, &mut x, &mut []);
            tape.begin(params, pass);
            let tape = &*tape;
            let x = tape.constant(Tensor::from_slice(tape.device(), &x, [n, h, w, c]));
            let found = tape.no_grad(|| vqvae.loss(x));
            let parts = [found.reconstruction, found.commitment].map(|v| f64::from(v.value().item()));
            sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += n as f64 * part);
            ids.extend_from_slice(&found.ids.value().read::<i32>());
            count += n;
            if !progress(i + 1, total) {
                return Ok(None);
            }
        }
        let [reconstruction, commitment] = sums.map(|sum| sum / count as f64);
        let loss = reconstruction + f64::from(config.commitment) * commitment;
        let perplexity = perplexity(&ids, config.codes);
        let parts = vec![("reconstruction", reconstruction), ("commitment", commitment), ("perplexity", perplexity)];
        let mut warnings = Vec::new();
        if perplexity < 0.1 * config.codes as f64 {
            let used = format!("the codes are used as if there were {perplexity:.1} of {}", config.codes);
            warnings.push(format!("{used}: lower model.codes or model.decay, or train longer"));
        }
        Ok(Some(Evaluation { loss, parts, warnings }))
    }

    /// What becomes of held-out pictures.
    fn show(trainer: &mut Trainer<VqVaeObjective>, view: &View) -> Vec<(&'static str, Sheet)> {
        let pass = trainer.eval_pass();
        let Trainer { objective: VqVaeObjective { vqvae, .. }, params, tape, .. } = trainer;
        let (held_out, dims) = (view.held_out, view.held_out.dims());
        let n = (view.rows * view.columns / 2).clamp(1, held_out.len());
        let originals: Vec<u8> = (0..n).flat_map(|i| held_out.get(i)).copied().collect();
        let ids = encode(vqvae, params, tape, pass, &originals);
        let again = decode(vqvae, params, tape, pass, &ids);
        vec![("", Grid::new(view.columns, dims).pairs(&originals, &again, dims))]
    }
}
