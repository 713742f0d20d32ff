//! Variational autoencoders: the evidence lower bound, with β warmed up.

use super::draw::{BATCH, between, draw, labels, noise};
use super::task::{Exam, Painter, PictureRecipe, PictureTask, View};
use super::{misfit, shape};
use crate::data::images::{Dims, Grid, PictureBatches, Pictures, Range, Sheet};
use crate::device::Device;
use crate::error::Result;
use crate::model::{Likelihood, Vae, VaeConfig};
use crate::params::Decl;
use crate::settings::{Schema, positive, range, require};
use crate::tape::{Pass, Tape, Var};
use crate::tensor::{DType, Spec, Tensor};
use crate::train::fit::Family;
use crate::train::fit::remedy::below;
use crate::train::objective::{Batch, Found, MAX_TENSORS, Objective, Turn, Values};
use crate::train::recipe::{Architecture, Section, Train};
use crate::train::task::Evaluation;
use crate::train::trainer::Trainer;
use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A recipe for a VAE.
pub type VaeRecipe = PictureRecipe<VaeModel>;

/// A VAE in training on pictures.
pub type VaeTask = PictureTask<VaeObjective>;

/// The default recipe, as TOML with comments.
pub const DEFAULT: &str = include_str!("../../../data/recipes/vae-mlp.toml");

/// What differs in a convolutional one.
pub const CONV: &str = include_str!("../../../data/recipes/vae-conv.toml");

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeModel {
    /// Always `vae`.
    pub kind: VaeKind,
    /// Channels of the convolutions; none: fully connected.
    pub channels: Vec<usize>,
    /// Width of the hidden layer.
    pub hidden: usize,
    /// L: latent variables.
    pub latent: usize,
    /// What the decoder says of a pixel.
    pub likelihood: Pixel,
    /// The deviation of a pixel's brightness, where it is Gaussian.
    pub deviation: f64,
    /// Whether the model is told the label of each picture.
    pub conditional: bool,
    /// How often the divergence counts.
    pub beta: f64,
    /// Steps in which β grows to that from 0.
    pub beta_warmup: u64,
    /// Nats of divergence in each dimension that cost nothing.
    pub free_bits: f32,
}

/// `model.kind` of a VAE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VaeKind {
    /// A variational autoencoder.
    Vae,
}

/// `model.likelihood`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pixel {
    /// Its brightness as a probability.
    Bernoulli,
    /// Its brightness, with a deviation.
    Gaussian,
}

impl Pixel {
    /// The likelihood, with this deviation where it has one.
    pub fn with(self, deviation: f64) -> Likelihood {
        match self {
            Pixel::Bernoulli => Likelihood::Bernoulli,
            Pixel::Gaussian => Likelihood::Gaussian(deviation),
        }
    }
}

impl VaeModel {
    /// The model of pictures of this shape with so many classes, 0 where they have no labels.
    fn config(&self, shape: [usize; 3], classes: usize) -> VaeConfig {
        VaeConfig {
            shape,
            channels: self.channels.clone(),
            hidden: self.hidden,
            latent: self.latent,
            likelihood: self.likelihood.with(self.deviation),
            classes: self.conditional.then_some(classes),
        }
    }

    /// β at a step.
    fn beta_at(&self, step: u64) -> f32 {
        let share = (step + 1) as f64 / self.beta_warmup.max(1) as f64;
        (self.beta * share.min(1.0)) as f32
    }
}

impl Section for VaeModel {
    fn check(&self, _: &Train) -> Result<()> {
        range("model.channels", self.channels.len(), 0..=8)?;
        self.channels.iter().try_for_each(|&channels| range("model.channels", channels, 1..=65_536))?;
        range("model.hidden", self.hidden, 1..=65_536)?;
        range("model.latent", self.latent, 1..=65_536)?;
        require(self.beta.is_finite() && self.beta >= 0.0, "model.beta", self.beta, "a finite number, 0 or more")?;
        let free = self.free_bits;
        require(free.is_finite() && free >= 0.0, "model.free_bits", free, "a finite number, 0 or more")?;
        positive("model.deviation", self.deviation)
    }

