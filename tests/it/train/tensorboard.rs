//! Event files: framing and content as this reader finds them, and as TensorBoard does.

#![allow(clippy::print_stdout)] // tests say what they skip

use super::{device, recipe, resume};
use crate::watch::StopAfter;
use kiln::disk::Os;
use kiln::train::tensorboard::{masked_crc, numbers};
use kiln::train::{metrics, train};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The event files of a run, in the order in which they are read.
pub fn files(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run).expect("a run").map(|entry| entry.expect("an entry").path());
    let is = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("events.out.tfevents."))
    };
    let mut files: Vec<PathBuf> = entries.filter(is).collect();
    files.sort();
    files
}

/// A field of a message: of a number, or of bytes.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message.
fn message(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut n = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes.split_off_first().expect("a byte");
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return n;
            }
        }
        unreachable!("a number ends")
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let fixed = |bytes: &mut &[u8], n: usize| bytes.split_off(..n).expect("all of it").to_vec();
        let value = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Bytes(fixed(&mut bytes, 8)),
            5 => Field::Bytes(fixed(&mut bytes, 4)),
            _ => {
                let n = varint(&mut bytes) as usize;
                Field::Bytes(fixed(&mut bytes, n))
            }
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn bytes(message: &[(u64, Field)], field: u64) -> Option<&[u8]> {
    message.iter().find(|(n, _)| *n == field).map(|(_, value)| match value {
        Field::Bytes(bytes) => bytes.as_slice(),
        Field::Number(_) => panic!("field {field} is a number"),
    })
}

fn number(message: &[(u64, Field)], field: u64) -> Option<u64> {
    message.iter().find(|(n, _)| *n == field).map(|(_, value)| match value {
        Field::Number(number) => *number,
        Field::Bytes(_) => panic!("field {field} is bytes"),
    })
}

/// The events of a file, every checksum verified; a torn last record is passed over.
fn events(path: &Path) -> Vec<Vec<(u64, Field)>> {
    let content = std::fs::read(path).expect("events");
    let (mut rest, mut events) = (content.as_slice(), Vec::new());
    let crc = |bytes: &[u8]| masked_crc(bytes).to_le_bytes();
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let n = u64::from_le_bytes(*length) as usize;
        let Some(end) = after.get(4 + n..8 + n) else { break };
        assert_eq!((&after[..4], end), (&crc(length)[..], &crc(&after[4..4 + n])[..]));
        events.push(message(&after[4..4 + n]));
        rest = &after[8 + n..];
    }
    events
}

/// The numbers of files read in order, by tag and step, what a later file starts with taken out of earlier ones; and texts.
fn read(files: &[PathBuf]) -> (BTreeMap<(String, u64), f32>, BTreeMap<u64, String>) {
    let (mut scalars, mut texts) = (BTreeMap::new(), BTreeMap::new());
    for path in files {
        let events = events(path);
        assert_eq!(bytes(&events[0], 3), Some(&b"brain.Event:2"[..]));
        for event in &events[1..] {
            let step = number(event, 2).expect("a step");
            if bytes(event, 7).is_some() {
                scalars.retain(|(_, s), _| *s < step);
                continue;
            }
            for (_, value) in message(bytes(event, 5).expect("a summary")) {
                let Field::Bytes(value) = value else { panic!("a value") };
                let value = message(&value);
                let tag = String::from_utf8(bytes(&value, 1).expect("a tag").to_vec()).expect("a tag");
                match bytes(&value, 2) {
                    Some(scalar) => {
                        let old = scalars.insert((tag, step), f32::from_le_bytes(scalar.try_into().expect("4 bytes")));
                        assert_eq!(old, None, "a step twice");
                    }
                    None => {
                        let tensor = message(bytes(&value, 8).expect("a tensor"));
                        texts.insert(step, String::from_utf8_lossy(bytes(&tensor, 8).expect("a text")).into_owned());
                    }
                }
            }
        }
    }
    (scalars, texts)
}

