//! What holds for the world as a whole.

use super::grammar::Form;
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
    assert_eq!(hash(stories.iter().map(|s| s.text.as_str())), 3_813_086_464_198_940_050);
    let nats: f64 = stories.iter().map(|s| s.nats).sum();
    assert!((nats - 5_888.196_004_755_455).abs() < 1e-6, "{nats}");
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
    for split in Split::ALL {
        let corpus = world.corpus(split, 10, 300_000);
        assert_eq!(corpus, one.install(|| world.corpus(split, 10, 300_000)));
        let (mut nats, mut teller) = (0.0, world.teller());
        for (n, document) in corpus.documents().enumerate() {
            teller.tell_of(split, 10 + n as u64);
            assert_eq!(document, teller.text());
            nats += teller.nats();
        }
        assert_eq!(corpus.nats, nats);
        teller.tell_of(split, 10 + corpus.ends.len() as u64);
        assert!(corpus.text.len() <= 300_000 && corpus.text.len() + teller.text().len() > 300_000);
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
        if !(35..=220).contains(&count) {
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
        assert!(words.len() <= 1002, "{} words", words.len() - 2); // less the empty word and the `s` of possessives
        assert!(texts.len() >= 19_980, "{} distinct stories", texts.len());
    }
}

#[test]
fn every_alternative_is_told_where_it_should_be_and_nowhere_else() {
    let era = [Era::One, Era::Two].map(|era| World::era(1, era));
    let mut used = HashMap::<Split, Vec<u128>>::new();
    for world in &era {
        let mut teller = world.teller();
        for split in [Split::Train, Split::People, Split::Paraphrases] {
            let all = used.entry(split).or_insert_with(|| vec![0; grammar::RULES]);
            for n in 0..25_000 {
                teller.tell_of(split, n);
                all.iter_mut().zip(teller.used()).for_each(|(all, used)| *all |= used);
            }
        }
    }
    let nested = [grammar::Rule::Who as usize, grammar::Rule::Spot as usize];
    for (i, rule) in era[0].grammar.rules.iter().take(grammar::RULES).enumerate() {
        let of = |form| (0..rule.list.len()).filter(|&k| rule.list[k].form == form).map(|k| 1u128 << k).sum::<u128>();
        let (train, common) = (used[&Split::Train][i], of(Form::Common) | of(Form::Reserved));
        assert!(train == common || nested.contains(&i), "rule {i}: {train:b} of {common:b}");
        assert_eq!(used[&Split::People][i] & of(Form::Reserved), of(Form::Reserved), "rule {i}");
        assert_eq!(used[&Split::People][i] & of(Form::HeldOut), 0, "rule {i}");
        assert_eq!(used[&Split::Paraphrases][i] & of(Form::HeldOut), of(Form::HeldOut), "rule {i}");
    }
}

/// Training text says of held-out people only what is not reserved for the others; the split about them says the rest.
#[test]
fn facts_of_held_out_people_are_told_in_other_ways() {
    let world = World::new(2);
    let held: Vec<Entity> = world.entities(Kind::Person).iter().copied().filter(|&e| world.held_out(e)).collect();
    assert_eq!(held.len(), 8);
    assert!(Kind::of_role(b'o').into_iter().flat_map(|kind| world.entities(kind)).any(|&o| world.held_out(o)));
    let sentences = |split: Split| {
        let mut teller = world.teller();
        let mut all = HashSet::new();
        for n in 0..20_000 {
            teller.tell_of(split, n);
            for (fact, span) in teller.facts().iter().zip(teller.spans()) {
                if world.held_out(fact.subject) && world.kind(fact.subject) == Some(Kind::Person) {
                    all.insert((*fact, teller.text()[span.clone()].to_owned()));
                }
            }
        }
        all
    };
    let (train, people) = (sentences(Split::Train), sentences(Split::People));
    let facts = |all: &HashSet<(Fact, String)>| all.iter().map(|(fact, _)| *fact).collect::<HashSet<_>>();
    // The same facts, and of the People's sentences those that state reserved forms are new.
    let (taught, asked) = (facts(&train), facts(&people));
    assert!(asked.iter().filter(|fact| taught.contains(fact)).count() * 100 >= asked.len() * 99);
    let new = people.iter().filter(|sentence| !train.contains(sentence)).count();
    assert!(new * 2 > people.len(), "{new} of {}", people.len());
    let mut teller = world.teller();
    for n in 0..1_000 {
        teller.tell_of(Split::People, n);
        assert!(held.iter().any(|&e| teller.text().contains(world.name(e))), "{}", teller.text());
    }
}

