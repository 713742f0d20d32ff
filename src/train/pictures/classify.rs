//! The classifier that judges the pictures of other models: trained on the same data, and kept in the run's `data/`.

use super::{Opened as Data, shape};
use crate::cpu::gemm::Precision;
use crate::data::atomic::write_atomic;
use crate::data::images::{Augment, PictureBatches, Pictures, Range};
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::Result;
use crate::measure::Features;
use crate::model::classifier::{Classifier, ClassifierConfig, FEATURES};
use crate::optim::{AdamW, Optimizer};
use crate::params::{Hold, Params};
use crate::tape::{Pass, Tape};
use crate::tensor::{DType, Spec, Tensor};
use crate::train::objective::{Batch, Found, MAX_TENSORS, Objective, Turn, Values};
use crate::train::schedule::{Schedule, Shape};
use crate::train::setup::Setup;
use crate::train::task::Progress;
use crate::train::trainer::Trainer;
use crate::train::{checkpoint, tensors};
use arrayvec::ArrayVec;
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// A trained classifier.
pub struct Trained {
    classifier: Classifier,
    params: Params,
    tape: Tape,
    /// The share of held-out pictures that it tells right.
    pub accuracy: f64,
    /// SHA-256 of its weights.
    pub hash: String,
    /// Seconds that it would take to train on to the end: 0, unless this is a rehearsal.
    pub left: f64,
}

/// A classifier in training. A batch is pictures (B, H, W, C) and labels (B).
struct Lessons {
    classifier: Classifier,
    batches: PictureBatches,
}

impl Objective for Lessons {
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS> {
        let ([h, w, c], b) = (self.classifier.config().shape, self.batches.batch());
        [Spec::f32([b, h, w, c]), Spec { shape: [b].into(), dtype: DType::I32 }].into_iter().collect()
    }

    fn fill(&self, batch: u64, _: usize, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let mut x = x.into_iter();
        let (pictures, labels) = (x.next().expect("pictures").numbers(), x.next().expect("labels").ids());
        self.batches.fill(batch, pictures, labels);
        Ok(())
    }

    fn turn(&mut self, _: u8, turn: Turn, x: &Batch) -> Found {
        let Turn { tape, params, pass, last, .. } = turn;
        tape.begin(params, pass);
        let [pictures, labels] = [0, 1].map(|i| tape.constant(x[i].clone()));
        let loss = self.classifier.loss(pictures, labels);
        let value = loss.value();
        loss.backward(params, last);
        Found::loss(value)
    }

    fn flops(&self) -> f64 {
        0.0
    }
}

/// Pictures of a step, and of a look.
const BATCH: usize = 128;

/// Steps that are no measure, since memory is new to them.
const WARM: u64 = 3;

/// Three times over the data, within these bounds.
const STEPS: std::ops::RangeInclusive<u64> = 100..=1500;

impl Trained {
    /// The classifier in the folder `own`, or one that is trained now, for `most` steps at most, and saved there.
    ///
    /// # Errors
    /// It cannot be written, or what is there is damaged.
    pub fn open(data: &Data, own: &Path, most: u64, device: &Device, progress: &mut Progress) -> Result<Trained> {
        // It judges on the host: it is small, and a GPU has other work.
        let host = if let Device::Gpu(_) = device { device.on_host() } else { device.clone() };
        let (config_file, weights) = (own.join("classifier.json"), own.join("classifier.safetensors"));
        let config = ClassifierConfig { shape: shape(data.train.dims()), classes: data.train.classes() };
        let mut left = 0.0;
        if !(config_file.is_file() && weights.is_file()) {
            let (params, rest) = teach(data, config, most, &host, progress)?;
            left = rest;
            disk::make_dirs(&Os, own)?;
            tensors::write(&Os, &weights, &checkpoint::weights(&params))?;
            write_atomic(&Os, &config_file, config.to_json().to_string().as_bytes())?;
        }
        let json: Value = checkpoint::read_json(&Os, &config_file)?;
        let (classifier, decls) = Classifier::new(ClassifierConfig::from_json(&json, &config_file)?);
        let mut params = Params::frozen(&host, &decls, Hold::Frozen);
        checkpoint::load_weights(&Os, &weights, &mut params)?;
        let hash = tensors::sha256(&Os, &weights)?;
        let mut trained = Trained { classifier, params, tape: Tape::new(&host), accuracy: 0.0, hash, left };
        trained.accuracy = trained.right(&data.held_out)?;
        Ok(trained)
    }

