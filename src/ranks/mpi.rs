//! Ranks that are processes of MPI, on one host or several: `mpirun -n 2 kiln train`.

use super::Engine;
use crate::error::{Error, Result};
use mpi::Threading;
use mpi::collective::{CommunicatorCollectives, Root, SystemOperation};
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};

/// What MPI has started.
pub struct Mpi {
    world: SimpleCommunicator,
    sums: Vec<f32>,
    /// Ends MPI when it is dropped, after all that is above.
    _universe: Universe,
}

impl Mpi {
    /// Joins what `mpirun` started; all of MPI's calls are made on the thread that calls this.
    ///
    /// # Errors
    /// It was joined before.
    pub fn join() -> Result<Mpi> {
        let again = || Error::device("MPI runs already", "join it once a process");
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled).ok_or_else(again)?;
        Ok(Mpi { world: universe.world(), sums: Vec::new(), _universe: universe })
    }
}

impl Engine for Mpi {
    fn place(&self) -> [usize; 2] {
        [self.world.rank(), self.world.size()].map(|n| usize::try_from(n).expect("MPI counts from 0"))
    }

    fn sum(&mut self, values: &mut [f32]) -> Result<()> {
        self.sums.resize(values.len(), 0.0);
        self.world.all_reduce_into(&*values, &mut self.sums[..], SystemOperation::sum());
        values.copy_from_slice(&self.sums);
        Ok(())
    }

    fn tell(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.world.process_at_rank(0).broadcast_into(bytes);
        Ok(())
    }
}
