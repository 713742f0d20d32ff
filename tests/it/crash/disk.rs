//! A disk in memory that loses what POSIX does not promise to keep.
//!
//! While the power is on, it behaves as a file system does. Under that it remembers what is surely on disk and what was
//! changed since. When the power goes ([`SimDisk::power_off`]),
//!
//! - a file holds what it held when it was last synced; of what was written since, nothing, everything, a prefix that
//!   ends at any byte, or any of the sectors of 512 bytes, the others being old, or zero beyond the old end;
//! - a folder holds the names that it held when it was last synced; of the changes since, none, all, the first few, or
//!   any of them. A rename within a folder is one change. That the files themselves were synced says nothing of their
//!   names, and nothing orders the names of two folders, or names and contents.
//!
//! A sync that fails loses what it should have put on disk, even if a later one succeeds, as Linux does.

use kiln::disk::{Disk, File, Kind, Open};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;
const ROOT: usize = 0;

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails: EIO.
    Broken,
    /// It fails: ENOSPC.
    NoSpace,
    /// From here on the disk is full: half of a write succeeds, and nothing is made.
    Full,
    /// A read or a write does a part of what it was asked.
    Short,
    /// The power goes: it and all that follow fail.
    PowerOff,
}

/// What becomes of changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// None of them is on disk.
    Dropped,
    /// All of them are.
    Kept,
    /// Some are, some are not, some in part.
    Torn,
}

/// What is put on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The content of a file.
    Files,
    /// The names in a folder.
    Names,
}

/// SplitMix64.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    pub fn flip(&mut self) -> bool {
        self.below(2) == 0
    }
}

#[derive(Clone, Debug)]
enum Node {
    File(Content),
    Dir(Names),
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Clone, Debug, Default)]
struct Names {
    now: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    changes: Vec<Renamed>,
}

/// A name that is gone and one that has come, which may be one step.
#[derive(Clone, Debug, Default)]
struct Renamed {
    gone: Option<String>,
    come: Option<(String, usize)>,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Len(len) => bytes.resize(*len, 0),
            Change::Write(at, new) => {
                let end = at + new.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(new);
            }
        }
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.changes.push(change);
    }

    fn after(&self, unsynced: Unsynced, random: &mut Random) -> Vec<u8> {
        let mut whole = self.synced.clone();
        self.changes.iter().for_each(|change| change.apply(&mut whole));
        let unsynced = if unsynced == Unsynced::Torn { random.below(4) } else { unsynced as usize };
        match unsynced {
            0 => self.synced.clone(),
            1 => whole,
            2 => {
                let mut bytes = self.synced.clone();
                let written = |change: &Change| if let Change::Write(_, new) = change { new.len() } else { 1 };
                let mut left = random.below(self.changes.iter().map(written).sum::<usize>() + 1);
                for change in &self.changes {
                    match change {
                        _ if left >= written(change) => change.apply(&mut bytes),
                        Change::Write(at, new) => Change::Write(*at, new[..left].to_vec()).apply(&mut bytes),
                        Change::Len(_) => {}
                    }
                    left = left.saturating_sub(written(change));
                }
                bytes
            }
            _ => {
                let mut bytes = self.synced.clone();
                let long = bytes.len().max(whole.len());
                bytes.resize(long, 0);
                let short = self.synced.len().min(whole.len());
                let length = [self.synced.len(), whole.len(), short + random.below(long - short + 1)][random.below(3)];
                for start in (0..whole.len()).step_by(SECTOR) {
                    let end = whole.len().min(start + SECTOR);
                    if random.flip() {
                        bytes[start..end].copy_from_slice(&whole[start..end]);
                    }
                }
                bytes.truncate(length);
                bytes
            }
        }
    }
}

impl Names {
    fn change(&mut self, change: Renamed) {
        change.apply(&mut self.now);
        self.changes.push(change);
    }

    fn after(&self, unsynced: Unsynced, random: &mut Random) -> BTreeMap<String, usize> {
        let mut names = self.synced.clone();
        let first = random.below(self.changes.len() + 1);
        let in_order = random.flip();
        for (i, change) in self.changes.iter().enumerate() {
            let happened = match unsynced {
                Unsynced::Dropped => false,
                Unsynced::Kept => true,
                Unsynced::Torn if in_order => i < first,
                Unsynced::Torn => random.flip(),
            };
            if happened {
                change.apply(&mut names);
            }
        }
        names
    }
}

impl Renamed {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        self.gone.as_ref().map(|name| names.remove(name));
        self.come.as_ref().map(|(name, node)| names.insert(name.clone(), *node));
    }
}

#[derive(Clone)]
struct State {
    nodes: Vec<Node>,
    /// Grows when the machine starts anew: open files are gone then.
    boot: usize,
    operations: usize,
    fault: Option<(usize, Fault)>,
    /// Where the fault struck.
    struck: Option<PathBuf>,
    full: bool,
    off: bool,
    deaf: Option<Sync>,
}

