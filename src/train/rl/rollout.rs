//! Answers of an iteration, as rows, with all that is known of them; and their files.
//!
//! `rollouts/step-000006.safetensors` in a run's directory holds the answers that were written before the step whose batch has number 6.
//! The steps of an iteration share them, so a run that goes on in the middle of one reads them again: which answers there were hangs on weights
//! that are gone. They are written whole or not at all, and go when no checkpoint needs them any more.

use super::section::{Reinforcement, Weighing};
use crate::device::Device;
use crate::disk;
use crate::error::{AtPath, Result};
use crate::formats::tensors::{Entry, Reader, write};
use crate::tensor::Tensor;
use crate::train::checkpoint;
use crate::train::run::RunDir;
use crate::train::trainer::At;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;

/// Texts as rows (N, T): a prompt and its answer, cut by one token, and the same from the second token on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// T.
    pub t: usize,
    /// What is read.
    pub ids: Vec<i32>,
    /// What comes next.
    pub targets: Vec<i32>,
    /// The targets of each row that are its answer's, from the start of the row.
    pub spans: Vec<Range<usize>>,
    /// Of each target of an answer whether the model said it: 0 of what a tool replied in it, and outside answers.
    pub own: Vec<f32>,
}

impl Rows {
    /// Those of prompts and answers, none longer than T + 1 together.
    pub fn of(t: usize, texts: &[(&[u32], &[u32])]) -> Rows {
        let zeros = vec![0; texts.len() * t];
        let own = vec![0.0; texts.len() * t];
        let mut rows = Rows { t, ids: zeros.clone(), targets: zeros, spans: Vec::new(), own };
        for (row, (prompt, answer)) in texts.iter().enumerate() {
            let all: Vec<i32> = prompt.iter().chain(*answer).map(|&id| id as i32).collect();
            let n = all.len() - 1;
            rows.ids[row * t..row * t + n].copy_from_slice(&all[..n]);
            rows.targets[row * t..row * t + n].copy_from_slice(&all[1..]);
            rows.spans.push(prompt.len() - 1..n);
            let place = rows.place(row);
            rows.own[place].fill(1.0);
        }
        rows
    }

    /// Takes from the model what it did not say, token by token of each answer.
    pub fn disown(&mut self, own: &[Vec<bool>]) {
        for (row, own) in own.iter().enumerate() {
            let place = self.place(row);
            self.own[place].iter_mut().zip(own).for_each(|(to, own)| *to = f32::from(u8::from(*own)));
        }
    }

    /// How many tokens of answer `row` the model said.
    pub fn said(&self, row: usize) -> usize {
        self.own[self.place(row)].iter().filter(|own| **own > 0.0).count()
    }

    /// N.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The elements of a plane (N, T) that are those of answer `row`.
    pub fn place(&self, row: usize) -> Range<usize> {
        let Range { start, end } = self.spans[row];
        row * self.t + start..row * self.t + end
    }

    /// For each answer its elements of a plane.
    pub fn places(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.len()).map(|row| self.place(row))
    }

    /// A plane with 0 where no answer is; `of(row)` gives what is there.
    pub fn plane<'v>(&self, mut of: impl FnMut(usize) -> std::borrow::Cow<'v, [f32]>) -> Vec<f32> {
        let mut plane = vec![0.0; self.ids.len()];
        for (row, place) in self.places().enumerate() {
            plane[place].copy_from_slice(&of(row));
        }
        plane
    }

    /// The mean over all tokens of answers that the model said.
    pub fn mean(&self, of: impl Fn(usize) -> f64) -> f64 {
        let (mut sum, mut n) = (0.0, 0usize);
        for i in self.places().flatten().filter(|&i| self.own[i] > 0.0) {
            (sum, n) = (sum + of(i), n + 1);
        }
        sum / n.max(1) as f64
    }
}

