//! All integration tests, in one binary so that linking stays cheap.

mod attention;
mod gemm;
mod math;
