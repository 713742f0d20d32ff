//! From raw text to batches of tokens.

pub mod world;
