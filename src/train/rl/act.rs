//! A model that acts: trajectories of many episodes side by side, each a text of what was asked, what the model said and what tools replied.

use crate::agent::{Call, Episode, Told};
use crate::data::Tokenizer;
use crate::data::chat::{ChatTemplate, Message};
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::model::sample::{Chooser, Constraint, SampleOptions};
use crate::model::sequence::{LANES, PIECE, Sequence, step};
use crate::params::Params;
use crate::tape::Tape;
use arrayvec::ArrayVec;
use serde_json::{Map, Value};

/// What stands for words in a template, to find where they go.
const HERE: [&str; 5] = ["\u{e000}goal", "\u{e000}said", "\u{e000}told", "\u{e000}again", "\u{e000}user"];

/// How turns become text: what a template writes around them, which is the same for all.
#[derive(Clone, Debug)]
pub struct Turns {
    /// Before and after what is asked.
    goal: [String; 2],
    /// Before and after what a tool replies; before, with what ends a message.
    tool: [String; 2],
    /// The same of a reply of the user.
    user: [String; 2],
    /// Whether calls stand between marks.
    marks: bool,
    /// The token that ends a message, and how it is spelled in the text.
    end: (u32, String),
}

impl Turns {
    /// Those of `template`. `tools` are told to the model before all else, where the template writes them.
    ///
    /// # Errors
    /// The template refuses such conversations, or writes a turn otherwise when others follow; the tokenizer has no token that ends one.
    pub fn new(template: &ChatTemplate, tokenizer: &Tokenizer, tools: Option<&[Value]>) -> Result<Turns> {
        let call = Call::new("look", &[]);
        let said = |i: usize, role: &str| Message::new(role, HERE[i]);
        let all = [said(0, "user"), said(1, "assistant"), said(2, "tool"), said(3, "assistant"), said(4, "user")];
        let render = |messages: &[Message]| template.render(messages, tools, true, &Map::new());
        let whole = render(&all)?;
        let cut = |from: usize, to: usize| {
            let (_, rest) = whole.split_once(HERE[from])?;
            rest.split_once(HERE[to]).map(|(between, _)| between.to_owned())
        };
        let around = || {
            let (before, _) = whole.split_once(HERE[0])?;
            let (_, end) = whole.split_once(HERE[4])?;
            let [asked, told, again, user] = [cut(0, 1)?, cut(1, 2)?, cut(2, 3)?, cut(3, 4)?];
            let turns = Turns {
                goal: [before.to_owned(), asked],
                tool: [told, again],
                user: [user, end.to_owned()],
                marks: false,
                end: (0, String::new()),
            };
            // What comes after a reply is the same at the end and before what follows.
            let first = render(&all[..1]).ok()?;
            let third = render(&all[..3]).ok()?;
            let same = first == turns.asked(HERE[0]) && third.strip_prefix(&first)?.ends_with(&turns.tool[1]);
            (same && whole.starts_with(&third)).then_some(turns)
        };
        let Some(mut turns) = around() else {
            let problem = "the chat template writes a turn otherwise when others follow it, or leaves some out";
            return Err(Error::config("data.template", problem, "take \"chatml\" or \"plain\""));
        };
        let made = [all[0].clone(), Message::new("assistant", "").with("tool_calls", vec![call.openai()])];
        turns.marks = render(&made)?.contains("<tool_call>");
        let ends = tokenizer.special().iter().filter(|(_, id)| tokenizer.ends().contains(id));
        let Some((end, id)) = ends.into_iter().find(|(end, _)| turns.tool[0].starts_with(end.as_str())) else {
            let problem = "the tokenizer has no token that ends a turn of this chat template";
            return Err(Error::config("data.template", problem, "take \"plain\", whose turns end as texts do"));
        };
        turns.end = (*id, end.clone());
        Ok(turns)
    }

    /// What the model reads before its first message.
    pub fn asked(&self, goal: &str) -> String {
        let [before, after] = &self.goal;
        format!("{before}{goal}{after}")
    }

