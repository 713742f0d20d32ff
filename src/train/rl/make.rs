//! From prompts to answers that can be learnt from: written, judged, and compared with what was expected.

use super::act::{Acting, Walk};
use super::advantage::{AdaptiveKl, gae, group_advantages, importance_weights, returns, token_rewards, whiten};
use super::objective::{Reinforced, Speech, Voice};
use super::reward::{Rewards, Said};
use super::rollout::{Rollouts, Rows, weigh};
use super::section::{Method, Reinforcement};
use super::stage::Stage;
use crate::agent::Trace;
use crate::data::Tokenizer;
use crate::data::batch::Permutation;
use crate::data::examples::Prompt;
use crate::device::Device;
use crate::error::Result;
use crate::formats::Pretrained;
use crate::model::sample::SampleOptions;
use crate::model::{Gpt, GptConfig};
use crate::params::{Hold, Kind, Params};
use crate::rng::{Purpose, Stream};
use crate::tape::{Pass, Tape};
use crate::train::event::{Event, Watch};
use crate::train::trainer::{At, Trainer};
use crate::train::tune::{Method as Trained, TuneModel};

/// Over so many answers the price of the KL follows its target; TRL's default.
const HORIZON: f64 = 10_000.0;

/// The model at the start, which stays.
pub(super) struct Reference {
    gpt: Gpt,
    params: Params,
    tape: Tape,
}

impl Reference {
    /// The model `config` as it is held beside what is trained; without weights where there is no base, on a device that computes nothing.
    ///
    /// # Errors
    /// A weight cannot be read.
    pub fn new(model: &TuneModel, config: &GptConfig, base: Option<&Pretrained>, device: &Device) -> Result<Reference> {
        let (gpt, decls) = Gpt::new(config.clone());
        let on_gpu = matches!(device, Device::Gpu(_));
        let held = if model.method == Trained::Full && !on_gpu { Hold::Frozen } else { model.frozen.hold() };
        // A GPU's kernels take vectors in f32.
        let hold = |kind: Kind| if on_gpu && kind == Kind::Vector { Hold::Frozen } else { held };
        let mut params = Params::with(device, &decls, 0, |decl| hold(decl.kind));
        if let Some(base) = base {
            base.weights.load(&mut params)?;
        }
        Ok(Reference { gpt, params, tape: Tape::new(device) })
    }

    /// What it says of rows, `b` at a time.
    pub fn say(&mut self, rows: &Rows, b: usize, pass: Pass, temperature: f32) -> Result<Speech> {
        let Reference { gpt, params, tape } = self;
        Voice { gpt, params, tape, pass, score: None, temperature }.say(rows, b)
    }
}

/// Answers to prompts.
pub(super) struct Written {
    /// Their tokens, with those that end them.
    pub ids: Vec<Vec<u32>>,
    /// Whether each came to its end.
    pub ended: Vec<bool>,
    /// What each is worth.
    pub rewards: Vec<f32>,
    /// Of trajectories, which of their tokens the model said.
    pub own: Option<Vec<Vec<bool>>>,
    /// What agents did.
    pub traces: Vec<Trace>,
}

impl Written {
    /// Them after their prompts, as rows of `t` tokens.
    pub fn rows(&self, prompts: &[&Prompt], t: usize) -> Rows {
        let texts = prompts.iter().zip(&self.ids).map(|(prompt, ids)| (&prompt.ids[..], &ids[..]));
        let mut rows = Rows::of(t, &texts.collect::<Vec<_>>());
        if let Some(own) = &self.own {
            rows.disown(own);
        }
        rows
    }
}

/// How answers are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// Divides the logits.
    pub temperature: f32,
    /// Which of all times they are written: chance hangs on it.
    pub time: u64,
}

/// What makes answers, and knows what they are worth.
pub(super) struct Maker {
    pub reinforce: Reinforcement,
    pub tokenizer: Tokenizer,
    /// To learn from.
    pub train: Vec<Prompt>,
    pub rewards: Rewards,
    pub reference: Option<Reference>,
    pub seed: u64,
    /// Steps of the run.
    pub steps: u64,
    pub micros: usize,
    /// Whether a model writes with other bits than it learns with.
    pub differs: bool,
    /// Where it acts, in place of answering.
    pub stage: Option<Stage>,
}

/// What the text at `i`, and its turn, is written with.
fn seed(own: u64, i: usize, turn: usize, time: u64) -> u64 {
    let stream = Stream::new(own, Purpose::Sample, (i as u32 & 0xff_ffff) | (turn as u32 & 0xff) << 24, time);
    u64::from(stream.bits(0)) << 32 | u64::from(stream.bits(1))
}