    fn fixed(&self, _: &Train) -> Vec<(&'static str, String)> {
        vec![
            ("model.kind", format!("{:?}", self.kind)),
            ("model.channels", format!("{:?}", self.channels)),
            ("model.hidden", self.hidden.to_string()),
            ("model.latent", self.latent.to_string()),
            ("model.likelihood", format!("{:?}", self.likelihood)),
            ("model.deviation", self.deviation.to_string()),
            ("model.conditional", self.conditional.to_string()),
        ]
    }
}

impl Architecture for VaeModel {
    const SCHEMA: Schema = Schema {
        default: DEFAULT,
        optional: &["data.path", "data.size", "data.colour", "eval.max_batches"],
        free: &[],
        file: "data/recipes/vae-mlp.toml",
        example: "train.steps=100",
    };

    fn smaller(&self, _: &Train) -> Vec<Family> {
        let hidden = Family::of("a narrower hidden layer", "model.hidden", below(self.hidden, 1));
        channels(&self.channels).into_iter().chain([hidden]).collect()
    }
}

/// Fewer channels of convolutions, where there are any.
pub(super) fn channels(all: &[usize]) -> Option<Family> {
    let less = (1..usize::BITS).map(|halves| all.iter().map(|c| (c >> halves).max(1)).collect::<Vec<usize>>());
    let less: Vec<String> =
        less.take_while(|less| less.iter().any(|&c| c > 1)).map(|less| format!("{less:?}")).collect();
    (!less.is_empty()).then(|| Family::of("narrower convolutions", "model.channels", less))
}

/// A VAE and its pictures. A micro-batch is pictures (B, H, W, C), β, and labels (B) where the model knows of them.
pub struct VaeObjective {
    /// The model.
    pub vae: Vae,
    batches: Option<PictureBatches>,
    settings: VaeModel,
    batch: usize,
    micros: usize,
}

impl VaeObjective {
    fn labelled(&self) -> bool {
        self.vae.config().classes.is_some()
    }
}

impl Objective for VaeObjective {
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS> {
        let ([h, w, c], n) = (self.vae.config().shape, self.batch);
        let labels = self.labelled().then(|| Spec { shape: [n].into(), dtype: DType::I32 });
        [Spec::f32([n, h, w, c]), Spec::f32([])].into_iter().chain(labels).collect()
    }

    fn fill(&self, batch: u64, micro: usize, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let mut x = x.into_iter();
        let (pictures, beta) = (x.next().expect("pictures").numbers(), x.next().expect("β").numbers());
        let labels = x.next().map_or(&mut [][..], Values::ids);
        beta[0] = self.settings.beta_at(batch);
        match &self.batches {
            Some(batches) => batches.fill(batch * self.micros as u64 + micro as u64, pictures, labels),
            None => labels.fill(0),
        }
        Ok(())
    }

    fn turn(&mut self, _: u8, turn: Turn, x: &Batch) -> Found {
        let Turn { tape, params, pass, micros, last } = turn;
        tape.begin(params, pass);
        let labels = x.get(2).map(|labels| tape.constant(labels.clone()));
        let [pictures, beta] = [0, 1].map(|i| tape.constant(x[i].clone()));
        let elbo = self.vae.loss(pictures, labels, beta, self.settings.free_bits);
        let loss = if micros == 1 { elbo.loss } else { elbo.loss.scale(1.0 / micros as f32) };
        let found = Found {
            loss: loss.value(),
            parts: [elbo.reconstruction, elbo.kl].map(|v| v.value()).into_iter().collect(),
        };
        loss.backward(params, last);
        found
    }

    fn parts(&self, _: u8) -> &'static [&'static str] {
        &["reconstruction", "kl"]
    }

    fn flops(&self) -> f64 {
        self.vae.config().flops() * self.batch as f64
    }
}

/// What an evaluation adds up.
#[derive(Default)]
struct Sums {
    count: usize,
    reconstruction: f64,
    kl: f64,
    /// Of each latent variable's mean: sum and sum of squares.
    means: Vec<[f64; 2]>,
}

