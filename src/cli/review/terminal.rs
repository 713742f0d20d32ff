//! Judging in a terminal: a line a judgement.

use super::super::term::{Ink, ink, note, print, safe};
use super::Global;
use kiln::error::{AtPath, Error, Result};
use kiln::review::{Answer, Choice, Prompt, Review, Summary};
use std::io::BufRead;

const PAIR: &str = "1 2 the first, the second is better   0 as good   b both bad";
const RATING: &str = "1 very bad   2 bad   3 fair   4 good   5 very good";
const REST: &str = "u undo   q quit; words behind the key are a note";

/// Shows item after item and reads what is said of each, until all are judged or nobody says any more.
pub fn judge(mut review: Review, reviewer: Option<&str>, global: &Global) -> Result<Summary> {
    let system = std::env::var("USER").ok().filter(|name| Review::reviewer(name).is_ok());
    let reviewer = reviewer.map_or_else(|| system.unwrap_or_else(|| "terminal".into()), str::to_owned);
    let rating = review.is_rating();
    let mut lines = std::io::stdin().lock().lines();
    while let Some(item) = show(&review, &reviewer, global)? {
        let Some(line) = lines.next().transpose().at("standard input")? else { break };
        let (key, words) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let choice = match key {
            "" => continue,
            "q" => break,
            "u" => {
                review.undo(&reviewer)?;
                continue;
            }
            key if rating => key.parse().ok().filter(|n| (1..=5).contains(n)).map(Choice::Rating),
            "1" => Some(Choice::Left),
            "2" => Some(Choice::Right),
            "0" => Some(Choice::Tie),
            "b" => Some(Choice::Bad),
            _ => None,
        };
        match choice {
            None => note(&format!("{} is none of the keys", safe(key))),
            Some(choice) => match review.judge(&reviewer, item, choice, words) {
                Err(Error::Usage { problem, .. }) => note(&problem),
                done => done?,
            },
        }
    }
    Ok(review.summary())
}

/// Shows what is to be judged now and gives its number; none: all is judged.
fn show(review: &Review, reviewer: &str, global: &Global) -> Result<Option<usize>> {
    let view = review.view(reviewer);
    let Some((number, item)) = view.item else { return Ok(None) };
    if global.json {
        return Ok(Some(number));
    }
    print(&ink(&format!("\n── {} of {}, judged by {} ──", view.done + 1, view.total, safe(reviewer)), Ink::Bold))?;
    match &item.prompt {
        Prompt::Text(text) => print(&safe(text))?,
        Prompt::Chat(messages) => {
            for message in messages {
                let says = message.content().unwrap_or("(no text)");
                print(&format!("{} {}", ink(&format!("{}:", safe(message.role())), Ink::Dim), safe(says)))?;
            }
        }
    }
    if let Some(reference) = &item.reference {
        print(&ink(&format!("right is: {}", safe(reference)), Ink::Dim))?;
    }
    for (place, answer) in view.answers.iter().enumerate() {
        let Answer::Text(text) = answer else {
            return Err(Error::usage("a terminal shows no pictures", "leave --terminal out"));
        };
        let text = if text.trim().is_empty() { "(an empty answer)" } else { text };
        print(&format!("\n{}\n{}", ink(["First", "Second"][place], Ink::Bold), safe(text)))?;
    }
    let keys = if review.is_rating() { RATING } else { PAIR };
    print(&ink(&format!("\n{keys}   {REST}"), Ink::Dim))?;
    Ok(Some(number))
}
