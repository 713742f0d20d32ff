//! All integration tests, in one binary so that linking stays cheap.

mod alloc;
mod attention;
mod cli;
mod data;
mod decode;
mod fixtures;
mod gemm;
mod gpt;
mod half;
mod layers;
mod math;
mod ops;
mod train;
