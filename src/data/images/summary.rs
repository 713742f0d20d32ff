//! Pictures in numbers.

use std::collections::HashSet;

use serde::Serialize;

use super::set::{Dims, Pictures};

/// What a set of pictures is like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many there are.
    pub pictures: usize,
    /// Their size.
    #[serde(flatten)]
    pub dims: Dims,
    /// The mean of each channel, 0 to 1.
    pub mean: Vec<f64>,
    /// The standard deviation of each channel over all pixels.
    pub std: Vec<f64>,
    /// The share of values that are 0.
    pub black: f64,
    /// The share of values that are 255.
    pub white: f64,
    /// Pictures that repeat an earlier one, byte for byte.
    pub repeated: usize,
    /// Pictures of one colour.
    pub blank: usize,
    /// How many pictures each label has, in the order of labels; empty where there are none.
    pub labels: Vec<Count>,
}

/// How many pictures a label has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Its name.
    pub name: String,
    /// How many.
    pub pictures: usize,
}

impl Summary {
    /// Goes over the pictures.
    pub fn of(pictures: &Pictures) -> Summary {
        let channels = pictures.dims().channels;
        let mut values = vec![[0u64; 256]; channels];
        let mut seen = HashSet::new();
        let (mut repeated, mut blank) = (0, 0);
        let mut labels = vec![0; pictures.classes()];
        for index in 0..pictures.len() {
            let picture = pictures.get(index);
            for pixel in picture.chunks_exact(channels) {
                values.iter_mut().zip(pixel).for_each(|(counts, &value)| counts[usize::from(value)] += 1);
            }
            repeated += usize::from(!seen.insert(picture));
            blank += usize::from(picture.chunks_exact(channels).all(|pixel| pixel == &picture[..channels]));
            if let Some(label) = pictures.label(index) {
                labels[label] += 1;
            }
        }
        // From how often each value occurs sums are exact.
        let pixels: u64 = values[0].iter().sum();
        let moment = |counts: &[u64; 256], power: i32| -> f64 {
            let sum: f64 = (0u32..).zip(counts).map(|(v, &n)| (f64::from(v) / 255.0).powi(power) * n as f64).sum();
            sum / pixels as f64
        };
        let share = |value: usize| {
            values.iter().map(|counts| counts[value]).sum::<u64>() as f64 / (pixels * channels as u64) as f64
        };
        Summary {
            pictures: pictures.len(),
            dims: pictures.dims(),
            mean: values.iter().map(|counts| moment(counts, 1)).collect(),
            std: values.iter().map(|counts| (moment(counts, 2) - moment(counts, 1).powi(2)).max(0.0).sqrt()).collect(),
            black: share(0),
            white: share(255),
            repeated,
            blank,
            labels: pictures
                .names()
                .iter()
                .zip(labels)
                .map(|(name, n)| Count { name: name.clone(), pictures: n })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_what_is_there() {
        let dims = Dims { height: 1, width: 2, channels: 3 };
        let values = vec![0, 51, 255, 255, 51, 255, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
        let names = ["a", "b"].map(str::to_owned).to_vec();
        let summary = Summary::of(&Pictures::new(dims, values, Some(vec![1, 1, 0]), names));
        assert_eq!((summary.pictures, summary.repeated, summary.blank), (3, 1, 2));
        assert_eq!((summary.black, summary.white), (1.0 / 18.0, 3.0 / 18.0));
        assert_eq!(summary.labels.iter().map(|label| label.pictures).collect::<Vec<_>>(), [1, 2]);
        let mean = (255.0 + 4.0 * 9.0) / 6.0 / 255.0;
        assert!((summary.mean[0] - mean).abs() < 1e-12, "{:?}", summary.mean);
        let square = (255f64.powi(2) + 4.0 * 81.0) / 6.0 / 255f64.powi(2);
        assert!((summary.std[0] - (square - mean * mean).sqrt()).abs() < 1e-12, "{:?}", summary.std);
    }
}
