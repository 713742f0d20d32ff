//! Public data sets: where they are, what their licence is, and how a file gets here whole.
//!
//! The table is `data/sets.toml`, or one of the user's. A file is written as `NAME.part`, goes on from there when a download
//! was broken off, and gets its name when its size and checksum agree with what the table states, or with `SHA256SUMS`
//! beside the data, where the first download's is kept. What a user puts there by hand is checked in the same way.

mod curl;

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::curl::Curl;
use crate::data::atomic::write_atomic;
use crate::disk::{self, Disk, Kind, Open};
use crate::error::{AtPath, Error, Result};

/// The table that kiln brings.
const TABLE: &str = include_str!("../../../data/sets.toml");

/// The file of checksums beside the data, as `sha256sum` writes and checks it.
pub const SUMS: &str = "SHA256SUMS";

/// A data set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// What it is called on the command line.
    pub name: String,
    /// What it holds, and whose it is.
    pub about: String,
    /// Under which licence it may be used.
    pub licence: String,
    /// Where the licence can be read.
    pub terms: String,
    /// The set's own page.
    pub page: String,
    /// What the addresses of files begin with.
    pub base: String,
    /// About how large it is in all.
    pub bytes: u64,
    /// Its files, in the order in which they are fetched.
    pub files: Vec<SetFile>,
}

/// A file of a data set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetFile {
    /// Its name, here and behind the set's base.
    pub name: String,
    /// Its size, where it is known.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Its SHA-256 in hexadecimal, where a public source states it.
    #[serde(default)]
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    set: Vec<Set>,
}

/// The sets of kiln's own table.
pub fn sets() -> Vec<Set> {
    parse(TABLE, Path::new("data/sets.toml")).expect("the table is tested")
}

/// The sets of a table in TOML, as `data/sets.toml` is one.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Set>> {
    let malformed = |at: String, found: String| {
        let hint = "a table is as kiln's own data/sets.toml: [[set]] with name, about, licence, terms, page, base, bytes, files";
        Error::format(path, at, "a table of data sets", found, hint)
    };
    let table: Table = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        malformed(format!("line {line}"), e.message().to_owned())
    })?;
    for set in &table.set {
        let local = ["http://127.0.0.1:", "http://localhost:"].iter().any(|start| set.base.starts_with(start));
        if !(set.base.starts_with("https://") || local) {
            return Err(malformed(
                format!("set {:?}", set.name),
                format!("the base {:?}, which is not https", set.base),
            ));
        }
        for file in &set.files {
            let mut parts = Path::new(&file.name).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            if !plain || file.name.starts_with('.') || file.name == SUMS {
                return Err(malformed(format!("set {:?}", set.name), format!("the name of a file {:?}", file.name)));
            }
            let hex = |sum: &String| sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !file.sha256.as_ref().is_none_or(hex) {
                return Err(malformed(format!("file {:?}", file.name), "a checksum that is no SHA-256".to_owned()));
            }
        }
    }
    Ok(table.set)
}

/// The set of this name; the error names those that there are.
pub fn named(sets: Vec<Set>, name: &str) -> Result<Set> {
    let names: Vec<String> = sets.iter().map(|set| set.name.clone()).collect();
    sets.into_iter().find(|set| set.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let nearest = names.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
        let near = nearest.map_or(String::new(), |nearest| format!("did you mean {nearest}? "));
        Error::usage(
            format!("there is no data set {name:?} in the table"),
            format!("{near}it has: {}", names.join(", ")),
        )
    })
}

