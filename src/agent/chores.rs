//! Chores: small things to do in the village, each told in words and done at once, within the constraints. Who has read of them knows what tools
//! do and what words mean, and not yet how to run an errand, which nobody tells step by step.

use super::scene::{About, Act, Scene, Spot, is};
use super::{Call, plan};
use crate::rng::Rng;
use std::fmt::Write;

/// Calls of a text at most.
pub const CALLS: usize = 12;

/// Acts of a chore at most.
const ACTS: usize = 8;

/// Ways of telling chores: the words of all errands, and none of the sentences in which errands are asked.
const GET: &[&str] = &["Get {x}.", "Take {x} along.", "You need {x}.", "You should end up with {x}."];
/// The same where that costs something.
const BUY: &[&str] =
    &["Buy {x}.", "Get yourself {x} from a stall.", "You would like {x} from a stall.", "Spend coins on {x}."];
/// And where somebody gets what one carries.
const HAND: &[&str] = &[
    "Hand {x} to {p}.",
    "You carry {x}, and {p} gets it.",
    "{p} waits for what is in your bag, {x}.",
    "Let {p} have {x} of your bag.",
    "In the end {p} should have {x}, which is in your bag.",
];

/// What was told, and what was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Chores {
    /// The chores in words, and the rules.
    pub told: String,
    /// Calls, and what was replied.
    pub steps: Vec<(Call, String)>,
}

impl Chores {
    /// A text to read, as the template `plain` writes what agents do.
    pub fn text(&self) -> String {
        let mut text = format!("User:\n{}\n", self.told);
        for (call, reply) in &self.steps {
            let _ = write!(text, "Assistant:\n{}\nTool:\n{reply}\n", call.json());
        }
        text
    }
}

/// A chore that can be done as things stand, in words and acts; `None` where the one that chance took cannot.
pub fn chore(scene: &Scene, rng: &mut Rng) -> Option<(String, Vec<Act>)> {
    let place = |i: usize| &scene.places[i].name;
    let person = |i: usize| &scene.people[i].name;
    let item = |i: usize| &scene.items[i].name;
    // Food has no article.
    let thing = |i: usize| if scene.items[i].offers.is_empty() { format!("the {}", item(i)) } else { item(i).clone() };
    // To go is what has most to be learnt: the map, around a place that is forbidden.
    match rng.below(12) {
        0 => (!scene.places[scene.here].looked).then(|| ("Look around.".to_owned(), vec![Act::Look])),
        1..=4 => {
            let to = one(0..scene.places.len(), rng, |i| i != scene.here)?;
            Some((format!("Go to the {}.", place(to)), way(scene, to)?))
        }
        5..=6 => {
            let who = one(0..scene.people.len(), rng, |i| scene.people[i].at == scene.here)?;
            let (about, words) = match rng.below(3) {
                0 => one(0..scene.people.len(), rng, |i| i != who).map(|i| (About::Person(i), person(i).clone()))?,
                1 => one(0..scene.places.len(), rng, |i| i != scene.here)
                    .map(|i| (About::Place(i), format!("the {}", place(i))))?,
                _ => one(0..scene.items.len(), rng, |_| true).map(|i| (About::Item(i), thing(i)))?,
            };
            Some((format!("Ask {} about {words}.", person(who)), vec![Act::Ask(who, about)]))
        }
        7 => {
            let (about, words) = if rng.below(2) == 0 {
                let who = one(0..scene.people.len(), rng, |i| !scene.people[i].known)?;
                (About::Person(who), format!("Find out where {} is.", person(who)))
            } else {
                let what = one(0..scene.items.len(), rng, |i| !scene.items[i].known)?;
                let sold = if scene.items[what].at == Spot::Sold { " sold" } else { "" };
                (About::Item(what), format!("Find out where {} {}{sold}.", thing(what), is(item(what))))
            };
            let known = |scene: &Scene| match about {
                About::Item(i) => scene.items[i].known,
                About::Person(i) => scene.people[i].known,
                About::Place(_) => true,
            };
            Some((words, until(scene, known, |scene| plan::find(scene, about))?))
        }
        kind @ 8..=10 => {
            let sold = kind == 10;
            let lies = |i: usize| match scene.items[i].at {
                Spot::At(_) => !sold,
                Spot::Sold => sold,
                Spot::Bag | Spot::With(_) => false,
            };
            let what = one(0..scene.items.len(), rng, lies)?;
            let had = |scene: &Scene| scene.items[what].at == Spot::Bag;
            let words = said(if sold { BUY } else { GET }, rng).replace("{x}", &thing(what));
            Some((words, until(scene, had, |scene| plan::get(scene, what))?))
        }
        _ => {
            let what = one(0..scene.items.len(), rng, |i| scene.items[i].at == Spot::Bag)?;
            let who = one(0..scene.people.len(), rng, |_| true)?;
            let words = said(HAND, rng).replace("{x}", &thing(what)).replace("{p}", person(who));
            let mut scene = scene.clone();
            scene.goals = vec![(what, who)];
            Some((words, until(&scene, Scene::done, |scene| plan::next(scene, true))?))
        }
    }
}

