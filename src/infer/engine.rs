//! One model that writes many texts side by side.
//!
//! A [`Job`] waits in a queue until a lane and memory for its keys and values are free; then it is part of each
//! [`step`] until it ends, whatever else comes and goes. Its tokens go to its [`Sink`] as they
//! come. What was read is kept for a while: a text that begins in the same way, as the next turn of a conversation does, is
//! read from there on.

use super::stream::TextStream;
use crate::cpu::memory::or_out_of_memory;
use crate::data::Tokenizer;
use crate::device::Device;
use crate::model::sample::{Chooser, Constraint, Logprob, SampleOptions};
use crate::model::sequence::{LANES, PIECE, Past, Report, Sequence, step};
use crate::model::{Cache, Gpt, GptConfig};
use crate::params::Params;
use crate::tape::Tape;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tokens of a prompt that are read in a step while others write: theirs wait for it.
const SHARED_PIECE: usize = 96;

/// A text to write.
pub struct Job {
    /// What it begins with, at least one token.
    pub ids: Vec<u32>,
    /// How it goes on.
    pub options: SampleOptions,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// Which log-probabilities are wanted.
    pub report: Option<Report>,
    /// What it has to look like.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Who wants it.
    pub sink: Box<dyn Sink>,
}

/// Who takes a text as it comes.
pub trait Sink: Send {
    /// Takes the next part; false: no more is wanted.
    fn send(&mut self, event: Event) -> bool;

    /// Whether more is wanted.
    fn is_open(&self) -> bool;
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt has been read: the log-probabilities of its tokens from the second on, where they are wanted.
    Prompt(Vec<Logprob>),
    /// A token, and the text that is certain with it.
    Token {
        /// The token. The one that ends the text comes only with a log-probability.
        id: u32,
        /// Often empty.
        text: String,
        /// Its log-probability, where it is wanted.
        logprob: Option<Logprob>,
    },
    /// The last part.
    End {
        /// What was held back.
        text: String,
        /// Why it ends.
        finish: Finish,
        /// What it took.
        usage: Usage,
    },
}

/// Why a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop string came.
    Stop,
    /// It has as many tokens as were asked for, or as the model's context holds.
    Length,
    /// There was no memory for it.
    OutOfMemory,
}

/// Tokens of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: usize,
    /// Of these, how many had been read before.
    pub cached: usize,
    /// Written, the one that ended it included.
    pub written: usize,
}

/// How much is done at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Texts that are written side by side, at most [`LANES`].
    pub lanes: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// Bytes for keys and values, of what is being written and of what was.
    pub cache: usize,
}

/// Why a job is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// The engine has ended.
    Closed,
}

/// What an engine has done so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Texts that ended.
    pub ended: AtomicU64,
    /// Texts whose sink closed before.
    pub dropped: AtomicU64,
    /// Jobs that were refused.
    pub refused: AtomicU64,
    /// Tokens of prompts.
    pub prompt: AtomicU64,
    /// Of these, how many had been read before.
    pub cached: AtomicU64,
    /// Tokens written.
    pub written: AtomicU64,
    /// Steps.
    pub steps: AtomicU64,
    /// Microseconds in steps.
    pub micros: AtomicU64,
    /// Jobs that wait now.
    pub waiting: AtomicU64,
    /// Texts that are being written now.
    pub active: AtomicU64,
    /// Microseconds from a job's arrival to its first token, of all jobs together.
    pub first_micros: AtomicU64,
    /// Jobs that have a first token.
    pub first: AtomicU64,
}

/// A model at work in a thread of its own. Dropped, it ends what it has begun and goes.
pub struct Engine {
    jobs: Mutex<Option<SyncSender<(Instant, Job)>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
    hurry: Arc<AtomicBool>,
    tokenizer: Arc<Tokenizer>,
    config: GptConfig,
}

impl Engine {
    /// Puts a model to work.
    ///
    /// # Panics
    /// The lanes are none or more than [`LANES`].
    pub fn start(gpt: Gpt, params: Params, device: &Device, tokenizer: Tokenizer, limits: Limits) -> Engine {
        assert!((1..=LANES).contains(&limits.lanes), "{} lanes", limits.lanes);
        let (jobs, queue) = sync_channel(limits.waiting);
        let (counts, hurry) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let (tokenizer, config) = (Arc::new(tokenizer), gpt.config().clone());
        device.pool().ragged();
        let work = Work {
            device: device.clone(),
            gpt,
            params,
            tokenizer: Arc::clone(&tokenizer),
            limits,
            counts: Arc::clone(&counts),
            hurry: Arc::clone(&hurry),
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || work.run(&queue));
        let thread = Mutex::new(Some(thread.expect("a thread")));
        Engine { jobs: Mutex::new(Some(jobs)), thread, counts, hurry, tokenizer, config }
    }

