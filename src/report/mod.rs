//! What runs look like: so far while they are under way, and what became of them.
//!
//! [`Live`] follows the files of run directories, and holds what is to be shown; drawing it is the program's affair. [`gather`] finds all that is
//! known of a model, and [`page`] writes it down, for whoever decides and for whoever asks why.

pub mod curve;
pub mod facts;
pub mod live;
pub mod page;
pub mod run;
mod tail;

pub use facts::{Extra, Facts, gather};
pub use live::Live;
pub use run::{Point, Run, Sample, Series, Status};
pub use tail::{News, Tail};
