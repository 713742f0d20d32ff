//! What is wrong with a run, in words, with the numbers that show it and the key to turn.
//!
//! Findings come from four places: the course of its losses ([`course`]), judged live as well; its recipe ([`recipe`]); the model at
//! its newest checkpoint, its weights and moments ([`weights`]), what it computes ([`model`]) and its gradients ([`noise`]); and
//! its data ([`data`]). Each rule's threshold says where it is from. Where a rule could be wrong of a healthy run, it keeps silent:
//! `kiln study doctor` measures both on runs that were broken on purpose and on healthy ones.

pub mod align;
pub mod course;
pub mod data;
mod examine;
pub mod finding;
pub mod gan;
pub mod model;
pub mod noise;
pub mod recipe;
pub mod weights;

pub use course::Course;
pub use examine::{Report, examine, glance};
pub use finding::{Finding, Kind, Knob, Number, Told};
pub use recipe::Terms;
