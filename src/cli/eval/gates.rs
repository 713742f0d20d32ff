//! What a policy says of a model, a line for each gate.

use crate::cli::term::{Ink, ink, safe};
use kiln::eval::gate::Verdict;
use std::fmt::Write;

/// The lines, and what they come to.
pub(super) fn table(verdicts: &[Verdict]) -> String {
    let mut text = format!("{}\n", ink("gates", Ink::Bold));
    for Verdict { gate, value, worse, passed } in verdicts {
        let word = if *passed { ink("ok    ", Ink::Green) } else { ink("FAILED", Ink::Red) };
        let bounds = [
            gate.min.map(|min| format!("at least {min}")),
            gate.max.map(|max| format!("at most {max}")),
            gate.max_worse.map(|most| match worse {
                Some(worse) => format!("at most {most} worse than the second model: {worse:+.4}"),
                None => format!("at most {most} worse than the second model"),
            }),
        ];
        let bounds: Vec<String> = bounds.into_iter().flatten().collect();
        let value = value.map_or("none".to_owned(), |value| format!("{value:.4}"));
        let _ = writeln!(
            text,
            "  {word}  {:<30}{value:>10}  {}",
            format!("{} {}", safe(&gate.task), safe(&gate.figure)),
            bounds.join(", ")
        );
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.passed).count();
    let says = match failed {
        0 => ink("all gates are passed", Ink::Green),
        n => ink(&format!("{n} of {} gates failed", verdicts.len()), Ink::Red),
    };
    text + "  " + &says
}
