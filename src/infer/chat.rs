//! A conversation with a model, turn by turn.

use super::stream::TextStream;
use crate::data::Tokenizer;
use crate::data::chat::{ChatTemplate, Message};
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::model::sample::{Chooser, SampleOptions};
use crate::model::sequence::{PIECE, Pace, Past, Sequence, step};
use crate::params::Params;
use crate::tape::Tape;
use serde_json::Map;
use std::time::Instant;

/// Tokens that an answer has room for at least: before there is less, the oldest turns are left out.
const ROOM: usize = 64;

/// A model and what was said.
pub struct Conversation {
    gpt: Gpt,
    params: Params,
    tape: Tape,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    chooser: Chooser,
    /// What was said, the system prompt first where there is one.
    pub messages: Vec<Message>,
    /// What the model has read.
    past: Option<Past>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The text, as far as it came.
    pub text: String,
    /// Tokens of the conversation, and of these how many had been read before.
    pub prompt: usize,
    /// See above.
    pub cached: usize,
    /// Messages that were left out because the context is too small for all.
    pub left_out: usize,
    /// Whether it was cut off by its length.
    pub cut: bool,
    /// How fast it came.
    pub pace: Pace,
}

impl Conversation {
    /// With a model, its tokenizer, and the template by which conversations become text.
    pub fn new((gpt, params, tokenizer): (Gpt, Params, Tokenizer), template: ChatTemplate) -> Conversation {
        let tape = Tape::new(params.device());
        params.device().pool().ragged();
        Conversation {
            gpt,
            params,
            tape,
            tokenizer,
            template,
            chooser: Chooser::default(),
            messages: Vec::new(),
            past: None,
        }
    }

    /// The ids of the conversation, and how many messages had to be left out: the oldest ones after the system prompt.
    fn ids(&self) -> Result<(Vec<u32>, usize)> {
        let context = self.gpt.config().context;
        let first = usize::from(self.messages.first().is_some_and(|message| message.role() == "system"));
        let mut left_out = 0;
        loop {
            let mut messages = self.messages.clone();
            messages.drain(first..first + left_out);
            let text = self.template.render(&messages, None, true, &Map::new())?;
            let ids = self.tokenizer.encode_with_special(&text)?;
            if ids.len() + ROOM.min(context / 2) <= context && !ids.is_empty() {
                return Ok((ids, left_out));
            }
            // A turn is a question and its answer; the last question stays.
            left_out += 2;
            if first + left_out >= self.messages.len() {
                let problem = format!("{} tokens, but the model's context is {context} tokens", ids.len());
                return Err(Error::usage(problem, "say it in fewer words"));
            }
        }
    }

    /// Lets the model answer, and keeps the answer as the next message. `piece` sees the text as it comes; false stops it.
    ///
    /// # Errors
    /// The template refuses the conversation, or the context is too small for it.
    pub fn answer(&mut self, options: &SampleOptions, piece: &mut dyn FnMut(&str) -> bool) -> Result<Answer> {
        let (ids, left_out) = self.ids()?;
        let device = self.params.device().clone();
        let prompt = ids.len();
        let room = self.gpt.config().context - prompt;
        let options = SampleOptions { tokens: options.tokens.min(room), ..*options };
        let mut sequence = match self.past.take() {
            Some(past) => Sequence::after(&device, &self.gpt, past, ids, options),
            None => Sequence::new(&device, &self.gpt, ids, options),
        };
        let cached = sequence.read();
        let mut answer = Answer { prompt, cached, left_out, ..Answer::default() };
        let mut stream = TextStream::new(&self.tokenizer, Vec::new());
        let mut clock = Instant::now();
        let mut goes_on = true;
        while !sequence.is_full() && goes_on {
            step(&self.gpt, &self.params, &mut self.tape, &mut self.chooser, &mut [&mut sequence], PIECE);
            let Some(id) = sequence.fresh() else {
                // A long text is read in pieces, and between them it may be stopped.
                goes_on = piece("");
                continue;
            };
            let seconds = clock.elapsed().as_secs_f64();
            answer.pace += match sequence.written().len() {
                1 => Pace { prompt: prompt - cached, first_seconds: seconds, ..Pace::default() },
                _ => Pace { more: 1, more_seconds: seconds, ..Pace::default() },
            };
            clock = Instant::now();
            if self.tokenizer.ends().contains(&id) {
                break;
            }
            answer.cut = sequence.is_full();
            let text = stream.push(id);
            answer.text += &text;
            goes_on = piece(&text);
        }
        let rest = stream.finish();
        answer.text += &rest;
        if goes_on && !rest.is_empty() {
            piece(&rest);
        }
        self.tape.reset();
        self.past = Some(sequence.into_past());
        self.messages.push(Message::new("assistant", &answer.text));
        Ok(answer)
    }
}