    /// What comes after a message of the model and before its next; the end of the message first, unless it `ended`.
    fn told(&self, told: &[Told], ended: bool) -> String {
        let [before, after] = if told.iter().all(|told| told.tool.is_some()) { &self.tool } else { &self.user };
        let before = before.strip_prefix(&*self.end.1).filter(|_| ended).unwrap_or(before);
        let texts: Vec<&str> = told.iter().map(|told| told.text.as_str()).collect();
        format!("{before}{}{after}", texts.join("\n"))
    }

    /// How a call is written.
    pub fn call(&self, call: &Call) -> String {
        if self.marks { call.text() } else { call.json() }
    }
}

/// An episode and its text.
pub struct Walk {
    /// The episode.
    pub episode: Episode,
    /// All tokens: what was asked, and what was said and told since.
    pub ids: Vec<u32>,
    /// Which of them the model said.
    pub own: Vec<bool>,
    /// Whether there was no room for the rest.
    pub cut: bool,
}

impl Walk {
    /// An episode that begins, and what the model reads of it.
    ///
    /// # Errors
    /// The tokenizer lacks a character.
    pub fn new(episode: Episode, turns: &Turns, tokenizer: &Tokenizer) -> Result<Walk> {
        Ok(Walk::of(tokenizer.encode_with_special(&turns.asked(episode.goal()))?, episode))
    }

    /// The same, where the model reads `ids` of it.
    pub fn of(ids: Vec<u32>, episode: Episode) -> Walk {
        Walk { episode, own: vec![false; ids.len()], ids, cut: false }
    }
}

/// How models act.
pub struct Acting<'a> {
    /// How turns become text.
    pub turns: &'a Turns,
    /// The model's.
    pub tokenizer: &'a Tokenizer,
    /// Tokens of a trajectory at most.
    pub room: usize,
    /// Tokens of a message at most.
    pub message: usize,
    /// Whether only calls that are allowed can be said.
    pub only_allowed: bool,
    /// How the message of turn `turn` of episode `i` is chosen: its tokens are set.
    pub options: &'a dyn Fn(usize, usize) -> SampleOptions,
}

