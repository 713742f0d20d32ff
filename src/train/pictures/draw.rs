//! Pictures from numbers: what every model of pictures can do once it is trained.

use crate::data::images::Range;
use crate::model::{Gan, Vae};
use crate::params::Params;
use crate::rng::{Purpose, Stream};
use crate::tape::{Pass, Tape, Var};
use crate::tensor::{DType, Tensor};

/// A model that makes pictures from numbers of N(0, 1).
pub trait Maker {
    /// The range of its pictures.
    const RANGE: Range;

    /// L: how many numbers a picture is made of.
    fn latent(&self) -> usize;

    /// How many classes there are; `None`: it knows of none.
    fn classes(&self) -> Option<usize>;

    /// z (B, L), and labels (B) where there are classes, to pictures (B, H, W, C).
    fn make<'t>(&self, z: Var<'t>, labels: Option<Var<'t>>) -> Var<'t>;
}

impl Maker for Vae {
    const RANGE: Range = Range::Unit;

    fn latent(&self) -> usize {
        self.config().latent
    }

    fn classes(&self) -> Option<usize> {
        self.config().classes
    }

    fn make<'t>(&self, z: Var<'t>, labels: Option<Var<'t>>) -> Var<'t> {
        self.picture(self.decode(z, labels))
    }
}

impl Maker for Gan {
    const RANGE: Range = Range::Signed;

    fn latent(&self) -> usize {
        self.config().latent
    }

    fn classes(&self) -> Option<usize> {
        self.config().classes
    }

    fn make<'t>(&self, z: Var<'t>, labels: Option<Var<'t>>) -> Var<'t> {
        self.generate(z, labels)
    }
}

/// Pictures made at once.
pub(super) const BATCH: usize = 64;

/// The stream of the numbers of samples among those of [`Purpose::Latent`]; passes have low ones.
const STREAM: u32 = 0xFF_FFFD;

/// The numbers (n, latent) of pictures with this seed: those of the first pictures are the same for any n.
pub fn noise(latent: usize, n: usize, seed: u64) -> Vec<f32> {
    let mut z = vec![0.0; n * latent];
    let draw = |(i, z): (usize, &mut [f32])| Stream::new(seed, Purpose::Latent, STREAM, i as u64).normals(1.0, z);
    z.chunks_exact_mut(latent).enumerate().for_each(draw);
    z
}

/// Labels for n pictures in rows of `columns`: `label` for all, or a row for each class in turn.
pub fn labels(classes: Option<usize>, n: usize, columns: usize, label: Option<usize>) -> Option<Vec<i32>> {
    let classes = classes?;
    Some((0..n).map(|i| label.unwrap_or(i / columns % classes) as i32).collect())
}

/// The bytes of the pictures (n, H, W, C) that `model` makes of z (n, L).
///
/// # Panics
/// Labels are given to a model without classes, or not given to one with classes.
pub fn draw<M: Maker>(
    model: &M,
    params: &Params,
    tape: &mut Tape,
    pass: Pass,
    z: &[f32],
    labels: Option<&[i32]>,
) -> Vec<u8> {
    let latent = model.latent();
    assert_eq!(
        labels.map(<[i32]>::len),
        model.classes().map(|_| z.len() / latent),
        "a label for each picture, or none"
    );
    let mut pictures = Vec::new();
    for (i, z) in z.chunks(BATCH * latent).enumerate() {
        let n = z.len() / latent;
        tape.begin(params, pass);
        let device = tape.device();
        let z = Tensor::from_slice(device, z, [n, latent]);
        let labels = labels.map(|labels| Tensor::from_slice(device, &labels[i * BATCH..][..n], [n]));
        let made = tape.no_grad(|| {
            let made = model.make(tape.constant(z), labels.map(|labels| tape.constant(labels)));
            made.cast(DType::F32).value()
        });
        pictures.extend(M::RANGE.bytes(&made.read::<f32>()));
    }
    tape.reset();
    pictures
}

/// Numbers on a line from `from` to `to` (L each), `steps` of them, both ends included: along a great circle, as numbers of
/// N(0, 1) are about equally far from 0 (Shoemake 1985; White 2016, arXiv 1609.04468).
pub fn between(from: &[f32], to: &[f32], steps: usize) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let cos = dot(from, to) / (dot(from, from) * dot(to, to)).sqrt().max(1e-12);
    let angle = libm::acos(cos.clamp(-1.0, 1.0));
    let weight = |t: f64| if angle < 1e-3 { t } else { libm::sin(t * angle) / libm::sin(angle) };
    let at = |i: usize| {
        let t = i as f64 / (steps.max(2) - 1) as f64;
        let [a, b] = [weight(1.0 - t), weight(t)].map(|w| w as f32);
        from.iter().zip(to).map(move |(x, y)| a * x + b * y)
    };
    (0..steps).flat_map(at).collect()
}
