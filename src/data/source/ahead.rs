//! Files read ahead on several threads; documents come in the order of the files.
//!
//! A thread claims the next file, puts a queue for its documents in line, and reads the file into it. Whoever iterates
//! empties the queues in that order. Both the line and each queue hold only so much, so threads wait instead of filling
//! the memory; the file whose turn it is always has a thread, so nothing waits forever.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::reader::{self, How};
use super::skip::{Reason, Skips, Trouble};
use super::walk::Walk;
use super::{Document, Sources};
use crate::error::{Error, Result};

/// Documents are handed over in batches of about this much text.
const BATCH: usize = 1 << 18;

/// Some of a file's documents, and the bytes of it that were read for them.
struct Batch {
    found: Vec<Result<Document, Trouble>>,
    bytes: u64,
    /// The file's number.
    file: usize,
}

/// The documents of [`Sources`], in order.
pub struct Documents {
    walk: Arc<Walk>,
    lenient: bool,
    skips: Skips,
    /// Bytes of files that came before the current one, and of it so far.
    before: u64,
    within: u64,
    current: std::vec::IntoIter<Result<Document, Trouble>>,
    file: usize,
    queue: Option<Receiver<Batch>>,
    line: Option<Receiver<Receiver<Batch>>>,
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Documents({} files)", self.walk.files.len())
    }
}

impl Documents {
    pub(super) fn new(sources: &Sources) -> Documents {
        let how = How { field: sources.field.clone(), limits: sources.limits, lenient: sources.lenient };
        let readers = sources.limits.readers().min(sources.walk.files.len());
        let (send, line) = sync_channel(readers);
        let claims = Arc::new(Mutex::new((0, send)));
        for _ in 0..readers {
            let (claims, walk, how) = (claims.clone(), sources.walk.clone(), how.clone());
            std::thread::spawn(move || while read_next(&claims, &walk, &how) {});
        }
        Documents {
            walk: sources.walk.clone(),
            lenient: sources.lenient,
            skips: sources.walk.skips.clone(),
            before: 0,
            within: 0,
            current: Vec::new().into_iter(),
            file: 0,
            queue: None,
            line: Some(line),
        }
    }

    /// What was passed over so far, and when the files were looked for.
    pub fn skips(&self) -> &Skips {
        &self.skips
    }

    /// Bytes of the files, as they lie on disk, that were read for the documents so far.
    pub fn bytes(&self) -> u64 {
        self.before + self.within
    }

    /// The next batch of the current file, or the first of the next one; `false` at the end.
    fn advance(&mut self) -> bool {
        loop {
            if let Some(batch) = self.queue.as_ref().and_then(|queue| queue.recv().ok()) {
                if batch.file != self.file {
                    // Each file sends at least one batch.
                    self.before += self.walk.files[self.file].bytes;
                    self.file = batch.file;
                }
                self.within = batch.bytes;
                self.current = batch.found.into_iter();
                return true;
            }
            let Some(Ok(queue)) = self.line.as_ref().map(Receiver::recv) else { return false };
            self.queue = Some(queue);
        }
    }
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Result<Document>> {
        loop {
            match self.current.next() {
                Some(Ok(document)) => return Some(Ok(document)),
                Some(Err(trouble)) if self.lenient => {
                    self.skips.add(trouble.skipped(&self.walk.files[self.file].path));
                }
                Some(Err(trouble)) => {
                    // Nothing follows an error; the threads find nobody listening.
                    (self.current, self.queue, self.line) = (Vec::new().into_iter(), None, None);
                    return Some(Err(*trouble.error));
                }
                None if self.advance() => {}
                None => return None,
            }
        }
    }
}

/// Claims a file and reads it; `false` when there are no more, or nobody listens.
fn read_next(claims: &Mutex<(usize, SyncSender<Receiver<Batch>>)>, walk: &Walk, how: &How) -> bool {
    let (file, queue) = {
        let mut claim = claims.lock().unwrap_or_else(PoisonError::into_inner);
        let file = claim.0;
        if file == walk.files.len() {
            return false;
        }
        claim.0 += 1;
        let (queue, listener) = sync_channel(2);
        // Others wait here too, for their files come later.
        if claim.1.send(listener).is_err() {
            return false;
        }
        (file, queue)
    };
    let entry = &walk.files[file];
    let mut out = Out { queue, batch: Batch { found: Vec::new(), bytes: 0, file }, size: 0 };
    // Formats are read by other people's code.
    let read = catch_unwind(AssertUnwindSafe(|| reader::read(entry, how, &mut |found, bytes| out.give(found, bytes))));
    if read.is_err() {
        let hint = "the file is damaged, or of a kind that kiln cannot read: convert it to .jsonl";
        let error = Error::format(&entry.path, "content", "a file that can be read", "one that is not", hint);
        out.give(Err(Trouble::end(Reason::Damaged, error)), 0);
    }
    out.batch.bytes = entry.bytes;
    out.queue.send(out.batch).is_ok()
}

/// A file's queue, and the batch that is being filled.
struct Out {
    queue: SyncSender<Batch>,
    batch: Batch,
    size: usize,
}

impl Out {
    /// Takes what was found; `false` where nobody listens.
    fn give(&mut self, found: Result<Document, Trouble>, bytes: u64) -> bool {
        self.size += 256 + found.as_ref().map_or(0, |document| document.text.len());
        self.batch.found.push(found);
        self.batch.bytes = bytes;
        if self.size < BATCH {
            return true;
        }
        self.size = 0;
        let next = Batch { found: Vec::new(), ..self.batch };
        self.queue.send(std::mem::replace(&mut self.batch, next)).is_ok()
    }
}
