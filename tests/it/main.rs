//! All integration tests, in one binary so that linking stays cheap.

mod alloc;
mod attention;
mod bad_inputs;
mod bench;
mod bf16;
mod bits;
mod cli;
mod contract;
mod crash;
mod data;
mod decode;
mod fixtures;
mod frozen;
mod fuzz;
mod gemm;
mod gpt;
mod guard;
mod half;
mod kernels;
mod layers;
mod math;
mod memory;
mod ops;
mod recompute;
mod sim;
mod train;
