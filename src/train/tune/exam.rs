//! How a model in training does on examples: their loss, and what it answers.

use super::objective::Sft;
use crate::data::Tokenizer;
use crate::data::examples::{Example, Rows};
use crate::error::Result;
use crate::model::sample::SampleOptions;
use crate::tensor::Out;
use crate::train::objective::{fill, room};
use crate::train::trainer::Trainer;

/// Answers that are to be compared after the last step.
pub(super) struct Exact {
    pub count: usize,
    pub tokens: usize,
}

impl Trainer<Sft> {
    /// The sum of the negative log-likelihoods of the targets of rows, of a batch at most, in nats; of zeros, where none are
    /// given.
    pub(super) fn eval_rows(&mut self, rows: Option<(&Rows, &[Option<usize>])>) -> Result<f64> {
        let device = self.params.device().clone();
        let mut out = room(&device, &self.objective.specs());
        fill(&mut out, |x| {
            if let Some((rows, chosen)) = rows {
                Sft::fill_rows(chosen.len(), x, |i, to| chosen[i].inspect(|&row| rows.fill(row, 1.0, to)).is_some());
            }
            Ok(())
        })?;
        self.tape.begin(&self.params, self.eval_pass());
        let x = out.into_iter().map(Out::freeze).collect();
        Ok(f64::from(self.tape.no_grad(|| self.objective.loss(&self.tape, &x)).value().item()))
    }

    /// The mean loss of the targets of rows, or of the first batches of them; `None` where `progress(done, total)` said false.
    pub(super) fn evaluate_rows(
        &mut self,
        rows: &Rows,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<f64>> {
        let batch = self.objective.shape[0];
        let total = rows.len().div_ceil(batch).min(max_batches.unwrap_or(usize::MAX));
        let (mut nats, mut targets, mut whole) = (0.0, 0, true);
        for index in 0..total {
            let all = (index * batch..rows.len()).map(Some);
            let chosen: Vec<Option<usize>> = all.chain(std::iter::repeat(None)).take(batch).collect();
            nats += self.eval_rows(Some((rows, &chosen)))?;
            targets += chosen.iter().flatten().map(|&row| rows.targets(row)).sum::<usize>();
            whole = progress(index + 1, total);
            if !whole {
                break;
            }
        }
        self.tape.reset();
        Ok(whole.then(|| nats / targets.max(1) as f64))
    }

    /// The share of examples whose answers are, word for word, what they have; `None` where `progress` said false.
    pub(super) fn exact(
        &mut self,
        examples: &[Example],
        tokenizer: &Tokenizer,
        exact: &Exact,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<f64>> {
        // Any of them: they lie by their lengths.
        let every = examples.len().div_ceil(exact.count).max(1);
        let chosen: Vec<&Example> = examples.iter().step_by(every).collect();
        let prompts: Vec<&[u32]> = chosen.iter().map(|example| prompt(example)).collect();
        let mut whole = true;
        let mut told = |done| {
            whole = progress(done, chosen.len());
            whole
        };
        let options = SampleOptions::greedy(exact.tokens);
        let said = self.answers(&prompts, tokenizer.ends(), &|_| options, &mut told);
        if !whole {
            return Ok(None);
        }
        let right = |(example, said): &(&&Example, &Vec<u32>)| {
            let wanted = tokenizer.decode(expected(example, tokenizer.ends()));
            wanted.trim() == tokenizer.decode(said).trim()
        };
        let right = chosen.iter().zip(&said).filter(right).count();
        Ok(Some(right as f64 / chosen.len() as f64))
    }
}

/// The tokens of an example before what is trained on.
pub(in crate::train) fn prompt(example: &Example) -> &[u32] {
    let first = example.trained.iter().skip(1).position(|&trained| trained).map_or(0, |at| at + 1);
    &example.ids[..first.max(1)]
}

/// What an example has after its prompt, up to the token that ends it.
pub(in crate::train) fn expected<'e>(example: &'e Example, ends: &[u32]) -> &'e [u32] {
    let first = prompt(example).len();
    let trained = example.trained[first..].iter().take_while(|&&trained| trained).count();
    let rest = &example.ids[first..first + trained];
    match rest.split_last() {
        Some((last, before)) if ends.contains(last) => before,
        _ => rest,
    }
}