impl Maker {
    /// Lets the model answer; `None` where `done(how many are over)` said false.
    pub fn write(
        &mut self,
        trainer: &mut Trainer<Reinforced>,
        prompts: &[&Prompt],
        How { temperature, time }: How,
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Option<Written> {
        if self.stage.is_some() {
            return self.act(trainer, prompts, How { temperature, time }, done);
        }
        let t = trainer.objective.shape[1];
        let room = |prompt: &Prompt| self.reinforce.tokens.min(t + 1 - prompt.ids.len());
        let options = |i: usize| SampleOptions {
            tokens: room(prompts[i]),
            temperature,
            seed: seed(self.seed, i, 0, time),
            ..SampleOptions::default()
        };
        let asked: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt.ids[..]).collect();
        let mut whole = true;
        let mut told = |over| {
            whole = done(over);
            whole
        };
        let ends = self.tokenizer.ends();
        let ids = trainer.ended_answers(&asked, ends, &options, &mut told);
        if !whole {
            return None;
        }
        let ended: Vec<bool> = ids.iter().map(|ids| ids.last().is_some_and(|last| ends.contains(last))).collect();
        let texts: Vec<String> = ids
            .iter()
            .zip(&ended)
            .map(|(ids, &ended)| self.tokenizer.decode(&ids[..ids.len() - usize::from(ended)]))
            .collect();
        let n = prompts.len() as u64;
        let said: Vec<Said> = (0..prompts.len())
            .map(|i| {
                let number = time.wrapping_mul(n).wrapping_add(i as u64);
                Said { prompt: prompts[i], ids: &ids[i], text: &texts[i], number, trace: None }
            })
            .collect();
        let rewards = self.rewards.of(&said);
        Some(Written { ids, ended, rewards, own: None, traces: Vec::new() })
    }