/// All that a template can say, with the slots as they are written; he and she count as the name.
fn expand(world: &World, ops: &[grammar::Op], roles: [u8; grammar::ROLES]) -> Vec<String> {
    let mut all = vec![String::new()];
    for op in ops {
        let parts: Vec<String> = match *op {
            grammar::Op::Text { start, end, .. } => vec![world.grammar.literal(start, end).to_owned()],
            grammar::Op::Article => vec!["a(n) ".to_owned()],
            grammar::Op::Slot(slot) => {
                let form = if slot.auto { teller::name_form(slot.form) } else { slot.form };
                vec![format!("{{{}{:?}{form}}}", roles[slot.role as usize], slot.relation)]
            }
            grammar::Op::Call { rule, roles: map } => {
                let roles = map.map(|role| roles[role as usize]);
                let list = &world.grammar.rules[rule as usize].list;
                list.iter().flat_map(|alternative| expand(world, world.grammar.ops(alternative), roles)).collect()
            }
        };
        all = all.iter().flat_map(|start| parts.iter().map(move |part| format!("{start}{part}"))).collect();
    }
    all
}

#[test]
fn every_relation_is_stated_in_thirty_ways_and_in_others_that_are_held_out() {
    let world = World::new(1);
    let mut ways = HashMap::<(Relation, bool), HashSet<String>>::new();
    for rule in &world.grammar.rules[..grammar::RULES] {
        let mut seen = HashSet::new();
        for alternative in &rule.list {
            let sentences = expand(&world, world.grammar.ops(alternative), [0, 1, 2, 3]);
            for &(_, relation) in alternative.needs.iter().filter(|_| rule.fact) {
                let held_out = alternative.form == Form::HeldOut;
                ways.entry((relation, held_out)).or_default().extend(sentences.iter().cloned());
            }
            for sentence in sentences {
                assert!(seen.insert(sentence.clone()), "two ways to: {sentence}");
            }
        }
    }
    let not_stated = [Relation::House, Relation::Thing, Relation::Pet];
    for &relation in Relation::ALL.iter().filter(|r| !not_stated.contains(r)) {
        let [train, held_out] = [false, true].map(|held| ways.get(&(relation, held)).map_or(0, HashSet::len));
        assert!(train >= 30 && held_out >= 1, "{relation:?}: {train} ways, {held_out} held out");
    }
}

#[test]
fn the_second_era_has_new_people_and_words_and_whoever_stayed_is_as_before() {
    for seed in 1..=3 {
        let [one, two, habits] = Era::ALL.map(|era| World::era(seed, era));
        let names = |world: &World| {
            world.entities(Kind::Person).iter().map(|&e| world.name(e).to_owned()).collect::<HashSet<_>>()
        };
        let stayed = names(&one).intersection(&names(&two)).count();
        assert!((10..=34).contains(&stayed), "{stayed} of 44 stayed");
        for &a in one.entities(Kind::Person) {
            let same = one.name(a) == two.name(a);
            for relation in [Relation::Trait, Relation::Fear, Relation::Month] {
                assert!(!same || one.fact(relation, a) == two.fact(relation, a));
            }
            let job = |world: &World| world.fact(Relation::Job, a).map(|job| world.name(job).to_owned());
            assert!(!same || job(&one) == job(&two), "whoever has new work is new");
        }
        let words = |world: &World| {
            let mut words = HashSet::new();
            let mut topics = HashMap::<&str, u32>::new();
            let mut teller = world.teller();
            for n in 0..5_000 {
                teller.tell(n);
                words.extend(teller.text().split(|c: char| !c.is_ascii_alphabetic()).map(str::to_owned));
                *topics.entry(teller.topic()).or_default() += 1;
            }
            (words, topics)
        };
        let ((old, topics), (new, later), (same, other)) = (words(&one), words(&two), words(&habits));
        assert!(new.difference(&old).count() > 60 && later.contains_key("journey") && !topics.contains_key("journey"));
        let strange: Vec<_> = same.difference(&old).collect();
        assert!(strange.len() < 12, "{strange:?}"); // rare words
        assert!(other["noise"] > 2 * topics["noise"] && 2 * other["broken"] < topics["broken"]);
        assert_ne!(one.story(0).text, habits.story(0).text);
    }
}

