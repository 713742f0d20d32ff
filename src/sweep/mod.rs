//! Search for settings: many runs of one recipe, of which the bad ones end early.
//!
//! `sweep.toml` says what is searched ([`Space`]), which setting is tried next ([`Search`]) and how far it runs ([`Halving`]). A
//! trial is an ordinary run in `trials/`, done by a process of its own, which pauses where it is compared and goes on from there to the
//! same bits ([`Work`]). What came out is one file of lines ([`Ledger`]): whatever is killed, the sweep goes on from it. The
//! [`Outcome`] is a table, how much each key matters ([`importance`]), a picture, and the best recipe.

pub mod halving;
pub mod importance;
pub mod ledger;
pub mod outcome;
pub mod picture;
pub mod range;
mod run;
pub mod scaling;
pub mod search;
pub mod section;
pub mod space;
mod tpe;
mod work;

pub use halving::Halving;
pub use ledger::{Ledger, Trial};
pub use outcome::Outcome;
pub use run::{Event, Watch, reopen, run};
pub use search::Search;
pub use section::Sweep;
pub use space::{Setting, Space};
pub use work::Work;
