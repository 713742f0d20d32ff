//! Generator and discriminator, in turns.
//!
//! A step makes pictures once. The discriminator learns to tell them from data; then what it says of the same pictures now is
//! differentiated back to them, and on from there through the pass that made them, which waits on a tape of its own.

use super::draw::{draw, labels, noise};
use super::shape;
use super::task::{Exam, Painter, PictureRecipe, PictureTask, View};
use super::watchdog::Watchdog;
use crate::data::images::{Dims, Grid, PictureBatches, Range, Sheet};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::gan::{DISCRIMINATOR, GENERATOR};
use crate::model::{Gan, GanConfig, GanLoss, Scale};
use crate::nn::penalty::{gradient_penalty, r1};
use crate::ops::augment::Policy;
use crate::params::{Decl, Params};
use crate::rng::{Purpose, Stream};
use crate::settings::{Schema, range, require};
use crate::tape::{Tape, Var};
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

/// A recipe for a GAN.
pub type GanRecipe = PictureRecipe<GanModel>;

/// A GAN in training on pictures.
pub type GanTask = PictureTask<GanObjective>;

/// The default recipe, as TOML with comments.
pub const DEFAULT: &str = include_str!("../../../data/recipes/dcgan.toml");

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GanModel {
    /// Always `gan`.
    pub kind: GanKind,
    /// L: numbers that a picture is made of.
    pub latent: usize,
    /// Channels of the generator's last hidden layer.
    pub g: usize,
    /// Channels of the discriminator's first layer.
    pub d: usize,
    /// Whether both are told the label of each picture.
    pub conditional: bool,
    /// What keeps the discriminator's layers in scale.
    pub scale: Scale,
    /// What they minimise.
    pub loss: GanLoss,
    /// γ of R1; 0: none.
    pub r1: f32,
    /// λ of WGAN's gradient penalty; 0: none.
    pub gradient_penalty: f32,
    /// How much less than sure the discriminator shall be of data.
    pub smoothing: f32,
    /// Deviation of the noise on all that the discriminator sees.
    pub noise: f32,
    /// Steps in which that falls to 0; 0: it stays.
    pub noise_steps: u64,
    /// How pictures are changed before the discriminator sees them, data and others alike.
    pub augment: Vec<Change>,
    /// Decay of the mean of the generator's weights, with which it is sampled; 0: none is kept.
    pub ema: f64,
}

/// One of `model.augment`; see [`augment`](crate::ops::augment).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Change {
    Colour,
    Translation,
    Cutout,
}

/// `model.kind` of a GAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GanKind {
    /// A generator and a discriminator.
    Gan,
}

impl GanModel {
    fn config(&self, shape: [usize; 3], classes: usize) -> GanConfig {
        let GanModel { latent, g, d, .. } = *self;
        GanConfig { shape, latent, g, d, classes: self.conditional.then_some(classes), scale: self.scale }
    }

    fn policy(&self) -> Policy {
        let has = |change| self.augment.contains(&change);
        Policy { colour: has(Change::Colour), translation: has(Change::Translation), cutout: has(Change::Cutout) }
    }

    /// The deviation of the noise at a step.
    fn noise_at(&self, step: u64) -> f32 {
        match self.noise_steps {
            0 => self.noise,
            steps => self.noise * (1.0 - step as f32 / steps as f32).max(0.0),
        }
    }
}

impl Section for GanModel {
    fn check(&self, train: &Train) -> Result<()> {
        range("model.latent", self.latent, 1..=65_536)?;
        range("model.g", self.g, 1..=8192)?;
        range("model.d", self.d, 1..=8192)?;
        for (key, value) in
            [("model.r1", self.r1), ("model.gradient_penalty", self.gradient_penalty), ("model.noise", self.noise)]
        {
            require(value.is_finite() && value >= 0.0, key, value, "a finite number, 0 or more")?;
        }
        require(
            (0.0..0.5).contains(&self.smoothing),
            "model.smoothing",
            self.smoothing,
            "from 0 to below 0.5, as 0.1",
        )?;
        require((0.0..1.0).contains(&self.ema), "model.ema", self.ema, "from 0 to below 1, as 0.999")?;
        match train.accumulate {
            1 => Ok(()),
            n => {
                let problem = format!("{n} micro-batches: a GAN's turns need whole batches");
                Err(Error::config("train.accumulate", problem, "leave it at 1 and choose train.batch"))
            }
        }
    }

