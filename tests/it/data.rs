//! Text to tokens to shards to batches.

#![allow(clippy::print_stdout)] // tests say what they skip

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::data::dataset::{ShardInfo, commonest};
use kiln::data::detok::Decoder;
use kiln::data::shard::{HEADER, Shard, ShardWriter};
use kiln::data::tokenizer::{END_OF_TEXT, Kind};
use kiln::data::*;
use kiln::error::{Error, Result};
use kiln::rng::{Purpose, Rng};
use tempfile::TempDir;

use crate::alloc::allocations;

/// Text with everything that could trip a tokenizer: words, runs of white space of many kinds, contractions, digits,
/// other scripts, emoji, control characters, unassigned code points.
fn random_text(seed: u64, words: usize) -> String {
    let mut rng = Rng::new(seed, Purpose::Test, 0, 0);
    let spaces = [" ", " ", " ", " ", "\n", "\n\n", "  ", "\t", "\r\n", " \u{a0}", "\u{3000}", "   \n "];
    let common = [
        "the",
        "we'll",
        "Don't",
        "3",
        "2024",
        "...",
        "()",
        "ein",
        "größer",
        "火曜日",
        "🔥👩‍👩‍👧",
        "e\u{301}",
        "\0",
        "\u{7f}",
    ];
    let mut text = String::new();
    for _ in 0..words {
        text.push_str(spaces[rng.below(spaces.len() as u32) as usize]);
        if rng.below(4) > 0 {
            text.push_str(common[rng.below(common.len() as u32) as usize]);
        } else {
            text.extend((0..rng.below(6)).filter_map(|_| {
                let top = [0x80, 0x800, 0x1_0000, 0x11_0000][rng.below(4) as usize];
                char::from_u32(rng.below(top))
            }));
        }
    }
    text
}

fn document(text: &str) -> Document {
    Document { text: text.to_owned(), source: PathBuf::from("test"), line: 1 }
}

fn documents(texts: &[String]) -> impl Iterator<Item = Result<Document>> + Send + use<'_> {
    texts.iter().map(|text| Ok(document(text)))
}

fn bpe(text: &str, vocab: usize) -> Tokenizer {
    Tokenizer::train_bpe(documents(&[text.to_owned()]), vocab, &|_| ()).unwrap()
}

/// What an error says, with its hint.
fn message<T>(result: Result<T>) -> String {
    let error = result.err().expect("this must fail");
    format!("{error} | {}", error.hint().expect("every error of data has a hint"))
}

fn assert_says<T>(result: Result<T>, parts: &[&str]) {
    let message = message(result);
    parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in: {message}"));
}

mod tokenizers {
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
        let text =
            random_text(2, 20_000) + &"x".repeat(100_000) + &" ".repeat(80_000) + "end" + &random_text(3, 20_000);
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
        for bad in
            ["", "{}", "[1,2", r#"{"model":{"type":"BPE"}}"#, r#"{"model":{"vocab":{},"merges":[]}}"#, huge, "\u{0}"]
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
}

mod sources {
    use super::*;