    /// Queues a job.
    ///
    /// # Errors
    /// It is not taken, and nobody will hear of it.
    pub fn submit(&self, job: Job) -> Result<(), Refused> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = jobs.as_ref().ok_or(Refused::Closed)?.try_send((Instant::now(), job));
        let refused = sent.map_err(|e| match e {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Disconnected(_) => Refused::Closed,
        });
        let count = if refused.is_err() { &self.counts.refused } else { &self.counts.waiting };
        count.fetch_add(1, Relaxed);
        refused
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The model's shape.
    pub fn config(&self) -> &GptConfig {
        &self.config
    }

    /// What has been done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Ends: what is being written is finished, or with `now` cut off; what waits is answered as well, or dropped.
    pub fn stop(&self, now: bool) {
        self.hurry.store(now, Relaxed);
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop(true);
    }
}

/// What the thread owns.
struct Work {
    device: Device,
    gpt: Gpt,
    params: Params,
    tokenizer: Arc<Tokenizer>,
    limits: Limits,
    counts: Arc<Counts>,
    hurry: Arc<AtomicBool>,
}

/// A text that is being written.
struct Lane<'a> {
    sequence: Sequence,
    stream: TextStream<'a>,
    sink: Box<dyn Sink>,
    arrived: Instant,
    usage: Usage,
    /// Log-probabilities that have been sent.
    sent: usize,
    report: Option<Report>,
    bytes: usize,
    open: bool,
}

