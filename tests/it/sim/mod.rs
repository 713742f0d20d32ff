//! The simulated GPU, and the PTX that it reads.

mod expand;
mod faults;
mod instructions;
mod kernels;
mod layouts;
mod nvcc;
mod parse;
mod rig;