    fn write(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn texts(path: impl AsRef<Path>) -> Result<Vec<String>> {
        Sources::open(&[path], "text")?.documents().map(|d| Ok(d?.text)).collect()
    }

    #[test]
    fn a_file_is_a_document_unless_it_is_marked() {
        let dir = TempDir::new().unwrap();
        assert_eq!(texts(write(&dir, "a.txt", "one > two\n<|end\n")).unwrap(), ["one > two\n<|end\n"]);
        let marked = "first\n<|endoftext|>\nsecond <b>bold</b>\n<|endoftext|>\r\n<|endoftext|>third";
        let path = write(&dir, "b.md", marked);
        assert_eq!(texts(&path).unwrap(), ["first\n", "second <b>bold</b>\n", "third"]);
        let lines: Vec<u64> = Sources::open(&[path], "text").unwrap().documents().map(|d| d.unwrap().line).collect();
        assert_eq!(lines, [1, 3, 5]);
        assert_eq!(texts(write(&dir, "bom.txt", "\u{feff}text")).unwrap(), ["text"]);
        assert_eq!(texts(write(&dir, "empty.txt", "")).unwrap(), [""; 0]);
    }

    #[test]
    fn json_lines_give_the_named_field() {
        let dir = TempDir::new().unwrap();
        let path =
            write(&dir, "a.jsonl", "{\"text\":\"a\\nb\",\"id\":1}\n\n{\"id\":2,\"text\":\"\"}\n{\"text\":\"é\"}");
        assert_eq!(texts(&path).unwrap(), ["a\nb", "é"]);
        let path = write(&dir, "b.jsonl", "{\"text\":\"a\"}\n{\"body\":\"b\",\"id\":1}\n");
        assert_says(texts(&path), &["b.jsonl", "line 2", "\"text\"", "\"body\", \"id\"", "--text-field"]);
        let by_name: Vec<_> =
            Sources::open(&[write(&dir, "c.jsonl", "{\"body\":\"b\"}")], "body").unwrap().documents().collect();
        assert_eq!(by_name[0].as_ref().unwrap().text, "b");
        assert_says(texts(write(&dir, "d.jsonl", "{\"text\": 3}")), &["line 1", "a number"]);
        assert_says(texts(write(&dir, "e.jsonl", "{\"text\":\"a\"}\n{\"text\": \"b\n")), &["line 2, column 11"]);
        assert_says(texts(write(&dir, "f.jsonl", "[1]")), &["line 1", "a list"]);
        let deep = "[".repeat(1_000_000);
        assert_says(texts(write(&dir, "g.jsonl", deep)), &["line 1", "recursion"]);
    }

    #[test]
    fn invalid_text_is_located() {
        let dir = TempDir::new().unwrap();
        let path = write(&dir, "a.txt", b"one<|endoftext|>\ntw\xffo");
        assert_says(texts(path), &["a.txt", "byte 19", "0xff", "UTF-8"]);
        let path = write(&dir, "a.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"\xc3(\"}");
        assert_says(texts(path), &["a.jsonl", "byte 22", "0xc3"]);
    }

    #[test]
    fn nothing_follows_an_error() {
        let dir = TempDir::new().unwrap();
        write(&dir, "in/a.txt", b"\xff");
        write(&dir, "in/b.txt", "fine");
        assert_eq!(Sources::open(&[dir.path()], "text").unwrap().documents().count(), 1);
    }

    #[test]
    fn folders_are_read_in_order_and_kept_to() {
        let dir = TempDir::new().unwrap();
        write(&dir, "in/b.txt", "2");
        write(&dir, "in/a/z.jsonl", "{\"text\":\"1\"}");
        write(&dir, "in/c.md", "3");
        write(&dir, "in/.git/x.txt", "hidden");
        write(&dir, "in/d.txt.gz", "packed");
        let sources = Sources::open(&[dir.path().join("in")], "text").unwrap();
        let all: Vec<String> = sources.documents().map(|d| d.unwrap().text).collect();
        assert_eq!(all, ["1", "2", "3"]);
        assert_eq!(sources.skipped(), [dir.path().join("in/d.txt.gz")]);
        assert_eq!(sources.bytes(), 14);

        let packed = message(Sources::open(&[dir.path().join("in/d.txt.gz")], "text"));
        assert!(packed.contains("compressed"), "{packed}");
        assert_says(Sources::open(&[dir.path().join("absent")], "text"), &["absent"]);
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert_says(Sources::open(&[dir.path().join("empty")], "text"), &["no text"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_a_folder_are_refused() {
        let dir = TempDir::new().unwrap();
        write(&dir, "in/a.txt", "1");
        let outside = write(&dir, "secret.txt", "2");
        // A link inside is its target under another name, and even a loop ends.
        std::os::unix::fs::symlink(dir.path().join("in/a.txt"), dir.path().join("in/b.txt")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("in"), dir.path().join("in/loop")).unwrap();
        assert_eq!(texts(dir.path().join("in")).unwrap(), ["1"]);
        std::os::unix::fs::symlink(&outside, dir.path().join("in/c.txt")).unwrap();
        assert_says(texts(dir.path().join("in")), &["c.txt", "secret.txt"]);
    }
}

mod shards {
    use super::*;

    fn write(path: &Path, format: ShardFormat, vocab: usize, tokens: &[u32]) {
        let mut writer = ShardWriter::create(path, format, vocab).unwrap();
        tokens.chunks(7).for_each(|chunk| writer.push(chunk).unwrap());
        writer.finish().unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.bin");
        for (format, vocab, size) in [
            (ShardFormat::Llmc, 1 << 16, HEADER + 2 * 1000),
            (ShardFormat::Llmc, (1 << 16) + 1, HEADER + 4 * 1000),
            (ShardFormat::Nanogpt, 1 << 16, 2 * 1000),
        ] {
            let mut rng = Rng::new(1, Purpose::Test, 0, 0);
            let tokens: Vec<u32> = (0..1000).map(|_| rng.below(vocab as u32)).collect();
            write(&path, format, vocab, &tokens);
            assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, size);
            let shard = Shard::open(&path, vocab).unwrap();
            assert_eq!((shard.len(), shard.format()), (1000, format));
            let mut read = vec![0; 300];
            shard.get(500..800, &mut read);
            assert!(read.iter().zip(&tokens[500..]).all(|(&a, &b)| a as u32 == b));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn headers_are_llmcs() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.bin");
        for (vocab, head) in [(50257, [20240520, 1, 3]), (128256, [20240801, 7, 3])] {
            write(&path, ShardFormat::Llmc, vocab, &[5, 6, 50256]);
            let bytes = std::fs::read(&path).unwrap();
            let fields: Vec<i32> =
                bytes[..HEADER].chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
            assert_eq!(fields[..3], head);
            assert!(fields[3..].iter().all(|&f| f == 0));
        }
        assert_says(
            ShardWriter::create(&path, ShardFormat::Nanogpt, 70_000).map(drop),
            &["65,536", "70000", "--format llmc"],
        );
    }

    #[test]
    fn faults_are_named() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.bin");
        write(&path, ShardFormat::Llmc, 100, &(0..100).collect::<Vec<_>>());
        let good = std::fs::read(&path).unwrap();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            Shard::open(&path, 100).map(drop)
        };
        assert!(with(&|_| ()).is_ok());
        assert_says(with(&|b| b[4] = 9), &["a.bin", "version", "expected 1", "found 9"]);
        assert_says(with(&|b| b.truncate(HEADER + 150)), &["number of tokens", "75 tokens", "found 100"]);
        assert_says(with(&|b| b.truncate(HEADER)), &["number of tokens", "found 100"]);
        assert_says(with(&|b| b.truncate(12)), &["number of tokens"]);
        assert_says(with(&|b| b.truncate(4)), &["version"]);
        assert_says(with(&|b| b.extend([0; 2])), &["101 tokens", "found 100"]);
        assert_says(with(&|b| b[8..12].fill(0xff)), &["number of tokens", "found -1"]);
        assert_says(with(&|b| b.clear()), &["size", "0 bytes"]);
        assert_says(with(&|b| *b = b"not tokens at all".to_vec()), &["20240520", "17 bytes", "even"]);
        assert_says(with(&|b| b[HEADER + 40] = 100), &["byte 1064 (token 20)", "below 100", "found 100"]);
        // Without the magic number the header's bytes are tokens, and too large.
        assert_says(with(&|b| b[3] = 0xff), &["byte 0 (token 0)", "below 100"]);
        assert_says(Shard::open(dir.path(), 100).map(drop), &["size"]);
        assert_says(Shard::open(dir.path().join("absent"), 100).map(drop), &["absent"]);
    }

    #[test]
    fn a_bad_token_is_found_in_a_large_file() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.bin");
        let mut tokens = vec![7; 3_000_000];
        tokens[2_500_000] = 300;
        tokens[2_900_000] = 301;
        write(&path, ShardFormat::Nanogpt, 1000, &tokens);
        assert!(Shard::open(&path, 301).is_err());
        assert_says(Shard::open(&path, 256).map(drop), &["byte 5000000 (token 2500000)", "below 256", "found 300"]);
        assert!(Shard::open(&path, 302).is_ok());
    }
}

mod sets {
    use super::*;

    fn make(texts: &[String], tokenizer: &Tokenizer, options: &Prepare, out: &Path) -> DatasetInfo {
        prepare(documents(texts), tokenizer, options, out, &mut |_| ()).unwrap()
    }

    fn tokens(out: &Path, part: Part) -> Vec<u32> {
        let data = Dataset::open(out, part).unwrap();
        let mut ids = vec![0; data.len()];
        data.read(0, &mut ids);
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
        assert_eq!(info.train.shards[2], ShardInfo { file: "train_002.bin".into(), tokens: 1000 });
        assert!([tokens(dir.path(), Part::Train), tokens(dir.path(), Part::Val)] == whole);
        // A window over three shards, and one that ends where a shard ends.
        let data = Dataset::open(dir.path(), Part::Train).unwrap();
        for (start, len) in [(999, 2000), (500, 500), (1000, 1), (data.len() - 3, 3), (7, 0)] {
            let mut read = vec![0; len];
            data.read(start, &mut read);
            assert!(read.iter().zip(&whole[0][start..]).all(|(&a, &b)| a as u32 == b), "{start} {len}");
        }
        // Making it again with fewer shards leaves no stale one.
        make(&texts, &tokenizer, &Prepare::default(), dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
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
        let document = Document { text: format!("{}é", "ab\n".repeat(30_000)), source: "book.txt".into(), line: 3 };
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
            assert_eq!(data.next_document(from), expected, "from {from} of {}", ids.len());
        }
        let samples = data.samples(4, 10);
        assert!((2..=4).contains(&samples.len()));
        for (at, ids) in samples {
            assert!(at == 0 || tokens(dir.path(), Part::Train)[at - 1] == 256);
            assert!(tokenizer.decode(&ids).starts_with("story "), "{:?}", tokenizer.decode(&ids));
        }
        let counts = data.histogram();
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
}

mod batches {
    use super::*;

    /// A data set whose token at position `i` is `i`, in shards of 100.
    fn counting(dir: &TempDir, tokens: u32) -> Arc<Dataset> {
        let ids: Vec<u32> = (0..tokens).collect();
        let files: Vec<PathBuf> = (0..tokens.div_ceil(100)).map(|i| dir.path().join(format!("{i}.bin"))).collect();
        for (file, ids) in files.iter().zip(ids.chunks(100)) {
            let mut writer = ShardWriter::create(file, ShardFormat::Llmc, 1 << 20).unwrap();
            writer.push(ids).unwrap();
            writer.finish().unwrap();
        }
        Arc::new(Dataset::from_files(&files, 1 << 20, None).unwrap())
    }

    fn fill(batches: &Batches, step: u64, micro: usize, size: usize) -> (Vec<i32>, Vec<i32>) {
        let (mut x, mut y) = (vec![0; size], vec![0; size]);
        batches.fill(step, micro, &mut x, &mut y);
        (x, y)
    }

    #[test]
    fn an_epoch_shows_every_window_once() {
        for (tokens, b, t) in [(1000, 4, 8), (997, 3, 7), (130, 5, 64), (65, 2, 64), (64 * 9, 1, 64), (300, 7, 1)] {
            let dir = TempDir::new().unwrap();
            let batches = Batches::new(counting(&dir, tokens), b, t, 1, 11).unwrap();
            let windows = (batches.steps_per_epoch() * b as f64).round() as usize;
            let steps = (2 * windows).div_ceil(b) as u64;
            let mut starts = Vec::new();
            for step in 0..steps {
                let (x, y) = fill(&batches, step, 0, b * t);
                for (x, y) in x.chunks(t).zip(y.chunks(t)) {
                    assert!((0..t).all(|i| x[i] == x[0] + i as i32 && y[i] == x[i] + 1), "{x:?} {y:?}");
                    starts.push(x[0] as usize);
                }
            }
            for epoch in starts.chunks(windows).take(2) {
                let distinct: BTreeSet<_> = epoch.iter().collect();
                assert_eq!(distinct.len(), windows, "{tokens} {b} {t}");
                let residues: BTreeSet<_> = epoch.iter().map(|start| start % t).collect();
                assert_eq!(residues.len(), 1, "windows of an epoch do not overlap");
            }
            if windows > 20 {
                assert_ne!(starts[..windows], starts[windows..2 * windows], "epochs differ");
            }
        }
    }

    #[test]
    fn a_step_depends_on_nothing_before_it() {
        let dir = TempDir::new().unwrap();
        let data = counting(&dir, 2000);
        let batches = Batches::new(data.clone(), 4, 16, 2, 3).unwrap();
        let all: Vec<_> = (0..50).map(|step| [0, 1].map(|micro| fill(&batches, step, micro, 64))).collect();
        let other = Batches::new(data.clone(), 4, 16, 2, 3).unwrap();
        for step in [49, 7, 20, 0, 31] {
            assert_eq!([0, 1].map(|micro| fill(&other, step, micro, 64)), all[step as usize]);
        }
        // Two micro-batches of 4 are one batch of 8.
        let whole = Batches::new(data.clone(), 8, 16, 1, 3).unwrap();
        let (x, _) = fill(&whole, 5, 0, 128);
        assert_eq!(x, [all[5][0].0.clone(), all[5][1].0.clone()].concat());
        let seeded = Batches::new(data, 4, 16, 2, 4).unwrap();
        assert_ne!(fill(&seeded, 0, 0, 64), all[0][0]);
    }

    #[test]
    fn filling_allocates_nothing() {
        let dir = TempDir::new().unwrap();
        let data = counting(&dir, 5000);
        let batches = Batches::new(data.clone(), 8, 32, 1, 3).unwrap();
        let eval = EvalBatches::new(data, 8, 32).unwrap();
        let (mut x, mut y, mut w) = (vec![0; 256], vec![0; 256], vec![0.0; 256]);
        let count = allocations(|| {
            (0..100).for_each(|step| batches.fill(step, 0, &mut x, &mut y));
            (0..eval.len()).for_each(|i| assert!(eval.fill(i, &mut x, &mut y, &mut w) > 0));
        });
        assert_eq!(count, 0);
    }

    #[test]
    fn evaluation_meets_every_target_once() {
        for (tokens, b, t) in [(1000, 4, 8), (2, 4, 8), (33, 4, 8), (34, 4, 8), (32, 4, 8), (997, 3, 7), (101, 1, 100)]
        {
            let dir = TempDir::new().unwrap();
            let eval = EvalBatches::new(counting(&dir, tokens), b, t).unwrap();
            let (mut x, mut y, mut w) = (vec![9; b * t], vec![9; b * t], vec![9.0; b * t]);
            let mut targets = Vec::new();
            for i in 0..eval.len() {
                let valid = eval.fill(i, &mut x, &mut y, &mut w);
                assert_eq!(w.iter().sum::<f32>(), valid as f32);
                for k in 0..b * t {
                    match w[k] {
                        1.0 => {
                            assert_eq!(y[k], x[k] + 1);
                            targets.push(y[k]);
                        }
                        weight => assert_eq!((weight, x[k], y[k]), (0.0, 0, 0)),
                    }
                }
                assert!(i + 1 == eval.len() || valid == b * t, "only the last batch is padded");
            }
            assert_eq!(targets, (1..tokens as i32).collect::<Vec<_>>());
            assert_eq!(eval.targets(), targets.len());
        }
    }

    #[test]
    fn data_shorter_than_a_window_is_refused() {
        let dir = TempDir::new().unwrap();
        let data = counting(&dir, 64);
        assert!(Batches::new(data.clone(), 1, 63, 1, 0).is_ok());
        assert_says(Batches::new(data.clone(), 1, 64, 1, 0), &["train.context", "65 tokens", "has 64", "at most 63"]);
        assert_says(Batches::new(data, 0, 8, 1, 0), &["train.batch"]);
    }
}