/// What each token weighs in the loss, and its share of all that count, (N, T): of a step in `micros` micro-batches, whose means are told.
pub fn weigh(reinforce: &Reinforcement, rows: &Rows, ended: &[bool], micros: usize) -> [Vec<f32>; 2] {
    let counts = |row: usize| ended[row] || !reinforce.mask_truncated;
    let all: usize = (0..rows.len()).filter(|&row| counts(row)).map(|row| rows.said(row)).sum();
    let n = rows.len() as f64;
    let weight = |row: usize| match reinforce.loss {
        Weighing::Grpo => 1.0 / (n * rows.said(row).max(1) as f64),
        Weighing::Dapo => 1.0 / all.max(1) as f64,
        Weighing::Dr => 1.0 / (n * reinforce.tokens as f64),
    };
    let plane = |of: &dyn Fn(usize) -> f64| {
        rows.plane(|row| {
            let weight = if counts(row) { of(row) as f32 } else { 0.0 };
            rows.own[rows.place(row)].iter().map(|own| own * weight).collect::<Vec<_>>().into()
        })
    };
    [plane(&weight), plane(&|_| micros as f64 / all.max(1) as f64)]
}

/// The answers of an iteration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollouts {
    /// The number of the batch before which they were written.
    pub first: u64,
    /// By how much that is more than the step's number: it grows when a run goes back.
    pub offset: u64,
    /// The answers.
    pub rows: Rows,
    /// What is known of each token (N, T), in the order of the objective.
    pub planes: Vec<Vec<f32>>,
    /// What each is worth.
    pub rewards: Vec<f32>,
    /// Whether each came to its end.
    pub ended: Vec<bool>,
    /// The mean entropy of what could have been said, in nats: of the first iteration of the run, and of this one.
    pub entropy: [f64; 2],
    /// The price of a nat of KL in these answers' rewards, and in those of the next; of PPO.
    pub price: [f64; 2],
}

impl Rollouts {
    /// Whether the step `at` learns from them.
    pub fn serve(&self, at: At, updates: u64) -> bool {
        let same = at.batch / updates == self.first / updates;
        same && self.first <= at.batch && self.offset == at.batch - at.step
    }

    /// What is told of them, by TRL's names.
    pub fn numbers(&self, group: usize) -> Vec<(&'static str, f64)> {
        let n = self.rewards.len().max(1) as f64;
        let groups = || self.rewards.chunks(group).map(deviation);
        let count = groups().count().max(1) as f64;
        let tokens: usize = (0..self.rows.len()).map(|row| self.rows.said(row)).sum();
        let cut = self.ended.iter().filter(|ended| !**ended).count();
        vec![
            ("reward", self.rewards.iter().map(|&r| f64::from(r)).sum::<f64>() / n),
            ("reward_std", groups().sum::<f64>() / count),
            ("completions/mean_length", tokens as f64 / n),
            ("completions/clipped_ratio", cut as f64 / n),
            ("frac_reward_zero_std", groups().filter(|std| *std <= 1e-8).count() as f64 / count),
        ]
    }

    fn scalars(&self) -> Vec<f32> {
        let [first, now] = self.entropy;
        let [price, next] = self.price;
        // A number of a step may have more than 24 bits.
        let offset = [self.offset >> 20, self.offset & 0xf_ffff].map(|part| part as f32);
        vec![offset[0], offset[1], first as f32, now as f32, price as f32, next as f32]
    }

