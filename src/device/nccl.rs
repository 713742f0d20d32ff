//! Sums over the GPUs of several processes, by NVIDIA's NCCL, as cudarc opens it: its library is looked for when it is asked for.

use super::driver::Ptr;
use crate::error::{Error, Result};
use cudarc::driver::sys::CUstream;
use cudarc::nccl::result::{self, NcclError};
use cudarc::nccl::sys;
use std::ffi::c_char;

/// One of the GPUs that add up together.
pub(super) struct Nccl(sys::ncclComm_t);

// SAFETY: the handle is NCCL's, which takes it from any thread, one at a time: its owner keeps it behind a lock.
unsafe impl Send for Nccl {}

fn failed(what: &str, error: &NcclError) -> Error {
    Error::device(format!("{what}: {:?}", error.0), "NCCL_DEBUG=WARN makes NCCL say more")
}

/// Whether NCCL can be opened.
fn there() -> Result<()> {
    // SAFETY: loading a library runs what it starts with, which NVIDIA's may be trusted with as its driver is.
    match unsafe { sys::is_culib_present() } {
        true => Ok(()),
        false => Err(Error::device(
            "several GPUs add up through NCCL, and libnccl.so is not found",
            "install NCCL (libnccl2), or start one process",
        )),
    }
}

impl Nccl {
    /// What all ranks are told to meet by.
    pub(super) fn meeting() -> Result<Vec<u8>> {
        there()?;
        let id = result::get_uniqueid().map_err(|e| failed("making an id", &e))?;
        Ok(id.internal.iter().map(|&c| c as u8).collect())
    }

    /// Joins the others on the GPU of the context that is current; waits until all are there.
    pub(super) fn join(id: &[u8], rank: usize, size: usize) -> Result<Nccl> {
        there()?;
        let mut internal = [0 as c_char; 128];
        internal.iter_mut().zip(id).for_each(|(to, &byte)| *to = byte as c_char);
        let (mut comm, id) = (std::ptr::null_mut(), sys::ncclUniqueId { internal });
        // SAFETY: `comm` is written before it is used; the id is one that NCCL made.
        unsafe { result::comm_init_rank(&mut comm, size as i32, id, rank as i32) }
            .map_err(|e| failed("meeting the other GPUs", &e))?;
        Ok(Nccl(comm))
    }

    /// Adds `len` f32 at `at` up over all GPUs, in place, when all that was launched on `stream` before is done.
    ///
    /// # Safety
    /// The elements lie in an allocation of this GPU, and `stream` is one of its streams.
    pub(super) unsafe fn all_reduce(&self, at: Ptr, len: usize, stream: CUstream) -> Result<()> {
        let (from, to) = (at.0 as *const _, at.0 as *mut _);
        let (kind, sum) = (sys::ncclDataType_t::ncclFloat32, sys::ncclRedOp_t::ncclSum);
        // SAFETY: as the caller says; NCCL's stream and the driver's are the same handle.
        unsafe { result::all_reduce(from, to, len, kind, sum, self.0, stream.cast()) }
            .map(|_| ())
            .map_err(|e| failed("adding gradients up", &e))
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // SAFETY: the handle was made here, and is used no more.
        let _ = unsafe { result::comm_destroy(self.0) };
    }
}
