//! Pictures of shapes and glyphs whose factors are known: which, where, how large, how turned, how bright.
//!
//! Picture `i` of a world is a pure function of its seed, `i` and the number of pixels. A figure is a signed distance d to its
//! outline, in a plane in which it has the radius 1; a pixel is as bright as its share of the figure, which is taken from the
//! distance at its centre: clamp(½ − d·r, 0, 1) for a figure of radius r pixels. Nothing depends on the platform: products and
//! sums of f32, exact square roots, sines of the crate `libm`.

use std::f32::consts::TAU;
use std::ops::Range;
use std::path::Path;

use rand::RngCore;
use rayon::prelude::*;
use serde::Serialize;

use super::grid::{Grid, Sheet};
use super::idx::{self, Idx};
use super::set::{Dims, Found, Pictures};
use crate::data::atomic::write_atomic;
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Rng};

/// Which figure a picture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A filled circle.
    Disc,
    /// A circle.
    Ring,
    /// A filled square.
    Square,
    /// A filled triangle with equal sides.
    Triangle,
    /// A filled star of five rays.
    Star,
    /// A filled cross with equal arms.
    Cross,
    /// The letter A, in strokes.
    A,
    /// The letter E.
    E,
    /// The letter L.
    L,
    /// The letter Z.
    Z,
}

impl Kind {
    /// All of them; the label of a kind is its place here.
    pub const ALL: [Kind; 10] = [
        Kind::Disc,
        Kind::Ring,
        Kind::Square,
        Kind::Triangle,
        Kind::Star,
        Kind::Cross,
        Kind::A,
        Kind::E,
        Kind::L,
        Kind::Z,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        ["disc", "ring", "square", "triangle", "star", "cross", "a", "e", "l", "z"][self as usize]
    }

    /// Turns by 1 / so many of a circle leave it as it is; 0: any turn does.
    pub fn symmetry(self) -> u32 {
        match self {
            Kind::Disc | Kind::Ring => 0,
            Kind::Square | Kind::Cross => 4,
            Kind::Triangle => 3,
            Kind::Star => 5,
            Kind::Z => 2,
            Kind::A | Kind::E | Kind::L => 1,
        }
    }

    /// The distance of (x, y) from its outline, negative inside. y grows downwards.
    fn distance(self, x: f32, y: f32) -> f32 {
        let length = |x: f32, y: f32| (x * x + y * y).sqrt();
        match self {
            Kind::Disc => length(x, y) - 1.0,
            Kind::Ring => (length(x, y) - 0.8).abs() - 0.2,
            Kind::Square => polygon(&SQUARE, x, y),
            Kind::Triangle => polygon(&TRIANGLE, x, y),
            Kind::Star => polygon(&STAR, x, y),
            Kind::Cross => polygon(&CROSS, x, y),
            Kind::A => strokes(&[&[(-0.6, 0.8), (0.0, -0.8), (0.6, 0.8)], &[(-0.38, 0.22), (0.38, 0.22)]], x, y),
            Kind::E => {
                strokes(&[&[(0.5, -0.8), (-0.5, -0.8), (-0.5, 0.8), (0.5, 0.8)], &[(-0.5, 0.0), (0.35, 0.0)]], x, y)
            }
            Kind::L => strokes(&[&[(-0.45, -0.8), (-0.45, 0.8), (0.5, 0.8)]], x, y),
            Kind::Z => strokes(&[&[(-0.55, -0.8), (0.55, -0.8), (-0.55, 0.8), (0.55, 0.8)]], x, y),
        }
    }
}

type Point = (f32, f32);

/// Figures keep so far from the edges, as a share of the width: a pixel of small pictures.
const MARGIN: f32 = 0.04;

/// Half of a stroke's width.
const STROKE: f32 = 0.18;

const SQUARE: [Point; 4] = [(-0.707, -0.707), (0.707, -0.707), (0.707, 0.707), (-0.707, 0.707)];
const TRIANGLE: [Point; 3] = [(0.0, -1.0), (0.866, 0.5), (-0.866, 0.5)];
const STAR: [Point; 10] = [
    (0.0, -1.0),
    (0.247, -0.34),
    (0.951, -0.309),
    (0.4, 0.13),
    (0.588, 0.809),
    (0.0, 0.42),
    (-0.588, 0.809),
    (-0.4, 0.13),
    (-0.951, -0.309),
    (-0.247, -0.34),
];
const CROSS: [Point; 12] = [
    (-0.3, -0.95),
    (0.3, -0.95),
    (0.3, -0.3),
    (0.95, -0.3),
    (0.95, 0.3),
    (0.3, 0.3),
    (0.3, 0.95),
    (-0.3, 0.95),
    (-0.3, 0.3),
    (-0.95, 0.3),
    (-0.95, -0.3),
    (-0.3, -0.3),
];

