//! What kiln asks of a CUDA driver. A GPU and its simulation answer alike.
//!
//! A module is PTX that was parsed ([`ptx::Module`](super::ptx::Module)), so that a launch can be checked against the
//! kernel's parameter list: CUDA itself takes any bytes.

use super::ptx::{Entry, Module, Type};
use super::sim::Counters;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// An address in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ptr(pub u64);

impl Ptr {
    /// The address `bytes` further on.
    pub fn offset(self, bytes: usize) -> Ptr {
        Ptr(self.0 + bytes as u64)
    }
}

/// An argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// An unsigned number.
    U32(u32),
    /// A number with a sign.
    I32(i32),
    /// A float.
    F32(f32),
    /// A wide number.
    U64(u64),
    /// An address.
    Ptr(Ptr),
}

impl Arg {
    /// Its bytes, and how many of them count.
    fn bytes(self) -> ([u8; 8], usize) {
        match self {
            Arg::U32(x) => (u64::from(x).to_le_bytes(), 4),
            Arg::I32(x) => (u64::from(x as u32).to_le_bytes(), 4),
            Arg::F32(x) => (u64::from(x.to_bits()).to_le_bytes(), 4),
            Arg::U64(x) | Arg::Ptr(Ptr(x)) => (x.to_le_bytes(), 8),
        }
    }

    /// Whether a parameter of type `ty` takes it.
    fn fits(self, ty: Type) -> bool {
        match self {
            Arg::U32(_) => ty.bits() == 32 && !ty.float() && !ty.signed(),
            Arg::I32(_) => ty.bits() == 32 && !ty.float(),
            Arg::F32(_) => matches!(ty, Type::F32 | Type::B32),
            Arg::U64(_) | Arg::Ptr(_) => matches!(ty, Type::U64 | Type::B64 | Type::S64),
        }
    }
}

macro_rules! from {
    ($($ty:ty => $arg:ident),*) => { $(impl From<$ty> for Arg {
        fn from(x: $ty) -> Arg {
            Arg::$arg(x)
        }
    })* };
}
from!(u32 => U32, i32 => I32, f32 => F32, u64 => U64, Ptr => Ptr);

/// How many threads run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks.
    pub blocks: [u32; 3],
    /// Threads of a block.
    pub threads: [u32; 3],
    /// Bytes of shared memory for each block, beside those that the kernel declares.
    pub shared: usize,
}

impl Grid {
    /// `blocks` blocks of `threads` threads in a row.
    pub fn new(blocks: u32, threads: u32) -> Grid {
        Grid { blocks: [blocks, 1, 1], threads: [threads, 1, 1], shared: 0 }
    }

    /// At least `n` threads, in blocks of 256.
    pub fn each(n: usize) -> Grid {
        Grid::new(n.div_ceil(256) as u32, 256)
    }
}

/// A kernel that was loaded: its module, and its place there.
#[derive(Clone, Debug)]
pub struct Function {
    /// The module.
    pub module: Arc<Module>,
    /// The entry, an index into [`Module::entries`].
    pub entry: usize,
    /// The driver's own number for it.
    pub id: usize,
}

impl Function {
    /// The kernel.
    pub fn kernel(&self) -> &Entry {
        &self.module.entries[self.entry]
    }
}

/// A device with memory of its own that runs kernels. All calls are in the order in which they are made; what a
/// [`launch`](Driver::launch) does is certain to be done after [`sync`](Driver::sync).
pub trait Driver: Send + Sync {
    /// What it is, in a line.
    fn describe(&self) -> String;

    /// Bytes of memory that allocations can have, all together.
    fn memory(&self) -> usize;

    /// Whether it only counts: nothing is computed, and what is read from it is 0.
    fn is_dry(&self) -> bool {
        false
    }

    /// `bytes` bytes of memory, at a multiple of 256. Their content is arbitrary.
    ///
    /// # Errors
    /// There is not so much.
    fn alloc(&self, bytes: usize) -> Result<Ptr>;

    /// Gives memory back.
    ///
    /// # Errors
    /// `ptr` is not the beginning of an allocation.
    fn free(&self, ptr: Ptr) -> Result<()>;

    /// Copies to the device.
    ///
    /// # Errors
    /// The bytes do not lie in one allocation.
    fn upload(&self, to: Ptr, from: &[u8]) -> Result<()>;

