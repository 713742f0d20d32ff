//! `kiln chat`.

use super::serve::template;
use super::term::{Ink, ink, note, print, quote, safe, warn};
use super::{Global, Loading};
use clap::Args;
use kiln::data::chat::Message;
use kiln::disk::Os;
use kiln::error::{AtPath, Error, Result};
use kiln::infer::Conversation;
use kiln::model::sample::SampleOptions;
use kiln::serve::journal::add_thumb;
use kiln::train::signal;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Talk with a model in the terminal
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln chat SmolLM2-135M-Instruct.gguf
  kiln chat runs/village --template chatml --system \"You are a villager.\"
  kiln chat smollm2 --weights q8 --feedback thumbs.jsonl
  echo \"What is the capital of France?\" | kiln chat smollm2 --temperature 0")]
pub struct ChatArgs {
    /// A run, a checkpoint, a Hugging Face directory or a GGUF file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// What the model is told first [default: what its template says]
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Below 1 safer, above 1 wilder; 0: always the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.7, allow_negative_numbers = true, value_parser = super::sample::temperature)]
    temperature: f32,
    /// Choose among the likeliest tokens that have probability P together
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true, value_parser = super::sample::probability)]
    top_p: f32,
    /// Choose among tokens that have at least the share P of the likeliest one's probability; 0: among all
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true, value_parser = super::sample::share)]
    min_p: f32,
    /// Above 1: say less often what was said already
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true, value_parser = super::sample::penalty)]
    repetition_penalty: f32,
    /// The same seed gives the same answers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    loading: Loading,
    /// How conversations become text: a file with a template, or chatml [default: the model's own]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Keep the thumbs of /good and /bad in this file
    #[arg(long, value_name = "FILE.jsonl")]
    feedback: Option<PathBuf>,
}

