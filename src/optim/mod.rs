//! Optimizers: one pass over flat arenas.

pub mod adamw;

pub use adamw::AdamW;