/// The distance of (x, y) from the segment between two points.
fn segment((ax, ay): Point, (bx, by): Point, x: f32, y: f32) -> f32 {
    let (dx, dy, px, py) = (bx - ax, by - ay, x - ax, y - ay);
    let along = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    let (ex, ey) = (px - along * dx, py - along * dy);
    (ex * ex + ey * ey).sqrt()
}

/// The signed distance of a filled polygon.
fn polygon(points: &[Point], x: f32, y: f32) -> f32 {
    let (mut least, mut inside) = (f32::INFINITY, false);
    for (i, &b) in points.iter().enumerate() {
        let a = points[(i + points.len() - 1) % points.len()];
        least = least.min(segment(a, b, x, y));
        // A ray to the right crosses the side.
        if (a.1 > y) != (b.1 > y) && x < (b.0 - a.0) * (y - a.1) / (b.1 - a.1) + a.0 {
            inside = !inside;
        }
    }
    if inside { -least } else { least }
}

/// The signed distance of lines drawn with a round pen; their ends, at most 1 from the middle, are drawn in by its radius.
fn strokes(lines: &[&[Point]], x: f32, y: f32) -> f32 {
    const SHRINK: f32 = 1.0 - STROKE;
    let segments = lines.iter().flat_map(|line| line.windows(2));
    let nearest = segments.map(|ends| segment(ends[0], ends[1], x / SHRINK, y / SHRINK)).fold(f32::INFINITY, f32::min);
    SHRINK * nearest - STROKE
}

/// What a picture shows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Factors {
    /// The figure.
    pub kind: Kind,
    /// The column of its middle, 0 at the left edge and 1 at the right one.
    pub x: f32,
    /// The row of its middle, 0 at the upper edge.
    pub y: f32,
    /// Its radius as a share of the picture's width.
    pub size: f32,
    /// How far it is turned clockwise, in turns: below 1 / [`Kind::symmetry`], so that no two angles look the same.
    pub angle: f32,
    /// How bright it is, on black: 0 to 1.
    pub shade: f32,
}

/// A world of square pictures in shades of grey.
#[derive(Clone, Copy, Debug)]
pub struct Shapes {
    seed: u64,
    pixels: usize,
}

/// How [`Shapes::write`] stores pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz`, and the same as `t10k-…`, as MNIST.
    Idx,
    /// `train/star/000017.png`, as folders of classes.
    Png,
}

impl Shapes {
    /// Pictures of `pixels` × `pixels`, 8 to 1024; 28 as MNIST's, 32 as CIFAR's.
    ///
    /// # Errors
    /// They would be too small or too large.
    pub fn new(seed: u64, pixels: usize) -> Result<Shapes> {
        if (8..=1024).contains(&pixels) {
            return Ok(Shapes { seed, pixels });
        }
        Err(Error::usage(
            format!("pictures of {pixels} pixels are not drawn"),
            "choose from 8 to 1024; 28 or 32 suit small models",
        ))
    }

    /// What picture `index` shows. Kinds are equally frequent; the figure lies within the picture.
    pub fn factors(&self, index: u64) -> Factors {
        let mut rng = Rng::new(self.seed, Purpose::World, PICTURES, index);
        let kind = Kind::ALL[rng.below(Kind::ALL.len() as u32) as usize];
        let mut between = |low: f32, high: f32| low + (high - low) * ((rng.next_u32() >> 8) as f32 / 16_777_216.0);
        let size = between(0.2, 0.4);
        let (nearest, farthest) = (size + MARGIN, 1.0 - size - MARGIN);
        let (x, y) = (between(nearest, farthest), between(nearest, farthest));
        let angle = match kind.symmetry() {
            0 => 0.0,
            n => between(0.0, 1.0) / n as f32,
        };
        Factors { kind, x, y, size, angle, shade: between(0.35, 1.0) }
    }

