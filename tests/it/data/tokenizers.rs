//! Tokenizers: ids, round trips, files.

use super::*;

#[test]
fn every_kind_gives_the_text_back() {
    let text = random_text(1, 3000);
    for tokenizer in [Tokenizer::bytes(), Tokenizer::chars(text.chars()), bpe(&text, 500)] {
        for seed in 0..20 {
            let part = if tokenizer.kind() == Kind::Char { text[..].to_owned() } else { random_text(seed, 200) };
            let ids = tokenizer.encode(&part).unwrap();
            assert_eq!(tokenizer.decode(&ids), part, "{tokenizer:?}");
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        }
    }
}

#[test]
fn ids_are_those_of_the_crate() {
    // Long enough for several pieces, one of them a run without white space longer than a piece.
    let text = random_text(2, 20_000) + &"x".repeat(100_000) + &" ".repeat(80_000) + "end" + &random_text(3, 20_000);
    for tokenizer in [Tokenizer::bytes(), Tokenizer::chars(text.chars()), bpe(&text, 700)] {
        let file = TempDir::new().unwrap();
        let path = file.path().join("tokenizer.json");
        tokenizer.save(&path).unwrap();
        let theirs = ::tokenizers::Tokenizer::from_file(&path).unwrap();
        // The crate takes seconds for as many single characters.
        let chars = if tokenizer.kind() == Kind::Char { 80_000 } else { usize::MAX };
        let text: String = text.chars().take(chars).collect();
        let expected = theirs.encode_fast(text.as_str(), false).unwrap();
        assert!(tokenizer.encode(&text).unwrap() == expected.get_ids(), "{tokenizer:?}");
        assert_eq!(theirs.decode(expected.get_ids(), false).unwrap(), text);
    }
}

#[test]
fn a_saved_tokenizer_loads_as_itself() {
    let dir = TempDir::new().unwrap();
    let text = random_text(4, 500);
    for (tokenizer, kind, eot) in [
        (Tokenizer::bytes(), Kind::Byte, None),
        (Tokenizer::chars(text.chars()), Kind::Char, None),
        (bpe(&text, 300), Kind::Bpe, Some(299)),
    ] {
        let path = dir.path().join(format!("{kind}.json"));
        tokenizer.save(&path).unwrap();
        let loaded = Tokenizer::load(&path).unwrap();
        assert_eq!((loaded.kind(), loaded.eot()), (kind, eot));
        assert_eq!(loaded.hash(), tokenizer.hash());
        assert_eq!(loaded.vocab_size(), tokenizer.vocab_size());
        assert_eq!(loaded.encode(&text).unwrap(), tokenizer.encode(&text).unwrap());
    }
}

#[test]
fn chars_are_sorted_as_nanogpt_sorts_them() {
    let tokenizer = Tokenizer::chars("hello, wörld\n".chars());
    assert_eq!(tokenizer.vocab_size(), 11);
    assert_eq!(tokenizer.decode(&(0..11).collect::<Vec<_>>()), "\n ,dehlorwö");
    assert_eq!(tokenizer.encode("\nö").unwrap(), [0, 10]);
    assert_says(tokenizer.encode("hé"), &["character 2", "'é' (U+00E9)", "--kind bpe"]);
}

#[test]
fn bytes_are_their_own_ids() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.vocab_size(), 256);
    assert_eq!(tokenizer.encode("a\n火").unwrap(), [97, 10, 0xe7, 0x81, 0xab]);
}

#[test]
fn bpe_has_bytes_first_and_the_end_of_text_last() {
    let tokenizer = bpe("the cat the cat the cat", 260);
    assert_eq!((tokenizer.vocab_size(), tokenizer.eot()), (260, Some(259)));
    assert_eq!(tokenizer.special(), [(END_OF_TEXT.to_owned(), 259)]);
    // Three merges: of the pairs that occur three times the first are "at", "he"/"th"...
    assert!(tokenizer.encode("the cat").unwrap().len() < 7);
    let small = bpe("ab", 5000);
    assert_eq!(small.vocab_size(), 257, "nothing occurs twice");
    assert_says(Tokenizer::train_bpe(documents(&[]), 300, &|_| ()), &["no text"]);
    assert_says(Tokenizer::train_bpe(documents(&["a".into()]), 256, &|_| ()), &["256", "257"]);
}

