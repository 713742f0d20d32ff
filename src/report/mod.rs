//! What runs look like: so far while they are under way.
//!
//! [`Live`] follows the files of run directories, and holds what is to be shown; drawing it is the program's affair.

pub mod curve;
pub mod live;
pub mod run;
mod tail;

pub use live::Live;
pub use run::{Point, Run, Sample, Series, Status};
pub use tail::{News, Tail};
