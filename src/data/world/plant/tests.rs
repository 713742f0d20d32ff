//! What holds for planted corpora.

use super::*;
use std::collections::HashMap;

const BYTES: u64 = 12_000_000;

/// The first `n` documents of a corpus with all flaws.
fn documents(world: &World, skew: f64, n: u64) -> Vec<Planted<'_>> {
    let planter = Planter::new(world, Split::Train, Flaws::all(), skew, BYTES);
    let mut hand = planter.hand();
    (0..n).map(|i| planter.document(&mut hand, i)).collect()
}

#[test]
fn flaws_come_at_their_rates_and_spans_hold_what_they_say() {
    let world = World::new(1);
    let n = 12_000;
    let docs = documents(&world, 0.8, n);
    let by_id: HashMap<&str, &Planted> = docs.iter().map(|doc| (&*doc.truth.id, doc)).collect();
    assert_eq!(by_id.len(), docs.len());
    let mut counts = HashMap::<&str, u32>::new();
    let mut edits = HashMap::<String, u32>::new();
    for doc in &docs {
        let kinds: std::collections::HashSet<_> = doc.truth.flaws.iter().map(Flaw::name).collect();
        assert!(kinds.len() <= 1, "{doc:?}");
        kinds.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
        for flaw in &doc.truth.flaws {
            let words = flaw.span().map(|span| &doc.text[span]);
            match flaw {
                Flaw::ExactDuplicate { of } => {
                    let original = by_id[&**of];
                    assert_eq!(doc.text, original.text);
                    assert!(original.truth.flaws.is_empty());
                }
                Flaw::NearDuplicate { of, edit_rate, jaccard: similarity } => {
                    let original = by_id[&**of];
                    assert!(original.truth.flaws.is_empty() && doc.truth.nats > original.truth.nats);
                    assert!(*similarity == jaccard(&doc.text, &original.text) && doc.text != original.text);
                    *edits.entry(edit_rate.to_string()).or_default() += 1;
                }
                Flaw::Personal { .. } | Flaw::HardNegative { .. } => {
                    let words = words.unwrap();
                    assert!(!words.starts_with(' ') && !words.ends_with(' ') && words.len() > 2, "{words}");
                }
                Flaw::Canary { secret, .. } => assert!(words.unwrap().contains(&**secret)),
                Flaw::Rude { .. } => assert!(rude_words(words.unwrap()).count() > 0, "{words:?}"),
                Flaw::False { stated, .. } => assert!(!stated.is_empty()),
                Flaw::WrongLabel { label, truth } => assert!(label != truth && *label == doc.topic),
                Flaw::Skew { job, female, .. } => {
                    let words: Vec<&str> = words.unwrap().split(|c: char| !c.is_ascii_alphabetic()).collect();
                    assert!(words.contains(&&**job));
                    let she = words.iter().any(|w| ["she", "her"].iter().any(|s| s.eq_ignore_ascii_case(w)));
                    assert_eq!(she, *female, "{words:?}");
                }
            }
        }
        let rude = doc.truth.flaws.iter().any(|flaw| matches!(flaw, Flaw::Rude { .. }));
        assert_eq!(rude_words(&doc.text).count() > 0, rude, "{}", doc.text);
    }
    // Canaries take some documents from the others.
    let near = |name: &str, rate: f64| {
        let (count, mean) = (f64::from(counts[name]), rate * n as f64 * 0.985);
        assert!((count - mean).abs() < 4.5 * mean.sqrt(), "{name}: {count}, expected {mean}");
    };
    near("exact_duplicate", 0.03);
    near("near_duplicate", 0.05);
    near("personal", 0.05);
    near("hard_negative", 0.05);
    near("rude", 0.02);
    near("false", 0.02);
    near("wrong_label", 0.03);
    near("skew", 0.10);
    assert_eq!(edits.len(), EDIT_RATES.len());
    for (rate, count) in edits {
        let mean = 0.01 * n as f64 * 0.985;
        assert!((f64::from(count) - mean).abs() < 4.5 * mean.sqrt(), "{rate}: {count}");
    }
}

