//! Results of kernels kept in a file, so that those of another device can be laid beside them.

use kiln::data::atomic::write_atomic;
use kiln::disk::{self, Os};
use kiln::error::{Error, Result};
use kiln::proof::{Case, Outcome};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Results by names, as a safetensors file of f64 holds them.
#[derive(Default)]
pub struct Golden(BTreeMap<String, Vec<u8>>);

/// How the results of a case differ from those that were kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Difference {
    /// Elements that differ in any bit, of how many.
    elements: [usize; 2],
    /// The largest difference.
    most: f64,
    /// Results that are in one of the two only, or of another size.
    missing: usize,
}

/// The name of result `i` of a case.
fn name(case: &Case, outcome: &Outcome, i: usize) -> String {
    format!("{}/{}/{i} {}", case.file, case.name, outcome.checks[i].what)
}

impl Golden {
    /// Reads what [`save`](Golden::save) wrote.
    pub fn load(path: &Path) -> Result<Golden> {
        let bytes = disk::read(&Os, path)?;
        let wrong = |found: String| {
            let hint = "give a file that kiln kernels run --save wrote";
            Error::format(path, "content", "safetensors of f64", found, hint)
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
        let mut all = BTreeMap::new();
        for (name, tensor) in tensors.iter() {
            if tensor.dtype() != Dtype::F64 {
                return Err(wrong(format!("{name} of {:?}", tensor.dtype())));
            }
            all.insert(name.to_owned(), tensor.data().to_vec());
        }
        Ok(Golden(all))
    }

    /// Writes the file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let views = self.0.iter().map(|(name, bytes)| {
            let view = TensorView::new(Dtype::F64, vec![bytes.len() / 8], bytes);
            (name, view.expect("as many bytes as its shape says"))
        });
        let bytes = safetensors::serialize(views, None).expect("names and sizes are sound");
        write_atomic(&Os, path, &bytes)
    }

    /// Keeps the results of a case.
    pub fn keep(&mut self, case: &Case, outcome: &Outcome) {
        for (i, result) in outcome.results.iter().enumerate() {
            let bytes = result.iter().flat_map(|x| x.to_le_bytes()).collect();
            self.0.insert(name(case, outcome, i), bytes);
        }
    }

    /// Compares a case's results with those that were kept.
    pub fn compare(&self, case: &Case, outcome: &Outcome) -> Difference {
        let mut difference = Difference::default();
        for (i, result) in outcome.results.iter().enumerate() {
            let kept = self.0.get(&name(case, outcome, i)).filter(|kept| kept.len() == 8 * result.len());
            let Some(kept) = kept else {
                difference.missing += 1;
                continue;
            };
            difference.elements[1] += result.len();
            for (x, bytes) in result.iter().zip(kept.chunks_exact(8)) {
                let y = f64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                if x.to_bits() != y.to_bits() {
                    difference.elements[0] += 1;
                    difference.most = difference.most.max((x - y).abs());
                }
            }
        }
        difference
    }
}

impl Difference {
    /// For a program.
    pub fn json(&self) -> Value {
        json!({"differ": self.elements[0], "of": self.elements[1], "by_at_most": self.most, "missing": self.missing})
    }

    /// In words.
    pub fn words(&self) -> String {
        let missing =
            if self.missing > 0 { format!("; {} results were not kept", self.missing) } else { String::new() };
        match self.elements {
            [0, 0] => format!("nothing to compare{missing}"),
            [0, n] => format!("all {n} elements have the bits that were kept{missing}"),
            [some, n] => format!("{some} of {n} elements differ, by {:.1e} at most{missing}", self.most),
        }
    }
}
