//! `judgements.jsonl`: what reviewers said, a line each, appended and on disk before anybody is told that it is saved. It is all that a
//! review knows of them, so one that was killed goes on from it.

use super::item::{Item, Side};
use crate::disk::{self, Disk, File, Open, Os};
use crate::error::{AtPath, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// What is said of two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The first model's is better.
    A,
    /// The second one's is.
    B,
    /// They are as good.
    Tie,
    /// Neither is any good.
    Bad,
}

/// What a line says of its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// Of two answers.
    Verdict(Verdict),
    /// Of one: 1 to 5.
    Rating(u8),
    /// That nothing is said after all.
    Undone(bool),
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, as in RFC 3339.
    pub time: String,
    /// Who.
    pub reviewer: String,
    /// Of which item, from 0 in the order of `items.jsonl`.
    pub item: usize,
    /// [`Item::id`].
    pub id: String,
    /// Whose answer was on the left, where there were two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Side>,
    /// What.
    #[serde(flatten)]
    pub said: Said,
    /// And in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The lines so far, and the file that has them.
pub struct Book {
    file: Box<dyn File>,
    path: PathBuf,
    /// Bytes of the file that are whole lines.
    len: u64,
    lines: Vec<Line>,
}

impl Book {
    /// The name of the file.
    pub const FILE: &str = "judgements.jsonl";

    /// Opens or makes the one in the folder `dir`, of these items, for this process alone; a last line that was torn is cut off.
    ///
    /// # Errors
    /// It cannot be read or written, another process has it, or it has a line that is of other items.
    pub fn open(dir: &Path, items: &[Item]) -> Result<Book> {
        let path = dir.join(Book::FILE);
        let mut file = Os.open(&path, Open::Private).at(&path)?;
        if !file.try_lock().at(&path)? {
            let problem = format!("another kiln review has {} open", dir.display());
            return Err(Error::failed(problem, "use its page, or end it first"));
        }
        let (lines, len, torn) = read(&mut *file, &path, items)?;
        if torn {
            file.set_len(len).at(&path)?;
            file.sync().at(&path)?;
        }
        Os.sync_dir(dir).at(dir)?;
        Ok(Book { file, path, len, lines })
    }

    /// The lines in the folder `dir`, of these items, as they are now; none where there is no file.
    ///
    /// # Errors
    /// It cannot be read, or has a line that is of other items.
    pub fn look(dir: &Path, items: &[Item]) -> Result<Vec<Line>> {
        let path = dir.join(Book::FILE);
        if !Os.exists(&path).at(&path)? {
            return Ok(Vec::new());
        }
        let mut file = Os.open(&path, Open::Read).at(&path)?;
        Ok(read(&mut *file, &path, items)?.0)
    }

    /// All lines, the oldest first.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Adds a line; it is on disk then.
    ///
    /// # Errors
    /// It cannot be written; the file is then as it was.
    pub fn append(&mut self, line: Line) -> Result<()> {
        let text = serde_json::to_string(&line).expect("a line is plain data") + "\n";
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync());
        if let Err(e) = written {
            // Half a line would be in the way of the next one.
            let _ = self.file.set_len(self.len);
            return Err(e).at(&self.path);
        }
        self.len += text.len() as u64;
        self.lines.push(line);
        Ok(())
    }
}

/// The whole lines of a file, their bytes, and whether there are more.
fn read(file: &mut dyn File, path: &Path, items: &[Item]) -> Result<(Vec<Line>, u64, bool)> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).at(path)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let mut lines = Vec::new();
    for (n, text) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
        let wrong = |found: String| {
            let hint = "remove the line, or begin a new review with --out";
            Error::format(path, format!("line {}", n + 1), "a judgement of this review", found, hint)
        };
        let line: Line = serde_json::from_slice(text).map_err(|e| wrong(e.to_string()))?;
        let fits = |item: &&Item| match line.said {
            Said::Verdict(_) => item.b.is_some(),
            Said::Rating(rating) => item.b.is_none() && (1..=5).contains(&rating),
            Said::Undone(_) => true,
        };
        match items.get(line.item).filter(|item| item.id() == line.id) {
            None => return Err(wrong(format!("one of item {} with the id {}", line.item, line.id))),
            Some(item) if !fits(&item) => return Err(wrong(format!("{:?}", line.said))),
            Some(_) => lines.push(line),
        }
    }
    Ok((lines, whole as u64, whole < bytes.len()))
}

