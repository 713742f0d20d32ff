//! `World::export`: what lies in the folder afterwards.

use kiln::data::Sources;
use kiln::data::world::{Era, Export, Flaw, Flaws, Form, Split, Truth, World};
use kiln::disk::Os;
use std::fs;

fn plan(bytes: u64, flaws: Flaws) -> Export {
    Export { form: Form::Stories, split: Split::Train, flaws, skew: 0.8, bytes }
}

#[test]
fn a_corpus_and_its_truth_belong_together_for_any_number_of_threads() {
    let world = World::new(5);
    let dirs = [1, 3].map(|threads| {
        let dir = tempfile::tempdir().expect("a folder");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let written =
            pool.install(|| world.export(&plan(700_000, Flaws::all()), &Os, dir.path(), &|_| {})).expect("written");
        (dir, written)
    });
    assert_eq!(dirs[0].1, dirs[1].1);
    for name in ["corpus.jsonl", "truth.jsonl", "README.txt", "rude.txt"] {
        let bytes = dirs.each_ref().map(|(dir, _)| fs::read(dir.path().join(name)).expect("a file"));
        assert_eq!(bytes[0], bytes[1], "{name}");
    }
    let (dir, written) = &dirs[0];
    let corpus = dir.path().join("corpus.jsonl");
    let size = fs::metadata(&corpus).expect("a file").len();
    assert!(size == written.bytes && (690_000..=700_000).contains(&size), "{size}");
    let truth = fs::read_to_string(dir.path().join("truth.jsonl")).expect("a file");
    let truth: Vec<Truth> = truth.lines().map(|line| serde_json::from_str(line).expect("a truth")).collect();
    let sources = Sources::open(&[&corpus], "text").expect("a corpus");
    let documents: Vec<_> = sources.documents().map(|d| d.expect("a document")).collect();
    assert_eq!((documents.len(), written.documents), (truth.len(), truth.len() as u64));
    let nats: f64 = truth.iter().map(|t| t.nats).sum();
    assert!((nats - written.nats).abs() < 1e-6 * nats);
    let mut spans = 0;
    for (document, truth) in documents.iter().zip(&truth) {
        assert_eq!(document.id, truth.id);
        for flaw in &truth.flaws {
            if let Some(span) = flaw.span() {
                assert!(!document.text[span].is_empty());
                spans += 1;
            }
            if let Flaw::WrongLabel { label, .. } = flaw {
                assert_eq!(document.metadata["metadata"]["topic"], **label);
            }
        }
        assert!(truth.facts.iter().all(|fact| fact.iter().all(|word| !word.is_empty())), "{truth:?}");
    }
    assert!(spans > 100);
}

#[test]
fn without_flaws_a_corpus_is_the_stories_and_small_sizes_work() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::new(1);
    let written = world.export(&plan(10_000, Flaws::default()), &Os, dir.path(), &|_| {}).expect("written");
    let sources = Sources::open(&[dir.path().join("corpus.jsonl")], "text").expect("a corpus");
    for (n, document) in sources.documents().enumerate() {
        assert_eq!(document.expect("a document").text, world.story(Split::Train.index(n as u64)).text);
    }
    assert!(written.documents > 5 && written.flaws.is_empty());
    assert!(!dir.path().join("rude.txt").exists());
    assert!(world.export(&plan(10, Flaws::all()), &Os, dir.path(), &|_| {}).is_err());
}

#[test]
fn every_form_is_written_with_its_truth_and_takes_no_flaws() {
    let world = World::era(2, Era::Two);
    for form in Form::ALL.into_iter().filter(|&form| form != Form::Stories) {
        let dir = tempfile::tempdir().expect("a folder");
        let what = Export { form, split: Split::People, flaws: Flaws::default(), skew: 0.0, bytes: 60_000 };
        let written = world.export(&what, &Os, dir.path(), &|_| {}).expect("written");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("a file");
        let (corpus, truth) = (read("corpus.jsonl"), read("truth.jsonl"));
        assert!(written.bytes == corpus.len() as u64 && written.documents == corpus.lines().count() as u64);
        assert!(written.documents > 10 && truth.lines().count() as u64 == written.documents);
        let fields: &[&str] = match form {
            Form::Stories | Form::Qa => &["question", "answer", "text"],
            Form::Dialogues => &["messages"],
            Form::Instructions => &["prompt", "completion"],
            Form::Preferences => &["prompt", "chosen", "rejected"],
            Form::Tools => &["messages", "tools"],
            Form::Portraits => &["text"],
        };
        for (line, truth) in corpus.lines().zip(truth.lines()) {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let truth: Truth = serde_json::from_str(truth).expect("a truth");
            assert_eq!((line["id"].as_str(), &line["metadata"]["kind"]), (Some(&*truth.id), &form.name().into()));
            assert!(fields.iter().all(|field| !line[field].is_null()), "{line}");
        }
        let rude = Export { flaws: Flaws::all(), ..what };
        let error = world.export(&rude, &Os, dir.path(), &|_| {}).expect_err("no flaws here").to_string();
        assert!(error.contains("--flaws") && error.contains(form.name()), "{error}");
    }
}
