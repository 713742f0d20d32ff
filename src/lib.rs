//! kiln: the whole training life cycle of generative models in one engine.
//!
//! The modules stand in the order in which a token travels: raw files become documents, tokens, shards and batches
//! (`data`), go through a model (`model`, `nn`, `ops`) that a `tape` records, give a loss and gradients, and leave as an
//! updated set of weights (`optim`) in a run directory (`train`), which then writes (`infer`), acts (`agent`) and is judged (`eval`), by people too
//! (`review`); `plan` says what a run will take, `sweep` does many, `continual` watches what a model meets afterwards, `bench` times all of it, `study` measures what stages do to a model, and
//! `report` shows what came of it. Below them lie tensors, the devices that hold them and the kernels that compute.

pub mod report;

pub mod study;

pub mod plan;

pub mod continual;
pub mod sweep;

pub mod bench;
pub mod review;
pub mod serve;

pub mod eval;

pub mod train;

pub mod infer;

pub mod agent;

pub mod formats;

pub mod data;
pub mod measure;

pub mod model;
pub mod nn;
pub mod optim;

pub mod ops;
pub mod tape;

pub mod launch;
pub mod params;
pub mod tensor;

pub mod proof;

pub mod device;

pub mod cpu;
pub mod ranks;

pub mod settings;

pub mod disk;
pub mod error;
pub mod rng;

pub use error::{Error, Result};
