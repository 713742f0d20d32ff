//! How long answers take, asked one after the other.

use super::model::{Model, Writing};
use super::outcome::{Outcome, Record};
use super::task::Task;
use crate::error::Result;
use std::time::Instant;

/// Asks for each record's prompt twice: for its first token, and for all; before all that once, so that nothing is cold.
///
/// # Errors
/// The model fails; `told` does.
pub(super) fn ask(
    task: &Task,
    mut records: Vec<Record>,
    model: &mut dyn Model,
    told: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Outcome> {
    let all = records.len();
    let mut write = |prompt: &str, tokens: usize| -> Result<(f64, String)> {
        let writing = Writing { stop: &task.stop, tokens, temperature: task.temperature, seed: 1 };
        let start = Instant::now();
        let mut said = model.write(&[prompt], &writing, &mut |_| Ok(()))?;
        Ok((start.elapsed().as_secs_f64(), said.pop().unwrap_or_default()))
    };
    if let Some(first) = records.first() {
        write(&first.prompt, task.tokens)?;
    }
    let mut firsts = Vec::new();
    for (i, record) in records.iter_mut().enumerate() {
        firsts.push(write(&record.prompt, 1)?.0);
        let (seconds, said) = write(&record.prompt, task.tokens)?;
        (record.value, record.weight) = (seconds, 1.0);
        record.said.push(said);
        told(i + 1, all)?;
    }
    let tokens: Option<usize> = records.iter().map(|record| model.tokens(&record.said[0])).sum();
    Ok(Outcome::speed(task, records, &firsts, tokens))
}