impl Acting<'_> {
    fn options(&self, i: usize, walk: &Walk) -> SampleOptions {
        let tokens = self.message.min(self.room.saturating_sub(walk.ids.len()));
        SampleOptions { tokens, ..(self.options)(i, walk.episode.trace().steps.len()) }
    }

    fn constrained(&self, sequence: Sequence, episode: &Episode) -> Sequence {
        let allowed = if self.only_allowed { episode.allowed() } else { None };
        let Some(allowed) = allowed.filter(|all| !all.is_empty()) else { return sequence };
        let end = self.turns.end.0;
        let texts = allowed.iter().filter_map(|call| {
            let mut ids = self.tokenizer.encode(&self.turns.call(call)).ok()?;
            ids.push(end);
            Some(ids)
        });
        sequence.constrained(Box::new(OneOf { texts: texts.collect(), done: 0 }))
    }

    /// Lets a model act until all episodes are over; `done` is told how many are, and ends it with false.
    ///
    /// # Errors
    /// The tokenizer lacks a character of a reply.
    pub fn act(
        &self,
        (gpt, params, tape): (&Gpt, &Params, &mut Tape),
        walks: &mut [Walk],
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Result<bool> {
        let ends = self.tokenizer.ends();
        let device = tape.device().clone();
        let mut chooser = Chooser::default();
        let mut lanes: Vec<(usize, Sequence)> = Vec::new();
        let (mut next, mut over, mut goes_on) = (0, 0, true);
        while goes_on && (next < walks.len() || !lanes.is_empty()) {
            while lanes.len() < LANES && next < walks.len() {
                let walk = &mut walks[next];
                if walk.ids.len() >= self.room || walk.episode.over() {
                    (walk.cut, over) = (!walk.episode.over(), over + 1);
                } else {
                    let sequence = Sequence::new(&device, gpt, walk.ids.clone(), self.options(next, walk));
                    lanes.push((next, self.constrained(sequence, &walk.episode)));
                }
                next += 1;
            }
            if lanes.is_empty() {
                continue;
            }
            let mut all: ArrayVec<&mut Sequence, LANES> = lanes.iter_mut().map(|(_, sequence)| sequence).collect();
            step(gpt, params, tape, &mut chooser, &mut all, PIECE);
            drop(all);
            let mut lane = 0;
            while lane < lanes.len() {
                let sequence = &lanes[lane].1;
                let end = sequence.fresh().filter(|id| ends.contains(id));
                if end.is_none() && !sequence.is_full() {
                    lane += 1;
                    continue;
                }
                let (i, sequence) = lanes.remove(lane);
                let walk = &mut walks[i];
                let said = sequence.written().to_vec();
                walk.ids.extend(&said);
                walk.own.resize(walk.ids.len(), true);
                let text = self.tokenizer.decode(&said[..said.len() - usize::from(end.is_some())]);
                let told = walk.episode.act_of(&text, said.len());
                if !walk.episode.over() {
                    let told = self.turns.told(&told, end.is_some());
                    walk.ids.extend(self.tokenizer.encode_with_special(&told)?);
                    walk.own.resize(walk.ids.len(), false);
                    walk.cut = walk.ids.len() >= self.room;
                    if walk.cut {
                        walk.ids.truncate(self.room);
                        walk.own.truncate(self.room);
                    } else {
                        let options = self.options(i, walk);
                        let sequence = Sequence::after(&device, gpt, sequence.into_past(), walk.ids.clone(), options);
                        lanes.insert(lane, (i, self.constrained(sequence, &walk.episode)));
                        lane += 1;
                        continue;
                    }
                }
                over += 1;
            }
            goes_on = done(over);
        }
        tape.reset();
        Ok(goes_on)
    }
}

/// One of some texts, and nothing else.
struct OneOf {
    /// Those that begin with what was written.
    texts: Vec<Vec<u32>>,
    /// How many tokens that is.
    done: usize,
}

impl Constraint for OneOf {
    fn narrow(&mut self, logits: &mut [f32]) -> bool {
        let mut next: Vec<usize> =
            self.texts.iter().filter_map(|ids| ids.get(self.done)).map(|&id| id as usize).collect();
        next.sort_unstable();
        let mut from = 0;
        for &id in &next {
            if id >= from {
                logits[from..id].fill(f32::NEG_INFINITY);
                from = id + 1;
            }
        }
        logits[from..].fill(f32::NEG_INFINITY);
        !next.is_empty()
    }

