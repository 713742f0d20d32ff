//! What holds for questions and their answers.

use super::super::choice::Chooser;
use super::super::plant::Hand;
use super::super::{Era, Split};
use super::*;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Calls `f` on the first `n` documents of a form, of every part of three worlds.
fn each(form: Form, n: u64, mut f: impl FnMut(&World, Split, &Item)) {
    for (seed, era) in [(1, Era::One), (2, Era::One), (3, Era::Two)] {
        let world = World::era(seed, era);
        for split in Split::ALL {
            let asker = Asker::new(&world, split, form);
            let mut hand = asker.hand();
            (0..n).for_each(|n| f(&world, split, &asker.item(&mut hand, n)));
        }
    }
}

fn text<'a>(item: &'a Item, field: &str) -> &'a str {
    item.body[field].as_str().expect("a string")
}

/// Reads its own questions back, finds its own answers right, and those that were made wrong wrong.
#[test]
fn every_question_is_understood_and_its_answer_is_right() {
    let mut seen = HashMap::<(u64, Split), HashSet<String>>::new();
    each(Form::Qa, 700, |world, split, item| {
        let (question, answer) = (text(item, "question"), text(item, "answer"));
        let found = world.answer(question).unwrap_or_else(|| panic!("{question}"));
        assert_eq!(Some(&*found), item.truth.answer.as_deref(), "{question}");
        assert_eq!(world.grade(question, answer), Verdict::True, "{question} {answer}");
        assert_eq!(world.grade(question, &found), Verdict::True, "{question} {found}");
        assert_eq!(world.grade(question, "I do not know."), Verdict::Unknown, "{question}");
        assert!(!question.contains(['{', '}']) && question.ends_with('?') && !answer.contains(['{', '}']), "{item:?}");
        seen.entry((world.seed, split)).or_default().insert(question.to_owned());
        for [_, subject, _] in &item.truth.facts {
            let held = world.find(subject).is_some_and(|e| world.held_out(e));
            assert!(!held || split == Split::People, "{question}");
            assert!(held || split != Split::People || item.topic == "path", "{question}");
        }
    });
    // What is held out is asked nowhere else.
    for seed in 1..=3 {
        let [train, val, people, paraphrases] = Split::ALL.map(|split| &seen[&(seed, split)]);
        assert!(people.is_disjoint(train) && paraphrases.is_disjoint(train) && !val.is_disjoint(train));
    }
    each(Form::Preferences, 700, |world, _, item| {
        let [prompt, chosen, rejected] = ["prompt", "chosen", "rejected"].map(|field| text(item, field));
        let rewards = [chosen, rejected].map(|reply| world.reward(prompt, reply));
        assert_eq!(item.truth.rewards, Some(rewards));
        assert!(rewards[0] == 1.0 && rewards[1] < 1.0, "{item:?}");
        assert_eq!(world.grade(prompt, chosen), Verdict::True);
        if item.topic == "truth" {
            assert_eq!(world.grade(prompt, rejected), Verdict::False, "{item:?}");
        }
    });
}

#[test]
fn strange_questions_and_replies_are_unknown() {
    let world = World::new(1);
    for question in
        ["", "?", "Where did Zoe live?", "Where did  live?", "What is the capital of France?", "Ünïcode{s}?"]
    {
        assert_eq!((world.query(question), world.answer(question)), (None, None), "{question}");
        assert_eq!(world.grade(question, "In the mill."), Verdict::Unknown);
    }
    let a = world.entities(Kind::Person)[0];
    let (name, job) = (world.name(a), world.name(world.fact(Relation::Job, a).unwrap()));
    let question = format!("what was {name}'s job?");
    assert_eq!(world.grade(&question, &format!("{name} was the {job}, I think.")), Verdict::True);
    assert_eq!(world.grade(&question, &format!("{name} was the {job} and the pilot.")), Verdict::True, "no pilot here");
    let other = world.entities(Kind::Job).iter().find(|&&e| world.name(e) != job).unwrap();
    assert_eq!(world.grade(&question, &format!("The {job}, or the {}.", world.name(*other))), Verdict::False);
    assert_eq!(world.grade(&question, ""), Verdict::Unknown);
}

