//! SIGINT and SIGTERM: while a run is under way the first one asks it to save and stop, the second one ends the process;
//! before, when there is nothing to save, so does the first.

use crate::error::{AtPath, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

static CAUGHT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
/// Whether the next signal ends the process.
static ENDS: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Catches SIGINT and SIGTERM from now on, for the whole process: a program's choice, so no library function does it.
/// Each ends the process at once with [`exit_code`], until [`save_first`].
pub fn install() -> Result<()> {
    let caught = Arc::new(AtomicUsize::new(0));
    if CAUGHT.set(caught.clone()).is_err() {
        return Ok(());
    }
    let ends = ENDS.get_or_init(|| Arc::new(AtomicBool::new(true)));
    for signal in [SIGINT, SIGTERM] {
        // Handlers run in this order, so the first signal after `save_first` finds the flag unset.
        let set = flag::register_conditional_shutdown(signal, exit_code(signal).into(), ends.clone())
            .and_then(|_| flag::register_usize(signal, caught.clone(), signal as usize))
            .and_then(|_| flag::register(signal, ends.clone()));
        set.at("signal handler")?;
    }
    Ok(())
}

/// From now on SIGINT does not end the process but sets the flag: who reads it takes it back.
///
/// # Errors
/// The system refuses a handler.
pub fn interrupts() -> Result<Arc<AtomicBool>> {
    let set = Arc::new(AtomicBool::new(false));
    flag::register(SIGINT, Arc::clone(&set)).at("signal handler")?;
    Ok(set)
}

/// From now on the end of standard input is a SIGTERM: a process that has a pipe there ends with the one that holds the other end,
/// however that ends.
pub fn when_input_ends() {
    std::thread::spawn(|| {
        // Whatever it is that ends it.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = signal_hook::low_level::raise(SIGTERM);
    });
}

/// From now on there is something to save: [`caught`] tells of the first signal, and the second one ends the process.
pub fn save_first() {
    if let Some(ends) = ENDS.get() {
        ends.store(false, Ordering::SeqCst);
    }
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
