//! A model on this machine: many texts are read and written side by side.

use super::model::{Model, Score, Writing};
use crate::data::Tokenizer;
use crate::data::chat::{ChatTemplate, Message};
use crate::error::{Error, Result};
use crate::infer::TextStream;
use crate::model::sample::{SampleOptions, logprob};
use crate::model::sequence::{LANES, PIECE, Wish, answers};
use crate::model::{Cache, Gpt, Part};
use crate::params::Params;
use crate::tape::{Pass, Tape};
use arrayvec::ArrayVec;
use rayon::prelude::*;
use serde_json::Map;

/// A language model with its tokenizer.
pub struct Local {
    name: String,
    gpt: Gpt,
    params: Params,
    tape: Tape,
    reader: Reader,
}

/// How texts become tokens.
struct Reader {
    tokenizer: Tokenizer,
    /// Stands before every text.
    before: Option<u32>,
    /// Stands where nothing else stands before a text.
    first: u32,
    template: Option<ChatTemplate>,
    /// The model's.
    context: usize,
}

/// Tokens, of which those from `first` on are to be scored.
struct Job {
    owner: usize,
    ids: Vec<u32>,
    first: usize,
}

/// A job that is being read, after others that may have begun as it does.
struct Lane {
    jobs: std::vec::IntoIter<Job>,
    job: Job,
    /// Tokens of it that have been read.
    at: usize,
    cache: Cache,
}

impl Local {
    /// A model, its weights and its tokenizer, that is called `name`. `own` models of kiln read every text after the token that texts start
    /// with, as in training; others only where their file puts one there, as lm-evaluation-harness does. With a `template`, prompts are
    /// what a user says.
    ///
    /// # Errors
    /// The tokenizer has no token to begin a text with.
    pub fn new(
        name: String,
        (gpt, params, tokenizer): (Gpt, Params, Tokenizer),
        own: bool,
        template: Option<ChatTemplate>,
    ) -> Result<Local> {
        params.device().pool().ragged();
        let bos = || tokenizer.named_tokens().into_iter().find(|(name, _)| name == "bos_token");
        let named = || bos().and_then(|(_, token)| tokenizer.id(&token));
        let before = tokenizer.puts_first().or(if own { tokenizer.start() } else { None });
        let first = match before.or_else(named).or(tokenizer.start()) {
            Some(first) => first,
            // Without a token between documents, a line break is the likeliest start.
            None => tokenizer.encode("\n").ok().and_then(|ids| ids.first().copied()).unwrap_or(0),
        };
        let context = gpt.config().context;
        let reader = Reader { tokenizer, before, first, template, context };
        Ok(Local { name, tape: Tape::new(params.device()), gpt, params, reader })
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.reader.tokenizer
    }
}

impl Reader {
    /// The tokens of a context, and those of the text after it: what the two have together, less the context's.
    fn pair(&self, context: &str, text: &str) -> Result<Job> {
        let mut ids: Vec<u32> = self.before.into_iter().collect();
        let mut whole = self.before.into_iter().collect();
        match &self.template {
            Some(_) => {
                self.prompt_into(context, &mut ids)?;
                whole = ids.clone();
                self.tokenizer.encode_into(text, &mut whole)?;
            }
            None => {
                // Words begin with their blank.
                let (context, blanks) = context.split_at(context.trim_end().len());
                self.tokenizer.encode_into(context, &mut ids)?;
                self.tokenizer.encode_into(&format!("{context}{blanks}{text}"), &mut whole)?;
                if context.is_empty() && self.before.is_none() {
                    ids.push(self.first);
                    whole.insert(0, self.first);
                }
            }
        }
        if whole.len() <= ids.len() {
            let problem = format!("{text:?} after {:?} adds no token", tail(context));
            return Err(Error::usage(problem, "mend the task: what is scored may not be empty"));
        }
        let first = ids.len();
        ids.extend(&whole[first..]);
        // The last tokens count that the context holds.
        let cut = ids.len().saturating_sub(self.context + 1);
        if first <= cut {
            let (tokens, context) = (ids.len() - first, self.context);
            let problem = format!("{:?} has {tokens} tokens, and the model's context {context}", tail(text));
            return Err(Error::usage(problem, "ask tasks with shorter texts; of kind text any length will do"));
        }
        ids.drain(..cut);
        Ok(Job { owner: 0, ids, first: first - cut })
    }

