//! What holds for the world as a whole.

use super::*;
use std::collections::{HashMap, HashSet};

/// FNV-1a, 64 bits.
fn hash<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let bytes = texts.flat_map(|text| text.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Calls `f` on the first `n` stories of each of three worlds.
fn each(n: u64, mut f: impl FnMut(&World, u64, &Teller)) {
    for seed in 1..=3 {
        let world = World::new(seed);
        let mut teller = world.teller();
        for index in 0..n {
            teller.tell(index);
            f(&world, index, &teller);
        }
    }
}

/// Changing a template or the lexicon changes every corpus: then, and only then, change these numbers.
#[test]
fn the_first_hundred_stories_never_change() {
    let stories: Vec<Story> = World::new(1).stories(0).take(100).collect();
    assert_eq!(hash(stories.iter().map(|s| s.text.as_str())), 9_703_095_630_563_147_330);
    let nats: f64 = stories.iter().map(|s| s.nats).sum();
    assert!((nats - 4_708.551_910_012_749).abs() < 1e-6, "{nats}");
    assert_ne!(World::new(2).story(0), stories[0]);
}

#[test]
fn a_story_does_not_depend_on_those_told_before_it() {
    let world = World::new(4);
    let mut teller = world.teller();
    for index in [7, 3, 1 << 40, 3, 0] {
        teller.tell(index);
        let alone = World::new(4).story(index);
        assert_eq!((teller.text(), teller.nats()), (&alone.text[..], alone.nats));
        assert_eq!((teller.facts(), teller.events()), (&alone.facts[..], &alone.events[..]));
    }
}

#[test]
fn a_corpus_is_its_stories_for_any_number_of_threads() {
    let world = World::new(1);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for split in [Split::Train, Split::Val] {
        let corpus = world.corpus(split, 10, 300_000);
        assert_eq!(corpus, one.install(|| world.corpus(split, 10, 300_000)));
        let mut nats = 0.0;
        for (n, document) in corpus.documents().enumerate() {
            let story = world.story(split.index(10 + n as u64));
            assert_eq!(document, story.text);
            nats += story.nats;
        }
        assert_eq!(corpus.nats, nats);
        let next = world.story(split.index(10 + corpus.ends.len() as u64));
        assert!(corpus.text.len() <= 300_000 && corpus.text.len() + next.text.len() > 300_000);
    }
    assert_eq!(world.corpus(Split::Train, 0, 10), Corpus::default());
}

#[test]
fn the_splits_share_the_stories_out() {
    let mut all: Vec<u64> = (0..95).map(|n| Split::Train.index(n)).chain((0..5).map(|n| Split::Val.index(n))).collect();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

/// Replays the events with rules of its own: things are taken, given and put down only where they are, and people speak
/// only to those who are with them.
#[test]
fn the_state_is_consistent() {
    each(4_000, |world, index, teller| {
        let mut at = HashMap::<Entity, Entity>::new();
        // Where somebody or something is, carried or not.
        let place = |at: &HashMap<Entity, Entity>, e: Entity| {
            let there = *at.get(&e).expect("it has appeared");
            if world.kind(there) == Some(Kind::Person) { at[&there] } else { there }
        };
        for &event in teller.events() {
            let ok = match event {
                Event::At(e, p) => at.insert(e, p).is_none() && world.kind(p) == Some(Kind::Place),
                Event::Has(a, what) => at.insert(what, a).is_none(),
                Event::Goes(a, p) => at.insert(a, p).is_some() && world.kind(p) == Some(Kind::Place),
                Event::Takes(a, what) => at[&what] == at[&a] && at.insert(what, a).is_some(),
                Event::Puts(a, what) => at.insert(what, at[&a]) == Some(a),
                Event::Gives(a, what, to) => place(&at, a) == place(&at, to) && at.insert(what, to) == Some(a),
                Event::Tells(a, b) => a != b && place(&at, a) == place(&at, b),
            };
            assert!(ok, "{event:?} in story {index}: {:?}\n{}", teller.events(), teller.text());
        }
    });
}

#[test]
fn the_english_is_clean() {
    let mut words = 0;
    each(10_000, |_, index, teller| {
        let text = teller.text();
        let complain = |what: &str| panic!("story {index}: {what}\n{text}");
        let count = text.split(' ').count();
        words += count;
        if !(35..=190).contains(&count) {
            complain("its length");
        }
        if !text.bytes().all(|b| b.is_ascii_alphabetic() || b" .,:!?\"'".contains(&b)) {
            complain("a strange character");
        }
        if !text.starts_with(|c: char| c.is_ascii_uppercase()) || !text.ends_with(['.', '!', '?', '"']) {
            complain("how it starts or ends");
        }
        if ["  ", " .", " ,", "..", ",,", ".,", ",.", "\"\""].iter().any(|bad| text.contains(bad)) {
            complain("its punctuation");
        }
        if text.matches('"').count() % 2 == 1 {
            complain("an open quotation");
        }
        let tokens: Vec<&str> = text.split(' ').collect();
        for pair in tokens.windows(2) {
            let bare = |word: &'static str| pair[0].trim_start_matches('"').eq_ignore_ascii_case(word);
            let next = pair[1].trim_start_matches('"');
            let vowel = next.starts_with(['a', 'e', 'i', 'o', 'u']) || next.starts_with("hour");
            if (bare("a") || bare("an")) && bare("an") != vowel {
                complain("a or an");
            }
            let stop = pair[0].ends_with(['.', '!', '?']) || pair[0].ends_with(".\"");
            if stop && !next.starts_with(|c: char| c.is_ascii_uppercase()) {
                complain("a small letter after a stop");
            }
            if pair[0] == next && !["that", "had", "her"].contains(&next) {
                complain("a doubled word");
            }
        }
        let mut sentences: Vec<&str> = text.split(['.', '!', '?']).map(|s| s.trim_matches([' ', '"'])).collect();
        sentences.retain(|s| s.contains(' ') && !s.ends_with(" asked")); // `said Nell` may come twice
        let distinct: HashSet<&str> = sentences.iter().copied().collect();
        if distinct.len() < sentences.len() {
            complain("a sentence twice");
        }
    });
    let mean = words / 30_000;
    assert!((80..=130).contains(&mean), "{mean} words on average");
}

#[test]
fn the_vocabulary_is_small_and_the_stories_are_many() {
    for seed in 1..=3 {
        let world = World::new(seed);
        let (mut words, mut texts) = (HashSet::new(), HashSet::new());
        for story in world.stories(0).take(20_000) {
            for word in story.text.split(|c: char| !c.is_ascii_alphabetic()) {
                words.insert(word.to_ascii_lowercase());
            }
            texts.insert(story.text);
        }
        assert!(words.len() <= 602, "{} words", words.len() - 2); // less the empty word and the `s` of possessives
        assert!(texts.len() >= 19_980, "{} distinct stories", texts.len());
    }
}

#[test]
fn every_alternative_is_used() {
    let world = World::new(1);
    let mut used = [0; grammar::RULES];
    let mut teller = world.teller();
    for index in 0..20_000 {
        teller.tell(index);
        used.iter_mut().zip(teller.used()).for_each(|(all, used)| *all |= used);
    }
    for (i, (rule, used)) in world.grammar.rules.iter().zip(used).enumerate() {
        // Rules that only other rules call are not counted.
        let all = (1u64 << rule.list.len()) - 1;
        assert!(
            used == all || used == 0 && [grammar::Rule::Who as usize, grammar::Rule::Spot as usize].contains(&i),
            "rule {i}: alternatives {:b} of {all:b}",
            used
        );
    }
}

/// The number that the world gives is exact: parsing finds one derivation of each text, with that probability.
#[test]
fn derivations_are_unique() {
    each(250, |world, index, teller| {
        let found = world.derivations(teller.text());
        assert_eq!(found, [teller.nats()], "story {index}: {}", teller.text());
    });
    let world = World::new(1);
    let text = world.story(0).text;
    assert!(world.derivations(&text[..text.len() - 1]).is_empty());
    assert!(world.derivations(&format!("{text} The end.")).is_empty());
    assert!(world.derivations("").is_empty());
}

#[test]
fn every_stated_fact_is_found_and_true() {
    let mut relations = HashSet::new();
    each(2_000, |world, index, teller| {
        let claims = world.check(teller.text());
        for fact in teller.facts() {
            relations.insert(fact.relation);
            assert!(claims.iter().any(|c| c.fact == *fact), "story {index}: {fact:?} not found in\n{}", teller.text());
        }
        for claim in claims {
            let words = &teller.text()[claim.span.clone()];
            assert_eq!(claim.verdict, Verdict::True, "story {index}: {claim:?} {words}\n{}", teller.text());
        }
    });
    let internal = [Relation::House, Relation::Maker, Relation::Fixer];
    for relation in
        Relation::ALL.iter().filter(|r| !internal.contains(r) && !matches!(r, Relation::Thing | Relation::Pet))
    {
        assert!(relations.contains(relation), "no story states a {relation:?}");
    }
}

/// `text` with one word for another wherever it stands alone.
fn replace_word(text: &str, old: &str, new: &str) -> String {
    text.split_inclusive(|c: char| !c.is_ascii_alphabetic())
        .map(|part| match part.strip_prefix(old) {
            Some(rest) if rest.len() < 2 && !rest.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                format!("{new}{rest}")
            }
            _ => part.to_owned(),
        })
        .collect()
}

#[test]
fn a_false_statement_is_found_and_false() {
    let world = World::new(1);
    let (people, jobs) = (world.entities(Kind::Person), world.entities(Kind::Job));
    for (i, &a) in people.iter().enumerate() {
        for (j, &job) in jobs.iter().enumerate() {
            let text = format!("It rained. {} was the {} of the village, and so on.", world.name(a), world.name(job));
            let claims = world.check(&text);
            assert_eq!(claims.len(), 1, "{text}");
            // Adults come first, in the order of their jobs; a child holds none of them.
            assert_eq!(claims[0].verdict, if i == j { Verdict::True } else { Verdict::False }, "{text}");
            assert!(text[claims[0].span.clone()].starts_with(world.name(a)));
        }
    }
    // In stories too: every true occupation is replaced by the next one, and nothing else.
    let mut swapped = 0;
    for story in world.stories(0).take(500) {
        let fact = story.facts.iter().find(|f| f.relation == Relation::Job);
        let Some(fact) = fact else { continue };
        let at = jobs.iter().position(|&j| j == fact.object).unwrap();
        let (old, new) = (world.name(fact.object), world.name(jobs[(at + 1) % jobs.len()]));
        let text = replace_word(&story.text, old, new);
        if text == story.text {
            continue; // the story shows it by what the person was doing
        }
        let wrong: Vec<Claim> = world.check(&text).into_iter().filter(|c| c.verdict == Verdict::False).collect();
        assert!(wrong.iter().any(|c| c.fact.subject == fact.subject), "{text}");
        assert!(wrong.iter().all(|c| c.fact.relation == Relation::Job), "{text}");
        swapped += 1;
    }
    assert!(swapped > 100, "{swapped}");
}

#[test]
fn strange_words_are_unknown_and_other_text_claims_nothing() {
    let world = World::new(1);
    let a = world.entities(Kind::Person)[0];
    let name = world.name(a);
    let verdicts = |text: &str| world.check(text).iter().map(|c| c.verdict).collect::<Vec<_>>();
    assert_eq!(verdicts(&format!("{name} was the pilot of the village.")), [Verdict::Unknown]);
    assert_eq!(verdicts("Zoe was the baker of the village."), [Verdict::Unknown]);
    for text in [
        "",
        "\"",
        "It was the best day of the year.",
        "The market was full. Nobody knew why. \u{201c}Ünïcode\u{201d} ☃ and, and, and",
        &format!("{name} was looking at the moon. {name}'s hat was the best thing."),
        &format!("Did {name} know? {name} gave the"),
    ] {
        assert!(verdicts(text).is_empty(), "{text}");
    }
    // "He" or "she" is whoever of that gender was named last.
    let job = world.name(world.fact(Relation::Job, a).unwrap());
    let she = if world.village.female(a) { "She" } else { "He" };
    assert_eq!(verdicts(&format!("{name} sang. {she} was the {job} of the village.")), [Verdict::True]);
    assert_eq!(verdicts(&format!("{she} was the {job} of the village.")), []);
}

#[test]
fn the_village_is_whole() {
    for seed in 0..50 {
        let world = World::new(seed);
        let get = |r, e| world.fact(r, e);
        for &a in world.entities(Kind::Person) {
            let friend = get(Relation::Friend, a).unwrap();
            assert!(friend != a && get(Relation::Friend, friend) == Some(a));
            assert!(get(Relation::House, a) != get(Relation::House, friend), "friends live apart");
            assert!(get(Relation::Job, a).is_some() != get(Relation::Parent, a).is_some());
            assert!(get(Relation::Thing, a).is_none_or(|o| get(Relation::Owner, o) == Some(a)));
            assert!(get(Relation::Pet, a).is_none_or(|x| get(Relation::Owner, x) == Some(a)));
        }
        for &p in world.entities(Kind::Place) {
            assert!(get(Relation::Near, p).is_none_or(|q| q != p && get(Relation::Near, q) == Some(p)));
        }
    }
}