    /// Draws a picture: rows from above, a byte for each pixel.
    pub fn draw(&self, factors: &Factors) -> Vec<u8> {
        let Factors { kind, x, y, size, angle, shade } = *factors;
        let (sin, cos) = libm::sincosf(angle * TAU);
        let width = self.pixels as f32;
        let radius = size * width;
        let pixel = |i: usize| {
            let (column, row) = ((i % self.pixels) as f32 + 0.5, (i / self.pixels) as f32 + 0.5);
            let (dx, dy) = ((column - x * width) / radius, (row - y * width) / radius);
            let distance = kind.distance(cos * dx + sin * dy, cos * dy - sin * dx);
            (255.0 * shade * (0.5 - distance * radius).clamp(0.0, 1.0) + 0.5) as u8
        };
        (0..self.pixels * self.pixels).map(pixel).collect()
    }

    fn dims(&self) -> Dims {
        Dims { height: self.pixels, width: self.pixels, channels: 1 }
    }

    /// Pictures 0 to `count` − 1 in memory, the last sixth of them held out, with their kinds as labels.
    ///
    /// # Errors
    /// There are too few or too many.
    pub fn found(&self, count: usize) -> Result<Found> {
        let held_out = held_out(count)?;
        let part = |range: Range<usize>| {
            let factors: Vec<Factors> = range.into_par_iter().map(|index| self.factors(index as u64)).collect();
            let values = factors.par_iter().flat_map_iter(|factors| self.draw(factors)).collect();
            let labels = factors.iter().map(|factors| factors.kind as u16).collect();
            let names = Kind::ALL.iter().map(|kind| kind.name().to_owned()).collect();
            Pictures::new(self.dims(), values, Some(labels), names)
        };
        let (train, val) = (part(0..count - held_out), part(count - held_out..count));
        Ok(Found { train, held_out: Some(val), skips: Default::default() })
    }

    /// Writes pictures 0 to `count` − 1 into `dir`, the last sixth of them to be held out; `factors.jsonl` with a line for each, in
    /// order; and `contact-sheet.png` with the first 100.
    ///
    /// # Errors
    /// There are too few or too many, or files cannot be written.
    pub fn write(&self, dir: &Path, count: usize, format: Format) -> Result<()> {
        let held_out = held_out(count)?;
        disk::make_dirs(&Os, dir)?;
        let all: Vec<Factors> = (0..count as u64).into_par_iter().map(|i| self.factors(i)).collect();
        for (part, range) in [("train", 0..count - held_out), ("t10k", count - held_out..count)] {
            let factors = &all[range.clone()];
            match format {
                Format::Idx => {
                    let values: Vec<u8> = factors.par_iter().flat_map_iter(|factors| self.draw(factors)).collect();
                    let labels = factors.iter().map(|factors| factors.kind as u8).collect();
                    let names: String = Kind::ALL.iter().map(|kind| format!("{}\n", kind.name())).collect();
                    write_atomic(&Os, &dir.join(idx::NAMES), names.as_bytes())?;
                    let images = Idx { shape: vec![factors.len(), self.pixels, self.pixels], values };
                    images.write(dir.join(format!("{part}-images-idx3-ubyte.gz")))?;
                    Idx { shape: vec![factors.len()], values: labels }
                        .write(dir.join(format!("{part}-labels-idx1-ubyte.gz")))?;
                }
                Format::Png => {
                    let part = dir.join(if part == "train" { "train" } else { "test" });
                    Kind::ALL.iter().try_for_each(|kind| disk::make_dirs(&Os, &part.join(kind.name())))?;
                    range.into_par_iter().zip(factors).try_for_each(|(index, factors)| {
                        let file = part.join(factors.kind.name()).join(format!("{index:06}.png"));
                        Sheet { dims: self.dims(), values: self.draw(factors) }.save(&Os, &file)
                    })?;
                }
            }
        }
        let line = |factors: &Factors| serde_json::to_string(factors).expect("plain data") + "\n";
        let lines: String = all.iter().map(line).collect();
        write_atomic(&Os, &dir.join("factors.jsonl"), lines.as_bytes())?;
        let first: Vec<u8> = all.iter().take(100).flat_map(|factors| self.draw(factors)).collect();
        Grid { columns: 10, gap: 2, scale: 2 }.draw(&first, self.dims()).save(&Os, &dir.join("contact-sheet.png"))
    }
}

/// How many of so many pictures are held out.
fn held_out(count: usize) -> Result<usize> {
    if (2..=10_000_000).contains(&count) {
        return Ok((count / 6).max(1));
    }
    Err(Error::usage(format!("{count} pictures are too few or too many"), "choose from 2 to 10 million"))
}

