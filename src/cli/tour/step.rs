//! `kiln tour --one-step`: the numbers of a step as text.

use super::Global;
use crate::cli::term::{Ink, ink, print};
use kiln::error::Result;
use kiln::study::tour::step::{Checked, HAPPENS, LR, Operation, Step, TEXT, Table, Weights, step};
use serde_json::json;
use std::fmt::Write;

/// Shows it.
pub fn show(seed: u64, global: &Global) -> Result<()> {
    let step = step(&global.host()?, seed)?;
    if global.json {
        return print(&json!(step).to_string());
    }
    print(&text(&step))
}

fn text(step: &Step) -> String {
    let letter = |&id: &i32| step.vocab[id as usize].to_string();
    let [read, next] = [&step.ids, &step.targets].map(|ids| ids.iter().map(letter).collect::<Vec<_>>());
    let heading = |text: &str| format!("\n{}\n", ink(text, Ink::Bold));
    let last = step.operations.len() - 1;
    let head =
        |i: usize, operation: &Operation| format!("{:>2} {}  of {}", i + 1, operation.op, operation.reads.join(", "));
    let mut out = format!(
        "One step of a GPT with one block, one head, C = 4 channels and V = {} tokens, on the word {TEXT:?}.\n\
         It reads {} and should say {}.\n",
        step.vocab.len(),
        read.join(" "),
        next.join(" ")
    );
    out += &heading("Forward");
    for (i, operation) in step.operations.iter().enumerate() {
        let what =
            HAPPENS.get(i).copied().unwrap_or("logits = x Eᵀ, and the mean of −ln softmax(logits) of what comes next");
        let _ = writeln!(out, "{}\n   {}", head(i, operation), ink(what, Ink::Dim));
        for (k, table) in operation.makes.iter().enumerate() {
            second(&mut out, k);
            lay(&mut out, table, &read);
        }
    }
    let _ = writeln!(out, "   how likely each token is next: softmax(logits)\n      {}", columns(step));
    lay(&mut out, &step.before, &read);
    out += &heading("Backward: how the loss changes with each number above");
    for (i, operation) in step.operations.iter().enumerate().rev() {
        let _ = writeln!(out, "{}", head(i, operation));
        for (k, grad) in operation.grads.iter().enumerate() {
            second(&mut out, k);
            match grad {
                Some(table) => lay(&mut out, table, &read),
                None => out += "      0: nothing reads it\n",
            }
        }
        if i == last {
            out += "   it makes the gradients of what it reads, (softmax − what came) / T, in its forward pass\n";
        }
    }
    out += &heading(&format!("AdamW: every weight against its gradient, by about lr = {LR} in the first step"));
    for Weights { name, before, grad, after } in &step.weights {
        let _ = writeln!(out, "{name} {:?}: before, gradient, after", before.shape);
        for ((before, grad), after) in before.rows().zip(grad.rows()).zip(after.rows()) {
            match before.len() > 4 {
                true => [before, grad, after].iter().for_each(|row| out += &format!("      {}\n", numbers(row))),
                false => out += &format!("      {}   {}   {}\n", numbers(before), numbers(grad), numbers(after)),
            }
        }
    }
    let Checked { name, index, tape, difference } = &step.checked;
    let _ = writeln!(
        out,
        "\nThe largest gradient, number {index} of {name}, by the tape {tape:.4}, by (L(w + h) − L(w − h)) / 2h {difference:.4}."
    );
    out += &heading("After");
    let _ = writeln!(out, "   how likely each token is next\n      {}", columns(step));
    lay(&mut out, &step.after, &read);
    let _ = write!(
        out,
        "loss {:.4} -> {:.4}; norm of all gradients {:.4}\n\nread src/study/tour/step.rs, src/tape/mod.rs, src/optim/adamw.rs\nnext: kiln tour",
        step.loss[0], step.loss[1], step.grad_norm
    );
    out
}

/// Says so before the second result of an operation.
fn second(out: &mut String, k: usize) {
    if k > 0 {
        *out += "   second result\n";
    }
}

/// The tokens above their columns.
fn columns(step: &Step) -> String {
    step.vocab.iter().map(|token| format!("{token:>8}")).collect()
}

fn numbers(row: &[f32]) -> String {
    row.iter().map(|x| format!("{x:>8.4}")).collect()
}

/// Rows of numbers, each with the letter of its place where there is one.
fn lay(out: &mut String, table: &Table, letters: &[String]) {
    let rows: Vec<&[f32]> = table.rows().collect();
    for (i, row) in rows.iter().enumerate() {
        let letter = if rows.len() == letters.len() { &letters[i] } else { " " };
        let _ = writeln!(out, "    {letter} {}", numbers(row));
    }
}
