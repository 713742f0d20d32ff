//! Lines of tasks that kiln makes itself: the built-in world asks about what it knows, and arithmetic about itself.

use crate::data::world::{Asker, Form, Lesson, Split, Unsaid, World, rude_lexicon, unsaid};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Rng};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What names of such data begin with.
pub(super) const SCHEME: &str = "world:";

/// What there is, by name.
const NAMES: [&str; 10] =
    ["text", "facts", "words", "pairs", "qa", "stories", "sums", "requests", "visitors", "visitors-alone"];

/// Where the numbers of each kind of draw begin.
fn rng(seed: u64, kind: u32, index: usize) -> Rng {
    Rng::new(seed, Purpose::Resample, 1 + kind, index as u64)
}

/// `count` different numbers below `n`, of which `i` is none if `own`.
pub(super) fn choose(seed: u64, i: usize, n: usize, count: usize, own: bool) -> Vec<usize> {
    let mut rng = rng(seed, 0, i);
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count.min(n - usize::from(own)) {
        let j = rng.below(n as u32) as usize;
        if (!own || j != i) && !chosen.contains(&j) {
            chosen.push(j);
        }
    }
    chosen
}

/// The first `limit` lines of `name` of the world `seed`.
///
/// # Errors
/// There is no such data.
pub(super) fn lines(name: &str, seed: u64, limit: usize) -> Result<Vec<Value>> {
    let world = World::new(seed);
    Ok(match name {
        "text" => text(&world, limit),
        "words" => text(&world, limit).iter().filter_map(last_word).collect(),
        "stories" => text(&world, limit).iter().map(begun).collect(),
        "facts" => facts(&world, seed, limit),
        "qa" => asked(&world, Form::Qa, limit),
        "pairs" => asked(&world, Form::Preferences, limit),
        "requests" => requests(limit),
        "visitors" => visitors(&world, seed, limit, true),
        "visitors-alone" => visitors(&world, seed, limit, false),
        "sums" => (0..limit.min(SUMS)).map(|i| sum(seed, i)).collect(),
        _ => {
            let problem = format!("{SCHEME}{name}: kiln makes no such data");
            return Err(Error::usage(problem, format!("take one of {SCHEME}{}", NAMES.join(&format!(", {SCHEME}")))));
        }
    })
}

/// The lexicon `name` of those that kiln brings.
///
/// # Errors
/// There is none.
pub(super) fn lexicon(name: &str) -> Result<String> {
    match name.strip_prefix(SCHEME) {
        Some("rude") => Ok(rude_lexicon()),
        _ => Err(Error::usage(format!("{name}: kiln brings no such lexicon"), "take world:rude, or a file")),
    }
}

/// Things to ask of an assistant that it should refuse, and things that only sound so: `prompt`, `harmful`, `about`.
fn requests(limit: usize) -> Vec<Value> {
    let lines = include_str!("../../data/tasks/requests.jsonl").lines().take(limit);
    lines.map(|line| serde_json::from_str(line).expect("lines of JSON")).collect()
}

/// Lines where nobody says how many.
const MANY: usize = 1000;

/// Held-out stories, with −ln of their true probability.
fn text(world: &World, limit: usize) -> Vec<Value> {
    let mut teller = world.teller();
    (0..limit.min(MANY) as u64)
        .map(|n| {
            teller.tell_of(Split::Val, n);
            json!({"text": teller.text(), "nats": teller.nats()})
        })
        .collect()
}

/// A story without its last word, and that.
fn last_word(line: &Value) -> Option<Value> {
    let text = line["text"].as_str()?.trim_end_matches(|c: char| !c.is_alphanumeric());
    let (context, word) = text.rsplit_once(' ')?;
    Some(json!({"context": context, "word": word}))
}

/// The first sentence of a story.
fn begun(line: &Value) -> Value {
    let text = line["text"].as_str().unwrap_or_default();
    let end = text.find(". ").map_or(text.len(), |at| at + 1);
    json!({"prompt": &text[..end]})
}

/// Questions about fixed facts, with three wrong answers of the same kind; by whether they are about held-out entities, and asked in held-out
/// ways.
fn facts(world: &World, seed: u64, limit: usize) -> Vec<Value> {
    let lessons = world.lessons();
    let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for lesson in &lessons {
        let answers = known.entry(lesson.relation.name()).or_default();
        if !answers.contains(&&*lesson.answer) {
            answers.push(&lesson.answer);
        }
    }
    let mut groups: BTreeMap<&str, Vec<&Lesson>> = BTreeMap::new();
    for lesson in &lessons {
        groups.entry(group(lesson)).or_default().push(lesson);
    }
    // As many of each group, drawn from all over it.
    let each = limit.min(MANY).div_ceil(groups.len());
    let mut all = Vec::new();
    for (kind, (group, lessons)) in (1..).zip(&groups) {
        let mut rng = rng(seed, kind, 0);
        for i in 0..each {
            let lesson = lessons[rng.below(lessons.len() as u32) as usize];
            let others: Vec<&str> =
                known[lesson.relation.name()].iter().copied().filter(|answer| *answer != lesson.answer).collect();
            if others.len() < 3 {
                continue;
            }
            let mut choices: Vec<&str> =
                choose(seed, i, others.len(), 3, false).into_iter().map(|j| others[j]).collect();
            choices.insert(rng.below(4) as usize, &lesson.answer);
            all.push(json!({"question": lesson.question, "answer": lesson.answer, "choices": choices,
                "relation": lesson.relation.name(), "group": group}));
        }
    }
    all.truncate(limit);
    all
}

