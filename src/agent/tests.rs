//! All environments under the agents that need no model, and under messages of ill will.
#![allow(clippy::print_stdout)]

use super::*;
use std::collections::{BTreeMap, BTreeSet};

fn environments() -> Vec<Box<dyn Environment>> {
    let table = Table::parse(&table::tests::example(), Path::new("garden.toml"), 1).unwrap();
    vec![Box::new(Village::new(1)), Box::new(Shop::new(1)), Box::new(Desk::new(1)), Box::new(table)]
}

fn play(
    environment: Box<dyn Environment>,
    task: u64,
    split: Split,
    hold: Hold,
    agent: &mut dyn Agent,
) -> (Trace, Box<dyn Environment>) {
    let mut episode = Episode::begin(environment, task, split, "test", hold, Limits::default());
    while !episode.over() {
        let said = agent.act(&episode);
        episode.act(&said);
    }
    episode.end()
}

fn median(counts: &BTreeMap<usize, usize>) -> usize {
    let all: usize = counts.values().sum();
    let mut seen = 0;
    counts.iter().find(|(_, n)| (seen += *n, seen * 2 >= all).1).map_or(0, |(length, _)| *length)
}

#[test]
fn the_oracle_solves_every_task_and_breaks_nothing() {
    for (mut environment, most, least) in
        environments().into_iter().zip([12, 5, 7, 5]).zip([5, 5, 4, 3]).map(|((e, m), l)| (e, m, l))
    {
        for split in Split::ALL {
            let mut lengths = BTreeMap::new();
            for task in 0..300 {
                let (trace, back) = play(environment, task, split, Hold::Log, &mut Oracle);
                environment = back;
                let name = environment.name();
                assert!(trace.success && trace.breaches == 0, "{name} {split:?} {task}: {trace:?}");
                assert!(trace.calls() <= most, "{name} {split:?} {task}: {trace:?}");
                *lengths.entry(trace.calls()).or_insert(0) += 1;
            }
            println!("{} {}: {lengths:?}", environment.name(), split.name());
            assert!(median(&lengths) >= least, "{lengths:?}");
        }
    }
}

#[test]
fn errands_are_short_texts_and_half_of_them_tempt() {
    let mut village = Village::new(1);
    let (mut tempting, mut kinds, mut words) = (0, BTreeSet::new(), 0);
    for task in 0..300 {
        let goal = village.begin(task, Split::Train);
        words = words.max(goal.split_whitespace().count());
        kinds.insert(goal.split(' ').next().unwrap().to_owned());
        tempting += usize::from(village.tempts());
    }
    println!("at most {words} words; {tempting} of 300 tempt; {} beginnings", kinds.len());
    assert!(words <= 47, "{words}");
    assert!((100..200).contains(&tempting), "{tempting}");
    let mut longest = 0;
    for task in 0..100 {
        let (trace, _) = play(Box::new(village.clone()), task, Split::Train, Hold::Log, &mut Random::new(1));
        let replies = trace.steps.iter().flat_map(|step| &step.replies);
        longest = longest.max(replies.map(|reply| reply.split_whitespace().count()).max().unwrap_or(0));
    }
    println!("a reply has at most {longest} words");
    assert!(longest <= 30, "{longest}");
}

#[test]
fn a_random_agent_fails_and_breaks_constraints_unless_they_are_masked() {
    for environment in &environments()[..3] {
        let mut broken = BTreeMap::new();
        for hold in [Hold::Log, Hold::Mask] {
            let (mut solved, mut breaches, mut tasks) = (0, 0, 0);
            for task in 0..200 {
                let (trace, _) = play(environment.fresh(), task, Split::Test, hold, &mut Random::new(1));
                solved += usize::from(trace.success);
                breaches += trace.breaches;
                tasks += usize::from(trace.breaches > 0);
                trace.broken().for_each(|constraint| *broken.entry(constraint.to_owned()).or_insert(0) += 1);
            }
            let name = environment.name();
            println!("{name} {}: {solved} of 200 solved, {breaches} breaches in {tasks} tasks", hold.name());
            assert!(solved < 10, "{name}: {solved}");
            if hold == Hold::Mask {
                assert_eq!(breaches, 0, "{name}");
            } else if name == "village" {
                assert!(tasks >= 20, "{tasks}");
            }
        }
        println!("{broken:?}");
    }
}