impl Work {
    fn run(&self, queue: &Receiver<(Instant, Job)>) {
        let (mut tape, mut chooser) = (Tape::new(&self.device), Chooser::default());
        let mut waiting = None;
        let mut lanes: Vec<Lane> = Vec::new();
        let mut pasts = VecDeque::new();
        loop {
            while lanes.len() < self.limits.lanes {
                let next = match waiting.take() {
                    Some(job) => Ok(job),
                    None if lanes.is_empty() => queue.recv().map_err(|_| TryRecvError::Disconnected),
                    None => queue.try_recv(),
                };
                match next {
                    Ok(job) => match self.admit(job, &lanes, &mut pasts) {
                        Ok(lane) => lanes.extend(lane),
                        // It waits until others end.
                        Err(job) => {
                            waiting = Some(*job);
                            break;
                        }
                    },
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) if lanes.is_empty() => return,
                    Err(TryRecvError::Disconnected) => break,
                }
            }
            lanes.retain(|lane| lane.sink.is_open() || self.drop_lane());
            if self.hurry.load(Relaxed) {
                return;
            }
            self.counts.active.store(lanes.len() as u64, Relaxed);
            if lanes.is_empty() {
                continue;
            }
            self.step(&mut tape, &mut chooser, &mut lanes);
            for lane in std::mem::take(&mut lanes) {
                match self.attend(lane) {
                    Ok(lane) => lanes.push(lane),
                    Err(past) => pasts.extend(past),
                }
            }
            self.counts.active.store(lanes.len() as u64, Relaxed);
        }
    }

    /// One step of all lanes. Where there is no memory for it they all end.
    fn step(&self, tape: &mut Tape, chooser: &mut Chooser, lanes: &mut Vec<Lane>) {
        let clock = Instant::now();
        let piece = if lanes.len() == 1 { PIECE } else { SHARED_PIECE };
        let done = or_out_of_memory(|| {
            let mut sequences: Vec<&mut Sequence> = lanes.iter_mut().map(|lane| &mut lane.sequence).collect();
            step(&self.gpt, &self.params, tape, chooser, &mut sequences, piece);
        });
        self.counts.steps.fetch_add(1, Relaxed);
        self.counts.micros.fetch_add(micros(clock.elapsed()), Relaxed);
        if done.is_err() {
            for mut lane in lanes.drain(..) {
                let end = Event::End { text: String::new(), finish: Finish::OutOfMemory, usage: lane.usage };
                lane.sink.send(end);
            }
            *tape = Tape::new(&self.device);
        }
    }

    /// A lane for a job; none if nobody wants it any more, or it is done at once. The job, if there is no memory for it now.
    fn admit<'a>(
        &'a self,
        (arrived, mut job): (Instant, Job),
        lanes: &[Lane],
        pasts: &mut VecDeque<Past>,
    ) -> Result<Option<Lane<'a>>, Box<(Instant, Job)>> {
        let config = self.gpt.config();
        let taken = |_| {
            self.counts.waiting.fetch_sub(1, Relaxed);
            None
        };
        if !job.sink.is_open() {
            self.drop_lane();
            return Ok(taken(()));
        }
        let bytes = Cache::bytes(config, Sequence::room(&self.gpt, &job.ids, &job.options));
        let mut used: usize = lanes.iter().map(|lane| lane.bytes).sum();
        let held = |past: &Past| Cache::bytes(config, past.room());
        used += pasts.iter().map(held).sum::<usize>();
        // The text that has most in common with it, and after it the newest ones stay as long as there is room.
        let common = |past: &Past| past.ids().iter().zip(&job.ids).take_while(|(a, b)| a == b).count();
        let best = (0..pasts.len()).max_by_key(|&i| common(&pasts[i])).filter(|&i| common(&pasts[i]) > 0);
        let best = best.and_then(|i| pasts.remove(i));
        while used + bytes > self.limits.cache {
            match pasts.pop_front() {
                Some(past) => used -= held(&past),
                // One text always has room.
                None if lanes.is_empty() => break,
                None => {
                    pasts.extend(best);
                    return Err(Box::new((arrived, job)));
                }
            }
        }
        let usage = Usage { prompt: job.ids.len(), ..Usage::default() };
        let made = or_out_of_memory(|| match best {
            Some(past) => Sequence::after(&self.device, &self.gpt, past, job.ids, job.options),
            None => Sequence::new(&self.device, &self.gpt, job.ids, job.options),
        });
        let Ok(mut sequence) = made else {
            job.sink.send(Event::End { text: String::new(), finish: Finish::OutOfMemory, usage });
            return Ok(taken(()));
        };
        let cached = if job.report.is_some_and(|report| report.prompt) {
            sequence.forget();
            0
        } else {
            sequence.read()
        };
        if let Some(report) = job.report {
            sequence = sequence.reporting(report);
        }
        if let Some(constraint) = job.constraint {
            sequence = sequence.constrained(constraint);
        }
        taken(());
        self.counts.prompt.fetch_add(usage.prompt as u64, Relaxed);
        self.counts.cached.fetch_add(cached as u64, Relaxed);
        Ok(Some(Lane {
            bytes: Cache::bytes(config, sequence.room_taken()),
            sequence,
            stream: TextStream::new(&self.tokenizer, job.stop),
            sink: job.sink,
            arrived,
            usage: Usage { cached, ..usage },
            sent: 0,
            report: job.report,
            open: true,
        }))
    }

    fn drop_lane(&self) -> bool {
        self.counts.dropped.fetch_add(1, Relaxed);
        false
    }

    /// Sends what a step gave; the lane, or where it has ended what it read.
    fn attend<'a>(&self, mut lane: Lane<'a>) -> Result<Lane<'a>, Option<Past>> {
        let written = lane.sequence.written().len();
        let fresh = lane.sequence.fresh();
        // Everything has been read, for the first time.
        let read = fresh.is_some() && written == 1 || lane.sequence.is_full() && written == 0;
        if read && lane.report.is_some_and(|report| report.prompt) {
            let of_prompt = lane.sequence.logprobs().len() - written;
            lane.sent = of_prompt;
            lane.open &= lane.sink.send(Event::Prompt(lane.sequence.logprobs()[..of_prompt].to_vec()));
        }
        let full = if lane.sequence.is_complete() { Finish::Stop } else { Finish::Length };
        let mut finish = lane.sequence.is_full().then_some(full);
        if let Some(id) = fresh {
            if written == 1 {
                self.counts.first.fetch_add(1, Relaxed);
                self.counts.first_micros.fetch_add(micros(lane.arrived.elapsed()), Relaxed);
            }
            lane.usage.written = written;
            self.counts.written.fetch_add(1, Relaxed);
            let ends = self.tokenizer.ends().contains(&id);
            if ends {
                finish = Some(Finish::Stop);
            }
            // Of the token that ends a text only its log-probability is told.
            if !ends || lane.report.is_some() {
                let text = if ends { String::new() } else { lane.stream.push(id) };
                let logprob = lane.sequence.logprobs().get(lane.sent).cloned();
                lane.sent += usize::from(logprob.is_some());
                lane.open &= lane.sink.send(Event::Token { id, text, logprob });
                if lane.stream.stopped() {
                    finish = Some(Finish::Stop);
                }
            }
        }
        if !lane.open {
            self.drop_lane();
            return Err(Some(lane.sequence.into_past()));
        }
        let Some(finish) = finish else { return Ok(lane) };
        lane.sink.send(Event::End { text: lane.stream.finish(), finish, usage: lane.usage });
        self.counts.ended.fetch_add(1, Relaxed);
        Err(Some(lane.sequence.into_past()))
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}
