//! Data sets: splits, shards and their description.

use super::*;

fn make(texts: &[String], tokenizer: &Tokenizer, options: &Prepare, out: &Path) -> DatasetInfo {
    prepare(documents(texts), tokenizer, options, out, &mut |_| ()).unwrap()
}

fn tokens(out: &Path, part: Part) -> Vec<u32> {
    let data = Dataset::open(out, part).unwrap();
    let mut ids = vec![0; data.len()];
    data.read(0, &mut ids).unwrap();
    ids.into_iter().map(|id| id as u32).collect()
}

fn stories(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("story {i}: {}", random_text(i as u64, 30))).collect()
}

#[test]
fn every_document_lands_whole_on_one_side() {
    let (dir, texts) = (TempDir::new().unwrap(), stories(400));
    let tokenizer = bpe(&texts.concat(), 400);
    let options = Prepare { split: Split { fraction: 0.2, ..Split::default() }, ..Prepare::default() };
    let info = make(&texts, &tokenizer, &options, dir.path());
    let eot = tokenizer.eot().unwrap();
    let side = |part| -> Vec<String> {
        let ids = tokens(dir.path(), part);
        assert_eq!(*ids.last().unwrap(), eot);
        ids[..ids.len() - 1].split(|&id| id == eot).map(|ids| tokenizer.decode(ids)).collect()
    };
    let (train, val) = (side(Part::Train), side(Part::Val));
    assert_eq!((info.train.documents, info.val.documents), (train.len() as u64, val.len() as u64));
    let expected = |held| -> Vec<String> {
        (0..).zip(&texts).filter(|&(i, _)| options.split.holds_out(i) == held).map(|(_, t)| t.clone()).collect()
    };
    assert!(train == expected(false) && val == expected(true));
    assert!((60..100).contains(&val.len()), "{} of 400 held out", val.len());
    assert_eq!(info.val.bytes, val.iter().map(|t| t.len() as u64).sum::<u64>());
    assert_eq!(info.train.bytes + info.val.bytes, texts.iter().map(|t| t.len() as u64).sum::<u64>());
    assert_eq!(DatasetInfo::load(dir.path()).unwrap(), info);
    assert_eq!(info.load_tokenizer(dir.path()).unwrap().hash(), tokenizer.hash());
}

#[test]
fn each_side_gets_a_document() {
    for n in 2..8 {
        for fraction in [1e-9, 0.5, 1.0 - 1e-9] {
            let dir = TempDir::new().unwrap();
            let options = Prepare { split: Split { fraction, ..Split::default() }, ..Prepare::default() };
            let info = make(&stories(n), &Tokenizer::bytes(), &options, dir.path());
            assert!(info.train.documents > 0 && info.val.documents > 0, "{n} documents at {fraction}: {info:?}");
            assert_eq!(info.train.documents + info.val.documents, n as u64);
            assert_eq!(info.split.rule, Rule::Document);
        }
    }
}

#[test]
fn one_document_is_cut_at_its_tail() {
    let (dir, text) = (TempDir::new().unwrap(), "äbcdefghij".repeat(10));
    let split = Split { fraction: 0.1, ..Split::default() };
    let info = make(
        std::slice::from_ref(&text),
        &Tokenizer::chars(text.chars()),
        &Prepare { split, ..Prepare::default() },
        dir.path(),
    );
    assert_eq!((info.split.rule, info.train.tokens, info.val.tokens), (Rule::Tail, 90, 10));
    assert_eq!((info.train.bytes, info.val.bytes), (99, 11));
    // The end-of-text token stands where the document ends, and not at the cut.
    let tokenizer = bpe(&text, 257);
    make(&[text], &tokenizer, &Prepare { split, ..Prepare::default() }, dir.path());
    assert!(!tokens(dir.path(), Part::Train).contains(&256));
    assert_eq!(tokens(dir.path(), Part::Val).iter().filter(|&&id| id == 256).count(), 1);
    assert_says(
        prepare(documents(&["x".into()]), &tokenizer, &Prepare::default(), dir.path(), &mut |_| ()),
        &["too little text"],
    );
    assert_says(prepare(documents(&[]), &tokenizer, &Prepare::default(), dir.path(), &mut |_| ()), &["no text"]);
}