#[test]
fn tools_answer_what_is_asked_and_refuse_what_makes_no_sense() {
    each(Form::Tools, 300, |world, _, item| {
        let messages = item.body["messages"].as_array().expect("messages");
        let question = messages[0]["content"].as_str().expect("a question");
        for pair in messages[1..messages.len() - 1].chunks(2) {
            let call = &pair[0]["tool_calls"][0]["function"];
            let result = world.call(call["name"].as_str().expect("a name"), &call["arguments"]).expect("a right call");
            assert_eq!(pair[1]["content"], result.to_string());
        }
        let answer = messages.last().expect("an answer")["content"].as_str().expect("a text");
        assert_eq!(world.grade(question, answer), Verdict::True, "{question} {answer}");
    });
    let world = World::new(1);
    let name = world.name(world.entities(Kind::Person)[0]);
    let call = |tool: &str, arguments: &str| world.call(tool, &serde_json::from_str::<Value>(arguments).expect("JSON"));
    for (tool, arguments) in [
        ("steal", "{}"),
        ("lookup", "{}"),
        ("lookup", "[]"),
        ("lookup", r#"{"name": 3, "relation": "job"}"#),
        ("lookup", r#"{"name": "Zoe", "relation": "job"}"#),
        ("find", r#"{"relation": "taste", "value": "the mill"}"#),
        ("count", r#"{"relation": "home"}"#),
    ] {
        assert!(call(tool, arguments).is_err(), "{tool} {arguments}");
    }
    assert!(call("lookup", &format!(r#"{{"name": "{name}", "relation": "colour"}}"#)).is_err());
    assert!(call("lookup", &format!(r#"{{"name": "{name}", "relation": "friend"}}"#)).is_ok());
}

#[test]
fn instructions_and_dialogues_hold_what_they_promise() {
    let mut topics = HashSet::new();
    each(Form::Instructions, 250, |world, _, item| {
        topics.insert(item.topic);
        let (prompt, completion) = (text(item, "prompt"), text(item, "completion"));
        assert!(!completion.is_empty() && !prompt.contains(['{', '}']), "{item:?}");
        match item.topic {
            "story" => assert!(world.check(completion).iter().all(|claim| claim.verdict == Verdict::True)),
            "rewrite" => assert!(!prompt.ends_with(&format!(": {completion}")), "{item:?}"),
            "judge" => {
                // The value in the claim is the true one if and only if the reply is yes.
                let [_, subject, object] = &item.truth.facts[0];
                let relation = Relation::named(&item.truth.facts[0][0]).expect("a relation");
                let e = world.find(object).filter(|_| world.find(subject).is_some()).expect("an entity");
                let said = ["", "at", "doing"]
                    .iter()
                    .any(|form| world.said(e, form).is_some_and(|word| prompt.contains(&word)));
                let said = said || prompt.to_lowercase().contains(&world.name(e).to_lowercase());
                assert_eq!(said, completion == "Yes.", "{relation:?} {item:?}");
            }
            _ => {}
        }
    });
    assert_eq!(topics.len(), 6, "{topics:?}");
    each(Form::Dialogues, 300, |_, _, item| {
        let messages = item.body["messages"].as_array().expect("messages");
        assert!(messages.len() >= 2 && messages.len() % 2 == 0);
        for (i, message) in messages.iter().enumerate() {
            assert_eq!(message["role"], ["user", "assistant"][i % 2]);
            let content = message["content"].as_str().expect("a text");
            assert!(
                content.starts_with(|c: char| c.is_ascii_uppercase()) && !content.contains(['{', '}']),
                "{content}"
            );
        }
    });
}

#[test]
fn a_portrait_states_every_fact_of_its_subject_and_nothing_else() {
    for seed in [1, 2] {
        let world = World::new(seed);
        let asker = Asker::new(&world, Split::Train, Form::Portraits);
        let mut hand = asker.hand();
        let (mut subjects, mut held_out) = (HashSet::new(), HashSet::new());
        for n in 0..2_000 {
            let item = asker.item(&mut hand, n);
            let text = item.body["text"].as_str().unwrap();
            let subject = world.find(&item.truth.facts[0][1]).unwrap();
            subjects.insert(subject);
            for fact in &item.truth.facts {
                // Of longer names other forms may stand there: "dance" as "dancing".
                let start = fact[2].split(' ').next().unwrap();
                let start = &start[..start.len().min(3)];
                assert!(text.to_lowercase().contains(&start.to_lowercase()), "{fact:?} in {text}");
            }
            let known = Relation::ALL.iter().filter(|&&relation| world.fact(relation, subject).is_some()).count();
            assert!(item.truth.facts.len() <= known && item.truth.facts.len() * 2 > known, "{text}");
            assert_eq!(text.matches(". ").count() + 1, item.truth.facts.len(), "{text}");
            if world.held_out(subject) {
                // Of friends there are three ways; one is reserved.
                held_out.insert(text.contains("had a best friend called"));
            }
        }
        assert!(subjects.len() > 60, "{}", subjects.len());
        assert_eq!(held_out, HashSet::from([false]));
    }
}

#[test]
fn a_document_does_not_depend_on_those_before_it() {
    let world = World::new(7);
    for form in Form::ALL.into_iter().filter(|&form| form != Form::Stories) {
        let asker = Asker::new(&world, Split::Train, form);
        let mut hand = asker.hand();
        let all: Vec<Item> = (0..40).map(|n| asker.item(&mut hand, n)).collect();
        for n in [31, 4, 39] {
            assert_eq!(asker.item(&mut Hand::new(&world), n as u64), all[n]);
        }
        let ids: HashSet<_> = all.iter().map(|item| &item.truth.id).collect();
        assert_eq!(ids.len(), 40);
    }
}

/// The language of questions and answers is small enough to be written out: its probabilities sum to one.
#[test]
fn the_probabilities_of_all_questions_and_answers_sum_to_one() {
    let world = World::new(1);
    for split in [Split::Train, Split::People, Split::Paraphrases] {
        let asker = Asker::new(&world, split, Form::Qa);
        let mut c = Chooser::new();
        let (mut sum, mut count) = (0.0, 0);
        while c.walk() {
            asker.qa(&mut c);
            sum += (-c.nats()).exp();
            count += 1;
        }
        assert!((sum - 1.0).abs() < 1e-9, "{split:?}: {sum} over {count}");
        assert!(count > 2_000, "{count}");
    }
}
