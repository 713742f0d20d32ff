//! Variational autoencoders: the evidence lower bound, with β warmed up.

use super::draw::{between, draw, labels, noise};
use super::{Opened as Data, PictureData, PictureSample, Sheets, misfit, report, shape};
use crate::data::images::{Dims, PictureBatches, Pictures, Range};
use crate::device::Device;
use crate::error::Result;
use crate::model::{Likelihood, Vae, VaeConfig};
use crate::settings::{Schema, positive, range, require};
use crate::tensor::{DType, Spec, Tensor};
use crate::train::event::Watch;
use crate::train::fit::{self, Plan};
use crate::train::objective::{Batch, Found, MAX_TENSORS, Objective, Turn, Values};
use crate::train::recipe::{Architecture, RecipeOf, Section, Train};
use crate::train::run::RunDir;
use crate::train::setup::Setup;
use crate::train::task::{Evaluation, Opened, Progress, Task};
use crate::train::trainer::Trainer;
use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// A recipe for a VAE.
pub type VaeRecipe = RecipeOf<VaeModel, PictureData, PictureSample>;

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
        file: "data/recipes/vae-mlp.toml",
        example: "train.steps=100",
    };
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

/// The tensors of a batch of `n` pictures, without β.
fn specs(vae: &Vae, n: usize) -> [Spec; 2] {
    let [h, w, c] = vae.config().shape;
    [Spec::f32([n, h, w, c]), Spec { shape: [n].into(), dtype: DType::I32 }]
}