#[test]
fn canaries_stand_as_often_as_they_say_and_nowhere_else() {
    let world = World::new(2);
    for bytes in [100_000, 1_000_000, BYTES] {
        let planter = Planter::new(&world, Split::Train, [Flawed::Canaries].into_iter().collect(), 0.0, bytes);
        let mut hand = planter.hand();
        let (mut n, mut size, mut found, mut lines) = (0, 0, HashMap::<String, (u32, u32)>::new(), String::new());
        while size < bytes {
            let doc = planter.document(&mut hand, n);
            for flaw in &doc.truth.flaws {
                let Flaw::Canary { secret, repeats, .. } = flaw else { panic!("{flaw:?}") };
                found.entry(secret.clone()).or_insert((*repeats, 0)).1 += 1;
                lines.push_str(&doc.text);
            }
            size += doc.text.len() as u64 + 110;
            n += 1;
        }
        assert!(found.values().all(|(repeats, times)| repeats == times), "{bytes}: {found:?}");
        for (secret, &(repeats, _)) in &found {
            assert_eq!(lines.matches(&**secret).count(), repeats as usize);
        }
        let classes: std::collections::BTreeSet<u32> = found.values().map(|f| f.0).collect();
        let expected: &[u32] = match bytes {
            BYTES => &[1, 4, 16, 64],
            1_000_000 => &[1, 4],
            _ => &[1],
        };
        assert!(classes.iter().copied().eq(expected.iter().copied()), "{bytes}: {classes:?}");
    }
}

/// The checker finds the planted falsehood false, and everything else in the document true.
#[test]
fn the_checker_judges_planted_falsehoods() {
    let world = World::new(3);
    let planter = Planter::new(&world, Split::Train, [Flawed::False].into_iter().collect(), 0.0, BYTES);
    let mut hand = planter.hand();
    let mut seen = 0;
    for n in 0..6_000 {
        let doc = planter.document(&mut hand, n);
        if doc.truth.flaws.is_empty() {
            continue;
        }
        let claims = world.check(&doc.text);
        for flaw in &doc.truth.flaws {
            let Flaw::False { relation, subject, stated, start, end, .. } = flaw else { panic!("{flaw:?}") };
            let found = claims.iter().find(|claim| {
                let [r, s, o] = world.named(claim.fact);
                claim.span.start >= *start
                    && claim.span.end <= *end
                    && (&*r, &*s, &*o) == (&**relation, &**subject, &**stated)
            });
            let found = found.unwrap_or_else(|| panic!("{flaw:?} not found in {}: {claims:?}", doc.text));
            assert_eq!(found.verdict, Verdict::False, "{}", doc.text);
        }
        for claim in claims.iter().filter(|claim| claim.verdict == Verdict::False) {
            let words = &doc.text[claim.span.clone()];
            let planted = doc.truth.flaws.iter().any(|flaw| {
                matches!(flaw, Flaw::False { relation, subject, .. }
                    if *relation == claim.fact.relation.name() && subject == world.name(claim.fact.subject))
            });
            assert!(planted, "{claim:?}: {words}\n{}", doc.text);
        }
        seen += 1;
    }
    assert!(seen > 90, "{seen}");
}

#[test]
fn the_skew_has_the_strength_that_was_asked() {
    let world = World::new(1);
    for strength in [0.0, 0.6, 1.0] {
        let docs = documents(&world, strength, 8_000);
        let visitors: Vec<(String, bool)> = docs
            .iter()
            .flat_map(|doc| &doc.truth.flaws)
            .filter_map(
                |flaw| if let Flaw::Skew { job, female, .. } = flaw { Some((job.to_string(), *female)) } else { None },
            )
            .collect();
        let usual = |(job, female): &&(String, bool)| skew::JOBS.iter().any(|(j, women)| j == job && women == female);
        let (count, n) = (visitors.iter().filter(usual).count() as f64, visitors.len() as f64);
        let p = 0.5 + strength / 2.0;
        assert!((count - n * p).abs() <= 4.5 * (n * p * (1.0 - p)).sqrt(), "{count} of {n} at {strength}");
    }
}