const HELP: &str = "/new            begin anew
/system TEXT    begin anew, the model told TEXT first
/retry          another answer to the same question
/good, /bad     a thumb for the last answer (with --feedback FILE)
/save FILE      the conversation as a line of {\"messages\": […]}
/quit           end; so does Ctrl-D
Ctrl-C stops an answer. A line that ends with \\ goes on in the next one.";

/// Where questions come from.
enum Input {
    Terminal(Box<DefaultEditor>),
    Lines(std::io::Lines<std::io::StdinLock<'static>>),
}

impl Input {
    fn new() -> Input {
        if std::io::stdin().is_terminal()
            && let Ok(editor) = DefaultEditor::new()
        {
            return Input::Terminal(Box::new(editor));
        }
        Input::Lines(std::io::stdin().lock().lines())
    }

    /// The next line; none: that was all.
    fn line(&mut self, prompt: &str) -> Result<Option<String>> {
        match self {
            Input::Lines(lines) => lines.next().transpose().at("standard input"),
            Input::Terminal(editor) => loop {
                return match editor.readline(prompt) {
                    Ok(line) => {
                        let _ = editor.add_history_entry(&line);
                        Ok(Some(line))
                    }
                    Err(ReadlineError::Interrupted) => {
                        note("Ctrl-D or /quit ends");
                        continue;
                    }
                    Err(ReadlineError::Eof) => Ok(None),
                    Err(e) => Err(Error::failed(format!("standard input: {e}"), "give the questions by a pipe")),
                };
            },
        }
    }

    /// The next question, of several lines perhaps.
    fn question(&mut self) -> Result<Option<String>> {
        let Some(mut text) = self.line("> ")? else { return Ok(None) };
        while text.ends_with('\\') {
            text.pop();
            text.push('\n');
            match self.line("  ")? {
                Some(more) => text += &more,
                None => break,
            }
        }
        Ok(Some(text))
    }
}

struct Chat<'a> {
    args: &'a ChatArgs,
    conversation: Conversation,
    interrupted: &'a AtomicBool,
    json: bool,
    /// Answers so far: each has a seed of its own.
    turns: u64,
}

/// Runs `kiln chat`.
pub fn run(args: ChatArgs, global: &Global) -> Result<()> {
    let device = global.host()?;
    if let Some(path) = &args.feedback {
        use kiln::disk::{Disk, Open};
        Os.open(path, Open::Private).at(path)?;
    }
    let start = Instant::now();
    let sampler = args.loading.open(&args.model, &device)?;
    for damage in sampler.damaged() {
        warn(&format!("{damage}; an older checkpoint answers"));
    }
    let template = template(args.template.as_deref(), &sampler)?.ok_or_else(|| {
        let hint =
            format!("let it write with: kiln sample {}; or give it a template: --template chatml", quote(&args.model));
        Error::usage(format!("{} has no chat template", args.model.display()), hint)
    })?;
    let mut conversation = Conversation::new(sampler.into_parts(), template);
    conversation.messages.extend(args.system.as_deref().map(|text| Message::new("system", text)));
    let mut input = Input::new();
    // Questions from a pipe are nobody's who would ask another one: there Ctrl-C ends the program.
    let interrupted = match input {
        Input::Terminal(_) => signal::interrupts()?,
        Input::Lines(_) => Arc::default(),
    };
    if matches!(input, Input::Terminal(_)) && !global.json {
        let seconds = start.elapsed().as_secs_f64();
        note(&format!("{} is ready after {seconds:.1} s; /help tells what it understands", quote(&args.model)));
    }
    let mut chat = Chat { args: &args, conversation, interrupted: &interrupted, json: global.json, turns: 0 };
    while let Some(line) = input.question()? {
        let text = line.trim();
        let done = match text.strip_prefix('/') {
            _ if text.is_empty() => continue,
            Some(command) => match chat.command(command) {
                Ok(true) => return Ok(()),
                Ok(false) => continue,
                Err(e) => Err(e),
            },
            None => {
                chat.conversation.messages.push(Message::new("user", text));
                chat.answer()
            }
        };
        match done {
            // The conversation goes on, unless nobody is there to mend it.
            Err(e) if matches!(input, Input::Terminal(_)) => {
                warn(&e.to_string());
                e.hint().into_iter().for_each(|hint| note(&format!("hint: {}", safe(hint))));
            }
            done => done?,
        }
    }
    Ok(())
}

impl Chat<'_> {
    fn options(&self) -> SampleOptions {
        let ChatArgs { tokens, temperature, top_p, min_p, repetition_penalty, seed, .. } = *self.args;
        let seed = seed.wrapping_add(self.turns);
        SampleOptions { tokens: tokens as usize, temperature, top_k: 0, top_p, min_p, repetition_penalty, seed }
    }

    /// The answer to the last message.
    fn answer(&mut self) -> Result<()> {
        let options = self.options();
        self.turns += 1;
        self.interrupted.store(false, Ordering::SeqCst);
        let (quiet, interrupted) = (self.json, self.interrupted);
        let mut broken = None;
        let mut show = |piece: &str| {
            if !quiet {
                let mut out = std::io::stdout().lock();
                broken = out.write_all(safe(piece).as_bytes()).and_then(|()| out.flush()).err();
            }
            broken.is_none() && !interrupted.load(Ordering::SeqCst)
        };
        let answer = match self.conversation.answer(&options, &mut show) {
            Ok(answer) => answer,
            Err(e) => {
                // What cannot be answered was not said.
                self.conversation.messages.pop();
                return Err(e);
            }
        };
        if let Some(e) = broken {
            return Err(e).at("standard output");
        }
        let (reading, writing) = answer.pace.rates();
        if self.json {
            let line = json!({"role": "assistant", "content": answer.text, "prompt_tokens": answer.prompt,
                "cached_tokens": answer.cached, "messages_left_out": answer.left_out, "cut": answer.cut,
                "prompt_tokens_per_s": reading, "new_tokens_per_s": writing});
            return print(&line.to_string());
        }
        print("")?;
        if self.interrupted.swap(false, Ordering::SeqCst) {
            note("stopped");
        } else if answer.cut {
            note("cut off: --tokens allows more");
        }
        if answer.left_out > 0 {
            note(&format!("the context is full: the oldest {} messages were left out", answer.left_out));
        }
        if std::io::stdin().is_terminal() {
            print(&ink(&format!("{writing:.0} tokens/s, first after {:.2} s", answer.pace.first_seconds), Ink::Dim))?;
        }
        Ok(())
    }

    /// What a line after `/` says; true: end.
    fn command(&mut self, line: &str) -> Result<bool> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let messages = &mut self.conversation.messages;
        match (name, rest.trim()) {
            ("quit" | "exit", _) => return Ok(true),
            ("help", _) => print(HELP)?,
            ("new", _) => messages.retain(|message| message.role() == "system"),
            ("system", text) => {
                messages.clear();
                messages.extend((!text.is_empty()).then(|| Message::new("system", text)));
            }
            ("retry", _) => {
                if messages.last().is_none_or(|message| message.role() != "assistant") {
                    return Err(Error::usage("there is no answer yet", "ask something first"));
                }
                messages.pop();
                self.answer()?;
            }
            ("good" | "bad", _) => self.thumb(name == "good")?,
            ("save", "") => return Err(Error::usage("/save needs a file", "as /save talk.jsonl")),
            ("save", file) => self.save(Path::new(file))?,
            _ => return Err(Error::usage(format!("/{name} is not understood"), "/help tells what is")),
        }
        Ok(false)
    }

    fn thumb(&self, good: bool) -> Result<()> {
        let Some(path) = &self.args.feedback else {
            return Err(Error::usage("thumbs are not kept", "start with --feedback FILE.jsonl"));
        };
        match self.conversation.messages.split_last() {
            Some((answer, before)) if answer.role() == "assistant" => {
                let before: Vec<Value> = before.iter().cloned().map(Value::from).collect();
                add_thumb(path, &before, answer.content().unwrap_or_default(), good)?;
                note(&format!("kept in {}", quote(path)));
                Ok(())
            }
            _ => Err(Error::usage("there is no answer yet", "ask something first")),
        }
    }

    /// Adds the conversation to a file.
    fn save(&self, path: &Path) -> Result<()> {
        use kiln::disk::{Disk, Open};
        let line = json!({"messages": self.conversation.messages}).to_string() + "\n";
        let mut file = Os.open(path, Open::Append).at(path)?;
        file.write_all(line.as_bytes()).at(path)?;
        note(&format!("saved in {}", quote(path)));
        Ok(())
    }
}
