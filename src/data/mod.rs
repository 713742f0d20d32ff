//! From raw text to batches of tokens.

pub mod atomic;
pub mod augment;
pub mod batch;
pub mod chat;
pub mod clean;
pub mod dataset;
pub mod detok;
pub mod diff;
pub mod examples;
pub mod get;
pub mod images;
pub mod index;
pub mod map;
pub mod mix;
pub mod music;
pub mod pii;
pub mod prepare;
pub mod repair;
pub mod shard;
pub mod source;
pub mod split;
pub mod swap;
pub mod takedown;
pub mod tokenizer;
mod vocab;

pub use batch::{Apart, Batches, EvalBatches};
pub use dataset::{Dataset, DatasetInfo, Part};
pub use mix::Mix;
pub use prepare::{Prepare, prepare};
pub use shard::ShardFormat;
pub use source::{Document, Limits, Sources};
pub use split::{Rule, Split};
pub use tokenizer::Tokenizer;
pub mod world;
