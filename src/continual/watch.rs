//! A stream of documents: files that grow, a folder into which files come. It is read on from where the version in service left off; at an alarm what
//! is new is gathered, and a round made of it.
//!
//! | a line of JSON | is read as |
//! |---|---|
//! | `{"text": …}`, and files of text | a document; the model in service reads it too, for its loss |
//! | `{"request": {"messages": …}, "answers": …}` | what a server was asked (`kiln serve --log`); `refused`: the share of its answers that refuse |
//! | `{"prompt": …, "completion": …, "label": …}` | a thumb (`kiln serve --feedback`); `thumb`: 1 up, 0 down |
//!
//! Other fields that are numbers, such as a reward, are watched by their names. Documents are compared with those that the version in service has
//! held out; requests and thumbs, of which a version has none, with the first of their stream.
//!
//! Nothing is kept of a stream but how many documents of each file a version has behind it. So who starts to watch again reads the rest again, and comes to the same.

use super::drift::{Alarm, Detector, LEAST, Monitor, Moved};
use super::gates::{open, read_by};
use super::line::{HELD, HISTORY, Line, NEW, REPLAY, State, Version};
use super::round::{Course, round};
use super::texts::{self, Text, draw};
use crate::data::{Limits, Sources, Tokenizer};
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use crate::eval::{Local, Refusal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Documents of a reference, at most.
const REFERENCE: usize = 4000;
/// Documents that are read by the model at once.
const CHUNK: usize = 64;
/// Bytes of the history, at most.
const MAX_HISTORY: u64 = 1 << 28;
/// Tokens that are named at an alarm.
const NAMED: usize = 8;

/// What is watched, and what follows.
#[derive(Clone, Debug)]
pub struct Watching<'a> {
    /// Files and folders.
    pub paths: &'a [PathBuf],
    /// Whether to end where the documents do, and not to wait for more.
    pub once: bool,
    /// Whether a version that passes goes into service at once.
    pub auto: bool,
}

/// What happens while watching.
#[derive(Clone, Debug)]
pub enum Happening<'a> {
    /// What a stream is compared with.
    Reference {
        /// The version in service.
        version: &'a str,
        /// Documents.
        documents: usize,
        /// Documents of windows.
        windows: &'a [usize],
    },
    /// Documents were read.
    Read {
        /// Of the stream, by now.
        documents: u64,
        /// Of the last chunk that were no documents.
        passed_over: u64,
    },
    /// Something has changed.
    Alarm {
        /// What it is.
        alarm: &'a Alarm,
        /// Tokens whose share changed the most: before, and now.
        moved: &'a [(String, [f64; 2])],
    },
    /// A version was made.
    Version {
        /// Which.
        version: &'a Version,
        /// Whether it went into service.
        promoted: bool,
    },
}

/// How watching ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// There is nothing more to read; with an alarm, too few documents for a round.
    Quiet {
        /// Whether there was an alarm.
        alarm: bool,
        /// Documents that were gathered since.
        gathered: usize,
    },
    /// A version waits for a person.
    Waits(Version),
}

/// A document of a stream.
#[derive(Clone, Debug, PartialEq)]
struct Met {
    text: Text,
    /// Whether it is of the kind that a model learns.
    learnt: bool,
    numbers: BTreeMap<String, f64>,
}

