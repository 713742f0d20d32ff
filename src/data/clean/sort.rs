//! Sorting more than memory holds: sorted runs in files, merged as they are read.
//!
//! A record is N numbers, compared from the first on. Runs are files of this machine, in its byte order: they live as long
//! as a command that may be continued.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::slice::ParallelSliceMut;

use crate::data::atomic::{AtomicFile, write_atomic};
use crate::disk::Os;
use crate::error::{AtPath, Error, Result};

/// A record.
pub type Record<const N: usize> = [u64; N];

/// Bytes of memory for each run that is merged, at least and at most.
const READ_AHEAD: (usize, usize) = (4 << 10, 1 << 20);

/// Sorts `records` and writes them to `path`, whole or not at all.
pub fn write_run<const N: usize>(path: &Path, records: &mut [Record<N>]) -> Result<()> {
    records.par_sort_unstable();
    write_atomic(&Os, path, bytemuck::cast_slice(records.as_flattened()))
}

/// Takes records in any order and gives them back in order.
pub struct Sorter<const N: usize> {
    folder: PathBuf,
    name: &'static str,
    records: Vec<Record<N>>,
    limit: usize,
    runs: Vec<PathBuf>,
}

impl<const N: usize> Sorter<N> {
    /// Holds about `memory` bytes of records, the rest in files of the `folder` whose names start with `name`.
    pub fn new(folder: &Path, name: &'static str, memory: usize) -> Sorter<N> {
        let limit = (memory / (8 * N)).max(1);
        Sorter { folder: folder.to_owned(), name, records: Vec::new(), limit, runs: Vec::new() }
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record<N>) -> Result<()> {
        if self.records.len() >= self.limit {
            self.spill()?;
        }
        self.records.push(record);
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        let path = self.folder.join(format!("{}-{:05}.run", self.name, self.runs.len()));
        write_run(&path, &mut self.records)?;
        self.records.clear();
        self.runs.push(path);
        Ok(())
    }

    /// Writes all records, without those that are there twice, to one run at `path`; then the files of its own are gone.
    pub fn finish(mut self, path: &Path) -> Result<()> {
        if self.runs.is_empty() {
            self.records.par_sort_unstable();
            self.records.dedup();
            return write_run(path, &mut self.records);
        }
        self.spill()?;
        let memory = self.limit * 8 * N;
        self.records = Vec::new();
        let mut file = AtomicFile::create(&Os, path)?;
        let mut last = None;
        for record in Merge::<N>::new(&self.runs, memory)? {
            let record = record?;
            if last != Some(record) {
                file.write(bytemuck::cast_slice(&record))?;
            }
            last = Some(record);
        }
        file.commit()?;
        self.runs.iter().try_for_each(|run| std::fs::remove_file(run).at(run))
    }
}

/// The records of several runs in order.
pub struct Merge<const N: usize> {
    runs: Vec<Run<N>>,
    heap: BinaryHeap<Reverse<(Record<N>, usize)>>,
    failed: bool,
}

impl<const N: usize> Merge<N> {
    /// Merges the runs at `paths`, with about `memory` bytes of buffers. Files are open only while they are read, so
    /// there may be any number of them.
    pub fn new(paths: &[PathBuf], memory: usize) -> Result<Merge<N>> {
        let ahead = (memory / paths.len().max(1)).clamp(READ_AHEAD.0, READ_AHEAD.1) / (8 * N);
        let mut merge = Merge { runs: Vec::new(), heap: BinaryHeap::new(), failed: false };
        for path in paths {
            let mut run = Run::open(path, ahead)?;
            if let Some(record) = run.next()? {
                merge.heap.push(Reverse((record, merge.runs.len())));
            }
            merge.runs.push(run);
        }
        Ok(merge)
    }
}

impl<const N: usize> Iterator for Merge<N> {
    type Item = Result<Record<N>>;

