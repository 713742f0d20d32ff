//! `metrics.jsonl`: one JSON object a step, appended as the run goes.

use crate::disk::{self, Disk, File, Open};
use crate::error::{AtPath, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is known of a step. Losses are in nats a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Steps done, this one included.
    pub step: u64,
    /// The loss on the step's batch; `null` in the file, and NaN here, where it is not finite, or is not told since
    /// training is private.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f32,
    /// The learning rate.
    pub lr: f64,
    /// The gradient's norm before clipping.
    #[serde(deserialize_with = "number_or_nan")]
    pub grad_norm: f64,
    /// The loss on the validation part, where it was evaluated after this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// The same in bits a byte of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// Where the step was skipped: the first parameter whose gradient was not finite, or `loss` where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// More numbers, by name: `tokens_per_s` or `pictures_per_s`, the parts of a loss, with `val_` before their names what an
    /// evaluation found, and `dp_epsilon`, what a private run had spent by then.
    #[serde(flatten, deserialize_with = "numbers_or_nan")]
    pub more: BTreeMap<String, f64>,
}

impl Record {
    /// A number by its name in the file; of the evaluation, where one followed the step.
    pub fn number(&self, name: &str) -> Option<f64> {
        match name {
            "loss" => Some(self.loss.into()),
            "lr" => Some(self.lr),
            "grad_norm" => Some(self.grad_norm),
            "val_loss" => self.val_loss,
            "bits_per_byte" => self.bits_per_byte,
            name => self.more.get(name).copied(),
        }
    }

    /// The names of its numbers.
    pub fn names(&self) -> Vec<&str> {
        let own = ["val_loss", "bits_per_byte", "loss", "grad_norm", "lr"];
        own.into_iter().filter(|name| self.number(name).is_some()).chain(self.more.keys().map(String::as_str)).collect()
    }
}

/// JSON has no NaN: it is written as `null`.
fn number_or_nan<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + From<f32>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_else(|| f32::NAN.into()))
}

fn numbers_or_nan<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let all: BTreeMap<String, Option<f64>> = Deserialize::deserialize(from)?;
    Ok(all.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// An open `metrics.jsonl`.
pub struct Metrics {
    file: Box<dyn File>,
    path: PathBuf,
}

impl Metrics {
    /// Opens `path` to append what follows `step`: later records are cut off, as is a last line that was torn by a crash.
    pub fn open(disk: &dyn Disk, path: &Path, step: u64) -> Result<Metrics> {
        let mut file = disk.open(path, Open::Append).at(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).at(path)?;
        let lines = complete_lines(&text);
        let keep = lines.take_while(|(_, line)| record(line).is_ok_and(|r| r.step <= step)).last();
        let len = keep.map_or(0, |(start, line)| start + line.len() + 1);
        if len < text.len() {
            file.set_len(len as u64).at(path)?;
            // Else what is appended could come to stand among remains of what was cut off.
            file.sync().at(path)?;
        }
        disk.sync_dir(disk::parent(path)).at(path)?;
        Ok(Metrics { file, path: path.to_owned() })
    }

    /// Appends a record in one write.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record).expect("a record is plain data") + "\n";
        self.file.write_all(line.as_bytes()).at(&self.path)
    }

    /// Puts what was appended on disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync().at(&self.path)
    }
}

/// All records of `path`; a torn last line is left out.
///
/// # Errors
/// The file cannot be read; a whole line is not a record.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<Record>> {
    let text = disk::read(disk, path)?;
    let parse = |(n, (_, line)): (usize, (usize, &[u8]))| {
        record(line).map_err(|e| {
            let hint = "remove the line; the run itself does not need it";
            Error::format(path, format!("line {}", n + 1), "a JSON object with step and loss", e, hint)
        })
    };
    complete_lines(&text).enumerate().map(parse).collect()
}

/// What a line says, without its line feed.
pub fn record(line: &[u8]) -> serde_json::Result<Record> {
    serde_json::from_slice(line)
}

/// Every line that ends in a line feed, without it, with its offset.
fn complete_lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    text.split_inclusive(|&byte| byte == b'\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line.strip_suffix(b"\n")?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Os;

    fn record(step: u64) -> Record {
        let val_loss = step.is_multiple_of(2).then_some(1.5);
        let (bits_per_byte, skipped) = (None, None);
        let more = [("tokens_per_s".to_owned(), 1e4)].into_iter().collect();
        Record { step, loss: 2.25, lr: 1e-3, grad_norm: 0.5, val_loss, bits_per_byte, skipped, more }
    }

    fn steps(path: &Path) -> Vec<u64> {
        read(&Os, path).unwrap().iter().map(|r| r.step).collect()
    }

    #[test]
    fn a_resumed_run_has_no_step_twice_and_no_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&Os, &path, 0).unwrap();
        (1..=5).for_each(|step| metrics.append(&record(step)).unwrap());
        assert_eq!(read(&Os, &path).unwrap()[3], record(4));
        metrics.file.write_all(b"{\"step\":6,\"lo").unwrap();
        assert_eq!(steps(&path), [1, 2, 3, 4, 5]);

        let mut metrics = Metrics::open(&Os, &path, 5).unwrap();
        metrics.append(&record(6)).unwrap();
        assert_eq!(steps(&path), [1, 2, 3, 4, 5, 6]);

        let mut metrics = Metrics::open(&Os, &path, 3).unwrap();
        metrics.append(&record(4)).unwrap();
        assert_eq!(steps(&path), [1, 2, 3, 4]);

        Metrics::open(&Os, &path, 0).unwrap();
        assert!(steps(&path).is_empty());
    }

    #[test]
    fn numbers_that_are_not_finite_survive_as_nan() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&Os, &path, 0).unwrap();
        metrics.append(&Record { loss: f32::INFINITY, grad_norm: f64::NAN, ..record(1) }).unwrap();
        let read = read(&Os, &path).unwrap();
        assert!(read[0].loss.is_nan() && read[0].grad_norm.is_nan());
    }

    #[test]
    fn a_damaged_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\":1,\"loss\":1,\"lr\":1,\"grad_norm\":1,\"tokens_per_s\":1}\nnonsense\n")
            .unwrap();
        let message = read(&Os, &path).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl: line 2: expected a JSON object"), "{message}");
    }
}
