//! A model that stays good after it was put to use: what it meets is watched for drift; a new version learns it beside what was learnt before, is
//! judged, and takes the old one's place, or does not.
//!
//! | where | what |
//! |---|---|
//! | [`drift`], [`domain`] | is what it meets still what it learnt? |
//! | [`mod@line`] | a folder of versions, and which one serves |
//! | [`round`] | new documents become a new version |
//! | [`gates`] | what it must pass |
//! | [`watch`] | a stream of documents, and when it is time for a round |
//! | [`forget`] | documents that must not have been learnt |

pub mod domain;
pub mod drift;
pub mod forget;
pub mod gates;
pub mod line;
pub mod round;
mod settings;
pub mod texts;
pub mod watch;

pub use settings::{Settings, UPDATE};
