//! Follows a `metrics.jsonl` that grows.

use crate::error::{AtPath, Error, Result};
use crate::train::metrics::{self, Record};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A line of metrics takes a few hundred bytes.
const MAX_LINE: u64 = 1 << 20;

/// Reads a file's new lines, each once. A file that was cut back, as a run that goes on from a checkpoint does, is read anew: the last line
/// that was read then stands no more where it stood.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// Where the next line begins.
    at: u64,
    /// The line before.
    last: Vec<u8>,
    /// Lines read.
    lines: u64,
}

/// What a look at the file found.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The file is another one: all that was read before counts no more.
    Anew,
    /// The next record.
    Record(Record),
}

impl Tail {
    /// Of the file at `path`, which need not be there yet.
    pub fn new(path: &Path) -> Tail {
        Tail { path: path.to_owned(), at: 0, last: Vec::new(), lines: 0 }
    }

    /// Tells `news` what is new; a last line without an end waits for it.
    ///
    /// # Errors
    /// The file cannot be read; a whole line is no record.
    pub fn look(&mut self, news: &mut dyn FnMut(News)) -> Result<()> {
        let begun = self.at;
        match self.read(news) {
            // It may have been cut back while it was read.
            Err(Error::Format { .. }) if begun > 0 => {
                self.restart(news);
                self.read(news)
            }
            done => done,
        }
    }

    fn restart(&mut self, news: &mut dyn FnMut(News)) {
        if self.at > 0 {
            news(News::Anew);
        }
        *self = Tail::new(&self.path);
    }

    fn read(&mut self, news: &mut dyn FnMut(News)) -> Result<()> {
        let mut file = match File::open(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.restart(news);
                return Ok(());
            }
            file => file.at(&self.path)?,
        };
        if !self.stands(&mut file).at(&self.path)? {
            self.restart(news);
        }
        file.seek(SeekFrom::Start(self.at)).at(&self.path)?;
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).at(&self.path)?;
            let Some(text) = line.strip_suffix(b"\n") else { return Ok(()) };
            let record = metrics::record(text).map_err(|e| {
                let hint = "remove the line; the run itself does not need it";
                let at = format!("line {}", self.lines + 1);
                Error::format(&self.path, at, "a JSON object with step and loss", e, hint)
            })?;
            (self.at, self.lines) = (self.at + line.len() as u64, self.lines + 1);
            self.last.clone_from(&line);
            news(News::Record(record));
        }
    }

    /// Whether the last line that was read is where it was.
    fn stands(&self, file: &mut File) -> std::io::Result<bool> {
        if self.at == 0 {
            return Ok(true);
        }
        file.seek(SeekFrom::Start(self.at - self.last.len() as u64))?;
        let mut there = vec![0; self.last.len()];
        match file.read_exact(&mut there) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
            read => read.map(|()| there == self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;

    fn line(step: u64, loss: f32) -> String {
        format!("{{\"step\":{step},\"loss\":{loss},\"lr\":0.001,\"grad_norm\":1.5}}\n")
    }

    /// The steps of the news; 0 stands for a new beginning.
    fn steps(tail: &mut Tail) -> Vec<u64> {
        let mut steps = Vec::new();
        let taken = tail.look(&mut |news| match news {
            News::Anew => steps.push(0),
            News::Record(record) => steps.push(record.step),
        });
        taken.unwrap();
        steps
    }

    #[test]
    fn each_line_is_told_once_and_a_torn_one_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut tail = Tail::new(&path);
        assert!(steps(&mut tail).is_empty());
        let append = |text: &str| {
            let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append(&(line(1, 2.5) + &line(2, 2.25)));
        assert_eq!(steps(&mut tail), [1, 2]);
        assert!(steps(&mut tail).is_empty());
        append(&line(3, 2.0)[..9]);
        assert!(steps(&mut tail).is_empty());
        append(&line(3, 2.0)[9..]);
        append(&line(4, 2.0));
        assert_eq!(steps(&mut tail), [3, 4]);
    }

    #[test]
    fn a_file_that_was_cut_back_is_read_anew_even_when_it_has_grown_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let write = |lines: &[(u64, f32)]| {
            let text: String = lines.iter().map(|&(step, loss)| line(step, loss)).collect();
            std::fs::write(&path, text).unwrap();
        };
        let mut tail = Tail::new(&path);
        write(&[(1, 2.5), (2, 2.25), (3, 2.0)]);
        assert_eq!(steps(&mut tail), [1, 2, 3]);
        write(&[(1, 2.5)]);
        assert_eq!(steps(&mut tail), [0, 1]);
        write(&[(1, 2.5), (2, 2.125), (3, 1.75)]);
        assert_eq!(steps(&mut tail), [2, 3], "it goes on from where it was cut");
        write(&[(1, 3.5), (2, 2.625), (3, 1.25), (4, 1.5)]);
        assert_eq!(steps(&mut tail), [0, 1, 2, 3, 4], "longer than before, of lines as long, yet another course");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(steps(&mut tail), [0]);
        assert!(steps(&mut tail).is_empty());
    }

    #[test]
    fn a_damaged_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, line(1, 1.0) + "nonsense\n" + &line(3, 1.0)).unwrap();
        let mut tail = Tail::new(&path);
        for _ in 0..2 {
            let message = tail.look(&mut |_| {}).unwrap_err().to_string();
            assert!(message.contains("metrics.jsonl: line 2: expected a JSON object"), "{message}");
        }
    }
}
