//! All integration tests, in one binary so that linking stays cheap.

mod gemm;
mod math;
mod ops;
mod alloc;
mod data;
