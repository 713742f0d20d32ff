use super::*;
use crate::disk::Os;
use std::cell::RefCell;

/// A server of one content, which breaks off as it is told.
struct Fake {
    content: Vec<u8>,
    /// Bytes that each try gives, then it breaks off; when they are used up, all.
    gives: RefCell<Vec<usize>>,
    ranges: bool,
    /// Where each try began.
    from: RefCell<Vec<u64>>,
}

impl Fake {
    fn new(gives: &[usize]) -> Fake {
        let content = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        let gives = RefCell::new(gives.iter().rev().copied().collect());
        Fake { content, gives, ranges: true, from: RefCell::default() }
    }
}

impl Fetch for Fake {
    fn fetch(&self, _: &str, from: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<(), Failure> {
        self.from.borrow_mut().push(from);
        if from > 0 && !self.ranges {
            return Err(Failure::NoRanges);
        }
        let rest = &self.content[from as usize..];
        match self.gives.borrow_mut().pop() {
            Some(n) => {
                sink(&rest[..n.min(rest.len())])?;
                Err(Failure::BrokenOff("gone".to_owned()))
            }
            None => Ok(rest.chunks(999).try_for_each(sink)?),
        }
    }
}

fn set(sha256: Option<&str>, bytes: Option<u64>) -> Set {
    let file = SetFile { name: "a.txt".to_owned(), bytes, sha256: sha256.map(str::to_owned) };
    Set { base: "https://example.org/".to_owned(), files: vec![file], ..sets().remove(0) }
}

fn run(set: &Set, dir: &Path, fetch: &Fake) -> Result<Vec<Got>, String> {
    get(&Os, set, usize::MAX, dir, fetch, &mut |_, _| ()).map_err(|e| format!("{e} | {}", e.hint().unwrap_or("")))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_set_of_the_table_is_whole_and_its_addresses_are_https() {
    let sets = sets();
    let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["tinystories", "fineweb-edu", "openwebtext", "gsm8k", "mnist", "fashion-mnist", "cifar-10"]);
    for set in &sets {
        let stated: u64 = set.files.iter().filter_map(|file| file.bytes).sum();
        assert!(set.base.starts_with("https://") && set.base.ends_with('/') && stated <= set.bytes, "{}", set.name);
        assert!(!set.licence.is_empty() && set.terms.starts_with("http") && !set.files.is_empty());
    }
    assert_eq!(named(sets.clone(), "MNIST").unwrap().files.len(), 4);
    let error = named(sets, "mnst").unwrap_err();
    assert!(error.hint().unwrap().starts_with("did you mean mnist?"), "{error:?}");
}

#[test]
fn tables_that_would_write_elsewhere_are_refused() {
    let table = |base: &str, name: &str| {
        let text = format!(
            "[[set]]\nname = \"a\"\nabout = \"\"\nlicence = \"\"\nterms = \"\"\npage = \"\"\nbytes = 1\nbase = \"{base}\"\n\
             files = [{{ name = \"{name}\" }}]"
        );
        parse(&text, Path::new("t.toml")).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(table("https://example.org/", "a.txt"), Ok(()));
    for (base, name) in [
        ("http://example.org/", "a.txt"),
        ("file:///etc/", "passwd"),
        ("https://example.org/", "../a.txt"),
        ("https://example.org/", "/etc/passwd"),
        ("https://example.org/", ".ssh"),
        ("https://example.org/", "SHA256SUMS"),
        ("https://example.org/", ""),
    ] {
        assert!(table(base, name).unwrap_err().contains("t.toml"), "{base} {name}");
    }
    assert!(parse("[[set]]\nnmae = 1", Path::new("t.toml")).unwrap_err().to_string().contains("line"));
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new(&[1000, 1, 20_000]);
    let got = run(&set(None, None), dir.path(), &fake).unwrap();
    assert_eq!(*fake.from.borrow(), [0, 1000, 1001, 21_001]);
    assert_eq!(std::fs::read(dir.path().join("a.txt")).unwrap(), fake.content);
    assert_eq!((got[0].bytes, got[0].fetched), (40_000, true));
    assert_eq!(names(dir.path()), [SUMS, "a.txt"]);

    // A second process, after one that got no further.
    let dir = tempfile::tempdir().unwrap();
    let error = run(&set(None, None), dir.path(), &Fake::new(&[5000, 0])).unwrap_err();
    assert!(error.contains("goes on from 5000 bytes") && error.contains("a.txt"), "{error}");
    assert_eq!(names(dir.path()), ["a.txt.part"]);
    let fake = Fake::new(&[]);
    assert_eq!(run(&set(Some(&got[0].sha256), Some(40_000)), dir.path(), &fake).unwrap()[0].sha256, got[0].sha256);
    assert_eq!(*fake.from.borrow(), [5000]);
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake { ranges: false, ..Fake::new(&[5000]) };
    run(&set(None, None), dir.path(), &fake).unwrap();
    assert_eq!(*fake.from.borrow(), [0, 5000, 0]);
    assert_eq!(std::fs::read(dir.path().join("a.txt")).unwrap(), fake.content);
}

#[test]
fn a_wrong_checksum_or_size_is_named_and_the_file_gets_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = "0".repeat(64);
    let error = run(&set(Some(&wrong), None), dir.path(), &Fake::new(&[])).unwrap_err();
    assert!(error.contains(&wrong) && error.contains("a.txt: content"), "{error}");
    assert!(names(dir.path()).is_empty());
    let error = run(&set(None, Some(40_001)), dir.path(), &Fake::new(&[])).unwrap_err();
    assert!(error.contains("expected 40001 bytes, found 40000"), "{error}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn the_first_checksum_is_kept_and_what_is_there_is_checked_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = run(&set(None, None), dir.path(), &Fake::new(&[])).unwrap();
    let fake = Fake::new(&[]);
    let again = run(&set(None, None), dir.path(), &fake).unwrap();
    assert!(fake.from.borrow().is_empty() && !again[0].fetched && again[0].sha256 == first[0].sha256);
    std::fs::write(dir.path().join("a.txt"), "another version").unwrap();
    let error = run(&set(None, None), dir.path(), &fake).unwrap_err();
    assert!(error.contains(&first[0].sha256) && error.contains("remove it"), "{error}");
    // Another version at the address is not taken for the same.
    std::fs::remove_file(dir.path().join("a.txt")).unwrap();
    let other = Fake { content: b"other".to_vec(), ..Fake::new(&[]) };
    assert!(run(&set(None, None), dir.path(), &other).unwrap_err().contains(&first[0].sha256));
    // By hand, and unchecked so far: it is pinned.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), &fake.content).unwrap();
    assert_eq!(run(&set(None, None), dir.path(), &fake).unwrap()[0].sha256, first[0].sha256);
    assert_eq!(std::fs::read_to_string(dir.path().join(SUMS)).unwrap(), format!("{}  a.txt\n", first[0].sha256));
}

/// A disk of which the n-th operation fails.
#[derive(Debug)]
struct Failing {
    left: std::sync::Arc<std::sync::atomic::AtomicI64>,
}

impl Failing {
    fn operation(&self) -> std::io::Result<()> {
        match self.left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Err(std::io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct FailingFile(Box<dyn disk::File>, Failing);

macro_rules! counted {
    ($disk:expr, $call:expr) => {{
        $disk.operation()?;
        $call
    }};
}

impl Read for FailingFile {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        counted!(self.1, self.0.read(to))
    }
}

impl Write for FailingFile {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        // Half of it is on the disk before there is no room.
        if let Err(e) = self.1.operation() {
            self.0.write_all(&from[..from.len() / 2])?;
            return Err(e);
        }
        self.0.write(from)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Seek for FailingFile {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        counted!(self.1, self.0.seek(to))
    }
}

impl disk::File for FailingFile {
    fn sync(&self) -> std::io::Result<()> {
        counted!(self.1, self.0.sync())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        counted!(self.1, self.0.set_len(len))
    }

    fn try_lock(&self) -> std::io::Result<bool> {
        counted!(self.1, self.0.try_lock())
    }
}

impl Disk for Failing {
    fn open(&self, path: &Path, how: Open) -> std::io::Result<Box<dyn disk::File>> {
        let file = counted!(self, Os.open(path, how))?;
        Ok(Box::new(FailingFile(file, Failing { left: self.left.clone() })))
    }

    fn list(&self, dir: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
        counted!(self, Os.list(dir))
    }

    fn kind(&self, path: &Path) -> std::io::Result<Option<Kind>> {
        counted!(self, Os.kind(path))
    }

    fn create_dir(&self, dir: &Path) -> std::io::Result<()> {
        counted!(self, Os.create_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        counted!(self, Os.rename(from, to))
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        counted!(self, Os.remove(path))
    }

    fn remove_all(&self, dir: &Path) -> std::io::Result<()> {
        counted!(self, Os.remove_all(dir))
    }

    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        counted!(self, Os.sync_dir(dir))
    }
}

#[test]
fn a_disk_that_fails_at_any_operation_leaves_no_file_that_looks_whole_and_the_next_call_ends_well() {
    let whole = Fake::new(&[]).content;
    for operation in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let left = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(operation));
        let disk = Failing { left: left.clone() };
        let first = get(&disk, &set(None, None), usize::MAX, &out, &Fake::new(&[3000]), &mut |_, _| ());
        if let Ok(there) = std::fs::read(out.join("a.txt")) {
            assert!(there == whole, "after operation {operation}");
        }
        if left.load(std::sync::atomic::Ordering::Relaxed) >= 0 {
            assert!(first.is_ok() && operation > 20, "{operation}: {first:?}");
            return;
        }
        // What fails at the very end, as the removal of something, may still be a success.
        if let Err(error) = first {
            assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
        }
        run(&set(None, None), &out, &Fake::new(&[])).unwrap();
        assert!(std::fs::read(out.join("a.txt")).unwrap() == whole, "after operation {operation}");
        assert_eq!(names(&out), [SUMS, "a.txt"], "after operation {operation}");
    }
}
