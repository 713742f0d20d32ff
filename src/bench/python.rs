//! The peers in Python: scripts that this program carries along, and a virtual environment to run them in.

use crate::data::atomic::write_atomic;
use crate::disk::Os;
use crate::error::{AtPath, Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The scripts of benches/peers, under their names.
const SCRIPTS: [(&str, &str); 9] = [
    ("common.py", include_str!("../../benches/peers/common.py")),
    ("model.py", include_str!("../../benches/peers/model.py")),
    ("gpt_torch.py", include_str!("../../benches/peers/gpt_torch.py")),
    ("pictures_model.py", include_str!("../../benches/peers/pictures_model.py")),
    ("pictures_torch.py", include_str!("../../benches/peers/pictures_torch.py")),
    ("decode_torch.py", include_str!("../../benches/peers/decode_torch.py")),
    ("decode_transformers.py", include_str!("../../benches/peers/decode_transformers.py")),
    ("kernels_torch.py", include_str!("../../benches/peers/kernels_torch.py")),
    ("tokenizer_peer.py", include_str!("../../benches/peers/tokenizer_peer.py")),
];

/// The packages that they need.
const PACKAGES: [&str; 3] = ["torch==2.15.0", "numpy", "transformers"];

/// What names an interpreter that has them, where `--python` does not.
const VARIABLE: &str = "KILN_PYTHON";

/// Variables by which programs and libraries learn how many threads to use.
pub const THREADS: [&str; 7] = [
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "MATMUL_NUM_THREADS",
];

/// The folder of scripts and environment: `kiln/peers` in the user's cache.
///
/// # Errors
/// The system names no such place.
pub fn folder() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("LOCALAPPDATA")).or_else(|| Some(set("HOME")?.join(".cache")));
    let none = || Error::usage("no folder for caches: HOME is not set", "set HOME, or XDG_CACHE_HOME");
    Ok(cache.ok_or_else(none)?.join("kiln/peers"))
}

/// The interpreter of the environment in `folder`.
fn own(folder: &Path) -> PathBuf {
    folder.join(if cfg!(windows) { "venv/Scripts/python.exe" } else { "venv/bin/python" })
}

/// The interpreter to use: the given one, else that of `KILN_PYTHON`, else that of [`setup`].
///
/// # Errors
/// There is none.
pub fn interpreter(given: Option<&Path>) -> Result<PathBuf> {
    let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(python) = given.map(Path::to_owned).or(named) {
        return Ok(python);
    }
    let own = own(&folder()?);
    if own.is_file() {
        return Ok(own);
    }
    let hint = format!(
        "kiln bench --setup-peers makes one; or name one that has torch (tiktoken, tokenizers): --python PATH, or {VARIABLE}"
    );
    Err(Error::usage("--against: there is no Python for the peers yet", hint))
}

/// A call of a script that is carried along.
///
/// # Errors
/// The scripts cannot be written to [`folder`].
pub fn command(python: &Path, script: &str) -> Result<Command> {
    let folder = folder()?;
    std::fs::create_dir_all(&folder).at(&folder)?;
    for (name, text) in SCRIPTS {
        let path = folder.join(name);
        if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            write_atomic(&Os, &path, text.as_bytes())?;
        }
    }
    let mut command = Command::new(python);
    command.arg(folder.join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// Makes the environment, by the `python3` that is found and by its pip, whose own settings hold; `say` hears of each step.
/// Gives the interpreter.
///
/// # Errors
/// A step failed; its reason is on standard error.
pub fn setup(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let folder = folder()?;
    std::fs::create_dir_all(&folder).at(&folder)?;
    let (venv, own) = (folder.join("venv"), own(&folder));
    say(&format!("making a virtual environment in {}", venv.display()));
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv), "install Python 3.10 or newer, with its venv")?;
    say(&format!(
        "installing {} with pip: on Linux x86-64 about 5.5 GB on disk, since torch comes with its CUDA packages there \
         (with PIP_INDEX_URL set to an index of CPU builds about 1 GB)",
        PACKAGES.join(", ")
    ));
    succeed(Command::new(&own).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES), "see what pip says above")?;
    Ok(own)
}

fn succeed(command: &mut Command, hint: &str) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|source| Error::io(command.get_program(), source))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::failed(format!("{}: {status}", command.get_program().display()), hint)),
    }
}
