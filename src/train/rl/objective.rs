//! The loss of a step on answers that were written before it.

use super::rollout::{Rollouts, Rows};
use super::section::{Method, Reinforcement};
use crate::error::Result;
use crate::formats::Pretrained;
use crate::model::Gpt;
use crate::params::{Decl, Hold, ParamId, Params};
use crate::tape::{Pass, Tape, Var};
use crate::tensor::{DType, Out, Shape, Spec, Tensor};
use crate::train::answers::Speaks;
use crate::train::objective::{Batch, Found, MAX_TENSORS, Objective, Turn, Values, fill, room};
use crate::train::prefer::start;
use crate::train::trainer::Trainer;
use crate::train::tune::HoldOf;
use arrayvec::ArrayVec;
use std::cell::RefCell;
use std::rc::Rc;

/// A GPT and its answers. A micro-batch is ids and targets (B, T), and of each target its K numbers, plane by plane (K, B, T).
/// Weights are shares of the whole step, so that the sum of its micro-batches' losses is the loss of all its answers.
pub struct Reinforced {
    /// The model.
    pub gpt: Gpt,
    /// Its weights at the start; absent on a device that computes nothing.
    pub(super) base: Option<Rc<Pretrained>>,
    /// What it learns from, once there is anything.
    pub(super) rollouts: Rc<RefCell<Option<Rollouts>>>,
    /// B and T.
    pub(super) shape: [usize; 2],
    pub(super) reinforce: Reinforcement,
    /// What makes the stream before a token the value of what may follow: (1, C); of PPO.
    pub(super) score: Option<ParamId>,
    /// How a parameter is held.
    pub(super) hold: HoldOf,
    /// Floating-point operations of a micro-batch.
    pub(super) flops: f64,
}

/// What a model says of rows (N, T).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Speech {
    /// Log-probabilities of targets.
    pub logp: Vec<f32>,
    /// Entropies of what could have been there.
    pub entropy: Vec<f32>,
    /// The critic's values of what is to come; none without one.
    pub values: Vec<f32>,
}

/// Log-probabilities of targets, entropies, and where there is a score values, all (B, T).
fn look<'t>(
    gpt: &Gpt,
    tape: &'t Tape,
    [ids, targets]: [Tensor; 2],
    score: Option<ParamId>,
    temperature: f32,
) -> (Var<'t>, Var<'t>, Option<Var<'t>>) {
    let shape = *ids.shape();
    let hidden = gpt.hidden(tape.constant(ids));
    let mut logits = hidden.linear(tape.param(gpt.head()), None);
    if temperature != 1.0 {
        logits = logits.scale(1.0 / temperature);
    }
    let (logp, entropy) = logits.token_logprob(tape.constant(targets));
    let values = score.map(|score| hidden.linear(tape.param(score), None).reshape(shape).cast(DType::F32));
    (logp, entropy, values)
}

/// A model that is asked what it would have said.
pub(super) struct Voice<'a> {
    pub gpt: &'a Gpt,
    pub params: &'a Params,
    pub tape: &'a mut Tape,
    pub pass: Pass,
    pub score: Option<ParamId>,
    pub temperature: f32,
}

impl Voice<'_> {
    /// What it says of rows, `b` at a time; of no rows what it says of some that nobody fills, for a [dry](crate::device::Device::dry) device.
    pub fn say(self, rows: &Rows, b: usize) -> Result<Speech> {
        let Voice { gpt, params, tape, pass, score, temperature } = self;
        let t = rows.t;
        let device = params.device().clone();
        let ids = Spec { shape: [b, t].into(), dtype: DType::I32 };
        let mut said = Speech::default();
        for first in (0..rows.len().max(1)).step_by(b) {
            let own = first * t..rows.len().min(first + b) * t;
            let mut out = room(&device, &[ids; 2]);
            fill(&mut out, |x| {
                for (to, from) in x.into_iter().map(Values::ids).zip([&rows.ids, &rows.targets]) {
                    if !from.is_empty() {
                        to[..own.len()].copy_from_slice(&from[own.clone()]);
                        to[own.len()..].fill(0);
                    }
                }
                Ok(())
            })?;
            let mut x = out.into_iter().map(Out::freeze);
            let x = [(); 2].map(|()| x.next().expect("ids and targets"));
            tape.begin(params, pass);
            let (tape, n) = (&*tape, own.len());
            let [logp, entropy, values] = tape.no_grad(|| {
                let (logp, entropy, values) = look(gpt, tape, x, score, temperature);
                [Some(logp.value()), Some(entropy.value()), values.map(Var::value)]
            });
            for (to, from) in [(&mut said.logp, logp), (&mut said.entropy, entropy), (&mut said.values, values)] {
                from.iter().for_each(|from| to.extend_from_slice(&from.read::<f32>()[..n]));
            }
        }
        tape.reset();
        Ok(said)
    }
}