    /// Copies from the device, when all launches before are done.
    ///
    /// # Errors
    /// The bytes do not lie in one allocation; a launch before failed.
    fn download(&self, to: &mut [u8], from: Ptr) -> Result<()>;

    /// Sets `words` words of 32 bits.
    ///
    /// # Errors
    /// They do not lie in one allocation.
    fn fill(&self, to: Ptr, word: u32, words: usize) -> Result<()>;

    /// Loads kernel `name` of a module.
    ///
    /// # Errors
    /// There is none of that name; the device cannot take the module.
    fn function(&self, module: &Arc<Module>, name: &str) -> Result<Function>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// The arguments do not fit the kernel's parameters, the grid does not fit the device, or the kernel failed; some
    /// devices say the last only at the next [`sync`](Driver::sync).
    fn launch(&self, function: &Function, grid: Grid, args: &[Arg]) -> Result<()>;

    /// Waits until all is done.
    ///
    /// # Errors
    /// A launch failed.
    fn sync(&self) -> Result<()>;

    /// Begins a recording: what is launched and filled from here on is kept, and not done. Nothing else may be asked for
    /// meanwhile.
    ///
    /// # Errors
    /// The driver cannot.
    fn record(&self) -> Result<()>;

    /// Ends the recording, and gives its number.
    ///
    /// # Errors
    /// Something in it cannot be recorded.
    fn recorded(&self) -> Result<usize>;

    /// Does what was recorded, in one call. The memory that it names must still be allocated.
    ///
    /// # Errors
    /// As of [`launch`](Driver::launch).
    fn replay(&self, recording: usize) -> Result<()>;

    /// Notes under `number` when all that was launched so far is done. A number may be used again; small ones cost less.
    ///
    /// # Errors
    /// The driver cannot.
    fn mark(&self, number: usize) -> Result<()>;

    /// Seconds from one mark to a later one; waits for it.
    ///
    /// # Errors
    /// A launch before failed.
    fn between(&self, first: usize, second: usize) -> Result<f64>;

    /// What `size` ranks are told to [meet](Driver::join) by; one of them asks.
    ///
    /// # Errors
    /// The driver cannot add up over several devices.
    fn meeting(&self, size: usize) -> Result<Vec<u8>> {
        let _ = size;
        Err(alone(&self.describe()))
    }

    /// Joins the drivers of other ranks, each of which calls this; waits until all are there.
    ///
    /// # Errors
    /// As of [`meeting`](Driver::meeting); they do not come.
    fn join(&self, meeting: &[u8], rank: usize, size: usize) -> Result<()> {
        let _ = (meeting, rank, size);
        Err(alone(&self.describe()))
    }

    /// Adds `len` f32 up over all ranks that were joined, in place, after all launches before.
    ///
    /// # Errors
    /// None were joined; they do not lie in one allocation.
    fn all_reduce(&self, at: Ptr, len: usize) -> Result<()> {
        let _ = (at, len);
        Err(alone(&self.describe()))
    }

    /// What the last launch did, on a device that counts it.
    fn counted(&self) -> Option<Counters> {
        None
    }
}

/// Why a driver does not add up.
pub(super) fn alone(name: &str) -> Error {
    Error::device(format!("{name} has met no other device"), "start one process")
}

/// A driver that computes nothing and counts memory, which nobody may touch.
pub struct Dry {
    limit: usize,
    used: AtomicUsize,
}

impl Dry {
    /// A driver with `limit` bytes of memory.
    pub fn new(limit: usize) -> Dry {
        Dry { limit, used: AtomicUsize::new(0) }
    }
}

impl Driver for Dry {
    fn describe(&self) -> String {
        "a device that computes nothing".into()
    }

    fn memory(&self) -> usize {
        self.limit
    }

