//! All integration tests, in one binary so that linking stays cheap.

mod alloc;
mod attention;
mod bits;
mod cli;
mod contract;
mod data;
mod decode;
mod fixtures;
mod gemm;
mod gpt;
mod half;
mod layers;
mod math;
mod ops;
mod recompute;
mod train;
