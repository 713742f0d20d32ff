//! What each fuzz target does with its bytes: it calls what reads them in kiln and checks what must hold of whatever was
//! accepted. An error is fine; a panic, a wrong result or memory without bounds is not. `tests/it/fuzz.rs` runs the same
//! functions over the corpora.

use kiln::data::detok::Decoder;
use kiln::data::shard::Shard;
use kiln::data::tokenizer::Kind;
use kiln::data::{DatasetInfo, Limits, Sources, Tokenizer, pii, repair};
use kiln::device::Device;
use kiln::error::{Error, Result};
use kiln::model::{Gpt, GptConfig};
use kiln::params::Params;
use kiln::tape::{Pass, Tape};
use kiln::tensor::Tensor;
use kiln::train::Recipe;
use kiln::train::checkpoint::State;
use kiln::train::header::Header;
use std::path::Path;
use std::sync::LazyLock;

/// What reads a target's bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const ALL: [(&str, Target); 8] = [
    ("recipe", recipe),
    ("shard", shard),
    ("safetensors", safetensors),
    ("tokenizer", tokenizer),
    ("json", json),
    ("source", source),
    ("repair", repair),
    ("personal", personal),
];

/// What was accepted; an error must say what to do.
fn accepted<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(|e: &Error| assert!(e.hint().is_some_and(|hint| !hint.is_empty()), "no hint: {e}")).ok()
}

/// A recipe in TOML; lines that start with `--set ` are overrides.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (set, own): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("--set "));
    let set: Vec<String> = set.iter().map(|line| line["--set ".len()..].to_owned()).collect();
    let Some(recipe) = accepted(Recipe::from_toml(&own.join("\n"), Path::new("fuzz.toml"), &set)) else { return };
    let again = Recipe::from_toml(&recipe.to_toml(), Path::new("again.toml"), &[]).expect("what was written is valid");
    assert_eq!(again, recipe);
    let schedule = recipe.schedule();
    for step in [0, 1, recipe.train.steps / 2, recipe.train.steps - 1] {
        let lr = schedule.lr(step);
        assert!((0.0..=recipe.optim.lr).contains(&lr), "lr {lr} at {step}");
    }
}

/// A file of tokens after one byte that chooses the vocabulary's size.
pub fn shard(bytes: &[u8]) {
    let Some((&choice, file)) = bytes.split_first() else { return };
    let vocab = [1, 100, 256, 50_257, 65_536, 128_256, 1 << 24][usize::from(choice) % 7];
    let path =
        std::env::temp_dir().join(format!("kiln-fuzz-{}-{:?}.bin", std::process::id(), std::thread::current().id()));
    std::fs::write(&path, file).expect("a temporary file");
    if let Some(shard) = accepted(Shard::open(&path, vocab)) {
        let mut ids = vec![0; shard.len()];
        shard.get(0..shard.len(), &mut ids);
        shard.check().expect("nobody changed it");
        assert!(ids.iter().enumerate().all(|(i, &id)| (0..vocab as i32).contains(&id) && shard.token(i) == id as u32));
    }
    let _ = std::fs::remove_file(&path);
}

/// A safetensors file. What is accepted tiles the file, and the format's own library accepts it too.
pub fn safetensors(bytes: &[u8]) {
    let read = Header::read(Path::new("fuzz.safetensors"), &mut &bytes[..], bytes.len() as u64);
    let Some(header) = accepted(read) else { return };
    let mut end = 0;
    for name in header.names() {
        let info = header.info(&name).expect("a name that it gave");
        assert_eq!(info.data_offsets.0, end);
        assert_eq!((info.data_offsets.1 - end) * 8, info.shape.iter().product::<usize>() * info.dtype.bitsize());
        end = info.data_offsets.1;
    }
    assert_eq!(header.start() as usize + end, bytes.len());
    ::safetensors::SafeTensors::deserialize(bytes).expect("the format's own library accepts it");
}

/// A `tokenizer.json`, a NUL and a text. Without the former, the tokenizers that kiln makes.
pub fn tokenizer(bytes: &[u8]) {
    static OWN: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
        let document = || kiln::data::Document { text: "the cat and the hat, the end".repeat(3), ..Default::default() };
        let bpe = Tokenizer::train_bpe([Ok(document())].into_iter(), 270, &|_| {}).expect("text enough");
        [Tokenizer::bytes(), bpe]
    });
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let (file, text) =
        (String::from_utf8_lossy(&bytes[..end]), String::from_utf8_lossy(bytes.get(end + 1..).unwrap_or(&[])));
    if end == 0 {
        return OWN.iter().for_each(|own| round_trip(own, &text, true));
    }
    if let Some(tokenizer) = accepted(Tokenizer::from_json(file.into_owned(), Path::new("fuzz.json"))) {
        // A file may ask for normalisation, which loses.
        round_trip(&tokenizer, &text, matches!(tokenizer.kind(), Kind::Byte | Kind::Char));
    }
}