impl Reinforced {
    /// What is known of each target, by name.
    pub(super) fn planes(method: Method) -> &'static [&'static str] {
        match method {
            Method::Grpo => &["weights", "shares", "old", "reference", "advantages"],
            Method::Ppo => &["weights", "shares", "old", "reference", "advantages", "values", "returns"],
        }
    }

    fn specs(&self) -> [Spec; 3] {
        let [b, t] = self.shape;
        let shape: Shape = [b, t].into();
        let ids = Spec { shape, dtype: DType::I32 };
        [ids, ids, Spec::f32([Self::planes(self.reinforce.method).len(), b, t])]
    }
}

impl Objective for Reinforced {
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS> {
        self.specs().into_iter().collect()
    }

    fn fill(&self, _: u64, micro: usize, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let rollouts = self.rollouts.borrow();
        let Some(Rollouts { rows, planes, .. }) = &*rollouts else { return Ok(()) };
        let [b, t] = self.shape;
        let own = micro * b * t..(micro + 1) * b * t;
        let mut x = x.into_iter();
        let mut next = || x.next().expect("three tensors");
        next().ids().copy_from_slice(&rows.ids[own.clone()]);
        next().ids().copy_from_slice(&rows.targets[own.clone()]);
        for (to, from) in next().numbers().chunks_exact_mut(b * t).zip(planes) {
            to.copy_from_slice(&from[own.clone()]);
        }
        Ok(())
    }

    fn hold(&self, decl: &Decl) -> Hold {
        (self.hold)(decl)
    }

    fn prepare(&self, params: &mut Params) -> Result<()> {
        start(self.base.as_deref(), &self.gpt, self.score, params)
    }

    fn turn(&mut self, _: u8, turn: Turn, x: &Batch) -> Found {
        let Turn { tape, params, pass, last, .. } = turn;
        tape.begin(params, pass);
        let Reinforcement { temperature, value_clip, value_coef, .. } = self.reinforce;
        let policy = self.reinforce.policy();
        let plane = |i: usize| tape.constant(x[2].view(i * x[0].numel(), *x[0].shape()));
        let [weights, shares, old, reference, advantages] = [0, 1, 2, 3, 4].map(plane);
        let (logp, entropy, values) = look(&self.gpt, tape, [x[0].clone(), x[1].clone()], self.score, temperature);
        let (mut loss, ..) = logp.policy_loss(old, reference, advantages, weights, policy);
        let mut parts = ArrayVec::new();
        tape.no_grad(|| {
            let (_, kl, clipped) = logp.policy_loss(old, reference, advantages, shares, policy);
            parts.extend(self.reinforce.refers().then(|| kl.value()));
            parts.extend([clipped.value(), (entropy * shares).sum().value()]);
        });
        if let Some(values) = values {
            let [old, returns] = [5, 6].map(plane);
            let (of_values, _) = values.value_loss(old, returns, weights, value_clip);
            loss = loss + of_values.scale(value_coef);
            parts.push(tape.no_grad(|| values.value_loss(old, returns, shares, value_clip).0.value()));
        }
        let value = loss.value();
        loss.backward(params, last);
        Found { loss: value, parts }
    }

    /// As TRL has them: means over the tokens of a step.
    fn parts(&self, _: u8) -> &'static [&'static str] {
        match (self.score.is_some(), self.reinforce.refers()) {
            (false, false) => &["clip_ratio", "entropy"],
            (false, true) => &["kl", "clip_ratio", "entropy"],
            (true, false) => &["clip_ratio", "entropy", "value_loss"],
            (true, true) => &["kl", "clip_ratio", "entropy", "value_loss"],
        }
    }

    fn flops(&self) -> f64 {
        self.flops
    }
}

impl Speaks for Reinforced {
    fn gpt(&self) -> &Gpt {
        &self.gpt
    }
}

impl Trainer<Reinforced> {
    /// What the model says of rows now, as a step computes it.
    pub(super) fn say(&mut self, rows: &Rows) -> Result<Speech> {
        let pass = self.eval_pass();
        let Reinforced { gpt, score, reinforce, shape, .. } = &self.objective;
        let (score, temperature) = (*score, reinforce.temperature);
        Voice { gpt, params: &self.params, tape: &mut self.tape, pass, score, temperature }.say(rows, shape[0])
    }

    /// What it says of them as it writes: on the host, in f32.
    pub(super) fn say_as_written(&mut self, rows: &Rows) -> Result<Speech> {
        let ([b, _], temperature) = (self.objective.shape, self.objective.reinforce.temperature);
        self.on_host(|gpt, params, tape| {
            Voice { gpt, params, tape, pass: Pass::default(), score: None, temperature }.say(rows, b)
        })
    }
}