#[test]
fn a_share_that_is_none_is_refused() {
    let dir = TempDir::new().unwrap();
    for fraction in [0.0, 1.0, -0.1, 2.0, f64::NAN] {
        let options = Prepare { split: Split { fraction, ..Split::default() }, ..Prepare::default() };
        let result = prepare(documents(&stories(3)), &Tokenizer::bytes(), &options, dir.path(), &mut |_| ());
        assert_says(result, &["between 0 and 1", "--val-fraction"]);
    }
}

#[test]
fn a_tail_split_cuts_all_text_at_one_place() {
    let (dir, texts) = (TempDir::new().unwrap(), stories(30));
    let tokenizer = Tokenizer::bytes();
    for fraction in [0.01, 0.3, 0.99] {
        let split = Split { rule: Rule::Tail, fraction, seed: 0 };
        make(&texts, &tokenizer, &Prepare { split, ..Prepare::default() }, dir.path());
        let (train, val) = (tokens(dir.path(), Part::Train), tokens(dir.path(), Part::Val));
        assert_eq!(tokenizer.decode(&[&train[..], &val[..]].concat()), texts.concat());
        let chars = |ids: &[u32]| tokenizer.decode(ids).chars().count();
        assert_eq!(chars(&train), split.head(texts.concat().chars().count()));
    }
}

#[test]
fn the_cut_into_shards_is_invisible() {
    let (dir, texts) = (TempDir::new().unwrap(), stories(60));
    let tokenizer = Tokenizer::bytes();
    make(&texts, &tokenizer, &Prepare::default(), dir.path());
    let whole = [tokens(dir.path(), Part::Train), tokens(dir.path(), Part::Val)];
    let info = make(&texts, &tokenizer, &Prepare { max_tokens: 1000, ..Prepare::default() }, dir.path());
    assert!(info.train.shards.len() > 5);
    let sizes: Vec<u64> = info.train.shards.iter().map(|s| s.tokens).collect();
    assert!(sizes[..sizes.len() - 1].iter().all(|&n| n == 1000), "{sizes:?}");
    let third = &info.train.shards[2];
    assert_eq!((&third.file[..], third.tokens, third.sha256.len()), ("train_002.bin", 1000, 64));
    assert!([tokens(dir.path(), Part::Train), tokens(dir.path(), Part::Val)] == whole);
    // A window over three shards, and one that ends where a shard ends.
    let data = Dataset::open(dir.path(), Part::Train).unwrap();
    for (start, len) in [(999, 2000), (500, 500), (1000, 1), (data.len() - 3, 3), (7, 0)] {
        let mut read = vec![0; len];
        data.read(start, &mut read).unwrap();
        assert!(read.iter().zip(&whole[0][start..]).all(|(&a, &b)| a as u32 == b), "{start} {len}");
    }
    // Making it again with fewer shards leaves no stale one.
    make(&texts, &tokenizer, &Prepare::default(), dir.path());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6);
    // nanoGPT's files have nanoGPT's names.
    let nanogpt = Prepare { format: ShardFormat::Nanogpt, max_tokens: 1000, ..Prepare::default() };
    make(&texts, &tokenizer, &nanogpt, dir.path());
    assert!(dir.path().join("train.bin").is_file() && dir.path().join("val.bin").is_file());
    assert!([tokens(dir.path(), Part::Train), tokens(dir.path(), Part::Val)] == whole);
}

#[test]
fn threads_do_not_change_a_byte() {
    let texts = stories(100);
    let tokenizer = bpe(&texts.concat(), 500);
    let files = |threads| {
        let dir = TempDir::new().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| make(&texts, &tokenizer, &Prepare::default(), dir.path()));
        ["train_000.bin", "val_000.bin", "dataset.json"].map(|name| std::fs::read(dir.path().join(name)).unwrap())
    };
    assert!(files(1) == files(3));
}

#[test]
fn a_character_outside_the_vocabulary_is_located() {
    let dir = TempDir::new().unwrap();
    let tokenizer = Tokenizer::chars("abc\n".chars());
    let document = Document {
        text: format!("{}é", "ab\n".repeat(30_000)),
        source: "book.txt".into(),
        line: 3,
        ..Document::default()
    };
    let texts = [Ok(Document { text: "abc".into(), ..Document::default() }), Ok(document.clone())];
    let result = prepare(texts.into_iter(), &tokenizer, &Prepare::default(), dir.path(), &mut |_| ());
    assert_says(result, &["book.txt", "line 3", "character 90001", "'é'", "U+00E9"]);
    let result = prepare([Ok(document)].into_iter(), &tokenizer, &Prepare::default(), dir.path(), &mut |_| ());
    assert_says(result, &["character 90001"]);
    assert!(!dir.path().join("dataset.json").exists(), "a failed run leaves nothing that looks whole");
}

