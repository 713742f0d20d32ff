//! SIGINT and SIGTERM: the first one asks the run to save and stop, the second one ends the process.

use crate::error::{AtPath, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

static CAUGHT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Catches SIGINT and SIGTERM from now on, for the whole process: a program's choice, so no library function does it.
/// [`caught`] tells of the first one; the second one ends the process at once with [`exit_code`].
pub fn install() -> Result<()> {
    let caught = Arc::new(AtomicUsize::new(0));
    if CAUGHT.set(caught.clone()).is_err() {
        return Ok(());
    }
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Handlers run in this order, so the first signal finds `again` unset.
        let set = flag::register_conditional_shutdown(signal, exit_code(signal).into(), again.clone())
            .and_then(|_| flag::register_usize(signal, caught.clone(), signal as usize))
            .and_then(|_| flag::register(signal, again.clone()));
        set.at("signal handler")?;
    }
    Ok(())
}

/// The signal that came, if one did and [`install`] was called before.
pub fn caught() -> Option<i32> {
    match CAUGHT.get()?.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal as i32),
    }
}

/// What a process exits with that a signal ended: 128 and its number, so 130 for SIGINT and 143 for SIGTERM.
pub fn exit_code(signal: i32) -> u8 {
    128u8.saturating_add(signal as u8)
}
