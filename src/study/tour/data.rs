//! From nothing to tokens.

use super::{Measure, Pace, Shown, Stage, Way};
use crate::data::clean::{self, DOCUMENTS};
use crate::data::world::{Asker, Export, Flaws, Form, Split, Verdict, World};
use crate::data::{DatasetInfo, Prepare, Sources, Tokenizer, prepare};
use crate::disk::{self, Os};
use crate::error::Result;
use crate::study::effect::Unit;
use crate::study::{Seed, quoted, write_lines};
use std::path::PathBuf;

pub(super) const WORLD: Stage = Stage {
    name: "world",
    does: "Makes up a village and tells stories of it, with every flaw that texts have: duplicates, false statements, rude words, personal data. \
           Since it knows what is true and what it planted, each later stage can be measured instead of believed.",
    source: "src/data/world/mod.rs",
    chapter: "docs/clean.md",
    needs: &[],
    makes: &["world", "portraits.jsonl"],
    budget: [2, 4],
    run: world,
};

/// Texts that say everything about everybody, so that a small model can know the village.
pub(super) fn portraits(at: &Seed) -> PathBuf {
    at.dir.join("portraits.jsonl")
}

fn corpus(at: &Seed) -> PathBuf {
    at.dir.join("world")
}

fn world(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let world = World::new(at.seed);
    let export = Export {
        form: Form::Stories,
        split: Split::Train,
        flaws: Flaws::all(),
        skew: 0.8,
        bytes: pace.of(500_000, 3_000_000),
    };
    disk::make_dirs(&Os, &corpus(at))?;
    let written = world.export(&export, &Os, &corpus(at), &|_| {})?;
    let asker = Asker::new(&world, Split::Train, Form::Portraits);
    let mut hand = asker.hand();
    write_lines(&portraits(at), (0..pace.of(8000, 30_000)).map(|i| asker.item(&mut hand, i).body))?;
    // What is told without flaws is true, whatever is told.
    let untrue = |texts: &[String]| {
        let claims: Vec<_> = texts.iter().flat_map(|text| world.check(text)).collect();
        claims.iter().filter(|claim| claim.verdict == Verdict::False).count() as f64 / claims.len().max(1) as f64
    };
    let plain: Vec<String> = world.stories(0).take(200).map(|story| story.text).collect();
    let liar = World::new(at.seed + 1);
    let other: Vec<String> = liar.stories(0).take(200).map(|story| story.text).collect();
    let story = plain[0].clone();
    Ok(Shown {
        measures: vec![Measure::new(
            "statements that are false of this village",
            Unit::Share,
            Way::Down,
            ("told of another village", untrue(&other)),
            ("told of this one", untrue(&plain)),
        )],
        notes: vec![format!(
            "{} documents, {:.1} MB; a model that knew the village wholly would need {:.3} bits a byte",
            written.documents,
            written.text as f64 / 1e6,
            written.nats / std::f64::consts::LN_2 / written.text as f64
        )],
        sample: Some(story),
        next: vec!["kiln data world --out world --size 50MB --flaws all".into()],
        ..Shown::default()
    })
}

pub(super) const CLEAN: Stage = Stage {
    name: "clean",
    does: "Takes out what harms a model: duplicates, near-duplicates, texts that are no texts, and masks personal data. Repeated texts are learnt \
           by heart, and what was never read cannot be said.",
    source: "src/data/clean/mod.rs",
    chapter: "docs/clean.md",
    needs: &["world"],
    makes: &["clean"],
    budget: [1, 4],
    run: clean,
};