/// The pictures of a run: tag, step, and what is said of each, with its file.
pub fn pictures(run: &Path) -> Vec<(String, u64, [u64; 3], Vec<u8>)> {
    let mut found = Vec::new();
    for event in files(run).iter().flat_map(|path| events(path)) {
        for (_, value) in bytes(&event, 5).map(message).unwrap_or_default() {
            let Field::Bytes(value) = value else { panic!("a value") };
            let value = message(&value);
            let Some(image) = bytes(&value, 4).map(message) else { continue };
            let tag = String::from_utf8_lossy(bytes(&value, 1).expect("a tag")).into_owned();
            let [height, width, colours] = [1, 2, 3].map(|field| number(&image, field).expect("a number"));
            let png = bytes(&image, 4).expect("a file").to_vec();
            found.push((tag, number(&event, 2).expect("a step"), [height, width, colours], png));
        }
    }
    found
}

/// A run that was stopped, torn and resumed.
fn stopped_and_resumed(dir: &Path) -> PathBuf {
    let recipe = recipe(dir, 30, &["train.sample_every=10", "sample.tokens=20", "sample.prompt=The"]);
    let run = train(&recipe, None, &device(), &mut StopAfter::new(14)).expect("a run").run;
    let [first] = &files(&run)[..] else { panic!("one file") };
    // A process that was killed may leave half a record, and steps that no checkpoint has.
    let mut content = std::fs::read(first).expect("events");
    let last = content[content.len() - 200..].to_vec();
    content.extend_from_slice(&last[..7]);
    std::fs::write(first, content).expect("written");
    std::fs::remove_dir_all(run.join("checkpoints/step-000014")).expect("removed");
    resume(&run);
    run
}

#[test]
fn event_files_have_the_numbers_of_the_metrics_and_no_step_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = stopped_and_resumed(dir.path());
    let files = files(&run);
    assert_eq!(files.len(), 2);
    assert!(read(&files[..1]).0.keys().any(|(_, step)| *step == 14), "the first file has what was given up");
    let (scalars, texts) = read(&files);
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
    let want: BTreeMap<_, _> = records
        .iter()
        .flat_map(|record| numbers(record).into_iter().map(|(tag, value)| ((tag, record.step), value as f32)))
        .collect();
    assert_eq!(records.len(), 30);
    assert_eq!(scalars, want);
    for tag in ["train/loss", "train/grad_norm", "optim/lr", "val/loss", "val/bits_per_byte", "speed/tokens_per_s"] {
        assert!(scalars.contains_key(&(tag.to_owned(), 30)), "{tag}");
    }
    assert_eq!(texts.keys().copied().collect::<Vec<_>>(), [10, 20, 30]);
    for (step, text) in texts {
        let sample = std::fs::read_to_string(run.join(format!("samples/step-{step:06}.txt"))).expect("a sample");
        let shown: Vec<&str> = text.lines().map(|line| &line[4..]).collect();
        assert_eq!(shown, sample.lines().collect::<Vec<_>>());
    }
}

#[test]
fn tensorboard_reads_them() {
    let Some(python) = std::env::var_os("KILN_PYTHON") else {
        println!("skipped: set KILN_PYTHON to a Python with the package tensorboard");
        return;
    };
    let found = Command::new(&python).args(["-c", "import tensorboard"]).output().expect("a Python");
    if !found.status.success() {
        println!("skipped: {} has no package tensorboard", python.display());
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let run = stopped_and_resumed(dir.path());
    let script = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0, 'tensors': 0, 'images': 0})
events.Reload()
tags = events.Tags()
scalars = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags['scalars']}
texts = {tag: [[e.step, e.tensor_proto.string_val[0].decode()] for e in events.Tensors(tag)] for tag in tags['tensors']}
print(json.dumps([scalars, texts]))";
    let output = Command::new(&python).args(["-c", script]).arg(&run).output().expect("a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [scalars, texts]: [BTreeMap<String, Vec<(u64, serde_json::Value)>>; 2] =
        serde_json::from_slice(&output.stdout).expect("JSON");
    let got: BTreeMap<(String, u64), f32> = scalars
        .iter()
        .flat_map(|(tag, points)| {
            points.iter().map(|(step, value)| ((tag.clone(), *step), value.as_f64().expect("a number") as f32))
        })
        .collect();
    let points: usize = scalars.values().map(Vec::len).sum();
    assert_eq!((got.len(), got), (points, read(&files(&run)).0));
    assert_eq!(texts["samples/sample"].iter().map(|(step, _)| *step).collect::<Vec<_>>(), [10, 20, 30]);
}
