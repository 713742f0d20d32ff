//! All integration tests, in one binary so that linking stays cheap.

mod alloc;
mod attention;
mod data;
mod gemm;
mod math;
mod ops;
