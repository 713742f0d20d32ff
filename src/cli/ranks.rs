//! The processes that this one trains with, as what started them says.

use kiln::device::Device;
use kiln::error::{Error, Result};
use kiln::ranks::Ranks;
use kiln::ranks::tcp::Tcp;
use kiln::train::signal;

/// What starts processes together leaves how many there are: Open MPI, MPICH and others, torchrun.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE"];

/// How many ranks what started this says that there are, and which variable says so.
fn said() -> Option<(&'static str, usize)> {
    let size = |name: &'static str| std::env::var(name).ok()?.parse::<usize>().ok().filter(|&size| size > 1);
    SIZES.iter().find_map(|&name| Some((name, size(name)?)))
}

/// Which GPU of its machine a rank computes on: torchrun's `LOCAL_RANK`.
pub fn gpu() -> usize {
    std::env::var("LOCAL_RANK").ok().filter(|_| said().is_some()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// All ranks; alone where nothing says that there are more. On GPUs they find each other as torchrun's do, on CPUs through MPI.
///
/// # Errors
/// There are more, and nothing that could reach them.
pub fn ranks(device: &Device) -> Result<Ranks> {
    match (said(), device) {
        (None, _) => Ok(Ranks::alone()),
        (Some(_), Device::Gpu(_)) => Ranks::start(Tcp::of_env, ended),
        (Some((name, size)), Device::Cpu(_)) => join(name, size),
    }
}

fn ended() -> bool {
    signal::caught().is_some()
}

#[cfg(feature = "mpi")]
fn join(name: &str, size: usize) -> Result<Ranks> {
    if name == "WORLD_SIZE" {
        let problem = format!("{name} says that there are {size} ranks, and processes on CPUs talk through MPI");
        return Err(Error::device(problem, format!("start them by mpirun -n {size} kiln train …, or unset {name}")));
    }
    Ranks::start(kiln::ranks::mpi::Mpi::join, ended)
}

#[cfg(not(feature = "mpi"))]
fn join(name: &str, size: usize) -> Result<Ranks> {
    let problem =
        format!("{name} says that there are {size} ranks, and this kiln was built without what they talk through");
    Err(Error::device(problem, "build it with --features mpi (docs/ranks.md), or start one process"))
}