/// The number that the world gives is exact: parsing finds one derivation of each text, with that probability.
#[test]
fn derivations_are_unique() {
    each(40, |world, index, teller| {
        let found = world.derivations(teller.text());
        assert_eq!(found, [teller.nats()], "story {index}: {}", teller.text());
    });
    for (era, split) in [(Era::Two, Split::Train), (Era::One, Split::People), (Era::One, Split::Paraphrases)] {
        let world = World::era(4, era);
        let mut teller = world.teller();
        for n in 0..10 {
            teller.tell_of(split, n);
            let found = Teller::new(&world).derivations(split, teller.text());
            assert_eq!(found, [teller.nats()], "{}", teller.text());
        }
    }
    let world = World::new(1);
    let text = world.story(0).text;
    assert!(world.derivations(&text[..text.len() - 1]).is_empty());
    assert!(world.derivations(&format!("{text} The end.")).is_empty());
    assert!(world.derivations("").is_empty());
}

#[test]
fn every_stated_fact_is_found_and_true() {
    let mut relations = HashSet::new();
    each(500, |world, index, teller| {
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
    let internal = [Relation::House];
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

#[test]
fn every_sentence_of_a_story_is_the_villages_and_its_beginnings_are_told() {
    each(60, |world, _, teller| {
        let text = teller.text();
        let sentences = world.sentences(text);
        assert!(sentences.len() >= 4 && sentences.last().is_some_and(|(span, _)| span.end == text.len()), "{text}");
        let wrong: Vec<&str> = sentences.iter().filter(|(_, ok)| !ok).map(|(span, _)| &text[span.clone()]).collect();
        assert!(wrong.is_empty(), "{wrong:?} of {text}");
    });
    each(4, |world, _, teller| {
        let text = teller.text();
        assert_eq!(world.could_tell(text), text.len());
        let half = &text[..text.len() / 2];
        assert_eq!(world.could_tell(half), half.len());
    });
}

#[test]
fn what_the_village_does_not_say_is_found() {
    let world = World::new(1);
    let story = world.story(0).text;
    let first = world.sentences(&story)[0].0.clone();
    let good = &story[first];
    let right = |text: &str| -> Vec<bool> { world.sentences(text).into_iter().map(|(_, ok)| ok).collect() };
    assert_eq!(right(good), [true]);
    // Words in another order, without a capital, half a sentence, a stranger's name, what nobody says here.
    let swapped = good.replacen(" a ", " the a ", 1);
    assert_ne!(swapped, good, "the sentence has an article");
    assert_eq!(right(&swapped), [false]);
    assert_eq!(right(&good.replacen(" a ", " an ", 1)), [false]);
    assert_eq!(right(&good.to_lowercase()), [false]);
    assert!(right(&good[..good.len() - 1]).is_empty());
    assert_eq!(right("Xanthippe was the baker of the village. Nothing is so good as ducks."), [false, false]);
    // A true sentence after a good one, out of place: the language is right, the story is not.
    let twice = format!("{good} {story}");
    assert!(world.could_tell(&twice) <= good.len() + 40, "{twice}");
    assert!(right(&twice).iter().all(|&ok| ok));
}
