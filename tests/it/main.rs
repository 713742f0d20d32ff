//! All integration tests, in one binary so that linking stays cheap.

mod fixtures;
mod half;
mod math;
mod ops;