    fn fixed(&self, _: &Train) -> Vec<(&'static str, String)> {
        vec![
            ("model.kind", format!("{:?}", self.kind)),
            ("model.latent", self.latent.to_string()),
            ("model.g", self.g.to_string()),
            ("model.d", self.d.to_string()),
            ("model.conditional", self.conditional.to_string()),
            ("model.scale", format!("{:?}", self.scale)),
            ("model.ema", (self.ema > 0.0).to_string()),
        ]
    }
}

impl Architecture for GanModel {
    const SCHEMA: Schema = Schema {
        default: DEFAULT,
        optional: &["data.path", "data.size", "data.colour", "eval.max_batches"],
        free: &[],
        file: "data/recipes/dcgan.toml",
        example: "train.steps=100",
    };
    const ACCUMULATES: bool = false;

    fn smaller(&self, _: &Train) -> Vec<Family> {
        vec![
            Family::of("a narrower discriminator", "model.d", below(self.d, 1)),
            Family::of("a narrower generator", "model.g", below(self.g, 1)),
        ]
    }
}

/// A GAN and its pictures. A batch is pictures x (B, H, W, C), numbers z (B, L), and
/// labels (B) where the networks know of them.
pub struct GanObjective {
    /// Both networks.
    pub gan: Gan,
    batches: Option<PictureBatches>,
    settings: GanModel,
    batch: usize,
    seed: u64,
    /// Where the pass that makes pictures waits for the generator's turn.
    made: Tape,
    /// Where the discriminator looks at them again: a tape that repeats the same operations allocates nothing.
    through: Tape,
    /// Those pictures.
    fake: Option<Tensor>,
    watchdog: Watchdog,
}

/// What the discriminator sees of pictures.
struct Eyes<'a, 't> {
    gan: &'a Gan,
    labels: Option<Var<'t>>,
    policy: Policy,
    noise: f32,
}

impl<'t> Eyes<'_, 't> {
    fn judge(&self, x: Var<'t>) -> Var<'t> {
        let tape = x.tape();
        let x = x.augment(self.policy, tape.stream(Purpose::Augment));
        let x = match self.noise {
            0.0 => x,
            std => x.add_noise(std, tape.stream(Purpose::Latent)),
        };
        self.gan.judge(x, self.labels)
    }
}

impl GanObjective {
    /// The weights with which pictures are drawn are those of the mean while `f` runs.
    pub fn with_mean<T>(&self, params: &mut Params, f: impl FnOnce(&Params) -> T) -> T {
        let mean = self.settings.ema > 0.0;
        if mean {
            params.exchange_mean(GENERATOR);
        }
        let result = f(params);
        if mean {
            params.exchange_mean(GENERATOR);
        }
        result
    }

    fn discriminate(&mut self, turn: Turn, x: &Batch) -> Found {
        let Turn { tape, params, pass, last, .. } = turn;
        // The pass that the generator's turn goes on with.
        params.focus(Some(GENERATOR));
        self.made.begin_net(params, pass, GENERATOR);
        params.focus(Some(DISCRIMINATOR));
        let labels = x.get(2);
        let z = self.made.constant(x[1].clone());
        let fake = self.gan.generate(z, labels.map(|labels| self.made.constant(labels.clone())));
        let fake = self.fake.insert(fake.value()).clone();

        tape.begin(params, pass);
        let tape = &*tape;
        let labels = labels.map(|labels| tape.constant(labels.clone()));
        let eyes =
            Eyes { gan: &self.gan, labels, policy: self.settings.policy(), noise: self.settings.noise_at(pass.step) };
        let [real, fake] = [x[0].clone(), fake].map(|pictures| tape.constant(pictures));
        let [of_real, of_fake] = [real, fake].map(|pictures| eyes.judge(pictures));
        let mut loss = self.settings.loss.d(of_real, of_fake, self.settings.smoothing);
        let mut penalty: Option<Var> = None;
        if self.settings.r1 > 0.0 {
            penalty = Some(r1(real, self.settings.r1, |x| eyes.gan.judge(x, labels)));
        }
        if self.settings.gradient_penalty > 0.0 {
            let stream = tape.stream(Purpose::Augment);
            let between = tape.no_grad(|| real.blend(fake.cast(DType::F32), stream));
            let more = gradient_penalty(between, self.settings.gradient_penalty, |x| eyes.gan.judge(x, labels));
            penalty = Some(penalty.map_or(more, |penalty| penalty + more));
        }
        if let Some(penalty) = penalty {
            loss = loss + penalty;
        }
        let [mean_real, mean_fake] = tape.no_grad(|| [of_real.mean(), of_fake.mean()].map(|v| v.value()));
        let found = [loss.value(), mean_real, mean_fake].into_iter().chain(penalty.map(|v| v.value()));
        let found = Found { loss: loss.value(), parts: found.collect() };
        self.watchdog.logits(&of_real.value().read::<f32>(), &of_fake.value().read::<f32>());
        loss.backward(params, last);
        found
    }