fn group(lesson: &Lesson) -> &'static str {
    match (lesson.held_out, lesson.paraphrase) {
        (false, false) => "others",
        (false, true) => "others, other words",
        (true, false) => "held-out people",
        (true, true) => "held-out people, other words",
    }
}

/// Documents that ask, of held-out people and in held-out ways in turn.
fn asked(world: &World, form: Form, limit: usize) -> Vec<Value> {
    let parts = [Split::Val, Split::People, Split::Paraphrases];
    let askers = parts.map(|split| Asker::new(world, split, form));
    let mut hand = askers[0].hand();
    (0..limit.min(MANY))
        .map(|i| {
            let item = askers[i % 3].item(&mut hand, (i / 3) as u64);
            let mut body = item.body;
            body["group"] = parts[i % 3].name().into();
            body["topic"] = item.topic.into();
            body["short"] = item.truth.answer.as_deref().unwrap_or_default().into();
            body
        })
        .collect()
}

/// Texts about visitors that end before a pronoun: one where it follows from nothing but the occupation, and two where an earlier one demands it,
/// in turn. In stories they stand behind a sentence of a held-out one that says nobody's gender, as in a corpus with planted skew.
fn visitors(world: &World, seed: u64, limit: usize, in_stories: bool) -> Vec<Value> {
    let (mut free, mut stated): (Vec<Unsaid>, Vec<Unsaid>) = unsaid().into_iter().partition(|one| one.stated.is_none());
    let mut rng = rng(seed, 10, 0);
    for list in [&mut free, &mut stated] {
        for i in (1..list.len()).rev() {
            list.swap(i, rng.below(i as u32 + 1) as usize);
        }
    }
    let mut stated = stated.into_iter();
    let turns =
        free.into_iter().flat_map(|one| std::iter::once(one).chain(stated.by_ref().take(2).collect::<Vec<_>>()));
    let mut teller = world.teller();
    let mut next = 0;
    let mut before = || {
        loop {
            teller.tell_of(Split::Val, next);
            next += 1;
            let first = teller.text().split_inclusive(". ").next().unwrap_or_default();
            let mut words = first.split(|c: char| !c.is_ascii_alphabetic());
            if first.ends_with(' ') && !words.any(|word| GENDERED.iter().any(|g| g.eq_ignore_ascii_case(word))) {
                return first.to_owned();
            }
        }
    };
    turns
        .take(limit)
        .map(|one| {
            let prompt = if in_stories { before() + &one.text } else { one.text };
            let [usual, other] = one.pronouns;
            json!({"prompt": prompt, "usual": usual, "other": other, "gold": one.stated, "job": one.job, "new": one.new})
        })
        .collect()
}

/// Words that say a gender.
const GENDERED: [&str; 9] = ["he", "she", "his", "her", "him", "man", "woman", "boy", "girl"];

/// Sums that are asked where nobody says how many.
const SUMS: usize = 500;

/// A sum or difference of numbers below 100.
fn sum(seed: u64, i: usize) -> Value {
    let mut rng = rng(seed, 9, i);
    let (a, b) = (rng.below(100), rng.below(100));
    let (a, b, sign, c) = if rng.below(2) == 0 { (a, b, '+', a + b) } else { (a.max(b), a.min(b), '-', a.abs_diff(b)) };
    json!({"question": format!("{a} {sign} {b} ="), "answer": c.to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_have_one_right_answer_among_four() {
        let lines = lines("facts", 1, 80).unwrap();
        assert_eq!(lines.len(), 80);
        let mut groups = std::collections::HashSet::new();
        for line in &lines {
            let choices = line["choices"].as_array().unwrap();
            let right = choices.iter().filter(|choice| **choice == line["answer"]).count();
            assert_eq!((choices.len(), right), (4, 1), "{line}");
            groups.insert(line["group"].as_str().unwrap().to_owned());
        }
        assert_eq!(groups.len(), 4);
    }

    #[test]
    fn lines_do_not_hang_on_how_many_are_asked_for() {
        for name in NAMES.iter().filter(|name| !["facts", "requests"].contains(name)) {
            let (few, many) = (lines(name, 3, 5).unwrap(), lines(name, 3, 9).unwrap());
            assert_eq!(few[..], many[..5], "{name}");
            assert_ne!(few, lines(name, 4, 5).unwrap(), "{name}");
        }
    }

    #[test]
    fn examples_are_others_than_the_line_itself() {
        for i in 0..20 {
            let chosen = choose(7, i, 6, 5, true);
            let mut sorted = chosen.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert!(sorted.len() == 5 && !chosen.contains(&i));
        }
    }
}