#[test]
fn a_tampered_set_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let texts = stories(20);
    let info = make(&texts, &Tokenizer::bytes(), &Prepare::default(), dir.path());
    let json = std::fs::read_to_string(path("dataset.json")).unwrap();
    for (from, to, parts) in [
        ("\"version\": 1", "\"version\": 2", ["dataset.json", "version 2"]),
        ("train_000.bin", "../train_000.bin", ["dataset.json", "same folder"]),
        ("\"vocab\": 256", "\"vocab\": 50", ["train_000.bin", "below 50"]),
        ("\"format\": \"llmc\"", "\"format\": \"nanogpt\"", ["train_000.bin", "nanoGPT"]),
        ("\"documents\"", "\"papers\"", ["dataset.json", "papers"]),
    ] {
        std::fs::write(path("dataset.json"), json.replace(from, to)).unwrap();
        assert_says(Dataset::open(dir.path(), Part::Train), &parts);
    }
    std::fs::write(path("dataset.json"), &json).unwrap();
    std::fs::copy(path("val_000.bin"), path("train_000.bin")).unwrap();
    assert_says(Dataset::open(dir.path(), Part::Train), &["train_000.bin", &info.train.tokens.to_string()]);
    bpe("other", 257).save(path("tokenizer.json")).unwrap();
    assert_says(info.load_tokenizer(dir.path()), &["tokenizer.json", "SHA-256"]);
    assert_says(Dataset::open("absent", Part::Train), &["kiln data shard"]);
}

#[test]
fn documents_can_be_found_and_counted() {
    let (dir, texts) = (TempDir::new().unwrap(), stories(50));
    let tokenizer = bpe("", 257);
    make(&texts, &tokenizer, &Prepare { max_tokens: 300, ..Prepare::default() }, dir.path());
    let data = Dataset::open(dir.path(), Part::Train).unwrap();
    let ids = tokens(dir.path(), Part::Train);
    for from in (0..ids.len()).step_by(37) {
        let expected = match from {
            0 => Some(0),
            _ => ids[from..].iter().position(|&id| id == 256).map(|i| from + i + 1).filter(|&at| at < ids.len()),
        };
        assert_eq!(data.next_document(from).unwrap(), expected, "from {from} of {}", ids.len());
    }
    let samples = data.samples(4, 10).unwrap();
    assert!((2..=4).contains(&samples.len()));
    for (at, ids) in samples {
        assert!(at == 0 || tokens(dir.path(), Part::Train)[at - 1] == 256);
        assert!(tokenizer.decode(&ids).starts_with("story "), "{:?}", tokenizer.decode(&ids));
    }
    let counts = data.histogram().unwrap();
    assert_eq!(counts.iter().sum::<u64>(), ids.len() as u64);
    let common = commonest(&counts, 3);
    assert_eq!(common.len(), 3);
    assert_eq!(common[0].1, *counts.iter().max().unwrap());
    assert!(common[0].1 >= common[1].1 && common[1].1 >= common[2].1);
}

#[test]
fn tinyshakespeare_is_split_as_nanogpt_splits_it() {
    let path = Path::new("../shared/data/text/tinyshakespeare.txt");
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return;
    }
    let dir = TempDir::new().unwrap();
    let sources = Sources::open(&[path], "text").unwrap();
    let tokenizer = Tokenizer::chars_of(sources.documents(), &mut |_| ()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 65);
    let split = Split { fraction: 0.1, ..Split::default() };
    let info =
        prepare(sources.documents(), &tokenizer, &Prepare { split, ..Prepare::default() }, dir.path(), &mut |_| ());
    let info = info.unwrap();
    assert_eq!((info.train.tokens, info.val.tokens), (1_003_854, 111_540)); // nanoGPT, data/shakespeare_char
    assert_eq!(tokens(dir.path(), Part::Train)[..5], [18, 47, 56, 57, 58]); // "First"
}
