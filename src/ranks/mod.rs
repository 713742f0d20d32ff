//! Processes that train one model together: data-parallel training.
//!
//! Each rank holds the whole model and does its share of every step's micro-batches; gradients are added up over all of them, and each makes the same update.
//! Micro-batches are numbered over the whole step, so it makes no difference for the losses how many ranks there are. What moves numbers between ranks is an
//! [`Engine`]: MPI (`mpi.rs`, of the feature of that name); for what ranks on GPUs have to say beside NCCL, sockets ([`tcp`]); for tests the memory that threads
//! share ([`local`]).
//!
//! An engine lives on a thread of its own. So what a backward pass has finished is added up while it goes on
//! (`src/params/share.rs`).
//!
//! Source: Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training" (arXiv 2006.15704), for buckets.

pub mod local;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod tcp;

use crate::error::{Error, Result};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What moves numbers between ranks. Every rank makes the same calls in the same order.
pub trait Engine {
    /// The number of this rank, from 0, and how many there are.
    fn place(&self) -> [usize; 2];

    /// Adds `values` up over all ranks.
    ///
    /// # Errors
    /// A rank is gone.
    fn sum(&mut self, values: &mut [f32]) -> Result<()>;

    /// Makes what rank 0 has in `bytes` that of all; they are as many on each.
    ///
    /// # Errors
    /// A rank is gone.
    fn tell(&mut self, bytes: &mut [u8]) -> Result<()>;
}

/// What the thread of an engine is asked for.
enum Ask {
    Sum(Vec<f32>),
    Tell(Vec<u8>),
}

/// The way to the thread of an engine.
struct Wire {
    /// Until the end.
    ask: Option<Sender<Ask>>,
    sums: Receiver<Vec<f32>>,
    told: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    fn ask(&self, what: Ask) {
        // An engine that is gone says so when its answer is waited for.
        if let Some(ask) = &self.ask {
            let _ = ask.send(what);
        }
    }