/// A line, as a document; `None`: it is none.
fn met(line: &str, id: String, json: bool, refusal: &Refusal) -> Option<Met> {
    if !json {
        return Some(Met { text: Text { id, text: line.to_owned() }, learnt: true, numbers: BTreeMap::new() });
    }
    let value: Value = serde_json::from_str(line).ok()?;
    let fields = value.as_object()?;
    let mut numbers: BTreeMap<String, f64> = fields
        .iter()
        .filter(|(name, _)| *name != "time")
        .filter_map(|(name, value)| Some((name.clone(), value.as_f64().filter(|x| x.is_finite())?)))
        .collect();
    let id = fields.get("id").and_then(Value::as_str).map_or(id, str::to_owned);
    let said = |messages: &Value| -> Option<String> {
        let all = messages.as_array()?.iter().filter(|message| message["role"] == "user");
        let all: Vec<&str> = all.filter_map(|message| message["content"].as_str()).collect();
        (!all.is_empty()).then(|| all.join("\n"))
    };
    if let Some(text) = value["text"].as_str() {
        return Some(Met { text: Text { id, text: text.to_owned() }, learnt: true, numbers });
    }
    let text = match value.get("request") {
        Some(request) => {
            let answers = value["answers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let refused = answers.iter().filter_map(Value::as_str).filter(|answer| refusal.is(answer)).count();
            if !answers.is_empty() {
                numbers.insert("refused".into(), refused as f64 / answers.len() as f64);
            }
            said(&request["messages"]).or_else(|| request["prompt"].as_str().map(str::to_owned))?
        }
        None => {
            numbers.insert("thumb".into(), f64::from(u8::from(value["label"].as_bool()?)));
            said(&value["prompt"]).or_else(|| value["prompt"].as_str().map(str::to_owned))?
        }
    };
    Some(Met { text: Text { id, text }, learnt: false, numbers })
}

/// The documents of `paths` behind `marks`, which move on; and how many lines were none. A last line that cannot be read may still be growing: it
/// waits. `size` is that of all files when they were read last: as long as they have it, nothing has come.
fn more(
    paths: &[PathBuf],
    size: &mut u64,
    marks: &mut BTreeMap<PathBuf, u64>,
    refusal: &Refusal,
) -> Result<(Vec<Met>, u64)> {
    let sources = match Sources::lenient_objects(paths, Limits::default()) {
        Ok(sources) => sources,
        // Nothing has come yet.
        Err(Error::Failed { .. }) => return Ok((Vec::new(), 0)),
        Err(e) => return Err(e),
    };
    if std::mem::replace(size, sources.bytes()) == *size {
        return Ok((Vec::new(), 0));
    }
    let mut behind: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let (mut all, mut passed_over) = (Vec::new(), 0);
    let mut documents = sources.documents().peekable();
    while let Some(document) = documents.next() {
        let document = document?;
        let number = behind.entry(document.source.clone()).or_default();
        *number += 1;
        if *number <= marks.get(&document.source).copied().unwrap_or(0) {
            continue;
        }
        let id = format!("{}:{}", document.source.display(), document.line);
        let mut last =
            || documents.peek().is_none_or(|next| next.as_ref().is_ok_and(|next| next.source != document.source));
        match met(&document.text, id, document.is_json(), refusal) {
            Some(met) => all.push(met),
            None if last() => continue,
            None => passed_over += 1,
        }
        marks.insert(document.source, *number);
    }
    Ok((all, passed_over))
}

/// The version in service, and what a stream is compared with.
struct Watcher {
    local: Option<Local>,
    tokenizer: Tokenizer,
    detector: Detector,
    /// The numbers that are watched.
    names: Vec<String>,
}

impl Watcher {
    /// Of a reference: documents with their numbers.
    fn new(line: &Line, mut local: Local, reference: &[Met], loss: bool, course: &mut Course) -> Result<Watcher> {
        let tokenizer = local.tokenizer().clone();
        let losses = if loss { losses(&mut local, reference, course)? } else { Vec::new() };
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        reference.iter().flat_map(|met| met.numbers.keys()).for_each(|name| *times.entry(name).or_default() += 1);
        let mut names: Vec<String> =
            times.into_iter().filter(|(_, n)| 2 * n > reference.len()).map(|(name, _)| name.to_owned()).collect();
        if loss {
            names.push("loss".into());
        }
        let known: Vec<(Vec<u32>, Vec<f64>)> = reference
            .iter()
            .enumerate()
            .map(|(i, met)| Ok((tokenizer.encode(&met.text.text)?, numbers(met, &names, losses.get(i).copied()))))
            .collect::<Result<_>>()?;
        let mut settings = line.settings.drift();
        settings.windows.retain(|window| LEAST * window <= known.len());
        if settings.windows.is_empty() {
            settings.windows.push((known.len() / LEAST).max(1));
        }
        settings.every = settings.every.min(settings.windows[0]);
        let named: Vec<&str> = names.iter().map(String::as_str).collect();
        let detector = Detector::new(&known, &named, settings)?;
        Ok(Watcher { local: loss.then_some(local), tokenizer, detector, names })
    }

    /// Tokens that moved the most, by their texts.
    fn moved(&self, monitor: &Monitor, window: usize) -> Vec<(String, [f64; 2])> {
        let text = |moved: &Moved| match self.detector.token(moved.bin) {
            Some(id) => self.tokenizer.decode(&[id]),
            None => "(rare tokens)".into(),
        };
        monitor.moved(window, NAMED).iter().map(|moved| (text(moved), moved.shares)).collect()
    }
}

/// A document's numbers by name.
fn numbers(met: &Met, names: &[String], loss: Option<f64>) -> Vec<f64> {
    let of = |name: &String| match name.as_str() {
        "loss" => loss.unwrap_or(f64::NAN),
        name => met.numbers.get(name).copied().unwrap_or(f64::NAN),
    };
    names.iter().map(of).collect()
}

/// What the model in service needs for each document, in bits a byte.
fn losses(local: &mut Local, all: &[Met], course: &mut Course) -> Result<Vec<f64>> {
    let mut bits = Vec::with_capacity(all.len());
    for chunk in all.chunks(CHUNK) {
        let texts: Vec<Text> = chunk.iter().map(|met| met.text.clone()).collect();
        bits.extend(read_by(local, &texts, &mut || course.stopped())?.each());
    }
    Ok(bits)
}

/// The reference of a version: what it has held out, where that is enough, so that its loss can be watched too; else all that it learnt.
fn reference(line: &Line, version: &str) -> Result<(Vec<Met>, bool)> {
    let seed = line.settings.learn.seed;
    let folder = line.folder(version);
    let longest = line.settings.watch.windows.iter().copied().max().unwrap_or(1);
    let held = texts::read(&folder.join(HELD))?;
    let enough = held.len() >= LEAST * longest;
    // What the first one learnt is what its children learn along.
    let learnt = if line.version(version)?.parent.is_none() { REPLAY } else { NEW };
    let all = if enough { held } else { [held, texts::read(&folder.join(learnt))?].concat() };
    let met = |text: Text| Met { text, learnt: true, numbers: BTreeMap::new() };
    Ok((draw(all, REFERENCE, seed).into_iter().map(met).collect(), enough))
}

/// Watches, until there is nothing to read or a version waits for a person.
///
/// # Errors
/// A document or a model cannot be read; a round fails; a signal stopped it.
pub fn watch(line: &Line, watching: &Watching, course: &mut Course, heard: &mut dyn FnMut(&Happening)) -> Result<End> {
    if line.versions()?.iter().any(|version| version.state == State::Begun) {
        let version = round(line, &[], BTreeMap::new(), course)?;
        if let Some(end) = settle(line, watching, version, heard)? {
            return Ok(end);
        }
    }
    loop {
        let name = line.pointer()?.current;
        match stream(line, &name, watching, course, heard)? {
            Stream::Over(end) => return Ok(end),
            Stream::Enough(paths, marks) => {
                let version = round(line, &paths, marks, course)?;
                if let Some(end) = settle(line, watching, version, heard)? {
                    return Ok(end);
                }
            }
        }
    }
}

/// Puts a version into service where that was asked for; else it waits.
fn settle(
    line: &Line,
    watching: &Watching,
    version: Version,
    heard: &mut dyn FnMut(&Happening),
) -> Result<Option<End>> {
    let promoted = watching.auto && version.state == State::Passed;
    if promoted {
        line.promote(Some(&version.name), false)?;
    }
    heard(&Happening::Version { version: &version, promoted });
    Ok((!promoted).then_some(End::Waits(version)))
}

/// How the stream of one version ended.
enum Stream {
    Over(End),
    /// Documents for a round, and how far the files were read for them.
    Enough(Vec<PathBuf>, BTreeMap<PathBuf, u64>),
}

fn stream(
    line: &Line,
    name: &str,
    watching: &Watching,
    course: &mut Course,
    heard: &mut dyn FnMut(&Happening),
) -> Result<Stream> {
    let settings = &line.settings.watch;
    let refusal = Refusal::new(&[]);
    let mut marks = line.version(name)?.marks;
    let mut waiting: Vec<Met> = Vec::new();
    let (mut watcher, mut size): (Option<Watcher>, u64) = (None, 0);
    // Sooner or later the first document says which kind of stream it is.
    let mut next = |waiting: &mut Vec<Met>, course: &Course| -> Result<Option<u64>> {
        loop {
            let (met, passed_over) = more(watching.paths, &mut size, &mut marks, &refusal)?;
            if !met.is_empty() {
                waiting.extend(met);
                return Ok(Some(passed_over));
            }
            // Who waits is ended by a signal, and has nothing to finish.
            let start = Instant::now();
            while !watching.once && start.elapsed() < Duration::from_secs(settings.poll) {
                if course.watch.stop().is_some() {
                    return Ok(None);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            if watching.once {
                return Ok(None);
            }
        }
    };
    let quiet = Stream::Over(End::Quiet { alarm: false, gathered: 0 });
    let Some(mut passed_over) = next(&mut waiting, course)? else { return Ok(quiet) };
    let learnt = waiting[0].learnt;
    if learnt {
        let (known, enough) = reference(line, name)?;
        (course.told)(&format!("{name}: reading {} documents to compare with", known.len()));
        watcher = Some(Watcher::new(line, open(line, name, course.device)?, &known, settings.loss && enough, course)?);
    }
    while watcher.is_none() {
        let longest = settings.windows.iter().copied().max().unwrap_or(1);
        let need = LEAST * longest;
        if waiting.len() >= need {
            let known: Vec<Met> = waiting.drain(..need).collect();
            watcher = Some(Watcher::new(line, open(line, name, course.device)?, &known, false, course)?);
            break;
        }
        (course.told)(&format!("{} of the first {need} documents, with which later ones are compared", waiting.len()));
        match next(&mut waiting, course)? {
            Some(n) => passed_over += n,
            None => return Ok(quiet),
        }
    }
    let mut watcher = watcher.expect("it was made");
    let mut local = watcher.local.take();
    let tests = watcher.detector.tests();
    let windows: Vec<usize> = tests.iter().map(|test| test.window).collect::<BTreeSet<_>>().into_iter().collect();
    heard(&Happening::Reference { version: name, documents: watcher.detector.documents(), windows: &windows });
    let mut monitor = watcher.detector.monitor();
    let longest = windows.last().copied().unwrap_or(1);
    let (mut alarm, mut gathered): (Option<Alarm>, Vec<Text>) = (None, Vec::new());
    // The documents of the longest window.
    let mut last: VecDeque<Text> = VecDeque::new();
    loop {
        for chunk in std::mem::take(&mut waiting).chunks(CHUNK) {
            course.stopped()?;
            let losses = match (&mut local, alarm.is_none()) {
                (Some(local), true) => losses(local, chunk, course)?,
                _ => Vec::new(),
            };
            for (i, met) in chunk.iter().enumerate() {
                if alarm.is_some() {
                    gathered.push(met.text.clone());
                    continue;
                }
                if last.len() == longest {
                    last.pop_front();
                }
                last.push_back(met.text.clone());
                let ids = watcher.tokenizer.encode(&met.text.text)?;
                let numbers = numbers(met, &watcher.names, losses.get(i).copied());
                let Some(found) = monitor.see(watcher.detector.seen(&ids, numbers)) else { continue };
                let moved = watcher.moved(&monitor, found.test.window);
                heard(&Happening::Alarm { alarm: &found, moved: &moved });
                note(line, name, &found)?;
                // What the window held is where the new begins.
                gathered = last.split_off(last.len().saturating_sub(found.test.window)).into();
                alarm = Some(found);
            }
        }
        let documents = monitor.documents() + gathered.len() as u64;
        heard(&Happening::Read { documents, passed_over });
        if alarm.is_some() && learnt && gathered.len() >= settings.least {
            break;
        }
        match next(&mut waiting, course)? {
            Some(n) => passed_over = n,
            None => return Ok(Stream::Over(End::Quiet { alarm: alarm.is_some(), gathered: gathered.len() })),
        }
    }
    let inbox = line.dir().join("inbox");
    disk::make_dirs(&Os, &inbox)?;
    let file = inbox.join(format!("after-{name}.jsonl"));
    texts::write(&file, &gathered)?;
    Ok(Stream::Enough(vec![file], marks))
}

/// Writes an alarm down, but once.
fn note(line: &Line, name: &str, alarm: &Alarm) -> Result<()> {
    let path: &Path = &line.dir().join(HISTORY);
    let text = disk::text(&Os, path, MAX_HISTORY)?;
    let known = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|value| {
        value["what"] == "alarm" && value["version"] == name && value["alarm"]["at"].as_u64() == Some(alarm.at)
    });
    if known { Ok(()) } else { line.tell("alarm", json!({"version": name, "alarm": alarm})) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_by_what_they_have() {
        let refusal = Refusal::new(&[]);
        let read = |line: &str| met(line, "f:1".into(), true, &refusal);
        let text = read(r#"{"text": "Hello", "reward": 0.5, "time": 3}"#).expect("a document");
        assert_eq!((text.text.text.as_str(), text.learnt), ("Hello", true));
        assert_eq!(text.numbers, BTreeMap::from([("reward".to_owned(), 0.5)]));
        let asked = read(
            r#"{"time": 1, "id": "a", "request": {"messages": [{"role": "system", "content": "s"},
            {"role": "user", "content": "Why?"}]}, "answers": ["I'm sorry, but I can't help.", "So."]}"#,
        )
        .expect("a request");
        assert_eq!((asked.text.id.as_str(), asked.text.text.as_str(), asked.learnt), ("a", "Why?", false));
        assert_eq!(asked.numbers["refused"], 0.5);
        let thumb = read(r#"{"prompt": [{"role": "user", "content": "Hi"}], "completion": [], "label": false}"#);
        assert_eq!(thumb.expect("a thumb").numbers["thumb"], 0.0);
        for none in ["", "{", "[1]", r#"{"prompt": "x"}"#, r#"{"request": {}}"#] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn a_growing_file_is_read_on_and_its_half_a_line_waits() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("in.jsonl");
        let (mut marks, mut size, refusal) = (BTreeMap::new(), 0, Refusal::new(&[]));
        let mut read = |text: &str| {
            crate::data::atomic::write_atomic(&Os, &path, text.as_bytes()).expect("a file");
            let (met, passed_over) =
                more(&[dir.path().to_owned()], &mut size, &mut marks, &refusal).expect("documents");
            (met.into_iter().map(|met| met.text.text).collect::<Vec<_>>(), passed_over)
        };
        let (one, two) = ("{\"text\": \"one\"}\n", "{\"text\": \"two\"}\n");
        assert_eq!(read(&format!("{one}{{\"te")), (vec!["one".to_owned()], 0));
        assert_eq!(read(&format!("{one}{{\"te")), (vec![], 0));
        assert_eq!(read(&format!("{one}{two}nonsense\n{two}")), (vec!["two".to_owned(), "two".to_owned()], 1));
        assert_eq!(read(&format!("{one}{two}nonsense\n{two}")), (vec![], 0));
    }
}