impl Objective for VaeObjective {
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS> {
        let [pictures, labels] = specs(&self.vae, self.batch);
        [pictures, Spec::f32([])].into_iter().chain(self.labelled().then_some(labels)).collect()
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

/// A VAE in training on pictures.
pub struct VaeTask {
    data: Data,
    dims: Dims,
    batch: usize,
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

impl VaeTask {
    /// A trainer of the model `config` on pictures, or on none, for a [dry](Device::dry) device.
    ///
    /// # Errors
    /// The settings and the pictures do not fit one another.
    pub fn trainer(
        recipe: &VaeRecipe,
        data: Option<&Pictures>,
        config: VaeConfig,
        device: &Device,
    ) -> Result<Trainer<VaeObjective>> {
        let VaeRecipe { model, train, .. } = recipe;
        let augment = recipe.data.augment();
        let batches =
            |data: &Pictures| PictureBatches::new(data.clone(), train.batch, Range::Unit, augment, train.seed);
        let batches = data.map(batches).transpose()?;
        let (vae, decls) = Vae::new(config);
        let (settings, batch, micros) = (model.clone(), train.batch, train.accumulate);
        Ok(Trainer::with(Setup::of(recipe), (VaeObjective { vae, batches, settings, batch, micros }, decls), device))
    }

    fn config(recipe: &VaeRecipe, dims: Dims, classes: usize) -> Result<VaeConfig> {
        let config = recipe.model.config(shape(dims), classes);
        config.check().map_err(|wrong| misfit(dims, &wrong))?;
        Ok(config)
    }

    fn memory(recipe: &VaeRecipe, config: &VaeConfig, device: &Device) -> Result<Plan> {
        fit::pictures(recipe.train.batch, device, &|batch, dry| {
            let mut recipe = recipe.clone();
            (recipe.train.batch, recipe.train.accumulate) = (batch, recipe.train.accumulate.min(3));
            let trainer = VaeTask::trainer(&recipe, None, config.clone(), dry).expect("no data that could be wrong");
            Plan::measure(dry, trainer, |trainer| {
                evaluate_batch(trainer, batch, &mut |_, _| {}, &mut Sums::default());
                0
            })
        })
    }

    /// The sheets beside that of fixed numbers: what becomes of held-out pictures; after the last step also what each latent
    /// variable does, and what lies between pictures.
    fn more(&self, trainer: &mut Trainer<VaeObjective>, sheets: &Sheets, last: bool) -> Result<()> {
        let n = (4 * sheets.columns).min(self.data.held_out.len());
        let (originals, given) = self.held_out(n);
        let pass = trainer.eval_pass();
        let Trainer { objective: VaeObjective { vae, .. }, params, tape, .. } = trainer;
        let [pictures, labels] = specs(vae, n);
        tape.begin(params, pass);
        let labels =
            vae.config().classes.map(|_| tape.constant(Tensor::from_slice(tape.device(), &given, labels.shape)));
        let x = tape.constant(Tensor::from_slice(tape.device(), &originals, pictures.shape));
        let means: Vec<f32> =
            tape.no_grad(|| vae.encode(x, labels)[0].cast(DType::F32).value().read::<f32>().into_owned());
        let labelled = vae.config().classes.is_some();
        let mut make = |z: &[f32], labels: &[i32]| draw(vae, params, tape, pass, z, labelled.then_some(labels));
        let again = make(&means, &given);
        let pairs = sheets.grid().pairs(&Range::Unit.bytes(&originals), &again, sheets.dims);
        sheets.save(&format!("reconstructions-{:06}", sheets.step), &pairs)?;
        if !last {
            return Ok(());
        }
        let (latent, columns) = (means.len() / n, sheets.columns);
        // A row for each of the first variables, from −3 to 3, the others as of the first picture.
        let rows = latent.min(20);
        let at = |row: usize, column: usize| {
            let mut z = means[..latent].to_vec();
            z[row] = 6.0 * column as f32 / (columns.max(2) - 1) as f32 - 3.0;
            z
        };
        let z: Vec<f32> = (0..rows * columns).flat_map(|i| at(i / columns, i % columns)).collect();
        let sheet = sheets.grid().draw(&make(&z, &vec![given[0]; rows * columns]), sheets.dims);
        sheets.save("traversal", &sheet)?;
        let rows = n / 2;
        let row =
            |i: usize| between(&means[2 * i * latent..][..latent], &means[(2 * i + 1) * latent..][..latent], columns);
        let z: Vec<f32> = (0..rows).flat_map(row).collect();
        let of_rows: Vec<i32> = (0..rows * columns).map(|i| given[2 * (i / columns)]).collect();
        let sheet = sheets.grid().draw(&make(&z, &of_rows), sheets.dims);
        sheets.save("interpolation", &sheet).map(drop)
    }

    /// The first `n` held-out pictures, and their labels, or zeros.
    fn held_out(&self, n: usize) -> (Vec<f32>, Vec<i32>) {
        let held_out = &self.data.held_out;
        let (mut x, mut labels) = (vec![0.0; n * self.dims.values()], vec![0; n]);
        fill(held_out, 0, &mut x, &mut labels);
        (x, labels)
    }
}

/// Pictures and labels, which stay as they are where there are none.
fn fill(pictures: &Pictures, first: usize, x: &mut [f32], labels: &mut [i32]) {
    pictures.fill(first, Range::Unit, x, if pictures.classes() > 0 { labels } else { &mut [] });
}

/// Adds up what the model says of `n` pictures, which `fill` writes.
fn evaluate_batch(
    trainer: &mut Trainer<VaeObjective>,
    n: usize,
    fill: &mut dyn FnMut(&mut [f32], &mut [i32]),
    sums: &mut Sums,
) {
    let pass = trainer.eval_pass();
    let Trainer { objective: VaeObjective { vae, .. }, params, tape, .. } = trainer;
    let [pictures, labels] = specs(vae, n);
    let (mut x, mut y) = (vec![0.0; pictures.shape.numel()], vec![0; n]);
    fill(&mut x, &mut y);
    // Other numbers for each batch.
    tape.begin(params, crate::tape::Pass { step: sums.count as u64, ..pass });
    let tape = &*tape;
    let labels = vae.config().classes.map(|_| tape.constant(Tensor::from_slice(tape.device(), &y, labels.shape)));
    let x = tape.constant(Tensor::from_slice(tape.device(), &x, pictures.shape));
    let beta = tape.constant(Tensor::from_slice(tape.device(), &[1.0f32], []));
    let (elbo, means) = tape.no_grad(|| {
        let means = vae.encode(x, labels)[0].cast(DType::F32).value();
        (vae.loss(x, labels, beta, 0.0), means)
    });
    sums.count += n;
    sums.reconstruction += n as f64 * f64::from(elbo.reconstruction.value().item());
    sums.kl += n as f64 * f64::from(elbo.kl.value().item());
    let means = means.read::<f32>();
    let latent = means.len() / n;
    sums.means.resize(latent, [0.0; 2]);
    for row in means.chunks_exact(latent) {
        for (sum, &mean) in sums.means.iter_mut().zip(row) {
            let mean = f64::from(mean);
            *sum = [sum[0] + mean, sum[1] + mean * mean];
        }
    }
}

impl Sums {
    /// Latent variables whose mean differs from picture to picture: with a variance above 0.01 (Burda et al. 2015).
    fn active(&self) -> usize {
        let n = self.count as f64;
        self.means.iter().filter(|[sum, squares]| squares / n - (sum / n) * (sum / n) > 0.01).count()
    }
}

/// Pictures, and draws of each, by which the importance-weighted bound is measured after the last step.
const IWAE: [usize; 2] = [1000, 50];

impl Task for VaeTask {
    type Model = VaeModel;
    type Data = PictureData;
    type Sample = PictureSample;
    type Objective = VaeObjective;

    const UNIT: &'static str = "pictures";
    const LOSS: &'static str = "nats per picture";

    fn plan(recipe: &VaeRecipe, _: Option<&Path>, device: &Device) -> Result<Plan> {
        let data = super::open(&recipe.data, recipe.model.conditional, &mut |_, _, _| {})?;
        let config = VaeTask::config(recipe, data.train.dims(), data.train.classes())?;
        Setup::of(recipe).supported(device)?;
        VaeTask::memory(recipe, &config, device)
    }

    fn open(recipe: &VaeRecipe, _: &Path, device: &Device, progress: &mut Progress) -> Result<Opened<VaeTask>> {
        Setup::of(recipe).supported(device)?;
        let data = super::open(&recipe.data, recipe.model.conditional, progress)?;
        let dims = data.train.dims();
        let config = VaeTask::config(recipe, dims, data.train.classes())?;
        let memory = VaeTask::memory(recipe, &config, device)?;
        let trainer = VaeTask::trainer(recipe, Some(&data.train), config, device)?;
        let hash = data.hash.clone();
        Ok(Opened { task: VaeTask { data, dims, batch: recipe.train.batch }, trainer, memory, data: hash })
    }

    fn about(&self) -> Vec<(u64, &'static str)> {
        self.data.about()
    }

    fn config(&self, trainer: &Trainer<VaeObjective>) -> Value {
        trainer.objective.vae.config().to_json()
    }

    /// −ELBO: with β = 1 and without free bits, whatever the training's.
    fn evaluate(
        &mut self,
        trainer: &mut Trainer<VaeObjective>,
        last: bool,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let held_out = &self.data.held_out;
        let batch = self.batch.min(held_out.len());
        let total = held_out.len().div_ceil(batch).min(max_batches.unwrap_or(usize::MAX));
        let mut sums = Sums::default();
        for i in 0..total {
            let n = batch.min(held_out.len() - i * batch);
            evaluate_batch(trainer, n, &mut |x, labels| fill(held_out, i * batch, x, labels), &mut sums);
            if !progress(i + 1, total) {
                trainer.tape.reset();
                return Ok(None);
            }
        }
        let n = sums.count as f64;
        let [reconstruction, kl] = [sums.reconstruction / n, sums.kl / n];
        let loss = reconstruction + kl + trainer.objective.vae.constant();
        let mut parts = vec![("reconstruction", reconstruction), ("kl", kl), ("active", sums.active() as f64)];
        if last {
            match self.iwae(trainer, progress) {
                Some(bound) => parts.push(("iwae", -bound)),
                None => return Ok(None),
            }
        }
        trainer.tape.reset();
        Ok(Some(Evaluation { loss, parts, warnings: Vec::new() }))
    }

    fn sample(
        &mut self,
        trainer: &mut Trainer<VaeObjective>,
        recipe: &VaeRecipe,
        step: u64,
        run: &RunDir,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let PictureSample { rows, columns } = recipe.sample;
        let sheets = Sheets { run, step, dims: self.dims, columns };
        let n = rows * columns;
        let pass = trainer.eval_pass();
        let Trainer { objective: VaeObjective { vae, .. }, params, tape, .. } = trainer;
        let z = noise(vae.config().latent, n, recipe.train.seed);
        let made = draw(vae, params, tape, pass, &z, labels(vae.config().classes, n, columns, None).as_deref());
        sheets.fixed(&sheets.grid().draw(&made, self.dims), watch)?;
        let last = step == recipe.train.steps;
        self.more(trainer, &sheets, last)?;
        if !last {
            return Ok(());
        }
        sheets.animation()?;
        let about = format!("A variational autoencoder on {}.", self.data.words());
        report::write(run, &recipe.run.name, &about, step, &[])
    }
}

impl VaeTask {
    /// The mean of the importance-weighted bound over the first held-out pictures.
    fn iwae(&self, trainer: &mut Trainer<VaeObjective>, progress: &mut dyn FnMut(usize, usize) -> bool) -> Option<f64> {
        let [most, draws] = IWAE;
        let total = most.min(self.data.held_out.len());
        let (mut sum, mut done) = (0.0, 0);
        while done < total {
            let n = self.batch.min(total - done);
            let pass = trainer.eval_pass();
            let Trainer { objective: VaeObjective { vae, .. }, params, tape, .. } = &mut *trainer;
            let [pictures, labels] = specs(vae, n);
            let (mut x, mut y) = (vec![0.0; pictures.shape.numel()], vec![0; n]);
            fill(&self.data.held_out, done, &mut x, &mut y);
            tape.begin(params, crate::tape::Pass { step: done as u64, ..pass });
            let labels =
                vae.config().classes.map(|_| tape.constant(Tensor::from_slice(tape.device(), &y, labels.shape)));
            let x = tape.constant(Tensor::from_slice(tape.device(), &x, pictures.shape));
            sum += vae.iwae(x, labels, draws).iter().sum::<f64>();
            done += n;
            if !progress(done, total) {
                return None;
            }
        }
        Some(sum / total as f64)
    }
}
