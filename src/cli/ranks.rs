//! The processes that this one trains with, as what started them says.

use kiln::error::{Error, Result};
use kiln::ranks::Ranks;

/// What starts processes together leaves how many there are: Open MPI, MPICH and others, torchrun.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE"];

/// All ranks; alone where nothing says that there are more.
///
/// # Errors
/// There are more, and nothing that could reach them.
pub fn ranks() -> Result<Ranks> {
    let size = |name: &&str| std::env::var(name).ok()?.parse::<usize>().ok().filter(|&size| size > 1);
    match SIZES.iter().find_map(|name| size(name).map(|size| (*name, size))) {
        None => Ok(Ranks::alone()),
        Some((name, size)) => join(name, size),
    }
}

#[cfg(feature = "mpi")]
fn join(name: &str, size: usize) -> Result<Ranks> {
    use kiln::ranks::mpi::Mpi;
    use kiln::train::signal;
    if name == "WORLD_SIZE" {
        let problem = format!("{name} says that there are {size} ranks, and processes on CPUs talk through MPI");
        return Err(Error::device(problem, format!("start them by mpirun -n {size} kiln train …, or unset {name}")));
    }
    Ranks::start(Mpi::join, || signal::caught().is_some())
}

#[cfg(not(feature = "mpi"))]
fn join(name: &str, size: usize) -> Result<Ranks> {
    let problem =
        format!("{name} says that there are {size} ranks, and this kiln was built without what they talk through");
    Err(Error::device(problem, "build it with --features mpi (docs/ranks.md), or start one process"))
}
