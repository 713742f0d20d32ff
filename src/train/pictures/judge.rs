//! How good the pictures of a model are, by features of the data set at hand.
//!
//! Where pictures have labels, features are those of a [classifier](crate::model::Classifier) that is trained on the same
//! data first and kept in the run's `data/`; else brightness, averaged to at most 8 × 8 a channel. Either way a distance says
//! something about this data set alone: none of them is the FID of other papers, which looks through a network of ImageNet's.

use super::Opened as Data;
use super::classify::Trained;
use crate::data::images::{Dims, Pictures};
use crate::device::Device;
use crate::error::Result;
use crate::measure::{
    Blocks, Classes, Copies, Features, Gaussian, Manifold, Spread, classifier_score, kernel_distance, mean_distance,
};
use crate::train::task::Progress;
use std::path::Path;

/// A class is there from this share of the samples on.
pub const LEAST_SHARE: f64 = 0.04;

/// Pictures that are compared one with another.
const PAIRS: usize = 2000;

/// Pictures of the data that are looked at.
const SEEN: usize = 10_000;

/// Who judges.
pub struct Judge {
    dims: Dims,
    classifier: Option<Trained>,
    /// Of the held-out pictures.
    gaussian: Gaussian,
    held_out: Features,
    train: Features,
    /// The mean distance of two held-out pictures.
    diversity: f64,
    classes: Option<Classes>,
    /// Whether it only takes the buffers that a judge takes.
    dry: bool,
}

/// What was found of pictures that a model made.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The Fréchet distance from held-out pictures.
    pub frechet: f64,
    /// The mean distance of two of them over that of the data.
    pub diversity: f64,
    /// How they are spread over the classes.
    pub classes: Option<Spread>,
    /// How many are seen as each class.
    pub counts: Vec<usize>,
    /// More, by name; after the last step.
    more: Vec<(&'static str, f64)>,
}

impl Judge {
    /// A judge of models of `data`, whose classifier is in the folder `own` or is trained now.
    ///
    /// # Errors
    /// The classifier cannot be saved, or what is there cannot be read.
    pub fn open(data: &Data, own: &Path, device: &Device, progress: &mut Progress) -> Result<Judge> {
        Judge::taught(data, own, u64::MAX, device, progress)
    }

    /// The same, but the classifier is trained for `most` steps at most: to measure what a judge costs.
    ///
    /// # Errors
    /// As of [`open`](Judge::open).
    pub fn taught(data: &Data, own: &Path, most: u64, device: &Device, progress: &mut Progress) -> Result<Judge> {
        let classifier = match data.train.classes() {
            0 | 1 => None,
            _ => Some(Trained::open(data, own, most, device, progress)?),
        };
        progress("looking at the data", 0, 0);
        let dims = data.train.dims();
        let all = |pictures: &Pictures, most: usize| {
            // As many all over the set, which may be in the order of its labels.
            let n = pictures.len().min(most);
            (0..n).flat_map(|i| pictures.get(i * pictures.len() / n)).copied().collect::<Vec<u8>>()
        };
        let mut judge = Judge::blank(dims, classifier)?;
        let (held_out, probabilities) = judge.look(&all(&data.held_out, SEEN))?;
        judge.gaussian = Gaussian::of(&held_out)?;
        judge.held_out = first(&held_out, PAIRS)?;
        judge.diversity = mean_distance(&judge.held_out)?;
        judge.classes = probabilities.as_ref().map(Classes::of);
        judge.train = judge.look(&all(&data.train, SEEN))?.0;
        Ok(judge)
    }

    /// One that knows nothing of the data yet.
    fn blank(dims: Dims, classifier: Option<Trained>) -> Result<Judge> {
        Ok(Judge {
            dims,
            classifier,
            gaussian: Gaussian { mean: Vec::new(), covariance: Vec::new() },
            held_out: Features::new(&[0.0f32], 1)?,
            train: Features::new(&[0.0f32], 1)?,
            diversity: 0.0,
            classes: None,
            dry: false,
        })
    }

    /// Takes on a dry device what [`open`](Judge::open) takes, and as it judges what a judge takes.
    pub fn dry(data: &Data, dry: &Device) -> Judge {
        let classifier = (data.train.classes() > 1).then(|| {
            let mut classifier = Trained::dry(data, dry);
            classifier.looks(data.held_out.len().min(SEEN));
            classifier.looks(data.train.len().min(SEEN));
            classifier
        });
        let blank = Judge::blank(data.train.dims(), classifier).expect("there is a feature");
        Judge { dry: true, ..blank }
    }