/// See the module's documentation.
pub struct SimDisk(Arc<Mutex<State>>);

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    pub fn new() -> SimDisk {
        let nodes = vec![Node::Dir(Names::default())];
        let state =
            State { nodes, boot: 0, operations: 0, fault: None, struck: None, full: false, off: false, deaf: None };
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// A disk that holds the same and goes its own way.
    pub fn fork(&self) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(self.state().clone())))
    }

    /// Lets `fault` strike `after` operations from now.
    pub fn strike(&self, after: usize, fault: Fault) {
        let mut state = self.state();
        (state.fault, state.struck) = (Some((state.operations + after, fault)), None);
    }

    /// On what the fault struck, if it did.
    pub fn struck(&self) -> Option<PathBuf> {
        self.state().struck.clone()
    }

    /// From now on such syncs do nothing: what a program does that leaves them out.
    pub fn forget(&self, sync: Sync) {
        self.state().deaf = Some(sync);
    }

    /// Ends the process: nothing is lost, and faults are over.
    pub fn kill(&self) {
        let mut state = self.state();
        state.boot += 1;
        (state.fault, state.struck, state.full, state.off) = (None, None, false, false);
    }

    /// Takes the power away and gives it back.
    pub fn power_off(&self, unsynced: Unsynced, random: &mut Random) {
        self.kill();
        let mut state = self.state();
        let mut left = vec![];
        state.survivor(ROOT, unsynced, random, &mut left);
        state.nodes = left;
    }

    /// Changes the content of a file without anybody's knowing.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let node = state.find(path).expect("a file");
        let Node::File(content) = &mut state.nodes[node] else { panic!("{} is a folder", path.display()) };
        change(&mut content.now);
        (content.synced, content.changes) = (content.now.clone(), Vec::new());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the disk")
    }
}

impl State {
    /// Appends what is left of `node` and of all below it to `left`; gives its number there.
    fn survivor(&self, node: usize, unsynced: Unsynced, random: &mut Random, left: &mut Vec<Node>) -> usize {
        let number = left.len();
        match &self.nodes[node] {
            Node::File(content) => {
                let now = content.after(unsynced, random);
                left.push(Node::File(Content { synced: now.clone(), now, changes: Vec::new() }));
            }
            Node::Dir(names) => {
                left.push(Node::Dir(Names::default()));
                let names = names.after(unsynced, random).into_iter();
                let now: BTreeMap<String, usize> =
                    names.map(|(name, node)| (name, self.survivor(node, unsynced, random, left))).collect();
                left[number] = Node::Dir(Names { synced: now.clone(), now, changes: Vec::new() });
            }
        }
        number
    }

    /// Counts an operation on `path`; gives what strikes it, if that does not make it fail.
    fn operation(&mut self, path: &Path) -> io::Result<Option<Fault>> {
        let fault = self.fault.filter(|(at, _)| *at == self.operations).map(|(_, fault)| fault);
        self.operations += 1;
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        if fault.is_some() {
            self.struck = Some(path.to_owned());
        }
        match fault {
            Some(Fault::Broken) => Err(io::Error::from_raw_os_error(5)),
            Some(Fault::NoSpace) => Err(ErrorKind::StorageFull.into()),
            Some(Fault::PowerOff) => {
                self.off = true;
                Err(io::Error::other("the power is off"))
            }
            Some(Fault::Full) => {
                self.full = true;
                Ok(fault)
            }
            Some(Fault::Short) | None => Ok(fault),
        }
    }

