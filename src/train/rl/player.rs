//! A model that was trained, at tasks of an environment.

use super::act::{Acting, Turns, Walk};
use crate::agent::{Environment, Episode, Tool, Trace};
use crate::data::Tokenizer;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::model::sample::SampleOptions;
use crate::params::{Hold, Params};
use crate::rng::{Purpose, Stream};
use crate::tape::Tape;
use crate::train::Sampler;
use crate::train::tune::templated;
use std::path::{Path, PathBuf};

/// A model that acts.
pub struct Player {
    gpt: Gpt,
    params: Params,
    tape: Tape,
    tokenizer: Tokenizer,
    turns: Turns,
}

/// How it plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Manner {
    /// Divides the logits; 0: the likeliest token.
    pub temperature: f32,
    /// Of what it draws.
    pub seed: u64,
    /// Tokens of a message at most.
    pub message: usize,
    /// Whether it can say nothing but calls that are allowed.
    pub only_allowed: bool,
}

impl Player {
    /// The model at `path`, a run, a checkpoint or a model, changed by `adapters`. It is told of the tools of `environment` where `tools` says so.
    ///
    /// # Errors
    /// It cannot be opened, or its template cannot write turns.
    pub fn open(
        path: &Path,
        adapters: &[PathBuf],
        template: &str,
        environment: &dyn Environment,
        tools: bool,
        device: &Device,
    ) -> Result<Player> {
        let (gpt, params, tokenizer) = Sampler::open(path, adapters, Hold::Frozen, device)?.into_parts();
        let (tokenizer, template) = templated(tokenizer, template)?;
        let Some(template) = template else {
            return Err(Error::usage(
                "agents speak by a chat template, and the model has none",
                "give one: --template plain",
            ));
        };
        let tools: Option<Vec<_>> = tools.then(|| environment.tools().iter().map(Tool::openai).collect());
        let turns = Turns::new(&template, &tokenizer, tools.as_deref())?;
        Ok(Player { tape: Tape::new(device), gpt, params, tokenizer, turns })
    }

    /// Plays episodes to their ends, side by side. `done` is told how many are over; nothing comes back where it said false.
    ///
    /// # Errors
    /// The tokenizer lacks a character of what is asked or replied.
    pub fn play(
        &mut self,
        episodes: Vec<Episode>,
        manner: Manner,
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Option<Vec<Trace>>> {
        let tasks: Vec<u64> = episodes.iter().map(|episode| episode.trace().task).collect();
        let walk = |episode| Walk::new(episode, &self.turns, &self.tokenizer);
        let mut walks = episodes.into_iter().map(walk).collect::<Result<Vec<_>>>()?;
        // What it draws at a task hangs on the task and the turn alone.
        let options = |i: usize, turn: usize| {
            let stream = Stream::new(manner.seed, Purpose::Sample, turn as u32 & 0xff_ffff, tasks[i]);
            let seed = u64::from(stream.bits(2)) << 32 | u64::from(stream.bits(3));
            SampleOptions { temperature: manner.temperature, seed, ..SampleOptions::default() }
        };
        let acting = Acting {
            turns: &self.turns,
            tokenizer: &self.tokenizer,
            room: self.gpt.config().context,
            message: manner.message,
            only_allowed: manner.only_allowed,
            options: &options,
        };
        let whole = acting.act((&self.gpt, &self.params, &mut self.tape), &mut walks, done)?;
        Ok(whole.then(|| walks.into_iter().map(|walk| walk.episode.end().0).collect()))
    }
}
