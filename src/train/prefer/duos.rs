//! Two answers side by side, and batches of them.

use super::section::PreferenceLoss;
use crate::data::batch::Permutation;
use crate::data::examples::{Example, Judged};
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Spec};
use crate::train::objective::{MAX_TENSORS, Values};
use arrayvec::ArrayVec;
use std::cell::OnceCell;

/// Of a pair the better answer and the worse one. Of KTO an answer, and one to another prompt after the prompt of this one, by which the
/// KL is estimated.
#[derive(Clone, Debug, PartialEq)]
pub struct Duo {
    /// Both.
    pub answers: [Example; 2],
    /// Whether the first was liked.
    pub good: bool,
}

/// Those of a run, and what its reference says of each: log-probabilities, the same in number.
#[derive(Default)]
pub struct Duos {
    /// To learn from.
    pub train: Vec<Duo>,
    /// Held out.
    pub val: Vec<Duo>,
    /// Of both, once the reference has been asked.
    pub refs: OnceCell<[Vec<[f32; 2]>; 2]>,
    /// Of the order.
    pub seed: u64,
}

/// Preferences as duos, for a loss.
///
/// # Errors
/// The loss needs pairs, and there are thumbs.
pub fn duos(all: Vec<Judged>, loss: PreferenceLoss) -> Result<Vec<Duo>> {
    let mut duos = Vec::new();
    for judged in all {
        match (judged, loss) {
            (Judged::Pair { chosen, rejected }, PreferenceLoss::Kto) => {
                duos.push(Duo { answers: [chosen.clone(), chosen], good: true });
                duos.push(Duo { answers: [rejected.clone(), rejected], good: false });
            }
            (Judged::Pair { chosen, rejected }, _) => duos.push(Duo { answers: [chosen, rejected], good: true }),
            (Judged::Thumb { answer, good }, PreferenceLoss::Kto) => {
                duos.push(Duo { answers: [answer.clone(), answer], good });
            }
            (Judged::Thumb { answer, .. }, _) => {
                let place = format!("{}, line {}", answer.source.0.display(), answer.source.1);
                let problem = format!("{place}: a single answer with a label, where the loss compares two");
                return Err(Error::config("model.preference.loss", problem, "set it to \"kto\", or give pairs"));
            }
        }
    }
    if loss == PreferenceLoss::Kto {
        mismatch(&mut duos);
    }
    Ok(duos)
}

/// Gives each duo, as its second answer, what the next one with another prompt answers, after its own prompt.
fn mismatch(duos: &mut [Duo]) {
    let n = duos.len();
    let others: Vec<usize> = (0..n)
        .map(|i| (1..n).map(|k| (i + k) % n).find(|&j| duos[j].answers[0].key != duos[i].answers[0].key).unwrap_or(i))
        .collect();
    let prompt = |example: &Example| example.trained.iter().take_while(|&&trained| !trained).count();
    let made = |(i, &j): (usize, &usize)| {
        let (own, other) = (&duos[i].answers[0], &duos[j].answers[0]);
        let (end, from) = (prompt(own), prompt(other));
        let room = own.ids.len().max(other.ids.len()) - end;
        let join = |own: &[u32], other: &[u32]| [own, &other[..other.len().min(room)]].concat();
        let ids = join(&own.ids[..end], &other.ids[from..]);
        let trained = (0..ids.len()).map(|at| at >= end && other.trained[from + at - end]).collect();
        Example { ids, trained, ..own.clone() }
    };
    let made: Vec<Example> = others.iter().enumerate().map(made).collect();
    duos.iter_mut().zip(made).for_each(|(duo, second)| duo.answers[1] = second);
}

impl Duos {
    /// The duo that is visited as number `index`, counted over all epochs: in each, every one once, in an order of its own.
    pub fn at(&self, index: u64) -> usize {
        let n = self.train.len() as u64;
        Permutation::new(n, self.seed, index / n).get(index % n) as usize
    }
}

/// How answers become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Duos in a batch.
    pub b: usize,
    /// Tokens in a row.
    pub t: usize,
    /// Of which loss.
    pub loss: PreferenceLoss,
}

impl Form {
    /// A batch: ids, targets and weights of targets (2B, T), first answers before second ones; what the reference says of each (2B); and (2B)
    /// B signs, −1 where an answer was not liked, and B shares: of KTO 1 over how many have the same sign, of pairs what makes the better answer's
    /// log-probability a mean over its tokens. Of a reward model the last token of each answer
    /// has a weight, the others have none.
    pub fn specs(&self) -> [Spec; 5] {
        let shape: Shape = [2 * self.b, self.t].into();
        let ids = Spec { shape, dtype: DType::I32 };
        [ids, ids, Spec::f32(shape), Spec::f32([2 * self.b]), Spec::f32([2 * self.b])]
    }

    /// Tokens of a batch.
    pub fn tokens(&self) -> usize {
        2 * self.b * self.t
    }

    /// Tokens that an answer with its prompt may have.
    pub fn longest(loss: PreferenceLoss, context: usize) -> usize {
        context + usize::from(loss != PreferenceLoss::Reward)
    }

    /// Fills a batch: `duo(i)` is the i-th, with what the reference says of it.
    pub fn fill<'d>(&self, duo: impl Fn(usize) -> (&'d Duo, [f32; 2]), x: ArrayVec<Values, MAX_TENSORS>) {
        let mut x = x.into_iter();
        let mut next = || x.next().expect("five tensors");
        let (ids, targets, weights, refs, signs) =
            (next().ids(), next().ids(), next().numbers(), next().numbers(), next().numbers());
        let (signs, shares) = signs.split_at_mut(self.b);
        let good = (0..self.b).filter(|&i| duo(i).0.good).count();
        for i in 0..self.b {
            let (Duo { answers, good: own }, said) = duo(i);
            (signs[i], shares[i]) = match (self.loss, own) {
                (PreferenceLoss::Kto, true) => (1.0, 1.0 / good as f32),
                (PreferenceLoss::Kto, false) => (-1.0, 1.0 / (self.b - good) as f32),
                // Means already.
                (PreferenceLoss::Ipo, _) => (1.0, 1.0),
                _ => (1.0, 1.0 / answers[0].targets().max(1) as f32),
            };
            for (half, (answer, said)) in answers.iter().zip(said).enumerate() {
                let row = half * self.b + i;
                let own = row * self.t..(row + 1) * self.t;
                refs[row] = said;
                self.row(answer, &mut ids[own.clone()], &mut targets[own.clone()], &mut weights[own]);
            }
        }
    }

    fn row(&self, answer: &Example, ids: &mut [i32], targets: &mut [i32], weights: &mut [f32]) {
        ids.fill(0);
        targets.fill(0);
        weights.fill(0.0);
        let n = answer.ids.len();
        if self.loss == PreferenceLoss::Reward {
            ids.iter_mut().zip(&answer.ids).for_each(|(to, &id)| *to = id as i32);
            weights[n - 1] = 1.0;
            return;
        }
        let weight = match self.loss {
            PreferenceLoss::Ipo => 1.0 / answer.targets().max(1) as f32,
            _ => 1.0,
        };
        for j in 0..n - 1 {
            (ids[j], targets[j]) = (answer.ids[j] as i32, answer.ids[j + 1] as i32);
            weights[j] = if answer.trained[j + 1] { weight } else { 0.0 };
        }
    }
}