    /// An answer; without one the thread is given up.
    fn wait<T>(&mut self, answers: fn(&Wire) -> &Receiver<T>, ended: fn() -> bool) -> Result<T> {
        let answer = wait(answers(self), ended);
        if answer.is_err() {
            self.thread = None;
        }
        answer
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The engine ends on its own thread, as MPI asks for.
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The ranks that train together, seen from one of them.
pub struct Ranks {
    rank: usize,
    size: usize,
    wire: Option<Mutex<Wire>>,
    /// Whether waiting is to end: the others may be gone.
    ended: fn() -> bool,
}

/// How long an answer may take once waiting is to end.
const PATIENCE: Duration = Duration::from_secs(3);

impl Ranks {
    /// One rank, which has nobody to wait for.
    pub fn alone() -> Ranks {
        Ranks { rank: 0, size: 1, wire: None, ended: || false }
    }

    /// The ranks of an engine, which `start` makes on the thread that it then lives on. `ended` is asked while the others are waited for, and says whether the
    /// process has been asked to end.
    ///
    /// # Errors
    /// `start` fails; there can be no thread.
    pub fn start<E: Engine>(start: impl FnOnce() -> Result<E> + Send + 'static, ended: fn() -> bool) -> Result<Ranks> {
        let (ask, asked) = channel::<Ask>();
        let ((sum, sums), (tell, told), (ready, began)) = (channel(), channel(), channel());
        let work = move || {
            let mut engine = match start() {
                Ok(engine) => engine,
                Err(e) => return drop(ready.send(Err(e))),
            };
            if ready.send(Ok(engine.place())).is_err() {
                return;
            }
            for ask in asked {
                // Where a rank is gone, so is this thread, which whoever waits for it sees; and whoever asked may be gone.
                let heard = match ask {
                    Ask::Sum(mut values) => engine.sum(&mut values).is_ok() && sum.send(values).is_ok(),
                    Ask::Tell(mut bytes) => engine.tell(&mut bytes).is_ok() && tell.send(bytes).is_ok(),
                };
                if !heard {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("ranks".into()).spawn(work);
        let thread = thread.map_err(|e| Error::device(format!("starting a thread: {e}"), "end other programs"))?;
        let [rank, size] = began.recv().map_err(|_| gone())??;
        let wire = Wire { ask: Some(ask), sums, told, thread: Some(thread) };
        // The others wait for rank 0 as long as it is there, which may be saving.
        let ended = if rank == 0 { ended } else { || false };
        Ok(Ranks { rank, size, wire: Some(Mutex::new(wire)), ended })
    }

    /// The number of this rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Begins to add `values` up over all ranks; [`finish`](Ranks::finish) gives the sums, in the order in which they were begun.
    pub(crate) fn begin(&self, values: Vec<f32>) {
        if let Some(wire) = &self.wire {
            lock(wire).ask(Ask::Sum(values));
        }
    }

    /// The next sums that were begun.
    ///
    /// # Errors
    /// The other ranks do not answer.
    pub(crate) fn finish(&self) -> Result<Vec<f32>> {
        let wire = self.wire.as_ref().expect("a rank that is alone begins no sums");
        lock(wire).wait(|wire| &wire.sums, self.ended)
    }

    /// Adds `values` up over all ranks.
    ///
    /// # Errors
    /// The other ranks do not answer.
    pub fn sum(&self, values: &mut [f32]) -> Result<()> {
        if self.wire.is_some() {
            self.begin(values.to_vec());
            values.copy_from_slice(&self.finish()?);
        }
        Ok(())
    }

    /// What rank 0 has in `bytes`.
    ///
    /// # Errors
    /// The other ranks do not answer.
    pub fn tell(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let Some(wire) = &self.wire else { return Ok(bytes.to_vec()) };
        let say = |bytes: &[u8]| {
            let mut wire = lock(wire);
            wire.ask(Ask::Tell(bytes.to_vec()));
            wire.wait(|wire| &wire.told, self.ended)
        };
        let length = say(&(bytes.len() as u64).to_le_bytes())?;
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
        let mut own = bytes.to_vec();
        own.resize(length, 0);
        say(&own)
    }
}

fn lock(wire: &Mutex<Wire>) -> std::sync::MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn gone() -> Error {
    Error::device(
        "the other ranks do not answer",
        "kiln train --resume RUN goes on from the last checkpoint, on any number of ranks",
    )
}

fn wait<T>(answers: &Receiver<T>, ended: fn() -> bool) -> Result<T> {
    let mut since = None;
    loop {
        match answers.recv_timeout(Duration::from_millis(500)) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            Err(RecvTimeoutError::Timeout) if ended() => {
                if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(gone());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::local::Meeting;
    use super::*;

    #[test]
    fn sums_come_in_order_and_rank_0_is_heard() {
        let meeting = Meeting::of(3);
        let rank = |rank: usize| {
            let meeting = meeting.clone();
            std::thread::spawn(move || {
                let ranks = Ranks::start(move || Ok(meeting.join(rank)), || false).unwrap();
                assert_eq!((ranks.rank(), ranks.size()), (rank, 3));
                ranks.begin(vec![rank as f32; 4]);
                ranks.begin(vec![1.0]);
                assert_eq!(ranks.finish().unwrap(), [3.0; 4]);
                assert_eq!(ranks.finish().unwrap(), [3.0]);
                let told = ranks.tell(if rank == 0 { b"go on" } else { b"" }).unwrap();
                assert_eq!(told, b"go on");
            })
        };
        (0..3).map(rank).collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn whoever_waits_for_ranks_that_are_gone_is_told() {
        let meeting = Meeting::of(2);
        let ranks = Ranks::start(move || Ok(meeting.join(0)), || true).unwrap();
        let error = ranks.sum(&mut [1.0]).unwrap_err();
        assert!(error.to_string().contains("do not answer"), "{error}");
    }
}