    /// Writes them into the run's directory, and removes those that no checkpoint needs and no step of the last two iterations.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn save(&self, run: &RunDir, names: &[&str], updates: u64) -> Result<()> {
        let host = Device::cpu(1)?;
        let numbers = |x: Vec<f32>| Tensor::from_slice(&host, &x, [x.len()]);
        let ids = |ids: &[i32]| ids.iter().map(|&id| id as f32).collect::<Vec<_>>();
        let spans = |of: fn(&Range<usize>) -> usize| self.rows.spans.iter().map(|span| of(span) as f32).collect();
        let mut all = vec![
            ("ids", ids(&self.rows.ids)),
            ("targets", ids(&self.rows.targets)),
            ("own", self.rows.own.clone()),
            ("starts", spans(|span| span.start)),
            ("ends", spans(|span| span.end)),
            ("rewards", self.rewards.clone()),
            ("ended", self.ended.iter().map(|&ended| f32::from(u8::from(ended))).collect()),
            ("numbers", self.scalars()),
        ];
        all.extend(names.iter().copied().zip(self.planes.iter().cloned()));
        let entry =
            |(name, x): (&str, Vec<f32>)| Entry { name: name.to_owned(), tensor: numbers(x), transposed: false };
        let entries: Vec<Entry> = all.into_iter().map(entry).collect();
        let (disk, path) = (run.disk(), place(run, self.first));
        disk::make_dirs(disk, &run.rollouts())?;
        let temporary = disk::temporary(&path);
        write(disk, &temporary, &entries)?;
        disk.rename(&temporary, &path).at(&path)?;
        disk.sync_dir(&run.rollouts()).at(&path)?;
        self.prune(run, updates)
    }

    fn prune(&self, run: &RunDir, updates: u64) -> Result<()> {
        let all = list(run)?;
        let needs = |step: u64| all.iter().rev().map(|(first, _)| *first).find(|first| *first < step + self.offset);
        let checkpoints = checkpoint::list(run.disk(), &run.checkpoints())?;
        let needed: Vec<u64> = checkpoints.iter().filter_map(|&(step, _)| needs(step)).collect();
        for (_, path) in all.iter().filter(|(first, _)| first + 2 * updates <= self.first && !needed.contains(first)) {
            run.disk().remove(path).at(path)?;
        }
        Ok(())
    }

    /// The newest of the run's that were written before batch number `batch`, N rows of T tokens; none where there are none.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn newest(run: &RunDir, batch: u64, [n, t]: [usize; 2], names: &[&str]) -> Result<Option<Rollouts>> {
        let Some((first, path)) = list(run)?.into_iter().rev().find(|(first, _)| *first < batch) else {
            return Ok(None);
        };
        let mut file = Reader::open(run.disk(), &path)?;
        let mut numbers = |name: &str, len: usize| -> Result<Vec<f32>> {
            let mut x = vec![0.0; len];
            file.read(name, &[len], false, &mut x)?;
            Ok(x)
        };
        let ids = |x: Vec<f32>| x.into_iter().map(|x| x as i32).collect::<Vec<_>>();
        let (starts, ends) = (numbers("starts", n)?, numbers("ends", n)?);
        let spans = starts.iter().zip(&ends).map(|(&start, &end)| start as usize..(end as usize).min(t)).collect();
        let [own, read, targets] = ["own", "ids", "targets"].map(|name| numbers(name, n * t));
        let rows = Rows { t, ids: ids(read?), targets: ids(targets?), spans, own: own? };
        let scalars = numbers("numbers", 6)?;
        let offset = (scalars[0] as u64) << 20 | scalars[1] as u64;
        let [a, b, c, d] = [2, 3, 4, 5].map(|i| f64::from(scalars[i]));
        Ok(Some(Rollouts {
            first,
            offset,
            rows,
            rewards: numbers("rewards", n)?,
            ended: numbers("ended", n)?.into_iter().map(|ended| ended == 1.0).collect(),
            planes: names.iter().map(|name| numbers(name, n * t)).collect::<Result<_>>()?,
            entropy: [a, b],
            price: [c, d],
        }))
    }
}

/// The standard deviation of some rewards, over n − 1.
fn deviation(rewards: &[f32]) -> f64 {
    let n = rewards.len() as f64;
    let mean = rewards.iter().map(|&r| f64::from(r)).sum::<f64>() / n;
    let squares: f64 = rewards.iter().map(|&r| (f64::from(r) - mean).powi(2)).sum();
    (squares / (n - 1.0).max(1.0)).sqrt()
}

fn place(run: &RunDir, first: u64) -> PathBuf {
    run.rollouts().join(format!("step-{first:06}.safetensors"))
}

/// Those of a run, oldest first.
fn list(run: &RunDir) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run.rollouts();
    let names = match run.disk().list(&folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.at(&folder)?,
    };
    let number = |name: &str| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok();
    let found =
        names.iter().filter_map(|name| name.to_str()).filter_map(|name| Some((number(name)?, folder.join(name))));
    let mut found: Vec<(u64, PathBuf)> = found.collect();
    found.sort();
    Ok(found)
}