#[test]
fn training_depends_on_neither_threads_nor_chance() {
    let texts: Vec<String> = (0..40).map(|seed| random_text(seed, 300)).collect();
    let hash = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Tokenizer::train_bpe(documents(&texts), 1000, &|_| ()).unwrap().hash())
    };
    assert_eq!(hash(1), hash(1));
    assert_eq!(hash(1), hash(3));
}

/// What the crate's trainer makes of the same texts.
fn trained_by_the_crate(texts: &[String], vocab: usize) -> String {
    use ::tokenizers::models::bpe::{BPE, BpeTrainer};
    use ::tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use ::tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer};
    let split = ByteLevel::new(false, false, true);
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    let builder = BpeTrainer::builder().vocab_size(vocab - 1).min_frequency(2).initial_alphabet(alphabet);
    let mut trainer = builder.show_progress(false).build();
    let words = |text: &str| {
        let mut text = PreTokenizedString::from(text);
        split.pre_tokenize(&mut text)?;
        let words = text.get_splits(OffsetReferential::Normalized, OffsetType::None).into_iter();
        Ok(words.map(|(word, ..)| word.to_owned()).collect())
    };
    trainer.feed(texts.iter(), words).unwrap();
    let mut model = BPE::default();
    trainer.train(&mut model).unwrap();
    let mut theirs = ::tokenizers::Tokenizer::new(model);
    theirs.with_pre_tokenizer(Some(split)).with_post_processor(Some(split)).with_decoder(Some(split));
    theirs.add_special_tokens(&[::tokenizers::AddedToken::from(END_OF_TEXT, true)]);
    theirs.to_string(true).unwrap()
}

#[test]
fn training_learns_what_the_crates_trainer_learns() {
    let story: Vec<String> = kiln::data::world::World::new(3)
        .stories(0)
        .take(400)
        .map(|story| story.text + "\n\n")
        .chain([random_text(7, 3000)])
        .collect();
    let repeats = ["abcabcabcab aaaa aaaaaaa ababab bcbcbc abcbabc ".repeat(3), "aaabbbaaab ".repeat(5)];
    let random = random_text(8, 20_000);
    for (texts, vocab) in [(&story[..], 1500), (&repeats[..], 600), (&[random][..], 900)] {
        let ours = Tokenizer::train_bpe(documents(texts), vocab, &|_| ()).unwrap();
        assert!(ours.json() == trained_by_the_crate(texts, vocab), "vocabulary of {vocab}");
    }
}

#[test]
fn an_error_among_documents_stops_training() {
    let bad = || Err(Error::usage("broken", "mend it"));
    let stream = [Ok(document("some text")), bad(), Ok(document("more"))].into_iter();
    assert_says(Tokenizer::train_bpe(stream, 300, &|_| ()), &["broken"]);
}

#[test]
fn a_special_token_spelled_out_is_text_except_in_a_prompt() {
    let tokenizer = bpe("plain words", 300);
    let eot = tokenizer.eot().unwrap();
    let text = format!("a{END_OF_TEXT}b");
    assert!(!tokenizer.encode(&text).unwrap().contains(&eot));
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
    let ids = tokenizer.encode_with_special(&format!("{text}{END_OF_TEXT}")).unwrap();
    assert_eq!((ids[1], ids[3], ids.len()), (eot, eot, 4));
    assert_eq!(tokenizer.decode(&ids), format!("{text}{END_OF_TEXT}"));
}

#[test]
fn many_texts_keep_their_order() {
    let texts: Vec<String> = (0..200).map(|seed| random_text(seed, 20)).collect();
    let tokenizer = Tokenizer::bytes();
    let ids = tokenizer.encode_batch(&texts).unwrap();
    assert!(ids.iter().zip(&texts).all(|(ids, text)| tokenizer.decode(ids) == *text));
}

#[test]
fn settings_for_one_models_input_do_not_cut_data() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokenizer.json");
    let tokenizer = bpe("plain words", 300);
    tokenizer.save(&path).unwrap();
    let mut theirs = ::tokenizers::Tokenizer::from_file(&path).unwrap();
    theirs.with_truncation(Some(::tokenizers::TruncationParams { max_length: 4, ..Default::default() })).unwrap();
    theirs.save(&path, false).unwrap();
    let text = random_text(1, 50);
    assert_eq!(Tokenizer::load(&path).unwrap().encode(&text).unwrap(), tokenizer.encode(&text).unwrap());
}