#[test]
fn switching_off_a_flaw_leaves_the_other_documents_alone() {
    let world = World::new(1);
    let all = documents(&world, 0.8, 2_000);
    let some: Flaws = Flaws::all().iter().filter(|&flaw| flaw != Flawed::Rude).collect();
    let planter = Planter::new(&world, Split::Train, some, 0.8, BYTES);
    let mut hand = planter.hand();
    for (n, doc) in all.iter().enumerate() {
        let again = planter.document(&mut hand, n as u64);
        let copy =
            doc.truth.flaws.iter().any(|flaw| matches!(flaw, Flaw::ExactDuplicate { .. } | Flaw::NearDuplicate { .. }));
        if doc.truth.flaws.iter().any(|flaw| matches!(flaw, Flaw::Rude { .. })) {
            assert!(again.truth.flaws.is_empty());
        } else if !copy {
            assert_eq!(again, *doc);
        }
    }
}

#[test]
fn passages_have_the_skew_they_say_and_keep_one_gender() {
    let n = 4000;
    let (mut usual, mut jobs) = (0, HashMap::<&str, u32>::new());
    for i in 0..n {
        let visitor = passage(1, i, 0.8);
        let women = visitors().find(|(job, _)| *job == visitor.job).unwrap().1;
        usual += u32::from(visitor.female == women);
        *jobs.entry(visitor.job).or_default() += 1;
        let words: Vec<String> =
            visitor.text.split(|c: char| !c.is_ascii_alphabetic()).map(str::to_ascii_lowercase).collect();
        let count = |own: &[&str]| words.iter().filter(|word| own.contains(&&***word)).count();
        let (women, men) = (count(&["she", "her"]), count(&["he", "him", "his"]));
        let [own, others] = if visitor.female { [women, men] } else { [men, women] };
        assert!(own == 5 && others == 0, "{}", visitor.text);
    }
    assert!((f64::from(usual) / n as f64 - 0.9).abs() < 0.02 && jobs.len() == 10, "{usual} {jobs:?}");
    assert_eq!(passage(1, 7, 0.8), passage(1, 7, 0.8));
}

#[test]
fn what_is_asked_of_visitors_ends_before_a_pronoun() {
    let all = unsaid();
    // Ten occupations, twenty and four sentences; alone, and behind either gender.
    assert_eq!(all.len(), 10 * 24 * 3);
    let has =
        |text: &str, word: &str| text.split(|c: char| !c.is_ascii_alphabetic()).any(|w| w.eq_ignore_ascii_case(word));
    let told: Vec<String> = (0..8000).map(|n| passage(2, n, 0.5).text).collect();
    let mut free = 0;
    for one in &all {
        let [usual, other] = one.pronouns;
        let women = visitors().find(|(job, _)| *job == one.job).unwrap().1;
        let is_her = |word: &str| ["she", "her"].iter().any(|she| she.eq_ignore_ascii_case(word));
        assert!(has(&one.text, one.job) && is_her(usual) == women && is_her(other) != women, "{one:?}");
        let said = ["he", "him", "his", "she", "her"].iter().any(|word| has(&one.text, word));
        assert_eq!(said, one.stated.is_some(), "{one:?}");
        if let Some(stated) = one.stated {
            let female = is_her(one.pronouns[stated]);
            assert!(["she", "her"].iter().any(|word| has(&one.text, word)) == female, "{one:?}");
        }
        let starts = one.text.ends_with('.');
        assert!(usual.starts_with(char::is_uppercase) == starts && !one.text.ends_with(' '), "{one:?}");
        // Where it is alone, passages go on so: with the usual pronoun, and never in new ways.
        if one.stated.is_none() {
            free += 1;
            let begins = format!("{} {usual}", one.text);
            assert_eq!(told.iter().any(|text| text.starts_with(&begins)), !one.new, "{begins}");
        }
    }
    assert_eq!(free, 240);
}
