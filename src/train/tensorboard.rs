//! Event files of TensorBoard beside `metrics.jsonl`: the same numbers, and what the model wrote or drew, for
//! `tensorboard --logdir runs`. They are always written: whoever wants curves that can be compared should not have to train again,
//! and half a kilobyte a step costs no more than the metrics do.
//!
//! A file is a sequence of records, each framed by its length and two checksums (TFRecord): a length of 8 bytes, the masked
//! CRC-32C of these, the record, its masked CRC-32C. A record is an `Event` of `tensorflow/core/util/event.proto` in Protocol
//! Buffers, of which a handful of fields is written here. Readers pass over a last record that was torn. A run that goes on, or
//! back to a checkpoint, begins another file, whose first event (`SessionLog::START` with the step) makes TensorBoard forget
//! what an earlier file has of this step and later ones.

use super::metrics::Record;
use crate::disk::{self, Disk, File, Open};
use crate::error::{AtPath, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The most bytes of a sample that go in.
const MAX_SAMPLE: u64 = 1 << 24;

/// What a run tells TensorBoard. Its file is made when there is something to write.
#[derive(Debug)]
pub struct Board {
    dir: PathBuf,
    first: u64,
    file: Option<(Box<dyn File>, PathBuf)>,
}

impl Board {
    /// Events in the folder `dir` from step `first` on.
    pub fn new(dir: &Path, first: u64) -> Board {
        Board { dir: dir.to_owned(), first, file: None }
    }

    /// The numbers of a step.
    pub fn numbers(&mut self, disk: &dyn Disk, record: &Record) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in numbers(record) {
            let value = [text(1, &tag), [&[0x15][..], &(value as f32).to_le_bytes()].concat()].concat();
            summary.extend(bytes(1, &value));
        }
        self.event(disk, record.step, bytes(5, &summary))
    }

    /// What the model made after `step` steps: the files in `samples` that are of this step, texts and PNGs.
    pub fn samples(&mut self, disk: &dyn Disk, step: u64, samples: &Path) -> Result<()> {
        let prefix = format!("step-{step:06}");
        let mut names: Vec<String> =
            disk.list(samples).at(samples)?.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        let mut summary = Vec::new();
        for name in &names {
            let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
            let Some(of) = stem.strip_prefix(&prefix).filter(|of| of.is_empty() || of.starts_with('-')) else {
                continue;
            };
            let tag = format!("samples/{}", if of.is_empty() { "sample" } else { &of[1..] });
            let path = samples.join(name);
            match kind {
                "txt" => summary.extend(bytes(1, &sample(&tag, &disk::text(disk, &path, MAX_SAMPLE)?))),
                "png" => summary
                    .extend(picture(&tag, &disk::read(disk, &path)?).map(|value| bytes(1, &value)).unwrap_or_default()),
                _ => {}
            }
        }
        if summary.is_empty() { Ok(()) } else { self.event(disk, step, bytes(5, &summary)) }
    }

    /// Puts what was written on disk.
    pub fn sync(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |(file, path)| file.sync().at(path))
    }

    /// Writes an event: its step, and the field that says what it is.
    fn event(&mut self, disk: &dyn Disk, step: u64, what: Vec<u8>) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = |step: u64, what: &[u8]| {
            let time = [&[0x09][..], &now.as_secs_f64().to_le_bytes()].concat();
            framed(&[&time, &number(2, step)[..], what].concat())
        };
        let (file, path) = match &mut self.file {
            Some(open) => open,
            None => {
                static FILES: AtomicU32 = AtomicU32::new(0);
                let (process, n) = (std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
                // Files are read in the order of their names.
                let path = self.dir.join(format!("events.out.tfevents.{:010}.kiln.{process}.{n:04}", now.as_secs()));
                let mut file = disk.open(&path, Open::Create).at(&path)?;
                let version = event(0, &text(3, "brain.Event:2"));
                let start = event(self.first, &bytes(7, &number(1, 1)));
                file.write_all(&[version, start].concat()).at(&path)?;
                disk.sync_dir(&self.dir).at(&path)?;
                self.file.insert((file, path))
            }
        };
        file.write_all(&event(step, &what)).at(path)
    }
}

/// The numbers of a record with the names that they have in TensorBoard, which groups by what comes before the slash.
pub fn numbers(record: &Record) -> Vec<(String, f64)> {
    let Record { loss, lr, grad_norm, val_loss, bits_per_byte, more, .. } = record;
    let mut all = vec![
        ("train/loss".to_owned(), f64::from(*loss)),
        ("train/grad_norm".to_owned(), *grad_norm),
        ("optim/lr".to_owned(), *lr),
    ];
    all.extend(val_loss.map(|loss| ("val/loss".to_owned(), loss)));
    all.extend(bits_per_byte.map(|bits| ("val/bits_per_byte".to_owned(), bits)));
    all.extend(more.iter().map(|(name, &value)| match name.strip_prefix("val_") {
        Some(name) => (format!("val/{name}"), value),
        None if name.ends_with("_per_s") => (format!("speed/{name}"), value),
        None => (format!("train/{name}"), value),
    }));
    all
}

/// A `Summary.Value` of a text. TensorBoard reads it as Markdown, so that it is set in: shown as it was written.
fn sample(tag: &str, sample: &str) -> Vec<u8> {
    let shown: Vec<String> = sample.lines().map(|line| format!("    {line}")).collect();
    // A tensor of one string, for the plugin that is called text.
    let tensor = [number(1, 7), bytes(2, &bytes(2, &number(1, 1))), text(8, &shown.join("\n"))].concat();
    [text(1, tag), bytes(9, &bytes(1, &text(1, "text"))), bytes(8, &tensor)].concat()
}

/// A `Summary.Value` of a PNG; nothing where it is none.
fn picture(tag: &str, content: &[u8]) -> Option<Vec<u8>> {
    let reader = png::Decoder::new(content).read_info().ok()?;
    let info = reader.info();
    let image = [
        number(1, info.height.into()),
        number(2, info.width.into()),
        number(3, info.color_type.samples() as u64),
        bytes(4, content),
    ];
    Some([text(1, tag), bytes(4, &image.concat())].concat())
}

/// A whole number in seven bits a byte, the lowest first.
fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// A field of a whole number.
fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field of bytes, or of a message.
fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2)[..], &varint(value.len() as u64), value].concat()
}

/// A field of text.
fn text(field: u64, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}

/// A record in its frame.
fn framed(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), record, &masked_crc(record).to_le_bytes()].concat()
}

/// CRC-32C (Castagnoli, reflected 0x82f63b78), turned by 15 bits and shifted by a constant, as TFRecord has it.
pub fn masked_crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut crc, mut bit) = (byte as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    let crc = !bytes.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)]);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of 0; and the check value of the CRC.
        let unmasked = |bytes: &[u8]| masked_crc(bytes).wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!((unmasked(&[0; 32]), unmasked(b"123456789")), (0x8a91_36aa, 0xe306_9283));
    }
}