fn clean(at: &mut Seed, _: Pace) -> Result<Shown> {
    let from = corpus(at);
    let out = at.dir.join("clean");
    let lexicon = format!("lexicons.files=[{}]", quoted(&from.join("rude.txt")));
    let recipe = clean::Recipe::load(None, &[lexicon, "lexicons.mode=\"drop\"".into()])?;
    let options = clean::Options { truth: Some(from.join("truth.jsonl")), ..clean::Options::new(recipe, out.clone()) };
    let outcome = clean::clean(&Sources::open(&[from.join("corpus.jsonl")], "text")?, &options, &mut |_| {})?;
    let score = outcome.score.expect("a truth was given");
    let rates = || score.rates.iter().filter(|rate| rate.planted > 0);
    let [planted, found] =
        rates().fold([0.0; 2], |sum, rate| [sum[0] + rate.planted as f64, sum[1] + rate.found as f64]);
    let notes = rates().map(|rate| format!("{}: {} of {} found", rate.what, rate.found, rate.planted)).collect();
    Ok(Shown {
        measures: vec![Measure::new(
            "planted flaws that are left",
            Unit::Plain,
            Way::Down,
            ("as it came", planted),
            ("cleaned", planted - found),
        )],
        notes,
        next: vec![format!("open {}", out.join("REPORT.html").display()), "kiln data clean --explain".into()],
        ..Shown::default()
    })
}

pub(super) const TOKENIZER: Stage = Stage {
    name: "tokenizer",
    does: "Learns which 1,024 pieces of text occur most, by merging pairs of neighbours again and again (byte-level BPE). A model that reads pieces \
           sees three times as far with the same context as one that reads bytes.",
    source: "src/data/tokenizer/mod.rs",
    chapter: "docs/models.md",
    needs: &["clean"],
    makes: &["tokenizer.json"],
    budget: [1, 3],
    run: tokenizer,
};

/// What the model reads: cleaned stories, and portraits.
fn texts(at: &Seed) -> Result<Sources> {
    Sources::open(&[at.dir.join("clean").join(DOCUMENTS), portraits(at)], "text")
}

fn tokenizer(at: &mut Seed, _: Pace) -> Result<Shown> {
    let sources = texts(at)?;
    let tokenizer = Tokenizer::train_bpe(sources.documents(), 1024, &|_| {})?;
    tokenizer.save(at.dir.join("tokenizer.json"))?;
    let each = tokenizer.bytes_per_token(sources.documents(), 1 << 20)?;
    Ok(Shown {
        measures: vec![Measure::new(
            "bytes of text a token",
            Unit::Plain,
            Way::Up,
            ("bytes", 1.0),
            ("BPE, 1,024 tokens", each),
        )],
        notes: vec![format!(
            "its longest tokens: {}",
            tokenizer.longest(8).iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" ")
        )],
        next: vec!["kiln data tokenizer book.txt --vocab 2048 --out tok.json".into()],
        ..Shown::default()
    })
}

pub(super) const SHARDS: Stage = Stage {
    name: "shards",
    does: "Writes all tokens one after the other as two bytes each, with an index of which document is where. Training maps these files into memory \
           and reads any window of them without parsing a word.",
    source: "src/data/prepare.rs",
    chapter: "docs/architecture.md",
    needs: &["tokenizer"],
    makes: &["shards"],
    budget: [1, 3],
    run: shards,
};

fn shards(at: &mut Seed, _: Pace) -> Result<Shown> {
    let tokenizer = Tokenizer::load(at.dir.join("tokenizer.json"))?;
    let out = at.dir.join("shards");
    let info: DatasetInfo = prepare(texts(at)?.documents(), &tokenizer, &Prepare::default(), &out, &mut |_| {})?;
    let text = (info.train.bytes + info.val.bytes) as f64;
    let tokens = info.train.tokens + info.val.tokens;
    Ok(Shown {
        measures: vec![Measure::new(
            "bytes that are read for a byte of text",
            Unit::Plain,
            Way::Down,
            ("text", 1.0),
            ("tokens", 2.0 * tokens as f64 / text),
        )],
        notes: vec![format!("{} tokens to train on, {} to validate", info.train.tokens, info.val.tokens)],
        next: vec![format!("kiln data inspect {}", out.display())],
        ..Shown::default()
    })
}
