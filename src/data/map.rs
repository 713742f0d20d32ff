//! Files mapped into memory, such that one that changes underneath is an [`Error`] and never a signal.
//!
//! Reading a mapped page that its file has lost raises SIGBUS, which kills a process. So [`Map`]s are listed, and one
//! handler for the process puts zeros where a listed map has lost its pages and marks it. [`Map::check`], called after
//! bytes were used and before anybody relies on them, tells of the mark. It also compares the file's size and time with
//! what they were: zeros behind the end of the last page, and bytes rewritten in place, raise no signal. A file that
//! was replaced by rename, or removed, is no change: the map keeps the old one.
//!
//! Where there are no such signals, as on Windows, the file is read into memory.

use std::path::{Path, PathBuf};

use crate::error::{AtPath, Error, Result};

/// A regular file in memory, read-only.
#[cfg(unix)]
pub struct Map {
    bytes: memmap2::Mmap,
    path: PathBuf,
    /// The file as it was when mapped.
    stamp: Stamp,
    /// Its place in the list of maps.
    entry: &'static sigbus::Entry,
}

/// A regular file in memory, read-only.
#[cfg(not(unix))]
pub struct Map {
    bytes: Vec<u8>,
    path: PathBuf,
}

impl Map {
    /// Maps the whole file.
    ///
    /// # Errors
    /// It cannot be opened, or is no regular file.
    pub fn open(path: &Path) -> Result<Map> {
        // Asked before it is opened: opening a pipe waits for its writer.
        let meta = path.metadata().at(path)?;
        if !meta.is_file() {
            let found = if meta.is_dir() { "a folder" } else { "a pipe or a device" };
            return Err(Error::format(path, "kind of file", "a regular file", found, "give a file that is on a disk"));
        }
        Map::of(path)
    }

    #[cfg(not(unix))]
    fn of(path: &Path) -> Result<Map> {
        Ok(Map { bytes: std::fs::read(path).at(path)?, path: path.to_owned() })
    }

    #[cfg(unix)]
    fn of(path: &Path) -> Result<Map> {
        let file = std::fs::File::open(path).at(path)?;
        let stamp = Stamp::of(&file.metadata().at(path)?);
        // SAFETY: the file may be shortened or changed by others. What it loses is replaced by zeros (`sigbus`, which is
        // told of the map before any of it is read), every byte is a valid `u8`, and whoever uses bytes copies them
        // first and then checks the copy.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.at(path)?;
        let entry = sigbus::list(&bytes).at(path)?;
        Ok(Map { bytes, path: path.to_owned(), stamp, entry })
    }

    /// Fails where the file is no longer what it was when it was mapped, so that what was read may be zeros or of two
    /// versions. Allocates nothing unless it fails.
    #[cfg(unix)]
    pub fn check(&self) -> Result<()> {
        // An error, or another file of the name: this one was removed or replaced, and the map has it still.
        let now = self.path.metadata().ok().map(|meta| Stamp::of(&meta)).filter(|now| now.file == self.stamp.file);
        let len = now.as_ref().map_or(self.stamp.len, |now| now.len);
        let found = match now {
            _ if self.entry.is_torn() || len < self.stamp.len => {
                format!("{len} of {} bytes: it was truncated while in use", self.stamp.len)
            }
            Some(now) if now != self.stamp => "that it was changed while in use".to_owned(),
            _ => return Ok(()),
        };
        Err(Error::format(
            &self.path,
            "content",
            "the file as it was when it was opened",
            found,
            "put the file back as it was; a run then goes on with: kiln train --resume RUN",
        ))
    }

    /// Always passes: the bytes are a copy.
    #[cfg(not(unix))]
    pub fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl std::ops::Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(unix)]
impl Drop for Map {
    fn drop(&mut self) {
        // Before the field that unmaps it is dropped.
        self.entry.release();
    }
}

/// What a file is and was last changed.
#[cfg(unix)]
#[derive(PartialEq)]
struct Stamp {
    /// Device and number.
    file: (u64, u64),
    len: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

#[cfg(unix)]
impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        Stamp { file: (meta.dev(), meta.ino()), len: meta.len(), changed: (meta.mtime(), meta.mtime_nsec()) }
    }
}

/// The list of maps and the handler of SIGBUS, which reads it.
///
/// The handler may interrupt any thread anywhere, so it takes no lock and allocates nothing: it walks a list whose
/// entries are only ever added (those of maps that are gone serve later ones) and reads atomics.
#[cfg(unix)]
mod sigbus {
    use std::io;
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
    use std::sync::{Mutex, OnceLock, PoisonError};

    /// A map, from its first byte to the end of its last page; free where `start` is 0.
    pub struct Entry {
        start: AtomicUsize,
        end: AtomicUsize,
        torn: AtomicBool,
        next: *const Entry,
    }