impl Sums {
    /// Adds what the model says of `n` pictures from `first` on.
    fn add(&mut self, trainer: &mut Trainer<VaeObjective>, pictures: &Pictures, first: usize, n: usize) {
        let pass = trainer.eval_pass();
        let Trainer { objective: VaeObjective { vae, .. }, params, tape, .. } = trainer;
        // Other numbers for each batch.
        tape.begin(params, Pass { step: first as u64, ..pass });
        let tape = &*tape;
        let (x, labels) = given(vae, tape, pictures, first, n);
        let beta = tape.constant(Tensor::from_slice(tape.device(), &[1.0f32], []));
        let (elbo, means) = tape.no_grad(|| {
            let means = vae.encode(x, labels)[0].cast(DType::F32).value();
            (vae.loss(x, labels, beta, 0.0), means)
        });
        self.count += n;
        self.reconstruction += n as f64 * f64::from(elbo.reconstruction.value().item());
        self.kl += n as f64 * f64::from(elbo.kl.value().item());
        let means = means.read::<f32>();
        let latent = means.len() / n;
        self.means.resize(latent, [0.0; 2]);
        for row in means.chunks_exact(latent) {
            for (sum, &mean) in self.means.iter_mut().zip(row) {
                let mean = f64::from(mean);
                *sum = [sum[0] + mean, sum[1] + mean * mean];
            }
        }
    }

    /// Latent variables whose mean differs from picture to picture: with a variance above 0.01 (Burda et al. 2015).
    fn active(&self) -> usize {
        let n = self.count as f64;
        self.means.iter().filter(|[sum, squares]| squares / n - (sum / n) * (sum / n) > 0.01).count()
    }
}

/// `n` pictures (n, H, W, C) from `first` on, and their labels (n) where the model knows of them.
fn given<'t>(vae: &Vae, tape: &'t Tape, pictures: &Pictures, first: usize, n: usize) -> (Var<'t>, Option<Var<'t>>) {
    let [h, w, c] = vae.config().shape;
    let (mut x, mut labels) = (vec![0.0; n * h * w * c], vec![0; if vae.config().classes.is_some() { n } else { 0 }]);
    pictures.fill(first, Range::Unit, &mut x, &mut labels);
    let labels = vae.config().classes.map(|_| tape.constant(Tensor::from_slice(tape.device(), &labels, [n])));
    (tape.constant(Tensor::from_slice(tape.device(), &x, [n, h, w, c])), labels)
}

/// Pictures, and draws of each, by which the importance-weighted bound is measured after the last step.
const IWAE: [usize; 2] = [1000, 50];

