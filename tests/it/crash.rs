//! What a run leaves behind when anything that it writes fails, when it is killed, and when the power goes.
//!
//! With `KILN_SOAK` set, thirty times as many seeds and ten times as many kills: see tests/soak.sh.

mod checkpoints;
mod disk;
mod processes;
mod runs;
mod soak;

/// What a finished run leaves: the bytes of its weights and moments; step, loss and validation loss of each line of its
/// metrics, as bits.
type Outcome = (Vec<Vec<u8>>, Vec<(u64, u32, Option<u64>)>);

/// How many seeds or repetitions: `few` in the ordinary tests, `many` in the long ones.
fn soak(few: u64, many: u64) -> u64 {
    if std::env::var_os("KILN_SOAK").is_some() { many } else { few }
}