    /// Takes on a dry device what [`open`](Trained::open) takes.
    pub fn dry(data: &Data, dry: &Device) -> Trained {
        let host = dry.on_host();
        let config = ClassifierConfig { shape: shape(data.train.dims()), classes: data.train.classes() };
        drop(teach(data, config, 2, &host, &mut |_, _, _| {}).expect("no data that could change"));
        let (classifier, decls) = Classifier::new(config);
        let params = Params::frozen(&host, &decls, Hold::Frozen);
        let mut trained =
            Trained { classifier, params, tape: Tape::new(&host), accuracy: 0.0, hash: String::new(), left: 0.0 };
        trained.looks(data.held_out.len());
        trained
    }

    /// Takes what a look at `n` pictures takes, for a dry device.
    pub fn looks(&mut self, n: usize) {
        let values: usize = self.classifier.config().shape.iter().product();
        // Batches of one size take the same.
        let n = if n > BATCH { BATCH + n % BATCH } else { n };
        self.look(&vec![0; n * values]).expect("there are some");
    }

    /// The share of pictures that it tells right.
    fn right(&mut self, pictures: &Pictures) -> Result<f64> {
        let bytes: Vec<u8> = (0..pictures.len()).flat_map(|i| pictures.get(i)).copied().collect();
        let (_, probabilities) = self.look(&bytes)?;
        let best = |row: &[f64]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        let right = probabilities.rows().enumerate().filter(|(i, row)| pictures.label(*i) == Some(best(row))).count();
        Ok(right as f64 / pictures.len() as f64)
    }

    /// Features (N, 128) of pictures (N, H, W, C), and the probabilities of their classes (N, classes).
    ///
    /// # Errors
    /// There are none.
    pub fn look(&mut self, pictures: &[u8]) -> Result<(Features, Features)> {
        let ClassifierConfig { shape: [h, w, c], classes } = *self.classifier.config();
        let (mut features, mut probabilities) = (Vec::new(), Vec::new());
        for part in pictures.chunks(BATCH * h * w * c) {
            let x: Vec<f32> = part.iter().map(|&byte| Range::Unit.value(byte)).collect();
            self.tape.begin(&self.params, Pass::default());
            let (tape, classifier) = (&self.tape, &self.classifier);
            let x = tape.constant(Tensor::from_slice(tape.device(), &x, [part.len() / (h * w * c), h, w, c]));
            let [found, logits] = tape.no_grad(|| {
                let found = classifier.features(x);
                [found, classifier.logits(found)].map(|v| v.value())
            });
            features.extend_from_slice(found.f32());
            for logits in logits.f32().chunks_exact(classes) {
                let most = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
                let each: Vec<f64> = logits.iter().map(|&logit| libm::exp(f64::from(logit - most))).collect();
                let sum: f64 = each.iter().sum();
                probabilities.extend(each.iter().map(|p| p / sum));
            }
        }
        self.tape.reset();
        Ok((Features::new(&features, FEATURES)?, Features::new(&probabilities, classes)?))
    }
}

/// Trains a classifier for `most` steps at most, and says how many seconds those would take that are left out.
fn teach(
    data: &Data,
    config: ClassifierConfig,
    most: u64,
    device: &Device,
    progress: &mut Progress,
) -> Result<(Params, f64)> {
    let batch = BATCH.min(data.train.len());
    let batches = PictureBatches::new(data.train.clone(), batch, Range::Unit, Augment { flip: false, shift: 1 }, 1)?;
    let steps = ((3.0 * batches.per_epoch()) as u64).clamp(*STEPS.start(), *STEPS.end());
    let schedule = Schedule { shape: Shape::Cosine, lr: 2e-3, min_lr: 2e-5, steps, warmup: 20, decay_steps: 0 };
    let optim = Optimizer { adamw: AdamW { weight_decay: 0.01, ..AdamW::default() }, ..Optimizer::default() };
    let precision = Precision::F32;
    let setup = Setup { accumulate: 1, recompute: false, precision, seed: 1, optim, schedule, dp: None };
    let (classifier, decls) = Classifier::new(config);
    let mut trainer = Trainer::with(setup, (Lessons { classifier, batches }, decls), device)?;
    let (done, mut start) = (steps.min(most), Instant::now());
    for step in 0..done {
        if step == WARM {
            start = Instant::now();
        }
        trainer.step(step)?;
        progress("training the classifier that judges", step + 1, steps);
    }
    let each = start.elapsed().as_secs_f64() / done.saturating_sub(WARM).max(1) as f64;
    Ok((trainer.params, (steps - done) as f64 * each))
}