    // SAFETY: `next` is null or a leaked entry, and never changes; the rest are atomics.
    unsafe impl Sync for Entry {}
    // SAFETY: as above.
    unsafe impl Send for Entry {}

    /// The entry that was added last, from which all others are reached.
    static LIST: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());
    /// Entries of maps that are gone. Held by whoever changes the list.
    static FREE: Mutex<Vec<&'static Entry>> = Mutex::new(Vec::new());
    /// What SIGBUS did before.
    static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
    static PAGE: AtomicUsize = AtomicUsize::new(0);

    impl Entry {
        /// Whether a page of the map was lost.
        pub fn is_torn(&self) -> bool {
            self.torn.load(SeqCst)
        }

        /// Takes the map off the list; it must not be read any more.
        pub fn release(&'static self) {
            self.start.store(0, SeqCst);
            self.end.store(0, SeqCst);
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }

        /// The addresses of the map, if they did not change while they were read.
        fn range(&self) -> Option<std::ops::Range<usize>> {
            let (start, end) = (self.start.load(SeqCst), self.end.load(SeqCst));
            (start != 0 && start == self.start.load(SeqCst)).then_some(start..end)
        }
    }

    /// Puts the mapped `bytes` on the list.
    pub fn list(bytes: &[u8]) -> io::Result<&'static Entry> {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if PREVIOUS.get().is_none() {
            install()?;
        }
        let entry = free.pop().unwrap_or_else(|| {
            let new = Entry {
                start: AtomicUsize::new(0),
                end: AtomicUsize::new(0),
                torn: AtomicBool::new(false),
                next: LIST.load(SeqCst),
            };
            let new: &'static Entry = Box::leak(Box::new(new));
            LIST.store(ptr::from_ref(new).cast_mut(), SeqCst);
            new
        });
        let start = bytes.as_ptr() as usize;
        entry.torn.store(false, SeqCst);
        entry.end.store((start + bytes.len()).next_multiple_of(PAGE.load(SeqCst)), SeqCst);
        entry.start.store(start, SeqCst);
        Ok(entry)
    }

    /// Makes [`on_sigbus`] the handler, and remembers the one before it.
    fn install() -> io::Result<()> {
        // SAFETY: both calls get valid structures, of which zeros are a valid value; the handler has the signature that
        // SA_SIGINFO asks for. SA_ONSTACK: where a thread has a stack for signals, its own may be the one that is full.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE);
            PAGE.store(usize::try_from(page).unwrap_or(4096).max(1), SeqCst);
            let (mut new, mut old): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, ptr::null(), &mut old) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Before ours can run.
            let _ = PREVIOUS.set(old);
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
            new.sa_sigaction = handler as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            if libc::sigaction(libc::SIGBUS, &new, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the system passes a valid `siginfo_t`; a fault (a code above 0) has an address.
        let (fault, address) = unsafe { ((*info).si_code > 0, (*info).si_addr() as usize) };
        if !(fault && mend(address)) {
            pass_on(signal, info, context);
        }
    }

    /// Puts zeros in place of the page at `address` and all that follow in its map; whether it is in one. What is lost
    /// is all behind the file's end, so one call serves the whole rest.
    fn mend(address: usize) -> bool {
        let page = PAGE.load(SeqCst);
        let mut next: *const Entry = LIST.load(SeqCst);
        // SAFETY: entries are leaked, so each pointer is null or valid for ever.
        while let Some(entry) = unsafe { next.as_ref() } {
            next = entry.next;
            let Some(range) = entry.range().filter(|range| range.contains(&address)) else { continue };
            let from = address - address % page;
            let (how, kind) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED);
            // Marked first: another thread may read the zeros as soon as they are there.
            entry.torn.store(true, SeqCst);
            // SAFETY: the pages from `from` to the end of `range` belong to a map whose owner only reads them and is
            // being waited for: the thread that faulted borrows it. mmap is a plain system call, and safe here.
            let zeros = unsafe { libc::mmap(from as *mut libc::c_void, range.end - from, how, kind, -1, 0) };
            return zeros != libc::MAP_FAILED;
        }
        false
    }

    /// The number of entries, free or not.
    #[cfg(test)]
    pub fn length() -> usize {
        // SAFETY: entries are leaked.
        let entry = |at: *const Entry| unsafe { at.as_ref() };
        std::iter::successors(entry(LIST.load(SeqCst)), |e| entry(e.next)).count()
    }

    /// Does what would have been done without kiln.
    fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let default = |action: &&libc::sigaction| [libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
        match PREVIOUS.get().filter(|action| !default(action)) {
            // SAFETY: what was installed with this flag takes these arguments.
            Some(previous) if previous.sa_flags & libc::SA_SIGINFO != 0 => unsafe {
                type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<usize, Handler>(previous.sa_sigaction)(signal, info, context);
            },
            // SAFETY: what was installed without it takes the number alone.
            Some(previous) => unsafe {
                std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(previous.sa_sigaction)(signal);
            },
            // SAFETY: a valid structure. The fault comes again when this returns, and ends the process.
            None => unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &default, ptr::null_mut());
            },
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A file of `bytes` ones, mapped.
    fn mapped(dir: &tempfile::TempDir, bytes: usize) -> (PathBuf, Map) {
        let path = dir.path().join("x.bin");
        std::fs::write(&path, vec![1u8; bytes]).unwrap();
        let map = Map::open(&path).unwrap();
        map.check().unwrap();
        (path, map)
    }

    fn truncate(path: &Path, len: u64) {
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
    }

    fn sum(map: &[u8]) -> usize {
        map.iter().map(|&b| usize::from(b)).sum()
    }

    #[test]
    fn a_truncated_file_reads_as_zeros_and_is_an_error() {
        // To nothing, to half, within a page, and within the last page, where there is no signal.
        for len in [0, 3 * 4096, 4096 + 77, 5 * 4096 + 500] {
            let dir = tempfile::tempdir().unwrap();
            let (path, map) = mapped(&dir, 5 * 4096 + 1000);
            truncate(&path, len);
            assert!(sum(&map) <= len as usize + 4096);
            let error = map.check().unwrap_err();
            let message = error.to_string();
            assert!(message.contains("x.bin") && message.contains("truncated while in use"), "{message}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_file_that_grew_back_is_still_marked() {
        let dir = tempfile::tempdir().unwrap();
        let (path, map) = mapped(&dir, 3 * 4096);
        let changed = path.metadata().unwrap().modified().unwrap();
        truncate(&path, 0);
        assert_eq!(sum(&map), 0);
        std::fs::write(&path, vec![1u8; 3 * 4096]).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
        assert!(map.check().unwrap_err().to_string().contains("truncated while in use"));
        // A map made in the same place of the list starts with a clean slate.
        drop(map);
        Map::open(&path).unwrap().check().unwrap();
    }

    #[test]
    fn what_changes_the_file_is_noticed_and_what_replaces_it_is_not() {
        use std::time::{Duration, SystemTime};
        let dir = tempfile::tempdir().unwrap();
        let (path, map) = mapped(&dir, 10_000);
        let other = dir.path().join("other");
        std::fs::write(&other, b"short").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(sum(&map), 10_000);
        map.check().unwrap();
        std::fs::remove_file(&path).unwrap();
        map.check().unwrap();

        for change in ["grown", "rewritten"] {
            let (path, map) = mapped(&dir, 10_000);
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            match change {
                "grown" => file.set_len(10_001).unwrap(),
                // The clock of a file system ticks in milliseconds.
                _ => file.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap(),
            }
            let message = map.check().unwrap_err().to_string();
            assert!(message.contains("changed while in use"), "{change}: {message}");
        }
    }

    #[test]
    fn many_threads_may_meet_the_same_lost_pages() {
        let dir = tempfile::tempdir().unwrap();
        let (path, map) = mapped(&dir, 64 * 4096);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..20).map(|_| sum(&map)).min())).collect();
            truncate(&path, 10_000);
            threads.into_iter().for_each(|thread| assert!(thread.join().unwrap() >= Some(10_000)));
        });
        assert_eq!(sum(&map), 10_000);
        assert!(map.check().is_err());
    }

    #[test]
    fn maps_that_come_and_go_reuse_their_entries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.bin");
        std::fs::write(&path, [1; 100]).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| drop(Map::open(&path).unwrap())));
            }
        });
        let length = sigbus::length();
        assert!(length < 100, "{length} entries for a handful of maps");
    }

    #[test]
    fn a_fault_outside_of_the_list_ends_the_process_as_before() {
        use std::os::unix::process::ExitStatusExt;
        let name = "data::map::tests::a_fault_outside_of_the_list_ends_the_process_as_before";
        if std::env::var_os("KILN_TEST_FAULT").is_some() {
            // The child: a map that nobody listed, beside one that is.
            let dir = tempfile::tempdir().unwrap();
            let _listed = mapped(&dir, 4096);
            let path = dir.path().join("unlisted");
            std::fs::write(&path, [1; 4096]).unwrap();
            // SAFETY: the fault is what is tested.
            let bytes = unsafe { memmap2::Mmap::map(&std::fs::File::open(&path).unwrap()) }.unwrap();
            truncate(&path, 0);
            std::process::exit(sum(&bytes) as i32);
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args([name, "--exact"]).env("KILN_TEST_FAULT", "1").output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }

    #[test]
    fn what_is_no_file_is_named_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, kind) in [(pipe.as_path(), "a pipe"), (dir.path(), "a folder"), (Path::new("/dev/zero"), "a device")]
        {
            let message = Map::open(path).err().unwrap().to_string();
            assert!(message.contains(kind), "{message}");
        }
    }
}