    fn accept(&mut self, id: u32) {
        self.texts.retain(|ids| ids.get(self.done) == Some(&id));
        self.done += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{self, Hold, Limits, Split};
    use crate::data::Document;
    use crate::data::chat::{CHATML, PLAIN};
    use crate::device::Device;
    use crate::model::{GptConfig, Size};
    use crate::params::Hold as Held;

    fn bytes(template: &str) -> (Tokenizer, ChatTemplate) {
        let document = Document { text: "abc".into(), ..Document::default() };
        let bytes = Tokenizer::train_bpe([document].into_iter().map(Ok), 257, &|_| {}).expect("a tokenizer");
        let tokenizer = bytes.with_chat_template(template);
        let template = ChatTemplate::of(&tokenizer).expect("a template").expect("there is one");
        (tokenizer, template)
    }

    /// Walks of a model that knows nothing, which can say nothing but what is allowed.
    fn walks(template: &str, room: usize, hold: Hold) -> (Tokenizer, ChatTemplate, Vec<Walk>) {
        let (tokenizer, template) = bytes(template);
        let turns = Turns::new(&template, &tokenizer, None).expect("turns");
        let vocab = tokenizer.vocab_size();
        let config = GptConfig::gpt2(Size { vocab, context: 4096, layers: 1, heads: 1, d: 8 });
        let (gpt, decls) = Gpt::new(config);
        let device = Device::cpu(1).expect("a device");
        let params = Params::with(&device, &decls, 1, |_| Held::Frozen);
        let limits = Limits { turns: 5, tokens: usize::MAX, ..Limits::default() };
        let begin = |task| {
            let environment = agent::open("village", 1).expect("the village");
            Episode::begin(environment, task, Split::Train, "model", hold, limits)
        };
        let walk = |task| Walk::new(begin(task), &turns, &tokenizer).expect("a walk");
        let mut walks: Vec<Walk> = (0..3).map(walk).collect();
        let options = |i: usize, turn: usize| SampleOptions {
            temperature: 1.0,
            seed: (i * 100 + turn) as u64,
            ..SampleOptions::default()
        };
        let acting =
            Acting { turns: &turns, tokenizer: &tokenizer, room, message: 200, only_allowed: true, options: &options };
        let mut tape = Tape::new(&device);
        let whole = acting.act((&gpt, &params, &mut tape), &mut walks, &mut |_| true).expect("characters");
        assert!(whole);
        (tokenizer, template, walks)
    }

    #[test]
    fn a_walk_is_what_the_template_writes_of_its_messages() {
        let (tokenizer, template, walks) = walks(PLAIN, 4096, Hold::Log);
        for walk in walks {
            let messages = walk.episode.trace().messages().into_iter();
            let mut messages: Vec<Message> =
                messages.map(|message| Message::try_from(message).expect("a message")).collect();
            // The last reply is not read.
            messages.pop();
            let (text, spans) = template.assistant_spans(&messages, None, &Map::new()).expect("a text");
            let end = spans.last().expect("something said").end;
            let said: String = spans.iter().map(|span| &text[span.clone()]).collect();
            let own = walk.ids.iter().zip(&walk.own).filter(|(_, own)| **own).map(|(id, _)| *id);
            assert_eq!(tokenizer.encode_with_special(&text[..end]).expect("bytes"), walk.ids);
            assert_eq!(tokenizer.encode_with_special(&said).expect("bytes"), own.collect::<Vec<_>>());
        }
    }

    #[test]
    fn templates_write_calls_as_they_are_read() {
        let call = Call::new("give", &[("thing", "lamp"), ("to", "Ann")]);
        for (template, text) in [(PLAIN, call.json()), (CHATML, call.text())] {
            let (_, template) = bytes(template);
            let said = Message::new("assistant", "").with("tool_calls", vec![call.openai()]);
            let messages = [Message::new("user", "Go."), said];
            let written = template.render(&messages, None, false, &Map::new()).expect("a text");
            assert!(written.contains(&text), "{written}");
        }
    }

    #[test]
    fn what_can_be_said_is_what_is_allowed() {
        let (.., walks) = walks(PLAIN, 4096, Hold::Mask);
        for trace in walks.iter().map(|walk| walk.episode.trace()) {
            assert_eq!((trace.steps.len(), trace.calls(), trace.breaches, trace.refused), (5, 5, 0, 0));
            assert_eq!(trace.steps[0].said, trace.steps[0].calls[0].json());
        }
        let said = |walk: &Walk| walk.episode.trace().steps.iter().map(|step| step.said.clone()).collect::<Vec<_>>();
        assert!(said(&walks[0]) != said(&walks[1]));
    }

    #[test]
    fn a_walk_ends_where_there_is_no_room() {
        let (.., walks) = walks(PLAIN, 400, Hold::Log);
        for walk in walks {
            assert!(walk.cut && !walk.episode.over(), "{:?}", walk.episode.trace());
            assert_eq!([walk.ids.len(), walk.own.len()], [400, 400]);
        }
    }

    #[test]
    fn templates_that_cannot_be_acted_by_are_refused() {
        for (template, named) in [("{{ messages[-1]['content'] }}", "when others follow"), (CHATML, "ends a turn")] {
            let (tokenizer, template) = bytes(template);
            let error = Turns::new(&template, &tokenizer, None).expect_err("no turns");
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
