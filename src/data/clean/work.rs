//! The folder `.work` of a run that is not done yet, and the joining of its parts into the result.
//!
//! Parts are not flushed to the disk one by one: that would take as long as the work. What a killed program wrote is there
//! all the same; after a loss of power checksums tell what is not, and the run starts anew.

use super::Options;
use super::sort::{Merge, Record};
use super::spool::{Spool, starts};
use crate::data::Sources;
use crate::data::atomic::{AtomicFile, write_atomic};
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};
use flate2::Crc;
use rayon::prelude::*;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Files of the result.
pub const DOCUMENTS: &str = "documents.jsonl.zst";
/// One line for each removal or edit.
pub const LEDGER: &str = "ledger.jsonl";

/// The version of the folder's layout: another one is thrown away.
const VERSION: u32 = 2;

/// What is saved of a part of a pass, beside its files.
#[derive(Serialize, Deserialize)]
struct Saved<T> {
    /// Their names, lengths and checksums.
    files: Vec<(String, usize, u32)>,
    value: T,
}

/// The folder.
pub struct Work {
    dir: PathBuf,
    out: PathBuf,
}

impl Work {
    /// Opens the folder of a run with these settings, or starts one: what another run left is removed.
    pub fn open(sources: &Sources, options: &Options, key: Option<&[u8]>) -> Result<Work> {
        let work = Work { dir: options.out.join(".work"), out: options.out.clone() };
        let mut inputs = Vec::new();
        let recipe = &options.recipe;
        for path in sources.files().iter().chain(&recipe.lexicons.files).chain(&recipe.evaluation.files) {
            let meta = path.metadata().at(path)?;
            let changed = meta.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            inputs.push(json!([path.to_string_lossy(), meta.len(), changed.map(|time| time.as_nanos().to_string())]));
        }
        let run = json!({
            "version": VERSION,
            "recipe": options.recipe.to_toml(),
            "inputs": inputs,
            "text_field": options.text_field,
            "clear_text": options.clear_text,
            "key": key.map(|key| hex(&Sha256::digest(key))),
        })
        .to_string();
        disk::make_dirs(&Os, &options.out)?;
        let out = options.out.canonicalize().at(&options.out)?;
        if let Some(file) =
            sources.files().iter().find(|file| file.canonicalize().is_ok_and(|file| file.starts_with(&out)))
        {
            let problem = format!("--out: {} is a source and lies in it", file.display());
            return Err(Error::usage(problem, "choose a folder beside the sources"));
        }
        let file = work.dir.join("run.json");
        if std::fs::read_to_string(&file).is_ok_and(|found| found == run) && work.is_whole() {
            disk::sweep(&Os, &work.dir)?;
            return Ok(work);
        }
        disk::remove_all(&Os, &work.dir)?;
        disk::make_dirs(&Os, &work.dir)?;
        write_atomic(&Os, &file, run.as_bytes())?;
        Ok(work)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file of a part of a pass.
    pub fn file(&self, pass: &str, part: usize, what: &str) -> PathBuf {
        self.dir.join(format!("{pass}-{part:05}.{what}"))
    }

    /// Writes the files of a part of a pass, then what `value` says of it: the part is done.
    pub fn save_part(&self, pass: &str, part: usize, files: &[(&str, &[u8])], value: &impl Serialize) -> Result<()> {
        files.par_iter().try_for_each(|(what, bytes)| {
            let path = self.file(pass, part, what);
            std::fs::write(&path, bytes).at(&path)
        })?;
        let files = files.iter().map(|(what, bytes)| ((*what).to_owned(), bytes.len(), checksum(bytes))).collect();
        let path = self.file(pass, part, "json");
        let temporary = disk::temporary(&path);
        std::fs::write(&temporary, printed(&Saved { files, value })).at(&temporary)?;
        std::fs::rename(&temporary, &path).at(&path)
    }

    /// What was said of a part of a pass, if it is done.
    pub fn load_part<T: DeserializeOwned>(&self, pass: &str, part: usize) -> Result<Option<T>> {
        Ok(self.load::<Saved<T>>(&self.file(pass, part, "json"))?.map(|saved| saved.value))
    }

    /// Whether the files of all parts that are done are as they were written.
    fn is_whole(&self) -> bool {
        let is_file = |pass: &str, part, (what, length, sum): &(String, usize, u32)| {
            std::fs::read(self.file(pass, part, what))
                .is_ok_and(|bytes| bytes.len() == *length && checksum(&bytes) == *sum)
        };
        let is_part = |pass, part| match self.load::<Saved<IgnoredAny>>(&self.file(pass, part, "json")) {
            Ok(Some(saved)) => saved.files.iter().all(|file| is_file(pass, part, file)),
            _ => false,
        };
        ["first", "last"].iter().all(|&pass| (0..self.parts(pass)).into_par_iter().all(|part| is_part(pass, part)))
    }

    /// What was saved under this name, if it was.
    fn load<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.at(path)?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            Error::format(path, "content", "what kiln wrote", e, "remove the folder that it is in, and start again")
        })
    }

    /// How many parts of a pass are done.
    pub fn parts(&self, pass: &str) -> usize {
        (0..).take_while(|&part| self.file(pass, part, "json").is_file()).count()
    }

    /// The runs of sorted hashes of all parts of the first pass.
    pub fn runs(&self, what: &str, parts: usize) -> Result<Vec<PathBuf>> {
        Ok((0..parts).map(|part| self.file("first", part, what)).filter(|path| path.is_file()).collect())
    }

    /// The documents that the first pass kept.
    pub fn spool(&self) -> Result<Spool> {
        let part = |part| {
            let path = self.file("first", part, "spool");
            let starts = starts(&path, &std::fs::read(&path).at(&path)?)?;
            Ok((path, starts))
        };
        Ok(Spool::new((0..self.parts("first")).map(part).collect::<Result<_>>()?))
    }

    /// [document, the first one with its text].
    pub fn exact(&self) -> PathBuf {
        self.dir.join("exact.run")
    }

    /// [key, key] of pairs that share a band.
    pub fn candidates(&self) -> PathBuf {
        self.dir.join("candidates.run")
    }

    /// [document, the one that stays, similarity].
    pub fn near(&self) -> PathBuf {
        self.dir.join("near.run")
    }

    /// [place, the first place] of paragraphs.
    pub fn blocks(&self) -> PathBuf {
        self.dir.join("blocks.run")
    }

    /// [document, likelier label, loss].
    pub fn labels(&self) -> PathBuf {
        self.dir.join("labels.run")
    }

    /// The names of labels; written after [`labels`](Work::labels).
    pub fn label_names(&self) -> PathBuf {
        self.dir.join("labels.json")
    }

    /// Saves the names of labels.
    pub fn save_label_names(&self, names: &[String]) -> Result<()> {
        write_atomic(&Os, &self.label_names(), &printed(&names))
    }

    /// What the whole first pass left, if it is done.
    pub fn load_first<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.load(&self.dir.join("first.json"))
    }

    /// The first pass is done.
    pub fn save_first(&self, value: &impl Serialize) -> Result<()> {
        write_atomic(&Os, &self.dir.join("first.json"), &printed(value))
    }

    /// The names of labels; none where there are none.
    pub fn load_label_names(&self) -> Result<Vec<String>> {
        Ok(self.load(&self.label_names())?.unwrap_or_default())
    }

    /// Calls `each` with the records of a run, if there is one.
    pub fn read<const N: usize>(&self, path: &Path, mut each: impl FnMut(Record<N>)) -> Result<()> {
        if path.is_file() {
            for record in Merge::<N>::new(&[path.to_owned()], 1 << 20)? {
                each(record?);
            }
        }
        Ok(())
    }

    /// Joins the parts into the result: documents of `parts`, the ledger of `first` parts and then of those. Gives the
    /// name, the size and the SHA-256 of each file.
    pub fn assemble(&self, parts: usize, first: usize) -> Result<Vec<(String, u64, String)>> {
        let documents = (0..parts).map(|part| self.file("last", part, "zst"));
        let ledger = (0..first).map(|part| self.file("first", part, "ledger"));
        let ledger = ledger.chain((0..parts).map(|part| self.file("last", part, "ledger")));
        Ok(vec![self.join(DOCUMENTS, documents)?, self.join(LEDGER, ledger)?])
    }

    fn join(&self, name: &str, parts: impl Iterator<Item = PathBuf>) -> Result<(String, u64, String)> {
        let mut file = AtomicFile::create(&Os, &self.out.join(name))?;
        let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 18]);
        for path in parts {
            let mut part = File::open(&path).at(&path)?;
            loop {
                let n = part.read(&mut buffer).at(&path)?;
                if n == 0 {
                    break;
                }
                file.write(&buffer[..n])?;
                hash.update(&buffer[..n]);
                size += n as u64;
            }
        }
        file.commit()?;
        Ok((name.to_owned(), size, hex(&hash.finalize())))
    }

    /// The run is done.
    pub fn remove(&self) -> Result<()> {
        disk::remove_all(&Os, &self.dir)
    }
}

fn printed(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data is printable")
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