    fn is_dry(&self) -> bool {
        true
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr> {
        let bytes = bytes.next_multiple_of(256);
        let before = self.used.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.limit {
            return Err(Error::device(format!("no {bytes} bytes are left"), "use a smaller batch"));
        }
        Ok(Ptr(256 + before as u64))
    }

    fn free(&self, _: Ptr) -> Result<()> {
        Ok(())
    }

    fn upload(&self, _: Ptr, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, to: &mut [u8], _: Ptr) -> Result<()> {
        to.fill(0);
        Ok(())
    }

    fn fill(&self, _: Ptr, _: u32, _: usize) -> Result<()> {
        Ok(())
    }

    fn function(&self, module: &Arc<Module>, name: &str) -> Result<Function> {
        Ok(Function { entry: find(module, name)?, module: Arc::clone(module), id: 0 })
    }

    fn launch(&self, _: &Function, _: Grid, _: &[Arg]) -> Result<()> {
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn record(&self) -> Result<()> {
        Ok(())
    }

    fn recorded(&self) -> Result<usize> {
        Ok(0)
    }

    fn mark(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn between(&self, _: usize, _: usize) -> Result<f64> {
        Ok(0.0)
    }

    fn replay(&self, _: usize) -> Result<()> {
        Ok(())
    }
}

/// The entry called `name`.
///
/// # Errors
/// There is none; the message names those that there are.
pub fn find(module: &Module, name: &str) -> Result<usize> {
    module.entries.iter().position(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<&str> = module.entries.iter().map(|entry| entry.name.as_str()).collect();
        let hint = format!("it has: {}", names.join(", "));
        Error::device(format!("{}: there is no kernel `{name}`", module.source.name), hint)
    })
}

/// The bytes of a kernel's parameters, seen to be what its list says.
///
/// # Errors
/// Another number of arguments, or one of another type, named with its place and its parameter.
pub fn parameters(module: &Module, entry: &Entry, args: &[Arg]) -> Result<Vec<u8>> {
    let name = format!("{}: kernel {}", module.source.name, entry.name);
    if args.len() != entry.params.len() {
        let list: Vec<String> = entry.params.iter().map(|p| format!(".{} {}", types(p.ty), p.name)).collect();
        let problem = format!("{name} takes {} arguments, {} are given", entry.params.len(), args.len());
        return Err(Error::device(problem, format!("its parameters are: {}", list.join(", "))));
    }
    let mut bytes = Vec::new();
    for (i, (arg, param)) in args.iter().zip(&entry.params).enumerate() {
        if !arg.fits(param.ty) {
            let problem =
                format!("{name}: argument {i} is {arg:?}, parameter {} is a .{}", param.name, types(param.ty));
            return Err(Error::device(
                problem,
                "the order and the types of the arguments are those of the .param list",
            ));
        }
        let (value, len) = arg.bytes();
        bytes.resize(param.offset, 0);
        bytes.extend(&value[..len]);
    }
    Ok(bytes)
}

fn types(ty: Type) -> &'static str {
    use super::ptx::types::Word;
    ty.word()
}

/// Checks a grid against what a kernel asks for and what every GPU since sm_80 can do, with `limit` bytes of shared memory.
///
/// # Errors
/// No block or no thread, too many of them, other threads than the kernel demands, or too much shared memory.
pub fn check_grid(module: &Module, entry: &Entry, grid: Grid, limit: usize) -> Result<()> {
    let name = format!("{}: kernel {}", module.source.name, entry.name);
    let refuse = |problem: String, hint: &str| Err(Error::device(format!("{name}: {problem}"), hint));
    let threads: u64 = grid.threads.iter().map(|n| u64::from(*n)).product();
    let [x, y, z] = grid.blocks;
    if threads == 0 || threads > 1024 || grid.threads[2] > 64 {
        return refuse(
            format!("a block of {:?} threads", grid.threads),
            "a block has 1 to 1024 threads, at most 64 in z",
        );
    }
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65535 || z > 65535 {
        return refuse(
            format!("a grid of {:?} blocks", grid.blocks),
            "a grid has at least 1 block, at most 65535 in y and z",
        );
    }
    if let Some(block) = entry.block.filter(|block| *block != grid.threads) {
        return refuse(format!("blocks of {:?} threads, it demands {block:?}", grid.threads), "see its .reqntid");
    }
    let most = entry.max_threads.map(|most| most.iter().map(|n| u64::from(*n)).product());
    if let Some(most) = most.filter(|most: &u64| threads > *most) {
        return refuse(format!("blocks of {threads} threads, it allows {most}"), "see its .maxntid");
    }
    let shared = entry.shared.next_multiple_of(16) + grid.shared;
    if shared > limit {
        let problem = format!("{shared} bytes of shared memory for a block, the device has {limit}");
        return refuse(problem, "use smaller tiles or fewer stages");
    }
    if grid.shared == 0 && entry.dynamic_shared {
        return refuse(
            "it declares shared memory whose size the launch gives, and it gives none".into(),
            "give its bytes",
        );
    }
    Ok(())
}