/// The stream of pictures among those of [`Purpose::World`]; the village's have low numbers.
const PICTURES: u32 = 0xFF_FFFE;

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn world() -> Shapes {
        Shapes::new(1, 28).unwrap()
    }

    #[test]
    fn pictures_are_functions_of_seed_and_index() {
        let bytes: Vec<u8> = (0..200).flat_map(|i| world().draw(&world().factors(i))).collect();
        let digest: String = Sha256::digest(&bytes).iter().take(8).map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, "5812208dbf900ac3", "the pictures of a seed stay as they are");
        assert_ne!(world().factors(0), Shapes::new(2, 28).unwrap().factors(0));
        assert!(Shapes::new(1, 7).is_err());
    }

    #[test]
    fn figures_lie_within_the_picture_and_are_as_bright_as_said() {
        for i in 0..500 {
            let factors = world().factors(i);
            let picture = world().draw(&factors);
            let brightest = *picture.iter().max().unwrap();
            assert!((f32::from(brightest) - 255.0 * factors.shade).abs() <= 1.0, "{factors:?}: {brightest}");
            let edge: Vec<u8> =
                (0..28).flat_map(|k| [k, 27 * 28 + k, 28 * k, 28 * k + 27]).map(|at| picture[at]).collect();
            assert!(edge.iter().all(|&value| value == 0), "{factors:?}");
        }
    }

    #[test]
    fn the_area_is_that_of_the_figure_whatever_its_place_and_turn() {
        // Anti-aliasing keeps areas: a disc has π r² of light.
        let pictures = Shapes::new(1, 64).unwrap();
        for i in 0..40 {
            let factors = Factors { kind: Kind::Disc, shade: 1.0, ..pictures.factors(i) };
            let light: f64 = pictures.draw(&factors).iter().map(|&v| f64::from(v) / 255.0).sum();
            let area = std::f64::consts::PI * f64::from(factors.size * 64.0).powi(2);
            assert!((light / area - 1.0).abs() < 0.01, "{light} of {area}");
        }
    }

    #[test]
    fn a_turn_by_its_symmetry_leaves_a_figure_as_it_is() {
        let pictures = Shapes::new(1, 32).unwrap();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.symmetry() > 0) {
            let factors = Factors { kind, x: 0.5, y: 0.5, size: 0.35, angle: 0.03, shade: 1.0 };
            let turned = |by: f32| pictures.draw(&Factors { angle: factors.angle + by, ..factors });
            let apart = |a: Vec<u8>, b: Vec<u8>| a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            let n = kind.symmetry() as f32;
            assert!(apart(turned(0.0), turned(1.0 / n)) <= 8, "{kind:?}");
            assert!(apart(turned(0.0), turned(0.5 / n)) > 60, "{kind:?}");
        }
    }

    #[test]
    fn both_kinds_of_files_hold_the_pictures() {
        let dir = std::env::var_os("KILN_PLOTS").map(std::path::PathBuf::from);
        let temporary = tempfile::tempdir().unwrap();
        let dir = dir.unwrap_or(temporary.path().to_owned()).join("pictures");
        world().write(&dir, 120, Format::Idx).unwrap();
        let images = Idx::read(dir.join("train-images-idx3-ubyte.gz")).unwrap();
        assert_eq!(
            (images.shape.clone(), Idx::read(dir.join("t10k-labels-idx1-ubyte.gz")).unwrap().shape),
            (vec![100, 28, 28], vec![20])
        );
        assert_eq!(images.values[28 * 28 * 7..28 * 28 * 8], world().draw(&world().factors(7)));
        let lines = std::fs::read_to_string(dir.join("factors.jsonl")).unwrap();
        assert_eq!(
            (
                lines.lines().count(),
                serde_json::from_str::<serde_json::Value>(lines.lines().next().unwrap()).unwrap()["kind"].as_str()
            ),
            (120, Some(world().factors(0).kind.name()))
        );
        world().write(&dir, 12, Format::Png).unwrap();
        let kind = world().factors(11).kind.name();
        let png = png::Decoder::new(std::fs::File::open(dir.join(format!("test/{kind}/000011.png"))).unwrap());
        let mut reader = png.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, world().draw(&world().factors(11)));
        assert!(world().write(&dir, 1, Format::Idx).is_err());
    }
}
