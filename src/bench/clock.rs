//! What times the parts of a repetition.
//!
//! On the host a call has done its work when it returns, and its clock is read before and after. Calls to a GPU return
//! early; there the device itself marks when it comes by, so that calls queue and neither launches nor waits count as long
//! as the device has work.

use super::Repetition;
use crate::device::{Device, Gpu};
use crate::error::Result;
use std::sync::Arc;
use std::time::Instant;

/// Seconds that a repetition of short calls should last, so that the clock and the waking of threads do not count.
const LAP: f64 = 0.02;
/// The most calls of a repetition.
const CALLS: f64 = 1e6;
/// The same on a GPU, whose marks are kept until it has come by all of them.
const QUEUED: f64 = 1000.0;

/// The seconds of each part of a repetition.
pub struct Clock {
    gpu: Option<Arc<Gpu>>,
    seconds: Vec<f64>,
    /// The parts that two marks of the device each enclose.
    marked: Vec<usize>,
}

impl Clock {
    fn new(device: &Device, parts: usize) -> Clock {
        let gpu = if let Device::Gpu(gpu) = device { Some(Arc::clone(gpu)) } else { None };
        Clock { gpu, seconds: vec![0.0; parts], marked: Vec::new() }
    }

    /// Adds what `f` takes to the seconds of part `part`.
    pub fn time<T>(&mut self, part: usize, f: impl FnOnce() -> T) -> T {
        match &self.gpu {
            None => {
                let start = Instant::now();
                let value = f();
                self.seconds[part] += start.elapsed().as_secs_f64();
                value
            }
            Some(gpu) => {
                let mark = 2 * self.marked.len();
                self.marked.push(part);
                gpu.mark(mark);
                let value = f();
                gpu.mark(mark + 1);
                value
            }
        }
    }

    /// The seconds since this was called last.
    fn take(&mut self) -> Result<Vec<f64>> {
        if let Some(gpu) = &self.gpu {
            gpu.check()?;
            for (i, part) in self.marked.drain(..).enumerate() {
                self.seconds[part] += gpu.driver.between(2 * i, 2 * i + 1)?;
            }
        }
        let none = vec![0.0; self.seconds.len()];
        Ok(std::mem::replace(&mut self.seconds, none))
    }
}

/// A repetition on `device` of `parts` timed parts, out of as many calls as last 20 ms. `call` has the clock time each
/// part; what it does beside them is not counted. Short calls are preceded by one that does not count, after what others
/// have left in the caches.
pub fn repeated(
    device: &Device,
    parts: usize,
    mut call: impl FnMut(&mut Clock) -> Result<()> + 'static,
) -> Repetition<'static> {
    let mut clock = Clock::new(device, parts);
    let most = if clock.gpu.is_some() { QUEUED } else { CALLS };
    let mut calls: Option<usize> = None;
    Box::new(move || {
        let calls = match calls {
            Some(calls) => calls,
            None => {
                // The first call finds nothing warm and pages untouched.
                call(&mut clock)?;
                clock.take()?;
                call(&mut clock)?;
                let once: f64 = clock.take()?.iter().sum();
                *calls.insert((LAP / once.max(1e-9)).ceil().clamp(1.0, most) as usize)
            }
        };
        if calls > 1 {
            call(&mut clock)?;
            clock.take()?;
        }
        for _ in 0..calls {
            call(&mut clock)?;
        }
        Ok(clock.take()?.into_iter().map(|s| s / calls as f64).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_gives_the_mean_of_its_calls_and_does_not_count_the_first() {
        let mut calls = 0;
        let mut repeat = repeated(&Device::cpu(1).unwrap(), 2, move |clock| {
            calls += 1;
            clock.seconds[0] += if calls == 1 { 1.0 } else { 0.004 };
            clock.seconds[1] += 0.001;
            Ok(())
        });
        for _ in 0..2 {
            let seconds = repeat().unwrap();
            assert!((seconds[0] - 0.004).abs() < 1e-9 && (seconds[1] - 0.001).abs() < 1e-9, "{seconds:?}");
        }
    }
}
