//! All integration tests, in one binary so that linking stays cheap.

mod alloc;
mod data;
