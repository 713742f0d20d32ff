//! The loss of a step on preferences.

use super::duos::{Duo, Duos, Form};
use super::judge::start;
use super::loss::{Compared, kto_kl};
use super::section::{Preference, PreferenceLoss};
use crate::error::Result;
use crate::formats::Pretrained;
use crate::model::Gpt;
use crate::params::{Decl, Hold, ParamId, Params};
use crate::tape::{Tape, Var};
use crate::tensor::{Out, Spec, Tensor};
use crate::train::answers::Speaks;
use crate::train::objective::{Batch, Found, MAX_TENSORS, Objective, Turn, Values, fill, room};
use crate::train::trainer::Trainer;
use arrayvec::ArrayVec;
use std::rc::Rc;

/// A GPT and preferences. A micro-batch has the first answers of its duos before the second ones; a step's loss is the mean over its duos.
pub struct Answers {
    /// The model.
    pub gpt: Gpt,
    /// Its weights at the start; absent where they are fresh, and on a device that computes nothing.
    pub(super) base: Option<Rc<Pretrained>>,
    /// What it learns from; as above.
    pub(super) duos: Option<Rc<Duos>>,
    /// How answers become rows.
    pub(super) form: Form,
    /// Micro-batches in a step.
    pub(super) micros: usize,
    /// The loss.
    pub(super) preference: Preference,
    /// Of a reward model, what makes the stream after an answer its reward: (1, C).
    pub(super) score: Option<ParamId>,
    /// How a parameter is held.
    pub(super) hold: Box<dyn Fn(&Decl) -> Hold>,
    /// Floating-point operations of a micro-batch.
    pub(super) flops: f64,
}

/// What a held-out duo comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Looked {
    pub loss: f32,
    pub rewards: [f32; 2],
    pub good: bool,
}

impl Answers {
    /// What answers come to, row by row: their log-probabilities, as means where [`Form`] weighs them so, or their rewards.
    fn rows<'t>(&self, tape: &'t Tape, [ids, targets, weights]: [Tensor; 3]) -> Var<'t> {
        let (rows, t) = (ids.shape()[0], ids.shape()[1]);
        let [ids, targets, weights] = [ids, targets, weights].map(|x| tape.constant(x));
        let hidden = self.gpt.hidden(ids);
        let values = match self.score {
            Some(score) => hidden.linear(tape.param(score), None).reshape([rows, t]),
            None => hidden.linear(tape.param(self.gpt.head()), None).token_logprob(targets).0,
        };
        (values * weights).sum_last()
    }

    /// What a batch comes to.
    fn compare<'t>(&self, tape: &'t Tape, x: &Batch) -> Compared<'t> {
        let b = self.form.b;
        if self.preference.loss == PreferenceLoss::Kto {
            let half = |i: usize| {
                let rows = |x: &Tensor| x.view(i * b * self.form.t, [b, self.form.t]);
                [rows(&x[0]), rows(&x[1]), rows(&x[2])]
            };
            let part = |x: &Tensor, i: usize| tape.constant(x.view(i * b, [b]));
            let kl = tape.no_grad(|| kto_kl(self.rows(tape, half(1)), part(&x[3], 1)).value());
            return self.preference.thumbs(self.rows(tape, half(0)), part(&x[3], 0), part(&x[4], 0), tape.constant(kl));
        }
        let all = self.rows(tape, [0, 1, 2].map(|i| x[i].clone()));
        match self.preference.loss {
            PreferenceLoss::Reward => self.preference.scores(all.halves()),
            _ => {
                let [refs, [_, shares]] = [3, 4].map(|i| tape.constant(x[i].clone()).halves());
                self.preference.pairs(all.halves(), refs, shares)
            }
        }
    }
}

impl Objective for Answers {
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS> {
        self.form.specs().into_iter().collect()
    }

    fn fill(&self, batch: u64, micro: usize, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let Some(duos) = &self.duos else { return Ok(()) };
        let refs = duos.refs.get().map(|refs| &refs[0]);
        let b = self.form.b;
        let first = (batch * self.micros as u64 + micro as u64) * b as u64;
        let duo = |i: usize| {
            let which = duos.at(first + i as u64);
            (&duos.train[which], refs.map_or([0.0; 2], |refs| refs[which]))
        };
        self.form.fill(duo, x);
        Ok(())
    }

    fn hold(&self, decl: &Decl) -> Hold {
        (self.hold)(decl)
    }

    fn prepare(&self, params: &mut Params) -> Result<()> {
        start(self.base.as_deref(), &self.gpt, self.score, params)
    }

    fn turn(&mut self, _: u8, turn: Turn, x: &Batch) -> Found {
        let Turn { tape, params, pass, micros, last } = turn;
        tape.begin(params, pass);
        let compared = self.compare(tape, x);
        let parts = tape.no_grad(|| {
            let halves = tape.constant(x[4].clone()).halves();
            self.preference.parts(&compared, halves)
        });
        let loss = compared.losses.mean().scale(1.0 / micros as f32);
        let value = loss.value();
        loss.backward(params, last);
        Found { loss: value, parts }
    }

    fn parts(&self, _: u8) -> &'static [&'static str] {
        self.preference.names()
    }

    fn flops(&self) -> f64 {
        self.flops
    }
}

impl Speaks for Answers {
    fn gpt(&self) -> &Gpt {
        &self.gpt
    }
}

impl Trainer<Answers> {
    /// A batch of duos, the first ones again where there are too few; as memory has it, where none are given.
    fn look_at(&mut self, duos: &[(&Duo, [f32; 2])]) -> Result<Batch> {
        let device = self.params.device().clone();
        let form = self.objective.form;
        let mut out = room(&device, &form.specs());
        fill(&mut out, |x| {
            if !duos.is_empty() {
                form.fill(|i| duos[i % duos.len()], x);
            }
            Ok(())
        })?;
        Ok(out.into_iter().map(Out::freeze).collect())
    }

    /// What the model says of these duos now.
    pub(super) fn rows_of(&mut self, duos: &[(&Duo, [f32; 2])]) -> Result<Vec<[f32; 2]>> {
        let x = self.look_at(duos)?;
        self.tape.begin(&self.params, self.eval_pass());
        let (tape, objective) = (&self.tape, &self.objective);
        let rows = tape.no_grad(|| objective.rows(tape, [0, 1, 2].map(|i| x[i].clone())).value());
        let (rows, b) = (rows.read::<f32>(), objective.form.b);
        Ok((0..duos.len()).map(|i| [rows[i], rows[b + i]]).collect())
    }

    /// How it does on these duos.
    pub(super) fn look(&mut self, duos: &[(&Duo, [f32; 2])]) -> Result<Vec<Looked>> {
        let x = self.look_at(duos)?;
        self.tape.begin(&self.params, self.eval_pass());
        let (tape, objective) = (&self.tape, &self.objective);
        let found = tape.no_grad(|| {
            let Compared { losses, rewards: [first, second], .. } = objective.compare(tape, &x);
            [losses, first, second].map(Var::value)
        });
        let [losses, first, second] = [0, 1, 2].map(|i| found[i].read::<f32>());
        let one = |(i, (duo, _)): (usize, &(&Duo, [f32; 2]))| Looked {
            loss: losses[i],
            rewards: [first[i], second[i]],
            good: duo.good,
        };
        Ok(duos.iter().enumerate().map(one).collect())
    }
}