    fn generate(&mut self, turn: Turn, x: &Batch) -> Found {
        let Turn { params, pass, last, .. } = turn;
        self.through.begin(params, pass);
        let tape = &self.through;
        let fake = tape.variable(self.fake.take().expect("the discriminator's turn came before"));
        let labels = x.get(2).map(|labels| tape.constant(labels.clone()));
        let eyes =
            Eyes { gan: &self.gan, labels, policy: self.settings.policy(), noise: self.settings.noise_at(pass.step) };
        let loss = self.settings.loss.g(eyes.judge(fake));
        let value = loss.value();
        loss.backward(params, false);
        let gradient = fake.grad().expect("the discriminator looked at the pictures");
        // This pass lets go of the weights before the other one writes the running statistics that lie beside them.
        self.through.settle(params);
        self.made.last().backward_from(&[gradient], params, last);
        self.made.settle(params);
        Found { loss: value.clone(), parts: [value].into_iter().collect() }
    }
}

impl Objective for GanObjective {
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS> {
        let (GanConfig { shape: [h, w, c], latent, classes, .. }, b) = (self.gan.config().clone(), self.batch);
        let pictures = Spec::f32([b, h, w, c]);
        let labels = classes.map(|_| Spec { shape: [b].into(), dtype: DType::I32 });
        [pictures, Spec::f32([b, latent])].into_iter().chain(labels).collect()
    }

    fn fill(&self, batch: u64, _: usize, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let mut x = x.into_iter();
        let (pictures, z) = (x.next().expect("pictures").numbers(), x.next().expect("z").numbers());
        Stream::new(self.seed, Purpose::Latent, Z, batch).normals(1.0, z);
        let labels = x.next().map_or(&mut [][..], Values::ids);
        match &self.batches {
            Some(batches) => batches.fill(batch, pictures, labels),
            None => labels.fill(0),
        }
        Ok(())
    }

    fn nets(&self) -> u8 {
        2
    }

    fn prepare(&self, params: &mut Params) -> Result<()> {
        if self.settings.ema > 0.0 {
            params.add_mean(GENERATOR);
        }
        Ok(())
    }

    fn turn(&mut self, net: u8, turn: Turn, x: &Batch) -> Found {
        if net == DISCRIMINATOR { self.discriminate(turn, x) } else { self.generate(turn, x) }
    }

    fn parts(&self, net: u8) -> &'static [&'static str] {
        let penalised = self.settings.r1 > 0.0 || self.settings.gradient_penalty > 0.0;
        match net {
            GENERATOR => &["g_loss"],
            _ if penalised => &["d_loss", "d_real", "d_fake", "penalty"],
            _ => &["d_loss", "d_real", "d_fake"],
        }
    }

    fn skipped(&mut self) {
        // The generator's pass holds its weights, which a run that goes back is about to write.
        self.made.reset();
        self.through.reset();
        self.fake = None;
    }

    fn stepped(&mut self, params: &mut Params, updates: u64) {
        if self.settings.ema > 0.0 {
            // At first the mean must not hang on the weights of the start.
            let grown = (1.0 + updates as f64) / (10.0 + updates as f64);
            params.move_mean(GENERATOR, self.settings.ema.min(grown));
        }
    }

    fn flops(&self) -> f64 {
        self.gan.config().flops() * self.batch as f64
    }
}

/// The stream of z among those of [`Purpose::Latent`]; passes have low ones.
const Z: u32 = 0xFF_FFFC;

/// Pictures that are made to be judged: ten thousand after the last step, fewer on the way or where little is held out.
const JUDGED: [usize; 2] = [2000, 10_000];

