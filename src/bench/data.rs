//! Batches out of a memory-mapped shard.

use super::{Case, Part, Started, Unit, Work, repeated};
use crate::data::shard::{HEADER, ShardFormat, ShardWriter};
use crate::data::{Batches, Dataset};
use crate::error::{AtPath, Result};
use crate::rng::{Purpose, Rng};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// B and T of the table.
const BATCHES: [[usize; 2]; 2] = [[16, 256], [16, 1024]];
/// Token ids of the made-up shard are below this, as GPT-2's.
const VOCAB: usize = 50_257;

/// A folder that goes with this value.
pub struct Folder(PathBuf);

impl Folder {
    /// Of this process, among the system's temporary ones.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn temporary() -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("kiln-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).at(&path)?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is in the temporary folder: what is left goes with it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a shard of `tokens` random tokens, two bytes each, into `folder`.
///
/// # Errors
/// It cannot be written.
pub fn shard(folder: &Folder, tokens: usize) -> Result<PathBuf> {
    let path = folder.0.join("random.bin");
    let mut writer = ShardWriter::create(&path, ShardFormat::Llmc, VOCAB)?;
    let mut rng = Rng::new(1, Purpose::Test, 0, 0);
    let mut piece = vec![0; 1 << 16];
    for start in (0..tokens).step_by(piece.len()) {
        let n = piece.len().min(tokens - start);
        piece[..n].iter_mut().for_each(|id| *id = rng.below(VOCAB as u32));
        writer.push(&piece[..n])?;
    }
    writer.finish()?;
    Ok(path)
}

/// Training batches of the table's sizes out of the shard at `path`.
pub fn cases(path: &Path) -> Vec<Case> {
    let case = |[batch, context]: [usize; 2]| {
        let file = path.to_owned();
        let start = move |device: &_| {
            let data = Arc::new(Dataset::from_files(&[&file], VOCAB, None)?);
            let batches = Batches::new(data, batch, context, 1, 1)?;
            let n = batch * context;
            let (mut x, mut y, mut step) = (vec![0; n], vec![0; n], 0);
            // The tokens of a window and one more, two bytes each; inputs and targets, four bytes each.
            let work = Work { flops: 0.0, read: 2.0 * (n + batch) as f64, written: 8.0 * n as f64, ..Work::default() };
            let repeat = repeated(device, 1, move |clock| {
                step += 1;
                clock.time(0, || batches.fill(step, 0, &mut x, &mut y))
            });
            Ok(Started { parts: vec![Part::whole(work, Unit::Tokens(n))], repeat })
        };
        let spec = json!({"bench": "data", "path": path, "skip": HEADER, "batch": batch, "context": context});
        Case::new("data", format!("B{batch} T{context}"), spec, start)
    };
    BATCHES.into_iter().map(case).collect()
}
