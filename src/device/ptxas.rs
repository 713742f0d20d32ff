//! NVIDIA's assembler, where there is one: the registers and spills of kernels on each target.

use super::ptx::{Module, Problem};
use crate::error::{AtPath, Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A `ptxas`.
#[derive(Clone, Debug)]
pub struct Assembler {
    path: PathBuf,
}

/// What a kernel takes on a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The kernel.
    pub entry: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread stores to and loads from local memory because registers do not suffice, counted once for each
    /// place in the code.
    pub spills: [u32; 2],
}

const HINT: &str = "name one with --ptxas or KILN_PTXAS; the package nvidia-cuda-nvcc of PyPI holds one: \
                    pip install --no-deps --target DIR nvidia-cuda-nvcc==13.0.88, then DIR/nvidia/cu13/bin/ptxas";

impl Assembler {
    /// The assembler at `path`, or that which `KILN_PTXAS` names, or the one in `PATH`.
    ///
    /// # Errors
    /// There is none, or it is no assembler.
    pub fn find(path: Option<&Path>) -> Result<Assembler> {
        let named = path.map(|path| (path.to_owned(), "--ptxas"));
        let named = named.or_else(|| std::env::var_os("KILN_PTXAS").map(|path| (path.into(), "KILN_PTXAS")));
        let (path, from) = named.unwrap_or_else(|| ("ptxas".into(), "PATH"));
        let refuse = |why: String| Err(Error::device(format!("{} (from {from}): {why}", path.display()), HINT));
        match Command::new(&path).arg("--version").output() {
            Err(error) if from == "PATH" && error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::device("there is no ptxas in PATH", HINT))
            }
            Err(error) => refuse(format!("it does not run: {error}")),
            Ok(out) if !String::from_utf8_lossy(&out.stdout).contains("ptxas") => refuse("it is no ptxas".into()),
            Ok(_) => Ok(Assembler { path }),
        }
    }

    /// Assembles a module for a target, as `sm_80`; the result is thrown away.
    ///
    /// # Errors
    /// It does not take the module: its first complaint, with the line as it was written; or what it says of the entries is
    /// not understood.
    pub fn assemble(&self, module: &Module, target: &str) -> Result<Vec<Usage>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("kiln-{}-{}.ptx", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, &module.source.expanded.text).at(&file)?;
        let null = if cfg!(windows) { "NUL" } else { "/dev/null" };
        let out = Command::new(&self.path).args([&format!("-arch={target}"), "-v", "-o", null]).arg(&file).output();
        // What is left in the temporary folder does no harm.
        let _ = std::fs::remove_file(&file);
        let out = out.at(&self.path)?;
        let said = String::from_utf8_lossy(&out.stderr);
        if !out.status.success() {
            return Err(complaint(module, target, &said));
        }
        let usage = read(&said);
        if usage.len() != module.entries.len() {
            let problem =
                format!("{}: what ptxas says of its kernels for {target} is not understood", module.source.name);
            return Err(Error::device(problem, "use the ptxas of CUDA 12 or 13"));
        }
        Ok(usage)
    }
}

/// What `ptxas -v` says of each entry.
fn read(said: &str) -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    for line in said.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let entry = rest.split('\'').next().unwrap_or_default().to_owned();
            all.push(Usage { entry, registers: 0, spills: [0; 2] });
        }
        let Some(usage) = all.last_mut() else { continue };
        let before = |what: &str| line.split(what).next()?.rsplit(' ').next()?.parse().ok();
        if line.contains(" bytes spill stores") {
            usage.spills = [" bytes spill stores", " bytes spill loads"].map(|what| before(what).unwrap_or(0));
        } else if line.contains("Used ") {
            usage.registers = before(" registers").unwrap_or(0);
        }
    }
    all.retain(|usage| usage.registers > 0);
    all.sort_by(|a, b| a.entry.cmp(&b.entry));
    all
}

/// Its first complaint, which reads `ptxas FILE, line 12; error   : …`.
fn complaint(module: &Module, target: &str, said: &str) -> Error {
    let first = said.lines().find(|line| line.contains("error") || line.contains("fatal")).unwrap_or(said).trim();
    let line = first.split(", line ").nth(1).and_then(|rest| rest.split(';').next()?.parse().ok());
    let message = first.split("; ").nth(1).unwrap_or(first);
    let place = module.source.expanded.place(line.unwrap_or(0), 1);
    let message = format!("ptxas for {target}: {message}");
    module.source.error(&Problem { line: place.line, column: 1, calls: place.calls, message, hint: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_and_spills_are_read() {
        let said = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'g' for 'sm_80'\n\
            ptxas info    : Function properties for g\n    \
            16 bytes stack frame, 24 bytes spill stores, 32 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 1 barriers, 400 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'f' for 'sm_80'\n\
            ptxas info    : Function properties for f\n    \
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 10 registers, 368 bytes cmem[0]\n";
        let usage = |entry: &str, registers, spills| Usage { entry: entry.into(), registers, spills };
        assert_eq!(read(said), [usage("f", 10, [0, 0]), usage("g", 255, [24, 32])]);
    }

    #[test]
    fn a_program_that_is_no_assembler_is_refused_with_the_way_to_one() {
        for path in ["/nowhere/ptxas", "/bin/true"] {
            let error = Assembler::find(Some(Path::new(path))).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{path} (from --ptxas): it ")), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("nvidia-cuda-nvcc")));
        }
    }
}