/// What stands after all lines: by reviewer and item the last that was said, where it was not undone.
pub fn standing(lines: &[Line]) -> BTreeMap<(&str, usize), &Line> {
    let mut all = BTreeMap::new();
    for line in lines {
        let key = (line.reviewer.as_str(), line.item);
        match line.said {
            Said::Undone(_) => all.remove(&key),
            _ => all.insert(key, line),
        };
    }
    all
}

/// The time now, as in RFC 3339.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}

/// The JSON lines of a file that a killed process may have torn, as far as they are whole; the rest is cut off, and the file is open for
/// more.
pub(super) fn whole_lines(path: &Path) -> Result<(Box<dyn File>, String)> {
    let mut file = Os.open(path, Open::Private).at(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).at(path)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    if whole < bytes.len() {
        file.set_len(whole as u64).at(path)?;
    }
    bytes.truncate(whole);
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = format!("byte {}", e.utf8_error().valid_up_to());
        Error::format(path, at, "UTF-8 text", "other bytes", "remove the file: it is made anew")
    })?;
    Os.sync_dir(disk::parent(path)).at(path)?;
    Ok((file, text))
}

#[cfg(test)]
mod tests {
    use super::super::item::{Answer, Prompt};
    use super::*;

    fn item(text: &str) -> Item {
        let answer = |side: &str| Answer::Text(format!("{side} of {text}"));
        let prompt = Prompt::Text(text.into());
        Item { prompt, reference: None, a: answer("a"), b: Some(answer("b")), gold: None }
    }

    fn line(items: &[Item], reviewer: &str, item: usize, said: Said) -> Line {
        let id = items[item].id();
        Line { time: now(), reviewer: reviewer.into(), item, id, left: Some(Side::B), said, note: String::new() }
    }

    #[test]
    fn what_was_said_is_read_back_and_the_last_word_stands() {
        let dir = tempfile::tempdir().expect("a folder");
        let items = ["x", "y"].map(item);
        let said = [
            line(&items, "anna", 0, Said::Verdict(Verdict::A)),
            line(&items, "bo", 0, Said::Verdict(Verdict::Bad)),
            Line { note: "hm\n\"so\"".into(), ..line(&items, "anna", 1, Said::Verdict(Verdict::Tie)) },
            line(&items, "anna", 1, Said::Undone(true)),
            line(&items, "anna", 0, Said::Verdict(Verdict::B)),
        ];
        let mut book = Book::open(dir.path(), &items).expect("a book");
        said.iter().for_each(|line| book.append(line.clone()).expect("written"));
        // Nobody else writes meanwhile, but may look.
        assert!(Book::open(dir.path(), &items).err().expect("an error").to_string().contains("another kiln review"));
        assert_eq!(Book::look(dir.path(), &items).expect("lines"), said);
        drop(book);
        let book = Book::open(dir.path(), &items).expect("a book");
        assert_eq!(book.lines(), said);
        let standing: Vec<_> = standing(book.lines()).into_iter().map(|(key, line)| (key, line.said)).collect();
        let (b, bad) = (Said::Verdict(Verdict::B), Said::Verdict(Verdict::Bad));
        assert_eq!(standing, [(("anna", 0), b), (("bo", 0), bad)]);
    }

    #[test]
    fn a_torn_line_goes_and_a_foreign_one_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let (items, path) = (["x", "y"].map(item), dir.path().join(Book::FILE));
        let mut book = Book::open(dir.path(), &items).expect("a book");
        book.append(line(&items, "anna", 0, Said::Verdict(Verdict::A))).expect("written");
        drop(book);
        let whole = std::fs::read(&path).expect("a file");
        std::fs::write(&path, [&whole[..], &whole[..40]].concat()).expect("written");
        assert_eq!(Book::open(dir.path(), &items).expect("a book").lines().len(), 1);
        assert_eq!(std::fs::read(&path).expect("a file"), whole);
        let others = ["y", "x"].map(item);
        let wrong = Book::look(dir.path(), &others).expect_err("of other items").to_string();
        assert!(wrong.contains("line 1: expected a judgement of this review, found one of item 0"), "{wrong}");
        std::fs::write(&path, "{}\n").expect("written");
        assert!(Book::open(dir.path(), &items).is_err());
    }
}