fn round_trip(tokenizer: &Tokenizer, text: &str, lossless: bool) {
    accepted(tokenizer.encode_with_special(text));
    let Some(ids) = accepted(tokenizer.encode(text)) else { return };
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    let decoded = tokenizer.decode(&ids);
    let mut decoder = Decoder::new(tokenizer);
    let pieces: String = ids.iter().map(|&id| decoder.push(id)).collect();
    let pieces = pieces + &decoder.finish();
    if lossless {
        assert_eq!(decoded, text);
    }
    if tokenizer.kind() != Kind::Other {
        assert_eq!(pieces, decoded, "in pieces and whole");
    }
    // Ids that no text gives, and some that are none.
    tokenizer.decode(&[0, 1, tokenizer.vocab_size() as u32, u32::MAX]);
}

/// A file of documents after one byte that chooses its kind. Lenient reading has no errors, and strict reading nothing that
/// lenient reading has not.
pub fn source(bytes: &[u8]) {
    let Some((&choice, file)) = bytes.split_first() else { return };
    let kind = ["txt", "html", "jsonl", "txt.gz", "jsonl.zst", "jsonl.gz", "md.zst"][usize::from(choice) % 7];
    let name = format!("kiln-fuzz-{}-{:?}.{kind}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, file).expect("a temporary file");
    let limits = Limits { document: 1 << 16, unpacked: 1 << 24, memory: 16 << 20, ..Limits::default() };
    let sources = Sources::lenient(&[&path], "text", limits).expect("the file is there");
    let mut documents = sources.documents();
    let texts: Vec<String> = documents.by_ref().map(|d| d.expect("lenient reading has no errors").text).collect();
    assert!(texts.iter().all(|text| !text.is_empty()));
    assert!(documents.skips().list.iter().all(|skipped| skipped.path == path));
    let strict =
        accepted(Sources::open(&[&path], "text").expect("the file is there").documents().collect::<Result<Vec<_>>>());
    if let Some(strict) = strict.filter(|_| documents.skips().total() == 0 && !file.starts_with(b"\xff\xfe")) {
        assert_eq!(strict.into_iter().map(|d| d.text).collect::<Vec<_>>(), texts);
    }
    let _ = std::fs::remove_file(&path);
}

/// Bytes as text, repaired: once is enough.
pub fn repair(bytes: &[u8]) {
    let decoded = repair::decode(bytes, None);
    let options = repair::Options { trailing_spaces: true, ..repair::Options::default() };
    let (once, _) = repair::repair(&decoded.text, &options);
    let (twice, repairs) = repair::repair(&once, &options);
    assert!(repairs.is_none() && once == twice, "{once:?} became {twice:?}");
}

/// A text with personal data: spans are in order, apart, and between characters.
pub fn personal(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut end = 0;
    for span in pii::find(&text, &pii::Kinds::of(&pii::Kind::ALL)) {
        assert!(span.start >= end && span.end > span.start && text.get(span.start..span.end).is_some(), "{span:?}");
        end = span.end;
    }
}

/// The JSON files of checkpoints and data sets: one byte chooses which.
pub fn json(bytes: &[u8]) {
    let Some((&choice, file)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(file) else { return };
    let path = Path::new("fuzz.json");
    match choice % 3 {
        0 => drop(accepted(State::from_json(text, path))),
        1 => drop(accepted(DatasetInfo::from_json(text, path))),
        _ => {
            let Ok(value) = serde_json::from_str(text) else { return };
            let Some(config) = accepted(GptConfig::from_json(&value, path)) else { return };
            // What is larger is compared with the size of the weights' file, and refused.
            // RoPE has a table for each position.
            if config.parameters() < 2e4 && config.context <= 4096 {
                run(config);
            }
        }
    }
}

/// One token through a model of this shape.
fn run(config: GptConfig) {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::cpu(1).expect("a CPU"));
    let vocab = config.vocab;
    let (gpt, decls) = Gpt::new(config);
    let params = Params::new(&DEVICE, &decls, 1);
    let mut tape = Tape::new(&DEVICE);
    tape.begin(&params, Pass::default());
    let ids = tape.constant(Tensor::from_slice(&DEVICE, &[vocab as i32 - 1], [1, 1]));
    let logits = gpt.logits(ids).value();
    assert!(logits.f32().len() == vocab && logits.f32().iter().all(|x| x.is_finite()));
}