/// What fetches a file: the rest of it from byte `from` on, in pieces.
pub trait Fetch {
    /// Gives the bytes of `url` from `from` on to `sink`. An error of the sink ends it.
    fn fetch(&self, url: &str, from: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<(), Failure>;
}

/// Why a file was not fetched.
#[derive(Debug)]
pub enum Failure {
    /// It was broken off; more may come on another try.
    BrokenOff(String),
    /// The server does not send a part of a file.
    NoRanges,
    /// It cannot be had: no network, no such address, no program.
    Refused(String),
    /// What was fetched could not be written.
    Sink(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Sink(error)
    }
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Got {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Whether it was fetched now, wholly or in part; else it was there.
    pub fetched: bool,
}

/// How often a download that is broken off is taken up again, as long as each try brings something.
const TRIES: u32 = 20;

/// Gets the first `parts` files of a set into the folder `dir`, which is made if need be. `progress` is told the name of a
/// file and the bytes of it that are there.
///
/// # Errors
/// The network, the disk; a size or a checksum that does not agree, and then the file does not bear its name.
pub fn get(
    disk: &dyn Disk,
    set: &Set,
    parts: usize,
    dir: &Path,
    fetch: &dyn Fetch,
    progress: &mut dyn FnMut(&str, u64),
) -> Result<Vec<Got>> {
    disk::make_dirs(disk, dir)?;
    let mut all = Vec::new();
    for file in set.files.iter().take(parts) {
        let mut sums = read_sums(disk, dir)?;
        let expected = file.sha256.as_deref().or_else(|| sums.get(&file.name).map(String::as_str)).map(str::to_owned);
        let got = get_file(disk, set, file, expected.as_deref(), dir, fetch, progress)?;
        if sums.get(&got.name) != Some(&got.sha256) {
            sums.insert(got.name.clone(), got.sha256.clone());
            let text: String = sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
            write_atomic(disk, &dir.join(SUMS), text.as_bytes())?;
        }
        all.push(got);
    }
    Ok(all)
}

/// The checksums that are kept beside the data, by name.
fn read_sums(disk: &dyn Disk, dir: &Path) -> Result<BTreeMap<String, String>> {
    let path = dir.join(SUMS);
    if disk.kind(&path).at(&path)?.is_none() {
        return Ok(BTreeMap::new());
    }
    let text = disk::text(disk, &path, 1 << 20)?;
    let line = |(n, line): (usize, &str)| {
        let (sum, name) = line.split_once("  ").filter(|(sum, _)| sum.len() == 64).ok_or_else(|| {
            let hint = "remove the file, and the next call makes it anew from what is there";
            Error::format(&path, format!("line {}", n + 1), "a SHA-256, two blanks, a name", line, hint)
        })?;
        Ok((name.to_owned(), sum.to_owned()))
    };
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(line).collect()
}

fn get_file(
    disk: &dyn Disk,
    set: &Set,
    file: &SetFile,
    expected: Option<&str>,
    dir: &Path,
    fetch: &dyn Fetch,
    progress: &mut dyn FnMut(&str, u64),
) -> Result<Got> {
    let path = dir.join(&file.name);
    if let Some(kind) = disk.kind(&path).at(&path)? {
        if kind != Kind::File {
            return Err(Error::format(&path, "kind of file", "a file, or none yet", "something else", "remove it"));
        }
        let mut there = disk.open(&path, Open::Read).at(&path)?;
        let mut hash = Hash::default();
        hash.all(&mut there, &mut |done| progress(&file.name, done)).at(&path)?;
        let got = hash.got(&file.name, false);
        return match disagreement(file, expected, &got) {
            None => Ok(got),
            Some(found) => {
                let hint = "it is damaged, or another version: remove it, and call again to fetch it";
                Err(Error::format(&path, "content", expectation(file, expected), found, hint))
            }
        };
    }

    let part = dir.join(format!("{}.part", file.name));
    let mut out = disk.open(&part, Open::Append).at(&part)?;
    if !out.try_lock().at(&part)? {
        let hint = "wait for it, or end it";
        return Err(Error::failed(format!("another process is fetching {}", file.name), hint));
    }
    let mut hash = Hash::default();
    out.seek(SeekFrom::Start(0)).at(&part)?;
    hash.all(&mut out, &mut |done| progress(&file.name, done)).at(&part)?;
    if file.bytes.is_some_and(|bytes| hash.bytes > bytes) {
        restart(&mut *out, &mut hash).at(&part)?;
    }
    let url = format!("{}{}", set.base, file.name);
    let mut tries = 0;
    while file.bytes != Some(hash.bytes) {
        let before = hash.bytes;
        let fetched = fetch.fetch(&url, before, &mut |bytes| {
            out.write_all(bytes).at(&part)?;
            hash.add(bytes);
            progress(&file.name, hash.bytes);
            Ok(())
        });
        tries += 1;
        match fetched {
            Ok(()) => break,
            Err(Failure::Sink(error)) => return Err(error),
            // From the start then.
            Err(Failure::NoRanges) if before > 0 => restart(&mut *out, &mut hash).at(&part)?,
            Err(Failure::BrokenOff(_)) if hash.bytes > before && tries < TRIES => {}
            Err(Failure::BrokenOff(why)) => {
                let hint = format!("call again: it goes on from {} bytes; or {}", hash.bytes, by_hand(&url, &path));
                return Err(Error::failed(format!("{url} was broken off: {why}"), hint));
            }
            Err(Failure::NoRanges) => return Err(Error::failed(format!("{url}: no answer"), by_hand(&url, &path))),
            Err(Failure::Refused(why)) => {
                if hash.bytes == 0 {
                    disk.remove(&part).at(&part)?;
                }
                return Err(Error::failed(format!("{url} cannot be fetched: {why}"), by_hand(&url, &path)));
            }
        }
    }
    let got = hash.got(&file.name, true);
    if let Some(found) = disagreement(file, expected, &got) {
        // It cannot be taken up again: what is wrong in it would stay.
        drop(out);
        disk.remove(&part).at(&part)?;
        let hint = format!("it was removed; call again, or compare with {}", set.page);
        return Err(Error::format(&path, "content", expectation(file, expected), found, hint));
    }
    out.sync().at(&part)?;
    drop(out);
    disk.rename(&part, &path).at(&path)?;
    disk.sync_dir(dir).at(dir)?;
    Ok(got)
}

fn restart(out: &mut dyn disk::File, hash: &mut Hash) -> std::io::Result<()> {
    *hash = Hash::default();
    out.set_len(0)
}

fn by_hand(url: &str, path: &Path) -> String {
    format!("where there is no network, get {url} elsewhere and put it at {}; kiln checks it then", path.display())
}

fn expectation(file: &SetFile, expected: Option<&str>) -> String {
    match (file.bytes, expected) {
        (Some(bytes), Some(sum)) => format!("{bytes} bytes with the SHA-256 {sum}"),
        (Some(bytes), None) => format!("{bytes} bytes"),
        (None, sum) => format!("the SHA-256 {}", sum.unwrap_or("of the first download")),
    }
}

/// What is other than stated.
fn disagreement(file: &SetFile, expected: Option<&str>, got: &Got) -> Option<String> {
    match expected {
        _ if file.bytes.is_some_and(|bytes| bytes != got.bytes) => Some(format!("{} bytes", got.bytes)),
        Some(sum) if sum != got.sha256 => Some(format!("the SHA-256 {}", got.sha256)),
        _ => None,
    }
}

/// A checksum as it grows.
#[derive(Default)]
struct Hash {
    sha256: Sha256,
    bytes: u64,
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn all(&mut self, file: &mut dyn Read, progress: &mut dyn FnMut(u64)) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                n => self.add(&buffer[..n]),
            }
            progress(self.bytes);
        }
    }

    fn got(self, name: &str, fetched: bool) -> Got {
        let sha256 = self.sha256.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Got { name: name.to_owned(), bytes: self.bytes, sha256, fetched }
    }
}

#[cfg(test)]
mod tests;