/// A SentencePiece-style vocabulary: `▁` for spaces, bytes for what it lacks.
fn sentencepiece() -> Tokenizer {
    let mut vocab = serde_json::Map::new();
    let words = ["<unk>", "</s>", "▁", "a", "b", "▁a", "▁b", "é"].map(str::to_owned);
    for token in words.into_iter().chain((0..=255).map(|b| format!("<0x{b:02X}>"))) {
        vocab.insert(token, vocab.len().into());
    }
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let space = serde_json::json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let json = serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [space, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true,
            "vocab": vocab, "merges": [["▁", "a"], ["▁", "b"]]}});
    Tokenizer::from_json(json.to_string(), Path::new("sp.json")).unwrap()
}

#[test]
fn text_is_released_as_it_becomes_whole() {
    let text = random_text(9, 400);
    let mut rng = Rng::new(5, Purpose::Test, 0, 0);
    for tokenizer in [Tokenizer::bytes(), Tokenizer::chars(text.chars()), bpe(&text, 400)] {
        // Real text, and tokens at random, among them broken characters and ids that do not exist.
        let wild: Vec<u32> = (0..300).map(|_| rng.below(tokenizer.vocab_size() as u32 + 3)).collect();
        for ids in [tokenizer.encode(&text).unwrap(), wild] {
            let mut decoder = Decoder::new(&tokenizer);
            let mut streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
            streamed += &decoder.finish();
            assert_eq!(streamed, tokenizer.decode(&ids), "{tokenizer:?}");
        }
    }
    let tokenizer = sentencepiece();
    assert_eq!((tokenizer.kind(), tokenizer.eot()), (Kind::Other, Some(1)));
    let text = "a b ab é 火🔥 a b a b a b a a a b 火 b";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids), text);
    let mut decoder = Decoder::new(&tokenizer);
    let parts: Vec<String> = ids.iter().map(|&id| decoder.push(id)).collect();
    assert_eq!(parts.concat() + &decoder.finish(), text);
    assert!(parts.iter().filter(|p| !p.is_empty()).count() > 15, "released piece by piece: {parts:?}");
}

#[test]
fn files_that_are_no_tokenizers_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t.json");
    let huge = r#"{"model":{"type":"WordLevel","vocab":{"a":4000000000},"unk_token":"a"}}"#;
    for bad in ["", "{}", "[1,2", r#"{"model":{"type":"BPE"}}"#, r#"{"model":{"vocab":{},"merges":[]}}"#, huge, "\u{0}"]
    {
        std::fs::write(&path, bad).unwrap();
        assert_says(Tokenizer::load(&path), &["t.json", "tokenizer.json"]);
    }
    std::fs::write(&path, b"{\"a\": \"\xff\"}").unwrap();
    assert_says(Tokenizer::load(&path), &["byte 7"]);
    assert_says(Tokenizer::load(dir.path().join("absent.json")), &["absent.json"]);
}

/// As other programs train them: the special token first, in the model's own vocabulary.
#[test]
fn a_tokenizer_of_another_layout_keeps_its_ids() {
    use ::tokenizers::models::bpe::{BPE, BpeTrainer};
    use ::tokenizers::pre_tokenizers::byte_level::ByteLevel;
    let mut theirs = ::tokenizers::Tokenizer::new(BPE::default());
    theirs.with_pre_tokenizer(Some(ByteLevel::default())).with_decoder(Some(ByteLevel::default()));
    let special = ::tokenizers::AddedToken::from(END_OF_TEXT, true);
    let trainer = BpeTrainer::builder().show_progress(false).special_tokens(vec![special]).vocab_size(120).build();
    let text = random_text(6, 30_000);
    let mut trainer = ::tokenizers::models::TrainerWrapper::from(trainer);
    theirs.train(&mut trainer, ["the cat sat on the mat, the cat"].into_iter()).unwrap();

    let ours = Tokenizer::from_json(theirs.to_string(false).unwrap(), Path::new("theirs.json")).unwrap();
    assert_eq!((ours.kind(), ours.eot()), (Kind::Bpe, Some(0)));
    // It puts a space before the text, so the text must not be cut.
    assert!(ours.encode(&text).unwrap() == theirs.encode(text, false).unwrap().get_ids());
}

