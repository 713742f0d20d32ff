//! Pictures: a world of shapes whose factors are known, and files of pictures.

pub mod idx;
pub mod world;

pub use idx::Idx;
pub use world::{Factors, Kind, Pictures};