/// The mean of the importance-weighted bound over the first pictures, `most` of them at most.
fn iwae(
    trainer: &mut Trainer<VaeObjective>,
    pictures: &Pictures,
    [batch, most]: [usize; 2],
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Option<f64> {
    let [first, draws] = IWAE;
    // All draws take the same buffers.
    let draws = if trainer.params.device().is_dry() { 1 } else { draws };
    let total = first.min(pictures.len()).min(most);
    let pass = trainer.eval_pass();
    let Trainer { objective: VaeObjective { vae, .. }, params, tape, .. } = trainer;
    let (mut sum, mut done) = (0.0, 0);
    while done < total {
        let n = batch.min(total - done);
        tape.begin(params, Pass { step: done as u64, ..pass });
        let (x, labels) = given(vae, tape, pictures, done, n);
        sum += vae.iwae(x, labels, draws).iter().sum::<f64>();
        done += n;
        if !progress(done, total) {
            return None;
        }
    }
    Some(sum / total as f64)
}

impl Painter for VaeObjective {
    type Model = VaeModel;
    type Config = VaeConfig;

    const RANGE: Range = Range::Unit;
    const WHAT: &'static str = "A variational autoencoder";

    /// Not while the divergence grows in weight.
    fn falls(model: &VaeModel) -> bool {
        model.beta_warmup == 0
    }

    fn labelled(model: &VaeModel) -> bool {
        model.conditional
    }

    fn config(model: &VaeModel, dims: Dims, classes: usize) -> Result<VaeConfig> {
        let config = model.config(shape(dims), classes);
        config.check().map_err(|wrong| misfit(dims, &wrong))?;
        Ok(config)
    }

    fn new(
        recipe: &VaeRecipe,
        config: VaeConfig,
        batches: Option<PictureBatches>,
        _: &Device,
    ) -> (VaeObjective, Vec<Decl>) {
        let (vae, decls) = Vae::new(config);
        let (settings, batch, micros) = (recipe.model.clone(), recipe.train.batch, recipe.train.accumulate);
        (VaeObjective { vae, batches, settings, batch, micros }, decls)
    }

    fn to_json(&self) -> Value {
        self.vae.config().to_json()
    }

    /// −ELBO: with β = 1 and without free bits, whatever the training's.
    fn evaluate(
        trainer: &mut Trainer<VaeObjective>,
        exam: Exam,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let held_out = exam.held_out;
        let batch = exam.batch.min(held_out.len());
        let total = held_out.len().div_ceil(batch).min(exam.most);
        let mut sums = Sums::default();
        for i in 0..total {
            sums.add(trainer, held_out, i * batch, batch.min(held_out.len() - i * batch));
            if !progress(i + 1, total) {
                return Ok(None);
            }
        }
        let n = sums.count as f64;
        let [reconstruction, kl] = [sums.reconstruction / n, sums.kl / n];
        let loss = reconstruction + kl + trainer.objective.vae.constant();
        let mut parts = vec![("reconstruction", reconstruction), ("kl", kl), ("active", sums.active() as f64)];
        if exam.last {
            match iwae(trainer, held_out, [batch, total * batch], progress) {
                Some(bound) => parts.push(("iwae", -bound)),
                None => return Ok(None),
            }
        }
        Ok(Some(Evaluation { loss, parts, warnings: Vec::new() }))
    }

    /// Pictures of fixed numbers, and what becomes of held-out ones; the last time also what each latent variable does, and
    /// what lies between pictures.
    fn show(trainer: &mut Trainer<VaeObjective>, view: &View) -> Vec<(&'static str, Sheet)> {
        let &View { held_out, rows, columns, seed, last } = view;
        let (dims, pass) = (held_out.dims(), trainer.eval_pass());
        let Trainer { objective: VaeObjective { vae, .. }, params, tape, .. } = trainer;
        let (&VaeConfig { latent, classes, .. }, grid) = (vae.config(), Grid::new(columns, dims));
        let n = (4 * columns).min(held_out.len());
        let mut means = Vec::with_capacity(n * latent);
        for first in (0..n).step_by(BATCH) {
            tape.begin(params, pass);
            let (x, labels) = given(vae, tape, held_out, first, BATCH.min(n - first));
            let mu = tape.no_grad(|| vae.encode(x, labels)[0].cast(DType::F32).value());
            means.extend_from_slice(&mu.read::<f32>());
        }
        let originals: Vec<u8> = (0..n).flat_map(|i| held_out.get(i)).copied().collect();
        let of_pictures: Vec<i32> = (0..n).map(|i| held_out.label(i).unwrap_or(0) as i32).collect();
        let mut make = |z: &[f32], labels: Vec<i32>| {
            let labels = Some(&labels[..]).filter(|_| classes.is_some());
            draw(vae, params, tape, pass, z, labels)
        };
        let of_rows = labels(classes, rows * columns, columns, None).unwrap_or_default();
        let fixed = grid.draw(&make(&noise(latent, rows * columns, seed), of_rows), dims);
        let pairs = grid.pairs(&originals, &make(&means, of_pictures.clone()), dims);
        let mut sheets = vec![("", fixed), ("reconstructions", pairs)];
        if last {
            // A row for each of the first variables, from −3 to 3, the others as of the first picture.
            let rows = latent.min(20);
            let at = |row: usize, column: usize| {
                let mut z = means[..latent].to_vec();
                z[row] = 6.0 * column as f32 / (columns.max(2) - 1) as f32 - 3.0;
                z
            };
            let z: Vec<f32> = (0..rows * columns).flat_map(|i| at(i / columns, i % columns)).collect();
            sheets.push(("traversal", grid.draw(&make(&z, vec![of_pictures[0]; rows * columns]), dims)));
            let rows = n / 2;
            let mean = |i: usize| &means[i * latent..][..latent];
            let z: Vec<f32> = (0..rows).flat_map(|i| between(mean(2 * i), mean(2 * i + 1), columns)).collect();
            let of_rows = (0..rows * columns).map(|i| of_pictures[2 * (i / columns)]).collect();
            sheets.push(("interpolation", grid.draw(&make(&z, of_rows), dims)));
        }
        sheets
    }
}