/// n pictures in rows of `columns`, each row of the next class, made with the mean of the generator's weights where there is
/// one.
fn made(trainer: &mut Trainer<GanObjective>, n: usize, columns: usize, seed: u64) -> Vec<u8> {
    let pass = trainer.eval_pass();
    let Trainer { objective, params, tape, .. } = trainer;
    let &GanConfig { latent, classes, .. } = objective.gan.config();
    let (z, labels) = (noise(latent, n, seed), labels(classes, n, columns, None));
    objective.with_mean(params, |params| draw(&objective.gan, params, tape, pass, &z, labels.as_deref()))
}

impl Painter for GanObjective {
    type Model = GanModel;
    type Config = GanConfig;

    const RANGE: Range = Range::Signed;
    const WHAT: &'static str = "A generator and a discriminator";
    const LOSS: &'static str = "of both networks; validation: a distance";
    const JUDGED: &'static str = "Fréchet distance";
    const IS_JUDGED: bool = true;
    const SHARED: bool = false;

    /// Two networks play against one another.
    fn falls(_: &GanModel) -> bool {
        false
    }

    fn labelled(model: &GanModel) -> bool {
        model.conditional
    }

    fn config(model: &GanModel, dims: Dims, classes: usize) -> Result<GanConfig> {
        let config = model.config(shape(dims), classes);
        match config.check() {
            Ok(()) => Ok(config),
            Err(wrong) if wrong.field == "shape" => {
                let problem = format!("a GAN makes pictures of {}, and these are {dims}", wrong.expected);
                Err(Error::config("data.size", problem, "scale them: data.size = 32"))
            }
            Err(wrong) => {
                let problem = format!("expected {}", wrong.expected);
                Err(Error::config(format!("model.{}", wrong.field), problem, "choose another value"))
            }
        }
    }

    fn supported(model: &GanModel, device: &Device) -> Result<()> {
        match device {
            Device::Gpu(_) if model.ema > 0.0 => {
                let hint = "set it to 0, or train on the CPU (--device cpu)";
                Err(Error::config("model.ema", "the mean of weights has no kernel for a GPU", hint))
            }
            _ => Ok(()),
        }
    }

    fn new(
        recipe: &GanRecipe,
        config: GanConfig,
        batches: Option<PictureBatches>,
        device: &Device,
    ) -> (GanObjective, Vec<Decl>) {
        let (gan, decls) = Gan::new(config);
        let objective = GanObjective {
            gan,
            batches,
            settings: recipe.model.clone(),
            batch: recipe.train.batch,
            seed: recipe.train.seed,
            made: Tape::new(device),
            through: Tape::new(device),
            fake: None,
            watchdog: Watchdog::default(),
        };
        (objective, decls)
    }

    fn to_json(&self) -> Value {
        self.gan.config().to_json()
    }

    /// The Fréchet distance of what is made from held-out data.
    fn evaluate(
        trainer: &mut Trainer<GanObjective>,
        exam: Exam,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let judge = exam.judge.expect("a judge for what is judged");
        let n = JUDGED[usize::from(exam.last)].min(20 * exam.held_out.len()).next_multiple_of(5);
        // A fifth at a time, so that a signal is heard; labels in turn. On a dry device all fifths take the same.
        let mut pictures = Vec::new();
        let parts = if trainer.params.device().is_dry() { 1 } else { 5 };
        for part in 0..parts {
            pictures.extend(made(trainer, n / 5, 1, exam.seed.wrapping_add(1 + part)));
            if !progress(part as usize + 1, 6) {
                return Ok(None);
            }
        }
        pictures.resize(n * exam.held_out.dims().values(), 0);
        let verdict = judge.verdict(&pictures, exam.last)?;
        let warnings = trainer.objective.watchdog.warnings(&verdict);
        progress(6, 6);
        Ok(Some(Evaluation { loss: verdict.frechet, parts: verdict.parts(), warnings }))
    }

    fn show(trainer: &mut Trainer<GanObjective>, view: &View) -> Vec<(&'static str, Sheet)> {
        let (dims, columns) = (view.held_out.dims(), view.columns);
        let pictures = made(trainer, view.rows * columns, columns, view.seed);
        vec![("", Grid::new(columns, dims).draw(&pictures, dims))]
    }
}
