//! How fast this machine does what kiln is made of, and how that compares with other programs.
//!
//! A [`Case`] is a piece of work of a known size, under a name; [`step`], [`decode`], [`gemm`], [`kernels`] and [`data`]
//! list them. A [`Sitting`] measures the machine's [`Ceilings`], then times cases, in turns with [`Rival`]s that do the
//! same work, and gives a [`Row`] for kiln and one for each rival: the speed, the share of the ceiling that binds the work,
//! and the ratio of both, round by round.

pub mod cards;
pub mod ceilings;
pub mod clean;
pub mod clock;
pub mod data;
pub mod decode;
pub mod gemm;
pub mod gpu;
pub mod kernels;
pub mod peer;
pub mod pictures;
pub mod python;
pub mod rival;
pub mod roofline;
pub mod sitting;
pub mod spots;
pub mod step;
pub mod tokenizer;
pub mod turns;

pub use ceilings::Ceilings;
pub use clock::{Clock, repeated};
pub use rival::{Against, Rival};
pub use sitting::{Row, Sitting, means};

use crate::cpu::gemm::Precision;
use crate::device::Device;
use crate::error::Result;
use serde_json::Value;

/// What a piece of work takes at least, on any machine: every input read once and every result written once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations; a multiply-add counts 2.
    pub flops: f64,
    /// What most of them multiply.
    pub precision: Precision,
    /// Bytes read.
    pub read: f64,
    /// Bytes written.
    pub written: f64,
}

impl Work {
    /// Bytes read and written.
    pub fn bytes(&self) -> f64 {
        self.read + self.written
    }
}

/// What a speed is counted in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// 10⁹ floating-point operations a second.
    Gflops,
    /// 10⁹ bytes a second, of what the work takes at least.
    Gbytes,
    /// Tokens a second, of so many.
    Tokens(usize),
    /// Pictures a second, of so many.
    Pictures(usize),
    /// 10⁶ bytes of text a second, of so many bytes.
    Text(usize),
}

impl Unit {
    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Gflops => "GFLOP/s",
            Unit::Gbytes => "GB/s",
            Unit::Tokens(_) => "tokens/s",
            Unit::Pictures(_) => "pictures/s",
            Unit::Text(_) => "MB/s",
        }
    }
}

/// A part of a repetition that is timed by itself, as forward and backward.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name; empty where it is the whole or the main one.
    pub name: &'static str,
    /// What it does.
    pub work: Work,
    /// What its speed is counted in.
    pub unit: Unit,
}

impl Part {
    /// The whole of a repetition.
    pub fn whole(work: Work, unit: Unit) -> Part {
        Part { name: "", work, unit }
    }

    /// The key of its seconds in what a peer answers: `seconds`, or `NAME_seconds`.
    pub fn key(&self) -> String {
        if self.name.is_empty() { "seconds".to_owned() } else { format!("{}_seconds", self.name) }
    }

    /// Its speed when it takes `seconds`.
    pub fn rate(&self, seconds: f64) -> f64 {
        match self.unit {
            Unit::Gflops => self.work.flops / seconds / 1e9,
            Unit::Gbytes => self.work.bytes() / seconds / 1e9,
            Unit::Tokens(n) | Unit::Pictures(n) => n as f64 / seconds,
            Unit::Text(bytes) => bytes as f64 / seconds / 1e6,
        }
    }
}

/// Does one repetition and gives the seconds of each part.
pub type Repetition<'a> = Box<dyn FnMut() -> Result<Vec<f64>> + 'a>;

/// A case that is ready to be repeated.
pub struct Started {
    /// What is timed.
    pub parts: Vec<Part>,
    /// Does it.
    pub repeat: Repetition<'static>,
}

type Start = dyn Fn(&Device) -> Result<Started>;

/// Work of a known size that can be timed.
pub struct Case {
    /// The benchmark that it belongs to.
    pub bench: &'static str,
    /// Its name there.
    pub name: String,
    /// All that a peer needs in order to do the same; see benches/peers/README.md.
    pub spec: Value,
    start: Box<Start>,
}

impl Case {
    /// A case and what makes it ready on a device.
    pub fn new(
        bench: &'static str,
        name: String,
        spec: Value,
        start: impl Fn(&Device) -> Result<Started> + 'static,
    ) -> Case {
        Case { bench, name, spec, start: Box::new(start) }
    }

    /// Makes it ready: inputs, weights, warm caches.
    ///
    /// # Errors
    /// Files that it needs cannot be used.
    pub fn start(&self, device: &Device) -> Result<Started> {
        (self.start)(device)
    }
}

/// The middle, the smallest and the largest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one number.
    pub fn of(x: impl IntoIterator<Item = f64>) -> Spread {
        let mut x = Vec::from_iter(x);
        x.sort_by(f64::total_cmp);
        let n = x.len();
        Spread { median: (x[(n - 1) / 2] + x[n / 2]) / 2.0, min: x[0], max: x[n - 1] }
    }
}

/// The geometric mean.
pub fn geometric_mean(x: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, n) = x.into_iter().fold((0.0, 0), |(sum, n), x| (sum + x.ln(), n + 1));
    (sum / f64::from(n)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_the_mean_of_two() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!((geometric_mean([2.0, 8.0]) - 4.0).abs() < 1e-12);
    }
}
