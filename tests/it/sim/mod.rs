//! The simulated GPU, and the PTX that it reads.

mod kernels;
mod rig;