#[test]
fn what_is_masked_is_refused_and_changes_nothing() {
    let mut found = 0;
    for task in 0..100 {
        let village = Village::new(1);
        let mut episode = Episode::begin(Box::new(village), task, Split::Train, "test", Hold::Mask, Limits::default());
        let valid = episode.environment().valid().unwrap();
        let allowed = episode.allowed().unwrap();
        for call in valid.iter().filter(|call| !allowed.contains(call)) {
            let told = episode.act(&call.text());
            assert!(told[0].text.starts_with("You must not do that: "), "{told:?}");
            assert_eq!(episode.environment().valid().unwrap(), valid);
            found += 1;
        }
        assert_eq!(episode.trace().breaches, 0);
        assert_eq!(episode.trace().refused, valid.len() - allowed.len());
    }
    assert!(found > 10, "{found}");
}

#[test]
fn a_trace_is_replayed_byte_for_byte_and_a_change_is_found() {
    for name in NAMES {
        for task in 0..20 {
            for (hold, agent) in [(Hold::Log, &mut Random::new(3) as &mut dyn Agent), (Hold::Mask, &mut Oracle)] {
                let (trace, _) = play(open(name, 3).unwrap(), task, Split::Val, hold, agent);
                let read: Trace = serde_json::from_str(&trace.line()).unwrap();
                assert_eq!(read, trace);
                replay(&read).unwrap();
            }
        }
    }
    let (trace, _) = play(open("village", 3).unwrap(), 0, Split::Train, Hold::Log, &mut Oracle);
    let changed = |change: &dyn Fn(&mut Trace)| {
        let mut trace = trace.clone();
        change(&mut trace);
        replay(&trace).map_err(|e| e.to_string())
    };
    assert_eq!(changed(&|_| {}), Ok(()));
    let reply = changed(&|trace| trace.steps[1].replies[0].push('!')).unwrap_err();
    assert!(reply.starts_with("a reply in step 2: was"), "{reply}");
    assert!(changed(&|trace| trace.goal.push('!')).unwrap_err().starts_with("the goal: was"));
    assert!(changed(&|trace| trace.success = false).unwrap_err().starts_with("the outcome: was"));
    assert!(changed(&|trace| trace.task = 1).is_err());
    assert!(changed(&|trace| trace.steps.reverse()).is_err());
    let longer = |trace: &mut Trace| trace.steps.push(trace.steps[0].clone());
    assert!(changed(&longer).unwrap_err().contains("is \"over\""));
}

#[test]
fn tasks_are_functions_of_the_seed_and_their_number() {
    for name in NAMES {
        let goals = |seed: u64| -> Vec<String> {
            let mut environment = open(name, seed).unwrap();
            (0..20).map(|task| environment.begin(task, Split::Train)).collect()
        };
        assert_eq!(goals(5), goals(5));
        assert_ne!(goals(5), goals(6));
        let mut environment = open(name, 5).unwrap();
        environment.begin(3, Split::Test);
        assert_eq!(environment.begin(7, Split::Train), goals(5)[7]);
        assert_eq!(environment.fresh().begin(7, Split::Train), goals(5)[7]);
        environment.begin(u64::MAX, Split::Test);
    }
}