    /// The tokens of a prompt.
    fn prompt_into(&self, prompt: &str, ids: &mut Vec<u32>) -> Result<()> {
        match &self.template {
            Some(template) => {
                let text = template.render(&[Message::new("user", prompt)], None, true, &Map::new())?;
                ids.clear();
                ids.extend(self.tokenizer.encode_with_special(&text)?);
            }
            None => self.tokenizer.encode_into(prompt, ids)?,
        }
        if ids.is_empty() {
            ids.push(self.first);
        }
        Ok(())
    }
}

impl Local {
    /// Scores jobs, given in runs of which each is read by one lane, one after the other; what a job begins with as the one before
    /// did is not read again. `done(owner, score)` hears of each.
    fn run(&mut self, runs: Vec<Vec<Job>>, done: &mut dyn FnMut(usize, Score) -> Result<()>) -> Result<()> {
        let (device, config) = (self.params.device().clone(), self.gpt.config().clone());
        let mut waiting = runs.into_iter();
        let mut lanes: Vec<Lane> = Vec::new();
        let mut sums: Vec<Score> = Vec::new();
        loop {
            while lanes.len() < LANES
                && let Some(run) = waiting.next()
            {
                let room = run.iter().map(|job| job.ids.len() - 1).max().unwrap_or(1);
                let mut jobs = run.into_iter();
                let Some(job) = jobs.next() else { continue };
                lanes.push(Lane { jobs, job, at: 0, cache: Cache::with_room(&device, &config, room) });
                sums.push(Score::NONE);
            }
            if lanes.is_empty() {
                self.tape.reset();
                return Ok(());
            }
            self.tape.begin(&self.params, Pass::default());
            // Each lane has a token at least; the first ones have more.
            let mut room = PIECE.max(lanes.len());
            let mut behind = lanes.len();
            let mut parts = ArrayVec::<Part, LANES>::new();
            let mut targets: Vec<(usize, u32)> = Vec::new();
            for (i, Lane { job, at, cache, .. }) in lanes.iter_mut().enumerate() {
                behind -= 1;
                let end = (job.ids.len() - 1).min(*at + room - behind);
                room -= end - *at;
                let scored = end.min((job.first - 1).max(*at))..end;
                targets.extend(scored.clone().map(|p| (i, job.ids[p + 1])));
                parts.push(Part { ids: &job.ids[*at..end], want: scored.len(), cache });
                *at = end;
            }
            let logits = self.gpt.logits_cached(&self.tape, &mut parts);
            drop(parts);
            let rows = logits.f32().par_chunks_exact(config.vocab).zip(&targets);
            let told: Vec<(usize, f32, bool)> = rows
                .map(|(row, &(lane, id))| {
                    let own = row[id as usize];
                    let (before, from) = row.split_at(id as usize);
                    let greedy = before.iter().all(|&x| x < own) && from.iter().all(|&x| x <= own);
                    (lane, logprob(row, id, 0).logprob, greedy)
                })
                .collect();
            for (lane, nats, greedy) in told {
                sums[lane].push(nats, greedy);
            }
            let mut i = 0;
            while i < lanes.len() {
                let lane = &mut lanes[i];
                if lane.at + 1 < lane.job.ids.len() {
                    i += 1;
                    continue;
                }
                done(lane.job.owner, std::mem::replace(&mut sums[i], Score::NONE))?;
                let Some(next) = lane.jobs.next() else {
                    lanes.swap_remove(i);
                    sums.swap_remove(i);
                    continue;
                };
                let common = next.ids.iter().zip(&lane.job.ids).take_while(|(a, b)| a == b).count();
                lane.at = common.min(next.first - 1).min(lane.at);
                lane.cache.truncate(lane.at);
                lane.job = next;
                i += 1;
            }
        }
    }
}

/// The end of a text, for messages.
fn tail(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(40);
    text.chars().skip(skip).collect()
}

impl Model for Local {
    fn name(&self) -> &str {
        &self.name
    }

    fn tokens(&self, text: &str) -> Option<usize> {
        self.reader.tokenizer.encode(text).ok().map(|ids| ids.len())
    }

