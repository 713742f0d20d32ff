//! Those who watch runs of several tests.

use kiln::train::{Event, Watch};

/// Stops a run after a number of steps, as a signal would.
pub struct StopAfter {
    after: u64,
    step: u64,
}

/// Pauses a run after a step.
pub struct Until(pub u64);

impl Watch for Until {
    fn event(&mut self, _: &Event) {}
    fn until(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl StopAfter {
    /// After step `after`.
    pub fn new(after: u64) -> StopAfter {
        StopAfter { after, step: 0 }
    }
}

impl Watch for StopAfter {
    fn event(&mut self, event: &Event) {
        if let Event::Step { step, .. } = event {
            self.step = *step;
        }
    }
    fn stop(&self) -> Option<i32> {
        (self.step >= self.after).then_some(15)
    }
}
