//! What a server writes down: requests, where it was told to, and thumbs for answers, where it was told to.
//!
//! Requests go to `DIR/requests-2026-01-31.jsonl`, a file a day, that only its owner may read. Personal data is masked before
//! it is written; files are removed after the days that they are to be kept. Thumbs go to a file of TRL's unpaired
//! preferences, as alignment reads them: `{"prompt": [messages], "completion": [message], "label": true}`.

use super::{Refusal, now};
use crate::data::clean::personal::masked_all;
use crate::disk::{self, Disk, Open, Os};
use crate::error::{AtPath, Error, Result};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of a day's file that is read at most.
const MAX_FILE: u64 = 1 << 32;
const DAY: u64 = 24 * 3600;
/// Seconds between two looks for files that are to go.
const LOOK: u64 = 600;

/// Where things are written down; by default nowhere.
#[derive(Debug, Default)]
pub struct Journal {
    requests: Option<PathBuf>,
    /// Days that a file of requests is kept.
    days: u64,
    thumbs: Option<PathBuf>,
    looked: AtomicU64,
    /// How often something could not be written.
    failures: AtomicU64,
}

/// The file of the requests of a moment.
fn name(seconds: u64) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    format!("requests-{}.jsonl", &time[..10])
}

/// `value` with personal data masked in every text.
fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => masked_all(text).into(),
        Value::Array(all) => all.iter().map(masked).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), masked(value))).collect(),
        other => other.clone(),
    }
}

/// Adds a line to a private file.
fn append(path: &Path, value: &Value) -> Result<()> {
    let mut file = Os.open(path, Open::Private).at(path)?;
    file.write_all(format!("{value}\n").as_bytes()).at(path)
}

/// Puts another content into a private file, or leaves it as it is.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let other = disk::temporary(path);
    if Os.kind(&other).at(&other)?.is_some() {
        Os.remove(&other).at(&other)?;
    }
    let mut file = Os.open(&other, Open::Private).at(&other)?;
    file.write_all(bytes).and_then(|()| file.sync()).at(&other)?;
    Os.rename(&other, path).at(path)
}

impl Journal {
    /// Requests into the folder `requests`, kept for `days` days, and thumbs into the file `thumbs`.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn open(requests: Option<PathBuf>, days: u64, thumbs: Option<PathBuf>) -> Result<Journal> {
        if let Some(dir) = &requests {
            disk::make_dirs(&Os, dir)?;
            let path = dir.join(name(now()));
            Os.open(&path, Open::Private).at(&path)?;
        }
        if let Some(path) = &thumbs {
            Os.open(path, Open::Private).at(path)?;
        }
        let journal = Journal { requests, days, thumbs, ..Journal::default() };
        journal.expire();
        Ok(journal)
    }

    /// Whether thumbs are kept.
    pub fn takes_thumbs(&self) -> bool {
        self.thumbs.is_some()
    }

    /// How often something could not be written.
    pub fn failures(&self) -> &AtomicU64 {
        &self.failures
    }

    /// Writes down what was asked and answered.
    pub fn request(&self, id: &str, asked: &Value, answers: &[&str]) {
        let Some(dir) = &self.requests else { return };
        let time = now();
        let answers: Vec<String> = answers.iter().map(|text| masked_all(text)).collect();
        let line = json!({"time": time, "id": id, "request": masked(asked), "answers": answers});
        // Whoever asked has their answer in any case.
        if append(&dir.join(name(time)), &line).is_err() {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    /// Writes down a thumb: `messages` of a conversation, the `answer`, and whether it is `good`.
    ///
    /// # Errors
    /// Thumbs are not kept, or something is missing.
    pub fn thumb(&self, said: &Value) -> Result<(), Refusal> {
        let Some(path) = &self.thumbs else {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "this server keeps no thumbs: start it with --feedback FILE",
            ));
        };
        let messages = said["messages"].as_array().filter(|all| !all.is_empty());
        let messages = messages.ok_or_else(|| Refusal::bad("messages", "expected a list of messages"))?;
        for (i, message) in messages.iter().enumerate() {
            if !message["role"].is_string() || !message["content"].is_string() {
                return Err(Refusal::bad(format!("messages[{i}]"), "expected a role and a content"));
            }
        }
        let answer = said["answer"].as_str().ok_or_else(|| Refusal::bad("answer", "expected a text"))?;
        let good = said["good"].as_bool().ok_or_else(|| Refusal::bad("good", "expected true or false"))?;
        append(path, &thumb(messages, answer, good)).map_err(|e| {
            self.failures.fetch_add(1, Relaxed);
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())
        })
    }

    /// Removes files that have been kept long enough; looks for them now and then.
    pub fn expire(&self) {
        let (Some(dir), time) = (&self.requests, now()) else { return };
        if time.saturating_sub(self.looked.load(Relaxed)) < LOOK {
            return;
        }
        self.looked.store(time, Relaxed);
        let oldest = name(time.saturating_sub(self.days * DAY));
        for file in files(dir).unwrap_or_default() {
            if file < oldest {
                let _ = Os.remove(&dir.join(&file));
            }
        }
    }
}