    fn room(&self) -> io::Result<()> {
        if self.full { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut node = ROOT;
        for part in path.components().filter(|part| *part != Component::RootDir) {
            let Node::Dir(names) = &self.nodes[node] else { return Err(ErrorKind::NotADirectory.into()) };
            let name = part.as_os_str().to_str().expect("UTF-8");
            node = *names.now.get(name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn dir(&mut self, path: &Path) -> io::Result<&mut Names> {
        let node = self.find(path)?;
        match &mut self.nodes[node] {
            Node::Dir(names) => Ok(names),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    /// Adds a node and its name.
    fn make(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        self.room()?;
        let number = self.nodes.len();
        let (dir, name) = split(path);
        let come = Some((name, number));
        self.dir(dir)?.change(Renamed { come, gone: None });
        self.nodes.push(node);
        Ok(number)
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path);
        self.dir(dir)?.change(Renamed { gone: Some(name), come: None });
        Ok(())
    }
}

fn split(path: &Path) -> (&Path, String) {
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
    (path.parent().expect("a folder"), name.to_owned())
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.operation(path)?;
        let node = match state.find(path) {
            Err(e) if e.kind() == ErrorKind::NotFound && how != Open::Read => {
                state.make(path, Node::File(Content::default()))?
            }
            node => node?,
        };
        match &mut state.nodes[node] {
            Node::Dir(_) => return Err(ErrorKind::IsADirectory.into()),
            Node::File(content) if how == Open::Create => content.change(Change::Len(0)),
            Node::File(_) => {}
        }
        let append = matches!(how, Open::Append | Open::Private);
        Ok(Box::new(SimFile { disk: self.0.clone(), path: path.to_owned(), boot: state.boot, node, at: 0, append }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut state = self.state();
        state.operation(dir)?;
        Ok(state.dir(dir)?.now.keys().map(OsString::from).collect())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        let mut state = self.state();
        state.operation(path)?;
        Ok(state.find(path).ok().map(|node| match state.nodes[node] {
            Node::Dir(_) => Kind::Folder,
            Node::File(_) => Kind::File,
        }))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation(dir)?;
        match state.find(dir) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(_) => state.make(dir, Node::Dir(Names::default())).map(drop),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation(from)?;
        let node = state.find(from)?;
        if let Ok(other) = state.find(to)
            && let Node::Dir(names) = &state.nodes[other]
            && !names.now.is_empty()
        {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let ((dir, gone), (into, come)) = (split(from), split(to));
        assert_eq!(dir, into, "what a rename between folders leaves is not simulated");
        state.dir(dir)?.change(Renamed { gone: Some(gone), come: Some((come, node)) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation(path)?;
        state.find(path)?;
        state.unlink(path)
    }

    fn remove_all(&self, dir: &Path) -> io::Result<()> {
        let names: Vec<String> = {
            let mut state = self.state();
            state.operation(dir)?;
            state.dir(dir)?.now.keys().cloned().collect()
        };
        for path in names.iter().map(|name| dir.join(name)) {
            let is_file = {
                let state = self.state();
                state.find(&path).is_ok_and(|node| matches!(state.nodes[node], Node::File(_)))
            };
            if is_file { self.remove(&path)? } else { self.remove_all(&path)? }
        }
        let mut state = self.state();
        state.operation(dir)?;
        state.unlink(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation(dir)?;
        let deaf = state.deaf == Some(Sync::Names);
        let names = state.dir(dir)?;
        if deaf {
            return Ok(());
        }
        (names.synced, names.changes) = (names.now.clone(), Vec::new());
        Ok(())
    }
}

struct SimFile {
    disk: Arc<Mutex<State>>,
    path: PathBuf,
    boot: usize,
    node: usize,
    at: usize,
    append: bool,
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimFile({})", self.path.display())
    }
}

impl SimFile {
    /// Counts an operation, and does `what` with the content; `what` is told how many of `bytes` it may handle.
    fn content<T>(&self, bytes: usize, what: impl FnOnce(&mut Content, usize) -> T) -> io::Result<T> {
        let mut state = self.disk.lock().expect("no test panics while it holds the disk");
        if state.boot != self.boot {
            return Err(io::Error::other("the machine has started anew since the file was opened"));
        }
        let bytes = match state.operation(&self.path)? {
            Some(Fault::Short | Fault::Full) => bytes.div_ceil(2),
            _ => bytes,
        };
        let Node::File(content) = &mut state.nodes[self.node] else { panic!("a file became a folder") };
        Ok(what(content, bytes))
    }

    fn is_full(&self) -> bool {
        self.disk.lock().expect("no test panics while it holds the disk").full
    }
}

impl Read for SimFile {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let at = self.at;
        let read = self.content(to.len(), |content, bytes| {
            let from = &content.now[at.min(content.now.len())..];
            let n = bytes.min(from.len());
            to[..n].copy_from_slice(&from[..n]);
            n
        })?;
        self.at += read;
        Ok(read)
    }
}

impl Write for SimFile {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        if self.is_full() {
            return Err(ErrorKind::StorageFull.into());
        }
        let (at, append) = (self.at, self.append);
        let (end, written) = self.content(from.len(), |content, bytes| {
            let at = if append { content.now.len() } else { at };
            content.change(Change::Write(at, from[..bytes].to_vec()));
            (at + bytes, bytes)
        })?;
        self.at = end;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SimFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let len = self.content(0, |content, _| content.now.len())? as i64;
        let at = match to {
            SeekFrom::Start(at) => at as i64,
            SeekFrom::End(by) => len + by,
            SeekFrom::Current(by) => self.at as i64 + by,
        };
        self.at = usize::try_from(at).map_err(|_| ErrorKind::InvalidInput)?;
        Ok(at as u64)
    }
}

impl File for SimFile {
    fn sync(&self) -> io::Result<()> {
        let deaf = self.disk.lock().expect("no test panics while it holds the disk").deaf == Some(Sync::Files);
        let synced = self.content(0, |content, _| {
            if deaf {
                return;
            }
            (content.synced, content.changes) = (content.now.clone(), Vec::new());
        });
        if synced.is_err() {
            let mut state = self.disk.lock().expect("no test panics while it holds the disk");
            // The power may have gone before anything was tried.
            if !state.off
                && state.boot == self.boot
                && let Node::File(content) = &mut state.nodes[self.node]
            {
                content.changes.clear();
            }
        }
        synced
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.content(0, |content, _| content.change(Change::Len(len as usize)))
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.content(0, |_, _| true)
    }
}