    fn next(&mut self) -> Option<Result<Record<N>>> {
        if self.failed {
            return None;
        }
        let mut top = self.heap.peek_mut()?;
        let Reverse((record, number)) = *top;
        match self.runs[number].next() {
            // Sinks to its place when `top` is dropped.
            Ok(Some(next)) => *top = Reverse((next, number)),
            Ok(None) => drop(std::collections::binary_heap::PeekMut::pop(top)),
            Err(e) => {
                self.failed = true;
                return Some(Err(e));
            }
        }
        Some(Ok(record))
    }
}

/// One run, read piece by piece.
struct Run<const N: usize> {
    path: PathBuf,
    records: Vec<Record<N>>,
    next: usize,
    /// Records of the file that were read.
    read: u64,
    total: u64,
    ahead: usize,
}

impl<const N: usize> Run<N> {
    fn open(path: &Path, ahead: usize) -> Result<Run<N>> {
        let bytes = path.metadata().at(path)?.len();
        let size = 8 * N as u64;
        if !bytes.is_multiple_of(size) {
            let hint = "remove the folder that it is in, and start again";
            return Err(Error::format(path, "size", format!("a multiple of {size} bytes"), bytes, hint));
        }
        Ok(Run {
            path: path.to_owned(),
            records: Vec::new(),
            next: 0,
            read: 0,
            total: bytes / size,
            ahead: ahead.max(1),
        })
    }

    fn next(&mut self) -> Result<Option<Record<N>>> {
        if self.next == self.records.len() {
            let n = (self.total - self.read).min(self.ahead as u64) as usize;
            self.records.resize(n, [0; N]);
            self.next = 0;
            if n == 0 {
                return Ok(None);
            }
            let mut file = File::open(&self.path).at(&self.path)?;
            file.seek(SeekFrom::Start(self.read * 8 * N as u64)).at(&self.path)?;
            file.read_exact(bytemuck::cast_slice_mut(self.records.as_flattened_mut())).at(&self.path)?;
            self.read += n as u64;
        }
        self.next += 1;
        Ok(Some(self.records[self.next - 1]))
    }
}

/// Calls `each` with every one of the sorted `records` and the first one that agrees with it in the first `key` numbers.
pub fn with_first<const N: usize>(
    records: impl Iterator<Item = Result<Record<N>>>,
    key: usize,
    mut each: impl FnMut(Record<N>, Record<N>) -> Result<()>,
) -> Result<()> {
    let mut first: Option<Record<N>> = None;
    for record in records {
        let record = record?;
        let head = match first {
            Some(head) if head[..key] == record[..key] => head,
            _ => *first.insert(record),
        };
        each(head, record)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    #[test]
    fn records_come_back_in_order_and_once_whatever_fits_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = Rng::new(1, Purpose::Test, 0, 0);
        let all: Vec<Record<2>> = (0..5000).map(|_| [u64::from(rng.below(900)), u64::from(rng.below(3))]).collect();
        let mut expected = all.clone();
        expected.sort_unstable();
        expected.dedup();
        for memory in [16, 1000, 1 << 20] {
            let mut sorter = Sorter::new(dir.path(), "x", memory);
            all.iter().take(if memory == 16 { 300 } else { 5000 }).for_each(|&record| sorter.push(record).unwrap());
            let path = dir.path().join("all.run");
            sorter.finish(&path).unwrap();
            let sorted: Vec<Record<2>> = Merge::new(&[path], 4096).unwrap().map(Result::unwrap).collect();
            assert!(sorted.is_sorted() && sorted.windows(2).all(|w| w[0] != w[1]));
            if memory > 16 {
                assert_eq!(sorted, expected);
            }
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the result is left");
        }
    }

    #[test]
    fn a_run_that_was_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.run");
        std::fs::write(&path, [0; 20]).unwrap();
        let error = Merge::<2>::new(&[path], 4096).err().unwrap();
        assert!(error.to_string().contains("a multiple of 16 bytes, found 20"), "{error}");
    }
}
