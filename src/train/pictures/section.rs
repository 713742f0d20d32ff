//! `[data]` and `[sample]` of recipes for pictures.

use crate::data::images::{Augment, Colour};
use crate::error::Result;
use crate::settings::{range, require};
use crate::train::recipe::{Section, Train, one_or_many, paths};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureData {
    /// An IDX file, CIFAR-10, or a folder of pictures; absent: the built-in world of shapes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub path: Option<Vec<PathBuf>>,
    /// Pictures of the built-in world.
    pub count: usize,
    /// Seed of the built-in world, and of what is held out where the source itself holds nothing out.
    pub seed: u64,
    /// Share that is held out in that case.
    pub val_fraction: f64,
    /// Side to which pictures are scaled; absent: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Grey or in colour; absent: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<ColourChoice>,
    /// Whether half of them are mirrored.
    pub flip: bool,
    /// By how many pixels they are moved.
    pub shift: usize,
}

/// `data.colour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourChoice {
    /// Brightness alone.
    Grey,
    /// Red, green and blue.
    Rgb,
}

impl From<ColourChoice> for Colour {
    fn from(choice: ColourChoice) -> Colour {
        match choice {
            ColourChoice::Grey => Colour::Grey,
            ColourChoice::Rgb => Colour::Rgb,
        }
    }
}

impl PictureData {
    /// How pictures are varied.
    pub fn augment(&self) -> Augment {
        Augment { flip: self.flip, shift: self.shift }
    }
}

impl Section for PictureData {
    fn check(&self, _: &Train) -> Result<()> {
        paths(&self.path)?;
        if self.path.is_none() {
            range("data.count", self.count, 100..=10_000_000)?;
        }
        let share = self.val_fraction;
        require(share > 0.0 && share < 1.0, "data.val_fraction", share, "between 0 and 1, as 0.05")?;
        if let Some(size) = self.size {
            range("data.size", size, 8..=1024)?;
        }
        range("data.shift", self.shift, 0..=64)
    }

    fn fixed(&self, _: &Train) -> Vec<(&'static str, String)> {
        vec![
            ("data.count", self.count.to_string()),
            ("data.seed", self.seed.to_string()),
            ("data.val_fraction", self.val_fraction.to_string()),
            ("data.size", format!("{:?}", self.size)),
            ("data.colour", format!("{:?}", self.colour)),
        ]
    }
}

/// `[sample]`: the sheets of pictures that a run shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureSample {
    /// Rows of a sheet.
    pub rows: usize,
    /// Pictures in a row.
    pub columns: usize,
}

impl Section for PictureSample {
    fn check(&self, _: &Train) -> Result<()> {
        range("sample.rows", self.rows, 1..=64)?;
        range("sample.columns", self.columns, 1..=64)
    }

    fn fixed(&self, _: &Train) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