/// One of the ways to tell it.
fn said(ways: &[&'static str], rng: &mut Rng) -> &'static str {
    ways[rng.below(ways.len() as u32) as usize]
}

/// One of them that fits, each as likely.
fn one(all: std::ops::Range<usize>, rng: &mut Rng, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let all: Vec<usize> = all.filter(|&i| fits(i)).collect();
    (!all.is_empty()).then(|| all[rng.below(all.len() as u32) as usize])
}

/// The moves to a place, around the one that is forbidden.
fn way(scene: &Scene, to: usize) -> Option<Vec<Act>> {
    let path = scene.path(to, Some(scene.forbidden));
    (to == scene.here || !path.is_empty()).then(|| path.into_iter().map(Act::Move).collect())
}

/// What is done, act by act, until it is `done`; `None`: that takes too many.
fn until(scene: &Scene, done: impl Fn(&Scene) -> bool, next: impl Fn(&Scene) -> Option<Act>) -> Option<Vec<Act>> {
    let mut scene = scene.clone();
    let mut acts = Vec::new();
    while !done(&scene) {
        let act = next(&scene).filter(|_| acts.len() < ACTS)?;
        scene.apply(act).ok()?;
        acts.push(act);
    }
    Some(acts)
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Village};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn chores_are_told_and_done_within_the_constraints() {
        for seed in [1, 2] {
            let (mut village, mut tools, mut ruled) = (Village::new(seed), BTreeSet::new(), 0);
            for task in 0..60 {
                let chores = village.chores(task);
                assert_eq!(chores, Village::new(seed).chores(task));
                let lines = chores.text().lines().filter(|line| *line == "Tool:").count();
                let Chores { told, steps } = chores;
                assert!((1..=CALLS).contains(&steps.len()) && lines == steps.len(), "{told}");
                let rules = told.contains("Ask owners");
                assert!(rules || told.matches('.').count() == steps.len() + 1, "{told}");
                ruled += usize::from(rules);
                let mut again = Village::new(seed);
                again.begin_chores(task);
                for (call, reply) in steps {
                    let name = call.arguments.get("thing").or(call.arguments.get("about"));
                    assert!(
                        name.is_none_or(|name| call.name == "ask" || told.contains(name.as_str().expect("a text")))
                    );
                    assert!(again.judge(&call).is_empty(), "{told}: {call:?}");
                    // An errand may be done by chance, and is over then.
                    assert!(again.succeeded() || again.valid().expect("calls").contains(&call), "{told}: {call:?}");
                    assert!(again.call(&call).text.starts_with(&reply));
                    tools.insert(call.name);
                }
            }
            assert_eq!(tools.len(), 6, "{tools:?}");
            assert!((25..55).contains(&ruled), "{ruled}");
        }
    }
}