/// `tokenizer` as the crate loads it.
fn by_the_crate(tokenizer: &Tokenizer) -> ::tokenizers::Tokenizer {
    let mut theirs: ::tokenizers::Tokenizer = tokenizer.json().parse().unwrap();
    theirs.set_encode_special_tokens(true);
    theirs
}

#[test]
fn gpt2_is_known_by_name() {
    let gpt2 = Tokenizer::load("gpt2").unwrap();
    assert_eq!((gpt2.kind(), gpt2.vocab_size(), gpt2.eot()), (Kind::Bpe, 50_257, Some(50_256)));
    // As OpenAI's own program encodes it.
    assert_eq!(
        gpt2.encode("Hello, world! It's 2024: don't panic.\n").unwrap(),
        [15496, 11, 995, 0, 632, 338, 48609, 25, 836, 470, 13619, 13, 198]
    );
    assert_eq!(
        gpt2.encode("größer 火曜日 🔥").unwrap(),
        [2164, 9101, 39683, 263, 13328, 43769, 162, 249, 250, 33768, 98, 12520, 242, 98]
    );
    let theirs = by_the_crate(&gpt2);
    for seed in 0..30 {
        let text = random_text(seed, 500);
        assert!(gpt2.encode(&text).unwrap() == theirs.encode_fast(text.as_str(), false).unwrap().get_ids());
    }
}

/// Files of the common layouts, each over the same merges.
#[test]
fn common_layouts_give_the_ids_of_the_crate() {
    let trained = bpe(&random_text(11, 3000), 600);
    let bytes = |regex: bool| serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let split =
        serde_json::json!({"type": "Split", "pattern": {"Regex": llama}, "behavior": "Isolated", "invert": false});
    let digits = serde_json::json!({"type": "Digits", "individual_digits": true});
    for (first, regex) in [(split, false), (digits, true)] {
        for whole in [false, true] {
            let mut file: serde_json::Value = serde_json::from_str(trained.json()).unwrap();
            file["pre_tokenizer"] =
                serde_json::json!({"type": "Sequence", "pretokenizers": [first.clone(), bytes(regex)]});
            file["model"]["ignore_merges"] = whole.into();
            // A token that no merge makes.
            file["model"]["vocab"]["Ġpanic"] = 10_000.into();
            let ours = Tokenizer::from_json(file.to_string(), Path::new("t.json")).unwrap();
            let theirs = by_the_crate(&ours);
            for text in (0..20).map(|seed| random_text(seed, 400)).chain([" panic".to_owned(), "x".repeat(200_000)]) {
                let text = text + " don't panic! I'LL \n\n go... \n";
                assert!(ours.encode(&text).unwrap() == theirs.encode_fast(text.as_str(), false).unwrap().get_ids());
            }
            assert_eq!(ours.encode(" panic").unwrap() == [10_000], whole);
        }
    }
}

#[test]
fn what_lies_beside_a_tokenizer_goes_with_it() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut file: serde_json::Value = serde_json::from_str(bpe("plain words", 300).json()).unwrap();
    file["added_tokens"][0]["content"] = "<|done|>".into();
    std::fs::write(from.path().join("tokenizer.json"), file.to_string()).unwrap();
    let settings = r#"{"eos_token": {"content": "<|done|>"}, "chat_template": "{{ messages[0] }}"}"#;
    std::fs::write(from.path().join("tokenizer_config.json"), settings).unwrap();
    let tokenizer = Tokenizer::load(from.path().join("tokenizer.json")).unwrap();
    assert_eq!((tokenizer.eot(), tokenizer.chat_template().as_deref()), (Some(256), Some("{{ messages[0] }}")));
    prepare(documents(&["a".into(), "b".into()]), &tokenizer, &Prepare::default(), to.path(), &mut |_| ()).unwrap();
    assert_eq!(std::fs::read_to_string(to.path().join("tokenizer_config.json")).unwrap(), settings);
    let again = Tokenizer::load(to.path().join("tokenizer.json")).unwrap();
    assert_eq!(again.files().collect::<Vec<_>>(), tokenizer.files().collect::<Vec<_>>());
}