    /// Seconds that the training of its classifier would have gone on.
    pub fn left(&self) -> f64 {
        self.classifier.as_ref().map_or(0.0, |classifier| classifier.left)
    }

    /// Who judges, in words.
    pub fn says(&self) -> String {
        match &self.classifier {
            Some(Trained { accuracy, hash, .. }) => format!(
                "Distances are between features of a classifier that was trained on the same data (it tells {:.1} % of held-out \
                 pictures right; its weights have SHA-256 {}…). They compare models on this data set, and are no FID.",
                100.0 * accuracy,
                &hash[..16]
            ),
            None => "Distances are between pictures of at most 8 × 8 averages: the data has no labels that a classifier could \
                     learn. They compare models on this data set, and are no FID."
                .to_owned(),
        }
    }

    /// Features of pictures (N, H, W, C), and the probabilities of their classes.
    fn look(&mut self, pictures: &[u8]) -> Result<(Features, Option<Features>)> {
        match &mut self.classifier {
            Some(classifier) => {
                let (features, probabilities) = classifier.look(pictures)?;
                Ok((features, Some(probabilities)))
            }
            None => Ok((pooled(pictures, self.dims)?, None)),
        }
    }

    /// What is to be said of pictures (N, H, W, C); all of it where `whole`.
    ///
    /// # Errors
    /// They are too few.
    pub fn verdict(&mut self, pictures: &[u8], whole: bool) -> Result<Verdict> {
        if self.dry {
            let n = pictures.len() / self.dims.values();
            self.classifier.iter_mut().for_each(|classifier| classifier.looks(n));
            return Ok(Verdict::new(0.0, 0.0, None));
        }
        let (features, probabilities) = self.look(pictures)?;
        let few = first(&features, PAIRS)?;
        let mut more = Vec::new();
        if whole {
            let (kid, _) = kernel_distance(&self.held_out, &few, Blocks::default())?;
            let Manifold { precision, recall, density, coverage } = Manifold::of(&self.held_out, &few, 5)?;
            more = vec![
                ("kernel_distance", kid),
                ("precision", precision),
                ("recall", recall),
                ("density", density),
                ("coverage", coverage),
            ];
            if let Some(probabilities) = &probabilities {
                more.push(("classifier_score", classifier_score(probabilities, 10)?.0));
            }
            if self.held_out.len() >= 100 {
                more.push(("copies", Copies::of(&self.train, &self.held_out, &few)?.share));
            }
        }
        let frechet = Gaussian::of(&features)?.distance(&self.gaussian);
        let found = probabilities.map(|p| Classes::of(&p));
        let classes = found.as_ref().map(|found| found.spread(LEAST_SHARE, self.classes.as_ref()));
        let counts = found.map_or_else(Vec::new, |found| found.counts);
        Ok(Verdict { more, counts, ..Verdict::new(frechet, mean_distance(&few)? / self.diversity, classes) })
    }
}

impl Verdict {
    /// A verdict of the numbers that are always there.
    pub fn new(frechet: f64, diversity: f64, classes: Option<Spread>) -> Verdict {
        Verdict { frechet, diversity, classes, counts: Vec::new(), more: Vec::new() }
    }

    /// The numbers, by name.
    pub fn parts(&self) -> Vec<(&'static str, f64)> {
        let classes = self.classes.iter().flat_map(|s| [("classes", s.covered as f64), ("least_share", s.least)]);
        let first = [("frechet", self.frechet), ("diversity", self.diversity)];
        first.into_iter().chain(classes).chain(self.more.iter().copied()).collect()
    }
}

/// The first rows.
fn first(features: &Features, most: usize) -> Result<Features> {
    let values: Vec<f64> = features.rows().take(most).flatten().copied().collect();
    Features::new(&values, features.dims())
}

/// Brightness of pictures (N, H, W, C), averaged over rectangles, at most 8 × 8.
fn pooled(pictures: &[u8], dims: Dims) -> Result<Features> {
    let Dims { height, width, channels } = dims;
    let (rows, columns) = (height.min(8), width.min(8));
    let mut features = Vec::with_capacity(pictures.len() / dims.values() * rows * columns * channels);
    for picture in pictures.chunks_exact(dims.values()) {
        let mut sums = vec![[0.0f64; 2]; rows * columns * channels];
        for (i, &value) in picture.iter().enumerate() {
            let (y, x, c) = (i / (width * channels), i / channels % width, i % channels);
            let sum = &mut sums[(y * rows / height * columns + x * columns / width) * channels + c];
            *sum = [sum[0] + f64::from(value) / 255.0, sum[1] + 1.0];
        }
        features.extend(sums.iter().map(|[sum, n]| sum / n));
    }
    Features::new(&features, rows * columns * channels)
}
