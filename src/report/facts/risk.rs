//! What may be wrong with a model, or with trusting it.

use super::words::{count, number};
use super::{Risk, Training};
use crate::disk::{self, Os};
use crate::train::health;
use crate::train::run::PRIVACY;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `privacy.json` takes a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// What a private run promises.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Privacy {
    /// In words.
    pub guarantee: String,
    /// ε; `None` where nothing is promised.
    pub epsilon: Option<f64>,
    /// δ.
    pub delta: f64,
    /// Whose presence is hidden.
    pub unit: String,
    /// How many of them there are.
    pub examples: u64,
    /// The norm to which the gradient of each was clipped.
    pub clip: f64,
}

/// What the run in the folder `run` promises; why its account cannot be read goes to `absent`.
pub(super) fn privacy(run: &Path, absent: &mut Vec<String>) -> Option<Privacy> {
    let path = run.join(PRIVACY);
    if !path.exists() {
        return None;
    }
    let read = disk::text(&Os, &path, MAX_FILE).map_err(|e| e.to_string());
    let read = read.and_then(|text| serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display())));
    read.map_err(|e| absent.push(e)).ok()
}

/// All risks that are known, the promise of privacy first.
pub(super) fn all(
    privacy: Option<&Privacy>,
    health: Option<&health::Report>,
    training: Option<&Training>,
) -> Vec<Risk> {
    let mut risks = vec![match privacy {
        Some(Privacy { guarantee, epsilon: Some(_), examples, .. }) => Risk {
            bad: false,
            says: format!("{guarantee}, of {} of them; other runs on the same data are not counted", count(*examples)),
            tip: None,
        },
        Some(Privacy { guarantee, .. }) => Risk { bad: true, says: guarantee.clone(), tip: None },
        None => Risk {
            bad: true,
            says: "no promise of privacy: it may repeat what it has read, word for word".to_owned(),
            tip: None,
        },
    }];
    for found in health.iter().flat_map(|report| &report.findings) {
        let numbers: Vec<String> = found.evidence.iter().map(|n| format!("{} {}", n.name, number(n.value))).collect();
        let says = format!("{} ({}): {}", found.kind.name(), found.what, numbers.join(", "));
        risks.push(Risk { bad: true, says, tip: Some(format!("{} = {}", found.knob.key, found.knob.value)) });
    }
    if let Some(Training { skipped, rewinds, .. }) = training
        && skipped + rewinds > 0
    {
        let says = format!(
            "{} steps went wrong and were skipped; the run went back to a checkpoint {} times",
            count(*skipped),
            count(*rewinds)
        );
        risks.push(Risk { bad: true, says, tip: None });
    }
    risks
}