#[test]
fn splits_share_no_task_and_the_test_has_its_own_people_things_and_words() {
    let mut village = Village::new(1);
    let mut all = |split| -> (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) {
        let (mut states, mut goals, mut about) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for task in 0..1000 {
            let goal = village.begin(task, split);
            states.insert(village.state());
            about.extend(village.about());
            // The wording: what is left without names.
            let first: String =
                goal.split(" is at the ").next().unwrap().split_inclusive(". ").next().unwrap().to_owned();
            let names = village.about();
            goals.insert(names.iter().fold(first, |text, name| text.replace(name.as_str(), "_")));
        }
        (states, goals, about)
    };
    let [train, val, test, people] = Split::ALL.map(&mut all);
    assert!(train.0.is_disjoint(&val.0) && train.0.is_disjoint(&test.0) && val.0.is_disjoint(&test.0));
    println!("{} {} {:?}", train.0.len(), val.0.len(), test.2);
    assert!(train.1.is_disjoint(&test.1), "{:?}", train.1.intersection(&test.1));
    // What a test is about, its goals' things and people, is nowhere in training but for owners of things.
    let shared: Vec<_> = train.2.intersection(&test.2).collect();
    let owners: BTreeSet<&str> = shared.iter().map(|name| name.as_str()).collect();
    assert!(owners.iter().all(|name| name.starts_with(char::is_uppercase)), "{owners:?}");
    assert!(test.2.len() > shared.len() + 8, "{test:?}");
    // The same people and things in the words of training, which are other tasks again.
    assert_eq!(people.2, test.2);
    assert!(people.1.is_disjoint(&test.1) && people.1.is_subset(&train.1), "{:?}", people.1);
    assert!(people.0.is_disjoint(&train.0) && people.0.is_disjoint(&test.0));
}

/// A message of ill will is answered in a few words, or refused, and nothing changes.
#[test]
fn hostile_messages_change_nothing() {
    for environment in environments() {
        let messages = hostile::messages(environment.tools(), 300);
        assert!(messages.len() >= 300, "{}", messages.len());
        let limits = Limits { turns: usize::MAX, calls: usize::MAX, tokens: usize::MAX, ..Limits::default() };
        let name = environment.name().to_owned();
        let mut episode = Episode::begin(environment, 0, Split::Train, "hostile", Hold::Log, limits);
        let state = |episode: &Episode| {
            let environment = episode.environment();
            (environment.valid(), environment.oracle(), environment.succeeded(), environment.spent().to_bits())
        };
        let before = state(&episode);
        for message in &messages {
            let start: String = message.chars().take(200).collect();
            let told = episode.act(message);
            assert!(!told.is_empty() && told.iter().all(|told| told.text.len() <= 500), "{name}: {start}: {told:?}");
            assert!(state(&episode) == before && !episode.over(), "{name}: {start}: {told:?}");
        }
        assert_eq!(episode.trace().breaches, 0);
        let trace = episode.end().0;
        if name != "garden" {
            let read: Trace = serde_json::from_str(&trace.line()).unwrap();
            replay(&read).unwrap();
        }
    }
}

#[test]
fn hostile_calls_leave_the_whole_state_as_it_was() {
    let (mut village, mut shop, mut desk) = (Village::new(1), Shop::new(1), Desk::new(1));
    let before = (village.state(), shop.state(), desk.state());
    for tools in [village.tools().to_vec(), shop.tools().to_vec(), desk.tools().to_vec()] {
        for message in hostile::messages(&tools, 300) {
            for call in calls(&message).ok().flatten().map(|(_, calls)| calls).unwrap_or_default() {
                for environment in [&mut village as &mut dyn Environment, &mut shop, &mut desk] {
                    environment.call(&call);
                }
            }
        }
    }
    assert_eq!((village.state(), shop.state(), desk.state()), before);
}

#[test]
fn names_of_environments_are_read_with_a_hint() {
    let error = |name: &str| open(name, 1).map(|_| ()).unwrap_err();
    assert!(error("vilage").hint().unwrap().contains("did you mean village?"));
    assert!(error("x").hint().unwrap().contains("village, shop, tools"));
    assert!(error("/nowhere/x.toml").to_string().contains("/nowhere/x.toml"));
}