/// A thumb as a line of unpaired preferences.
pub fn thumb(messages: &[Value], answer: &str, good: bool) -> Value {
    json!({"prompt": messages, "completion": [{"role": "assistant", "content": answer}], "label": good})
}

/// Adds a thumb to the file `path`, which only its owner may read.
///
/// # Errors
/// It cannot be written.
pub fn add_thumb(path: &Path, messages: &[Value], answer: &str, good: bool) -> Result<()> {
    append(path, &thumb(messages, answer, good))
}

/// The files of requests in a folder, the oldest first.
fn files(dir: &Path) -> Result<Vec<String>> {
    let names = Os.list(dir).at(dir)?;
    let mut names: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.starts_with("requests-") && name.ends_with(".jsonl"));
    names.sort();
    Ok(names)
}

/// Whether a folder is one of requests.
pub fn is_journal(dir: &Path) -> bool {
    files(dir).is_ok_and(|files| !files.is_empty())
}

/// Takes the requests with these `ids` out of a folder: how many there were.
///
/// # Errors
/// A file cannot be read or written.
pub fn take_down(dir: &Path, ids: &[String], dry: bool) -> Result<usize> {
    let mut taken = 0;
    for file in files(dir)? {
        let path = dir.join(file);
        let text = disk::text(&Os, &path, MAX_FILE)?;
        let mut rest = String::new();
        let before = taken;
        for (i, line) in text.lines().enumerate() {
            let value: Value = serde_json::from_str(line).map_err(|e| {
                let hint = "remove the line: it is not of kiln's";
                Error::format(&path, format!("line {}", i + 1), "a request as JSON", e, hint)
            })?;
            if value["id"].as_str().is_some_and(|id| ids.iter().any(|wanted| wanted == id)) {
                taken += 1;
            } else {
                rest += line;
                rest.push('\n');
            }
        }
        if taken > before && !dry {
            replace(&path, rest.as_bytes())?;
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::atomic::write_atomic;

    fn read(path: &Path) -> Vec<Value> {
        let text = disk::text(&Os, path, 1 << 20).expect("a file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn requests_are_written_masked_and_private_and_can_be_taken_down() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("log");
        let journal = Journal::open(Some(folder.clone()), 30, None).expect("a journal");
        for id in ["a", "b", "c"] {
            let asked = json!({"messages": [{"role": "user", "content": "I am anna@example.org"}], "n": 1});
            journal.request(id, &asked, &["Hello bo.k@mail.example.com"]);
        }
        let path = folder.join(name(now()));
        let lines = read(&path);
        assert_eq!(lines[0]["request"]["messages"][0]["content"], "I am [EMAIL]");
        assert_eq!((lines[0]["answers"][0].as_str(), lines.len()), (Some("Hello [EMAIL]"), 3));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(take_down(&folder, &["b".into(), "z".into()], true).expect("a number"), 1);
        assert_eq!(read(&path).len(), 3);
        assert_eq!(take_down(&folder, &["b".into(), "z".into()], false).expect("a number"), 1);
        let ids: Vec<Value> = read(&path).into_iter().map(|line| line["id"].clone()).collect();
        assert_eq!(ids, ["a", "c"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn old_files_go_and_others_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let old = name(now() - 40 * DAY);
        let young = name(now() - 20 * DAY);
        for file in [old.as_str(), &young, "notes.txt", "requests-1999.txt"] {
            write_atomic(&Os, &dir.path().join(file), b"").expect("a file");
        }
        Journal::open(Some(dir.path().to_owned()), 30, None).expect("a journal");
        let left = |file: &str| dir.path().join(file).exists();
        assert!(!left(&old) && left(&young) && left("notes.txt") && left("requests-1999.txt"));
    }

    #[test]
    fn thumbs_are_unpaired_preferences() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("thumbs.jsonl");
        let journal = Journal::open(None, 30, Some(path.clone())).expect("a journal");
        let said = json!({"messages": [{"role": "user", "content": "Hi"}], "answer": "Ho", "good": false});
        journal.thumb(&said).expect("a thumb");
        let line = json!({"prompt": [{"role": "user", "content": "Hi"}],
            "completion": [{"role": "assistant", "content": "Ho"}], "label": false});
        assert_eq!(read(&path), [line]);
        for (key, bad) in
            [("messages", json!([])), ("messages", json!([{"role": 1}])), ("answer", json!(1)), ("good", json!("no"))]
        {
            let mut said = said.clone();
            said[key] = bad;
            assert!(journal.thumb(&said).is_err(), "{said}");
        }
        assert!(Journal::default().thumb(&said).is_err());
        assert_eq!(read(&path).len(), 1);
    }
}
