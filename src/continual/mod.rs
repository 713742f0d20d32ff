//! A model that stays good after it was put to use: what it meets is watched for drift.

pub mod domain;
pub mod drift;
