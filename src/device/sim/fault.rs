//! What the simulator refuses, said so that a reader finds the line, the thread and the cause.

use crate::device::ptx::Source;
use crate::error::Error;
use std::fmt;

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address outside of any allocation, or of the block's shared memory.
    Bounds,
    /// An address that is not a multiple of the access's size.
    Alignment,
    /// A register was read before anything wrote it.
    Register,
    /// Shared memory was read before anything wrote it.
    SharedUnwritten,
    /// Global memory was read before anything wrote it.
    GlobalUnwritten,
    /// Threads of a block touched the same shared memory with no barrier between.
    SharedRace,
    /// Shared memory was touched while an asynchronous copy into it was under way.
    AsyncCopy,
    /// Blocks touched the same global memory, at least one writing.
    GlobalRace,
    /// A barrier, or another instruction for the whole warp, was reached by a part of it.
    Divergence,
    /// All that is left of a block waits.
    Deadlock,
    /// A lane took a value from a lane that does not take part.
    Lane,
    /// A warp ran for too long.
    Steps,
    /// `trap`.
    Trap,
    /// Something that the simulator cannot do.
    Unsupported,
}

/// A fault as an instruction finds it.
#[derive(Debug)]
pub struct Trouble {
    /// What kind.
    pub kind: Kind,
    /// The lane.
    pub lane: u32,
    /// The address.
    pub address: Option<u64>,
    /// What happened.
    pub message: String,
    /// What to look at.
    pub hint: &'static str,
}

impl Trouble {
    /// Trouble of lane `lane`.
    #[cold]
    pub fn new(kind: Kind, lane: u32, message: impl Into<String>, hint: &'static str) -> Box<Trouble> {
        Box::new(Trouble { kind, lane, address: None, message: message.into(), hint })
    }

    /// The same, at an address.
    pub fn at(mut self: Box<Trouble>, address: u64) -> Box<Trouble> {
        self.address = Some(address);
        self
    }
}

/// A fault, with all that is known of it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What kind.
    pub kind: Kind,
    /// The kernel.
    pub kernel: String,
    /// The file.
    pub file: String,
    /// The line in the source as it was written.
    pub line: usize,
    /// The lines of the macro calls that led there, innermost first.
    pub calls: Vec<usize>,
    /// The instruction as it was expanded.
    pub text: String,
    /// The block.
    pub block: [u32; 3],
    /// The thread.
    pub thread: [u32; 3],
    /// The address, where there is one.
    pub address: Option<u64>,
    /// What happened.
    pub message: String,
    /// What to look at.
    pub hint: &'static str,
}

impl Fault {
    /// Completes `trouble` at line `line` of the expanded text.
    pub fn new(
        trouble: Trouble,
        source: &Source,
        kernel: &str,
        line: usize,
        block: [u32; 3],
        thread: [u32; 3],
    ) -> Fault {
        let place = source.expanded.place(line, 1);
        let mut text = source.expanded.text.lines().nth(line.wrapping_sub(1)).unwrap_or("").trim().to_owned();
        if let Some((file, line)) = source.expanded.library(line) {
            text.push_str(&format!("  // lib/{file}.ptx:{line}"));
        }
        Fault {
            kind: trouble.kind,
            kernel: kernel.to_owned(),
            file: source.name.clone(),
            line: place.line,
            calls: place.calls,
            text,
            block,
            thread,
            address: trouble.address,
            message: trouble.message,
            hint: trouble.hint,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bx, by, bz] = self.block;
        let [tx, ty, tz] = self.thread;
        write!(f, "{}:{}: kernel {}: {}", self.file, self.line, self.kernel, self.message)?;
        if !self.calls.is_empty() {
            let calls: Vec<String> = self.calls.iter().map(usize::to_string).collect();
            write!(f, " (in the macro called in line {})", calls.join(", called in line "))?;
        }
        write!(f, "\n  {}\n  block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz})", self.text)?;
        match self.address {
            Some(address) => write!(f, ", address {address:#x}"),
            None => Ok(()),
        }
    }
}

impl From<Box<Fault>> for Error {
    fn from(fault: Box<Fault>) -> Error {
        Error::device(&fault, fault.hint)
    }
}