    /// The same of tasks that the model acts at.
    fn act(
        &mut self,
        trainer: &mut Trainer<Reinforced>,
        prompts: &[&Prompt],
        How { temperature, time }: How,
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Option<Written> {
        let stage = self.stage.as_ref().expect("it acts");
        let mut walks: Vec<Walk> = prompts.iter().map(|prompt| stage.walk(prompt)).collect();
        let options = |i: usize, turn: usize| SampleOptions {
            temperature,
            seed: seed(self.seed, i, turn, time),
            ..SampleOptions::default()
        };
        let acting = Acting {
            turns: &stage.turns,
            tokenizer: &self.tokenizer,
            room: trainer.objective.shape[1] + 1,
            message: self.reinforce.tokens,
            only_allowed: false,
            options: &options,
        };
        let whole = trainer.on_host(|gpt, params, tape| acting.act((gpt, params, tape), &mut walks, done));
        // What tools reply was written as text before.
        if !whole.expect("a reply in characters that the tokenizer has") {
            return None;
        }
        let from = |i: usize| prompts[i].ids.len();
        let ids: Vec<Vec<u32>> = walks.iter().enumerate().map(|(i, walk)| walk.ids[from(i)..].to_vec()).collect();
        let own = walks.iter().enumerate().map(|(i, walk)| walk.own[from(i)..].to_vec()).collect();
        let ended = walks.iter().map(|walk| !walk.cut).collect();
        let traces: Vec<Trace> = walks.into_iter().map(|walk| walk.episode.end().0).collect();
        let n = prompts.len() as u64;
        let said: Vec<Said> = (0..prompts.len())
            .map(|i| {
                let number = time.wrapping_mul(n).wrapping_add(i as u64);
                Said { prompt: prompts[i], ids: &ids[i], text: "", number, trace: Some(&traces[i]) }
            })
            .collect();
        let rewards = self.rewards.of(&said);
        Some(Written { ids, ended, rewards, own: Some(own), traces })
    }

    /// What the reference says of rows, where there is one.
    pub fn refer(&mut self, trainer: &Trainer<Reinforced>, rows: &Rows) -> Result<Option<Speech>> {
        let (b, pass) = (trainer.objective.shape[0], trainer.eval_pass());
        let temperature = self.reinforce.temperature;
        self.reference.as_mut().map(|reference| reference.say(rows, b, pass, temperature)).transpose()
    }

    /// The prompts of the iteration that begins with batch number `batch`, each as often as it is answered.
    fn asked(&self, batch: u64, answers: usize) -> Vec<usize> {
        let count = self.reinforce.prompts(answers) as u64;
        let done = batch as f64 / self.steps.max(1) as f64;
        let open = |stage: &Stage| stage.agency.open(self.train.len(), done);
        let n = self.stage.as_ref().map_or(self.train.len(), open) as u64;
        let first = batch.div_ceil(self.reinforce.updates) * count;
        let prompt = |index: u64| Permutation::new(n, self.seed, index / n).get(index % n) as usize;
        (first..first + count).flat_map(|index| std::iter::repeat_n(prompt(index), self.reinforce.group)).collect()
    }

    /// The answers that the steps from `at` on learn from, after those of an `earlier` iteration.
    pub fn iteration(
        &mut self,
        trainer: &mut Trainer<Reinforced>,
        at: At,
        earlier: Option<&Rollouts>,
        watch: &mut dyn Watch,
    ) -> Result<Rollouts> {
        let [b, t] = trainer.objective.shape;
        let asked = self.asked(at.batch, b * self.micros);
        let all = std::mem::take(&mut self.train);
        let prompts: Vec<&Prompt> = asked.iter().map(|&which| &all[which]).collect();
        let total = prompts.len() as u64;
        let mut told = |over: usize| {
            watch.event(&Event::Prepare { what: "writing answers", done: over as u64, total });
            true
        };
        let how = How { temperature: self.reinforce.temperature, time: at.batch };
        let written = self.write(trainer, &prompts, how, &mut told).expect("nobody stops it");
        let rows = written.rows(&prompts, t);
        drop(prompts);
        self.train = all;

        let own = trainer.say(&rows)?;
        let reference = self.refer(trainer, &rows)?;
        // As a file keeps it.
        let begin = f64::from(self.reinforce.kl() as f32);
        let mut price = [earlier.map_or(begin, |earlier| earlier.price[1]); 2];
        let mut planes: Vec<Vec<f32>> = weigh(&self.reinforce, &rows, &written.ended, self.micros).into();
        let kept = |x: &[f32]| rows.plane(|row| x[rows.place(row)].into());
        let refs = kept(reference.as_ref().map_or(&own.logp, |said| &said.logp));
        let old = kept(&own.logp);
        let learnt = match self.reinforce.method {
            Method::Grpo => {
                let grouped =
                    group_advantages(&written.rewards, self.reinforce.group, self.reinforce.scale.into()).advantages;
                vec![rows.plane(|row| vec![grouped[row]; rows.spans[row].len()].into())]
            }
            Method::Ppo => {
                let kl = |row: usize| rows.place(row).map(|i| f64::from(old[i]) - f64::from(refs[i])).sum::<f64>();
                let kl = (0..rows.len()).map(kl).sum::<f64>() / rows.len() as f64;
                let learnt = self.criticise(&rows, &written.rewards, [&old, &refs, &own.values], &planes[0], price[0]);
                price[1] = self.next_price(price[0], kl, rows.len());
                learnt
            }
        };
        planes.extend([old, refs]);
        planes.extend(learnt);
        if self.differs {
            let said = trainer.say_as_written(&rows)?.logp;
            for place in rows.places() {
                let weights =
                    importance_weights(&own.logp[place.clone()], &said[place.clone()], self.reinforce.importance_cap);
                planes[4][place].iter_mut().zip(weights).for_each(|(advantage, weight)| *advantage *= weight);
            }
        }
        let entropy = f64::from(rows.mean(|i| own.entropy[i].into()) as f32);
        let first = earlier.map_or(entropy, |earlier| earlier.entropy[0]);
        let Written { rewards, ended, .. } = written;
        let (first_batch, offset) = (at.batch, at.batch - at.step);
        Ok(Rollouts { first: first_batch, offset, rows, planes, rewards, ended, entropy: [first, entropy], price })
    }

    /// Of PPO advantages, values and returns. An answer is over at its last token, be it cut off there or not.
    fn criticise(
        &self,
        rows: &Rows,
        scores: &[f32],
        [old, refs, values]: [&[f32]; 3],
        weights: &[f32],
        price: f64,
    ) -> Vec<Vec<f32>> {
        let Reinforcement { gamma, lambda, whiten: whitens, .. } = self.reinforce;
        let own = |x: &[f32], row: usize| x[rows.place(row)].to_vec();
        let mut advantages = rows.plane(|row| {
            let rewards = token_rewards(scores[row], &own(old, row), &own(refs, row), price);
            gae(&rewards, &own(values, row), 0.0, gamma, lambda).into()
        });
        let returns = rows.plane(|row| returns(&own(&advantages, row), &own(values, row)).into());
        let values = rows.plane(|row| own(values, row).into());
        if whitens {
            let counts: Vec<bool> = weights.iter().map(|&weight| weight > 0.0).collect();
            whiten(&mut advantages, &counts, true);
        }
        vec![advantages, values, returns]
    }

    /// The price of the KL after answers that had this much of it on average.
    fn next_price(&self, coef: f64, kl: f64, answers: usize) -> f64 {
        let target = self.reinforce.target_kl;
        if target == 0.0 {
            return coef;
        }
        let mut adaptive = AdaptiveKl { coef, target, horizon: HORIZON };
        adaptive.update(kl, answers);
        f64::from(adaptive.coef as f32)
    }
}