    fn score(&mut self, pairs: &[(&str, &str)], told: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Score>> {
        let reader = &self.reader;
        let jobs = pairs.par_iter().map(|(context, text)| reader.pair(context, text)).collect::<Result<Vec<Job>>>()?;
        let mut runs: Vec<Vec<Job>> = Vec::new();
        for (owner, job) in jobs.into_iter().enumerate() {
            let job = Job { owner, ..job };
            match runs.last_mut() {
                Some(run) if pairs[run[0].owner].0 == pairs[owner].0 => run.push(job),
                _ => runs.push(vec![job]),
            }
        }
        let mut scores = vec![Score::NONE; pairs.len()];
        let mut n = 0;
        self.run(runs, &mut |owner, score| {
            scores[owner] = score;
            n += 1;
            told(n)
        })?;
        Ok(scores)
    }

    fn read(&mut self, texts: &[&str], told: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Score>> {
        let Reader { context, first, tokenizer, .. } = &self.reader;
        let all = tokenizer.encode_batch(texts)?;
        let mut runs = Vec::new();
        let mut left = Vec::new();
        for (owner, ids) in all.iter().enumerate() {
            let whole = [&[*first], &ids[..]].concat();
            // Windows of the context's length, the last of them with all that fits before it.
            let windows = (1..whole.len()).step_by(*context).map(|first| {
                let end = whole.len().min(first + context);
                let start = (end - 1).saturating_sub(*context);
                vec![Job { owner, ids: whole[start..end].to_vec(), first: first - start }]
            });
            let before = runs.len();
            runs.extend(windows);
            left.push(runs.len() - before);
        }
        let mut scores = vec![Score::NONE; texts.len()];
        let mut n = left.iter().filter(|&&left| left == 0).count();
        self.run(runs, &mut |owner, score| {
            scores[owner].extend(&score);
            left[owner] -= 1;
            n += usize::from(left[owner] == 0);
            told(n)
        })?;
        Ok(scores)
    }

    fn vectors(&mut self, words: &[&str]) -> Result<Vec<Vec<f64>>> {
        let table = self.params.weight(self.gpt.tokens()).widened();
        let d = self.gpt.config().d;
        let rows = table.read::<f32>();
        let one = |word: &&str| {
            let ids = self.reader.tokenizer.encode(&format!(" {}", word.trim()))?;
            if ids.is_empty() {
                return Err(Error::usage(format!("{word:?} has no tokens"), "mend the lists of the task"));
            }
            let row = |id: u32, i: usize| f64::from(rows[id as usize * d + i]);
            Ok((0..d).map(|i| ids.iter().map(|&id| row(id, i)).sum::<f64>() / ids.len() as f64).collect())
        };
        words.iter().map(one).collect()
    }

    fn write(
        &mut self,
        prompts: &[&str],
        writing: &Writing,
        told: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<String>> {
        let reader = &self.reader;
        let ids = prompts.par_iter().map(|prompt| {
            let mut ids: Vec<u32> = reader.before.into_iter().collect();
            reader.prompt_into(prompt, &mut ids).map(|()| ids)
        });
        let ids = ids.collect::<Result<Vec<Vec<u32>>>>()?;
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let options = |i: usize| match writing.temperature {
            0.0 => SampleOptions::greedy(writing.tokens),
            temperature => SampleOptions {
                tokens: writing.tokens,
                temperature,
                seed: writing.seed.wrapping_add((i as u64) << 32),
                ..SampleOptions::default()
            },
        };
        let stream = |_: &&str| (TextStream::new(&reader.tokenizer, writing.stop.to_vec()), String::new());
        let mut texts: Vec<(TextStream, String)> = prompts.iter().map(stream).collect();
        let (mut n, mut failed) = (0, None);
        answers(
            &self.gpt,
            &self.params,
            &mut self.tape,
            &ids,
            reader.tokenizer.ends(),
            &options,
            &mut |i, new, over| {
                let (stream, text) = &mut texts[i];
                text.push_str(&new.map(|id| stream.push(id)).unwrap_or_default());
                let done = over || stream.stopped();
                n += usize::from(done);
                match told(n) {
                    Ok(()) if done => Wish::Enough,
                    Ok(()) => Wish::More,
                    Err(e) => {
                        failed = Some(e);
                        Wish::End
                    }
                }
            },
        );
        match failed {
            Some(error) => Err(error),
            None => Ok(texts.into_iter().map(|(stream, text)| text + &stream.finish()).collect()),
        }
    }
}
