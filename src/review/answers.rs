//! What models answer, kept as it comes in `answers.jsonl`: whoever is killed on the way asks for the rest only.

use super::Plan;
use super::book::whole_lines;
use super::item::{Prompt, Question, Side};
use crate::data::chat::ChatTemplate;
use crate::error::{AtPath, Error, Result};
use crate::infer::{Engine, Event, Finish, Job, Sink};
use crate::model::sample::SampleOptions;
use crate::train::text::start;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

/// What ends the answer to a question as the built-in world writes them: the next question.
const NEXT: &str = "\nQuestion:";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    side: Side,
    /// The number of the answer: that of the question where each is asked once.
    answer: usize,
    text: String,
}

/// The name of the file.
const FILE: &str = "answers.jsonl";

/// Whether the folder `dir` has answers.
pub(super) fn any_at(dir: &Path) -> bool {
    dir.join(FILE).metadata().is_ok_and(|meta| meta.len() > 0)
}

/// The answers so far, and where they are kept.
pub struct Answers<'a> {
    dir: &'a Path,
    plan: &'a Plan,
    known: HashMap<(Side, usize), String>,
}

impl<'a> Answers<'a> {
    /// Those in the folder `dir`, which becomes that of the review `plan` with the first answer.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(dir: &'a Path, plan: &'a Plan) -> Result<Answers<'a>> {
        let (path, mut known) = (dir.join(FILE), HashMap::new());
        let text = if any_at(dir) { whole_lines(&path)?.1 } else { String::new() };
        for (n, line) in text.lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|e| {
                let hint = "remove the file: models are asked again then";
                Error::format(&path, format!("line {}", n + 1), "an answer", e, hint)
            })?;
            known.insert((line.side, line.answer), line.text);
        }
        Ok(Answers { dir, plan, known })
    }

    /// Whether a model has to be asked for its answers, of which there are `count`.
    pub fn lack(&self, side: Side, count: usize) -> bool {
        (0..count).any(|i| !self.known.contains_key(&(side, i)))
    }

    /// Lets a model answer what it has not answered yet: `each` times each question, every time with the next seed from that of
    /// `options` on. Conversations go through its `template`. `told` hears how many answers are there, of all.
    ///
    /// # Errors
    /// A question is too long for the model, or is a conversation and there is no template; nothing can be written.
    pub fn ask(
        &mut self,
        side: Side,
        questions: &[Question],
        each: usize,
        engine: &Engine,
        template: Option<&ChatTemplate>,
        options: &SampleOptions,
        told: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let count = questions.len() * each;
        let (to, heard) = channel();
        let mut jobs = Vec::new();
        for i in (0..count).filter(|i| !self.known.contains_key(&(side, *i))) {
            let question = &questions[i / each];
            let ids = ids(engine, &question.prompt, template).map_err(|e| {
                Error::usage(format!("prompt {}: {e}", i / each + 1), e.hint().unwrap_or("leave it out").to_owned())
            })?;
            let room = engine.config().context - ids.len();
            let seed = options.seed.wrapping_add(i as u64);
            let options = SampleOptions { tokens: options.tokens.min(room), seed, ..*options };
            let of_world = matches!(&question.prompt, Prompt::Text(text) if text.starts_with("Question: "));
            let stop = if of_world { vec![NEXT.to_owned()] } else { Vec::new() };
            let sink = Box::new(Teller { answer: i, text: String::new(), to: to.clone() });
            jobs.push(Job { ids, options, stop, report: None, constraint: None, sink });
        }
        drop(to);
        // From here on nothing is wrong with what was asked for.
        super::begin(self.dir, self.plan)?;
        let path = self.dir.join(FILE);
        let mut file = whole_lines(&path)?.0;
        let mut done = count - jobs.len();
        for job in jobs {
            let refused = "the model takes no more questions: it has ended";
            engine.submit(job).map_err(|_| Error::failed(refused, "see what it said before"))?;
        }
        while done < count {
            told(done, count);
            let ended = || Error::failed("the model has ended before it had answered all", "see what it said before");
            let (answer, text, finish) = heard.recv().map_err(|_| ended())?;
            if finish == Finish::OutOfMemory {
                return Err(Error::device("there is no memory for an answer", "give fewer --tokens"));
            }
            let line = serde_json::to_string(&Line { side, answer, text: text.clone() }).expect("plain data") + "\n";
            file.write_all(line.as_bytes()).at(&path)?;
            self.known.insert((side, answer), text);
            done += 1;
        }
        told(done, count);
        file.sync().at(&path)
    }

    /// The answers of a model, which are all there.
    ///
    /// # Panics
    /// One is not.
    pub fn take(&mut self, side: Side, count: usize) -> Vec<String> {
        (0..count).map(|i| self.known.remove(&(side, i)).expect("it was asked for")).collect()
    }
}

/// A prompt as the model reads it, with room for an answer.
fn ids(engine: &Engine, prompt: &Prompt, template: Option<&ChatTemplate>) -> Result<Vec<u32>> {
    let ids = match prompt {
        Prompt::Text(text) => start(engine.tokenizer(), text)?,
        Prompt::Chat(messages) => {
            let template = template.ok_or_else(|| {
                let hint = "give one with --template chatml; or give prompts that are texts, without --chat";
                Error::usage("it is a conversation, and the model has no chat template", hint)
            })?;
            engine.tokenizer().encode_with_special(&template.render(messages, None, true, &Map::new())?)?
        }
    };
    let context = engine.config().context;
    if ids.len() >= context || ids.is_empty() {
        let problem = format!("{} tokens, but the model's context is {context} tokens", ids.len());
        return Err(Error::usage(problem, "leave it out, or make it shorter"));
    }
    Ok(ids)
}

/// Collects an answer and hands it over when it is whole.
struct Teller {
    answer: usize,
    text: String,
    to: Sender<(usize, String, Finish)>,
}

impl Sink for Teller {
    fn send(&mut self, event: Event) -> bool {
        match event {
            Event::Prompt(_) => true,
            Event::Token { text, .. } => {
                self.text += &text;
                true
            }
            Event::End { text, finish, .. } => {
                let whole = std::mem::take(&mut self.text) + &text;
                self.to.send((self.answer, whole, finish)).is_ok()
            }
        }
    }

    fn is_open(&self) -> bool {
        true
    }
}
