//! Bad files, recipes and flags, through the program: each ends with the documented exit code and one error that names
//! what is at fault and says what to do, prints nothing else, leaves nothing behind and changes nothing.

#![allow(clippy::print_stdout)] // tests say what they skip

use kiln::train::tensors;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// A recipe whose steps take about a millisecond.
const TINY: &str = "[run]\nname = \"b\"\n[model]\nlayers = 1\nheads = 2\nd = 16\n[data]\nbytes = 20000\n\
                    tokenizer = \"byte\"\n[train]\ncontext = 16\nbatch = 2\nsteps = 4\ncheckpoint_every = 2\n\
                    sample_every = 0\n[optim]\nwarmup = 2\n";

fn kiln(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// What every case starts from: a recipe, a text, a tokenizer, a data set and a run of four steps.
static GOOD: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("tiny.toml"), TINY).expect("written");
    fs::write(dir.path().join("ok.txt"), "hello world\n".repeat(2000)).expect("written");
    for args in [
        "data tokenizer ok.txt --kind byte --out tok.json",
        "data shard ok.txt --tokenizer tok.json --out set",
        "train tiny.toml --set run.name=a --threads 1",
    ] {
        let output = kiln(dir.path()).args(args.split(' ')).output().expect("it starts");
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    }
    dir
});

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &to) } else { assert!(fs::copy(&path, to).is_ok()) }
    }
}

/// Every path below `dir`, with the content of files; what cannot be read has none.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.is_symlink() {
            all.append(&mut snapshot(&path));
        }
        let content = path.is_file().then(|| fs::read(&path).ok()).flatten();
        // The lock names the process that held the run last.
        if path.file_name() != Some("lock".as_ref()) {
            all.insert(path, content);
        }
    }
    all
}

type Damage = Box<dyn Fn(&Path) + Sync>;

/// Leaves everything as it is.
fn nothing() -> Damage {
    Box::new(|_| ())
}

/// Writes a file.
fn file(name: &'static str, bytes: impl AsRef<[u8]> + Sync + 'static) -> Damage {
    Box::new(move |dir| fs::write(dir.join(name), &bytes).expect("written"))
}

/// Writes a recipe that is `TINY` with `from` replaced.
fn recipe(from: &'static str, to: &'static str) -> Damage {
    assert!(TINY.contains(from), "{from}");
    file("bad.toml", TINY.replacen(from, to, 1))
}

/// Changes the bytes of a file.
fn change(name: &'static str, with: impl Fn(&mut Vec<u8>) + Sync + 'static) -> Damage {
    Box::new(move |dir| {
        let path = dir.join(name);
        let mut bytes = fs::read(&path).expect("a file");
        with(&mut bytes);
        fs::write(&path, bytes).expect("written");
    })
}

/// Changes a field of a JSON file; the field is a JSON pointer.
fn field(name: &'static str, field: &'static str, value: Value) -> Damage {
    change(name, move |bytes| {
        let mut json: Value = serde_json::from_slice(bytes).expect("JSON");
        let (folder, key) = field.rsplit_once('/').expect("a pointer");
        json.pointer_mut(folder).expect("it is there")[key] = value.clone();
        *bytes = serde_json::to_vec(&json).expect("JSON");
    })
}

const CHECKPOINT: &str = "runs/a/checkpoints/step-000004";

/// Changes a checkpoint and makes its checksums agree with that.
fn sealed(damage: Damage) -> Damage {
    Box::new(move |dir| {
        damage(dir);
        let dir = dir.join(CHECKPOINT);
        let names: Vec<String> =
            fs::read_to_string(dir.join("SHA256SUMS")).expect("checksums").lines().map(|l| l[66..].into()).collect();
        let line =
            |name: &String| format!("{}  {name}\n", tensors::sha256(&kiln::disk::Os, &dir.join(name)).expect("a file"));
        let sums: String = names.iter().map(line).collect();
        fs::write(dir.join("SHA256SUMS"), sums).expect("written");
    })
}

/// Changes the JSON of the weights' header. The bytes behind it stay.
fn header(with: impl Fn(String) -> String + Sync + 'static) -> Damage {
    sealed(change("runs/a/checkpoints/step-000004/model.safetensors", move |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let json = with(String::from_utf8(bytes[8..8 + length].to_vec()).expect("UTF-8"));
        let start = (json.len() as u64).to_le_bytes();
        *bytes = [&start, json.as_bytes(), &bytes[8 + length..]].concat();
    }))
}

/// Makes an entry of the file system by a command of the shell.
#[cfg(unix)]
fn sh(script: &'static str) -> Damage {
    Box::new(move |dir| {
        assert!(Command::new("sh").args(["-c", script]).current_dir(dir).status().expect("sh").success())
    })
}

/// The call (`\u{e9}` stands for a byte that is no UTF-8), its exit code, what the error says, and what is bad.
type Case = (&'static str, i32, &'static str, Damage);

const SHARD: &str = "set/train_000.bin";
const ON_SET: &str = "train tiny.toml --data set";
const BAD: &str = "train bad.toml";
const SAMPLE: &str = "sample runs/a/checkpoints/step-000004";
const MODEL: &str = "runs/a/checkpoints/step-000004/model.safetensors";
const CONFIG: &str = "runs/a/checkpoints/step-000004/config.json";
const STATE: &str = "runs/a/checkpoints/step-000004/state.json";

fn shards() -> Vec<Case> {
    vec![
        (ON_SET, 1, "train_000.bin: bytes 8 to 11", change(SHARD, |b| b.truncate(2000))),
        (ON_SET, 1, "train_000.bin: byte 0 (token 0)", change(SHARD, |b| b[0] ^= 1)),
        (ON_SET, 1, "(version): expected 1, found 9", change(SHARD, |b| b[4] = 9)),
        (ON_SET, 1, "(number of tokens)", change(SHARD, |b| b[8] ^= 1)),
        (ON_SET, 1, "train_000.bin: byte 1124 (token 50): expected an id below 256", change(SHARD, |b| b[1125] = 1)),
        (ON_SET, 1, "train_000.bin: size", change(SHARD, |b| b.clear())),
        (ON_SET, 1, "as dataset.json says", change(SHARD, |b| drop(b.drain(..1024)))),
        ("data inspect odd.bin", 1, "odd.bin: bytes 0 to 3", file("odd.bin", "odd")),
        ("data inspect set/train_000.bin --tokenizer ok.txt", 1, "ok.txt: content", nothing()),
        ("data inspect ok.txt", 2, "ok.txt holds no tokens", nothing()),
        (ON_SET, 1, "dataset.json: content", change("set/dataset.json", |b| b.truncate(100))),
        (ON_SET, 1, "dataset.json: content", field("set/dataset.json", "/train/tokens", json!(-1))),
        (ON_SET, 1, "version 99", field("set/dataset.json", "/version", json!(99))),
        (ON_SET, 1, "\"../ok.txt\"", field("set/dataset.json", "/train/shards/0/file", json!("../ok.txt"))),
        (ON_SET, 1, "\"train_000.bin\" twice", field("set/dataset.json", "/val/shards/0/file", json!("train_000.bin"))),
        (ON_SET, 1, "train_000.bin: content", field("set/dataset.json", "/train/shards/0/tokens", json!(7))),
        (ON_SET, 1, "a vocabulary of 1 to", field("set/dataset.json", "/tokenizer/vocab", json!(1u64 << 60))),
        (ON_SET, 1, "a vocabulary of 1 to", field("set/dataset.json", "/tokenizer/vocab", json!(0))),
        (ON_SET, 1, "256 ids", field("set/dataset.json", "/tokenizer/vocab", json!(300))),
        (ON_SET, 1, "an end of documents below 256", field("set/dataset.json", "/tokenizer/eot", json!(256))),
        (
            ON_SET,
            1,
            "tokenizer.json: content: expected the tokenizer that made",
            change("set/tokenizer.json", |b| b.push(b' ')),
        ),
        ("train tiny.toml --data set/train_000.bin", 2, "data.path", nothing()),
        ("data inspect tok.json", 1, "two tokens with the id 98", field("tok.json", "/model/vocab/a", json!(98))),
        (
            "data shard ok.txt --tokenizer t.json --out new",
            1,
            "t.json: content",
            file("t.json", "{\"model\":{\"type\":\"T5\"}}"),
        ),
        ("data shard ok.txt --tokenizer tiny.toml --out new", 1, "tiny.toml: content", nothing()),
        ("data shard ok.txt --tokenizer t.json --out new", 1, "a vocabulary of 0 ids", change_to("tok.json", "t.json")),
    ]
}

/// A tokenizer without a single token.
fn change_to(from: &'static str, to: &'static str) -> Damage {
    Box::new(move |dir| {
        let mut json: Value = serde_json::from_slice(&fs::read(dir.join(from)).expect("a file")).expect("JSON");
        json["model"]["vocab"] = json!({});
        fs::write(dir.join(to), json.to_string()).expect("written");
    })
}

fn recipes() -> Vec<Case> {
    vec![
        (BAD, 2, "model.layer: no such key (bad.toml, line 4)", recipe("layers", "layer")),
        (BAD, 2, "modle: no such key (bad.toml, line 3)", recipe("[model]", "[modle]")),
        (BAD, 2, "train.lr: no such key", recipe("steps = 4", "steps = 4\nlr = 1e-3")),
        (BAD, 2, "model: expected a section", file("bad.toml", "model = 3\n")),
        (BAD, 2, "model", file("bad.toml", "[[model]]\nd = 16\n")),
        (BAD, 2, "model.d: expected a whole number", recipe("d = 16", "d = \"wide\"")),
        (BAD, 2, "model.d: expected a whole number", recipe("d = 16", "d = 1.5")),
        (BAD, 2, "model.d: expected a whole number", recipe("d = 16", "d = -16")),
        (BAD, 2, "train.steps", recipe("steps = 4", "steps = inf")),
        (BAD, 1, "bad.toml: line 7", recipe("d = 16", "d = 16\nd = 17")),
        (BAD, 1, "bad.toml: line 3", file("bad.toml", "[run]\n[model]\n[run]\n")),
        (BAD, 1, "bad.toml: line 6", recipe("d = 16", "d = 99999999999999999999")),
        (BAD, 1, "bad.toml: line 1", file("bad.toml", "layers: 4\n")),
        (BAD, 1, "bad.toml: byte 0: expected UTF-8", file("bad.toml", b"\xff\xfe[")),
        (BAD, 1, "bad.toml: size", file("bad.toml", "# \n".repeat(400_000))),
        (BAD, 1, "bad.toml", file("bad.toml", format!("a = {}", "[".repeat(100_000)))),
        (BAD, 2, "optim.lr: NaN", recipe("warmup", "lr = nan\nwarmup")),
        (BAD, 2, "optim.lr: inf", recipe("warmup", "lr = inf\nwarmup")),
        (BAD, 2, "optim.lr: -1", recipe("warmup", "lr = -1.0\nwarmup")),
        ("train none.toml", 1, "none.toml: No such file", nothing()),
        ("train ok.txt", 2, "ok.txt is no recipe", nothing()),
        ("train --data tiny.toml", 2, "tiny.toml is a recipe", nothing()),
    ]
}

fn preferences() -> Vec<Case> {
    const DPO: &str = "align dpo runs/a --data p.jsonl";
    let lines =
        |line: &str| file("p.jsonl", (0..60).map(|i| line.replace('#', &i.to_string()) + "\n").collect::<String>());
    let pairs = || lines("{\"prompt\": \"#\", \"chosen\": \"a\", \"rejected\": \"b\"}");
    vec![
        ("align dpo runs/a --data none.jsonl", 1, "none.jsonl", nothing()),
        (DPO, 1, "p.jsonl: line 1, column", file("p.jsonl", "{\"prompt\": \n")),
        (DPO, 1, "expected prompt, chosen and rejected", file("p.jsonl", "{\"text\": \"a\"}\n")),
        (DPO, 1, "\"chosen\"", file("p.jsonl", "{\"prompt\": \"a\", \"chosen\": 3, \"rejected\": \"b\"}\n")),
        (
            DPO,
            1,
            "both answers are the same",
            file("p.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n"),
        ),
        (DPO, 1, "\"label\"", file("p.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": \"good\"}\n")),
        (DPO, 2, "model.preference.loss", lines("{\"prompt\": \"#\", \"completion\": \"b\", \"label\": true}")),
        ("align dpo runs/a --data p.jsonl --set model.preference.beta=-1", 2, "model.preference.beta", pairs()),
        ("align dpo runs/a --data p.jsonl --set model.preference.bta=1", 2, "model.preference.bta", pairs()),
        ("align dpo runs/a --data p.jsonl --set model.preference=3", 2, "model.preference", pairs()),
        ("align dpo runs/a --data p.jsonl --set train.context=17", 2, "train.context", pairs()),
        ("align dpo runs/a --data p.jsonl --loss hinge", 2, "--loss", pairs()),
        ("align dpo ok.txt --data p.jsonl", 1, "ok.txt", pairs()),
        ("align dpo --data p.jsonl", 2, "MODEL", pairs()),
        ("align dpo --resume runs/a", 2, "model.kind", nothing()),
        ("align reward runs/a --data p.jsonl --set model.preference.loss=ipo", 2, "model.preference.loss", pairs()),
        ("align score runs/a --data p.jsonl", 1, "score.weight", pairs()),
    ]
}

/// Values of keys, each after `train tiny.toml --set`: all of them are wrong calls.
const KEYS: &[(&str, &str)] = &[
    ("train.steps", "no value"),
    ("=3", "no such key"),
    ("steps=3", "steps: no such key"),
    ("model.layers=0", "model.layers: 0 is out of range"),
    ("model.layers=1000000000000000000", "model.layers: 1000000000000000000 is out of range"),
    ("model.heads=3", "model.d: a width of 16 cannot be divided among 3 heads"),
    ("model.heads=0", "model.heads: 0 is out of range"),
    ("model.d=9223372036854775807", "model.d: 9223372036854775807 is out of range"),
    ("model.d=65536", "model.d: the run needs more than"),
    ("model.dropout=1", "model.dropout"),
    ("model.dropout=nan", "model.dropout"),
    ("model.activation=relu", "model.activation"),
    ("model.kind=rnn", "model.kind"),
    ("model.bias=3", "model.bias: expected true or false"),
    ("train.batch=0", "train.batch: 0 is out of range"),
    ("train.batch=1000000 train.context=1000", "train.batch: the run needs"),
    ("train.context=0", "train.context: 0 is out of range"),
    ("train.context=1000000", "train.context: a window of 1000000 tokens"),
    ("train.context=4611686018427387904", "train.context: 4611686018427387904 is out of range"),
    ("train.accumulate=0", "train.accumulate"),
    ("train.steps=0", "train.steps: 0 is out of range"),
    ("train.steps=9223372036854775807", "train.steps: 9223372036854775807 is out of range"),
    ("train.steps=18446744073709551615", "train.steps: expected a whole number"),
    ("train.keep=0", "train.keep"),
    ("train.precision=f16", "train.precision"),
    ("data.tokenizer=bpe data.vocab=256", "data.vocab: 256 is out of range"),
    ("data.tokenizer=bpe data.vocab=9223372036854775807", "data.vocab: 9223372036854775807 is out of range"),
    ("data.bytes=9", "data.bytes: 9 is out of range"),
    ("data.bytes=9223372036854775807", "data.bytes: 9223372036854775807 is out of range"),
    ("data.seed=-1", "data.seed: expected a whole number"),
    ("data.val_fraction=0", "data.val_fraction"),
    ("data.val_fraction=1", "data.val_fraction"),
    ("data.val_fraction=nan", "data.val_fraction"),
    ("data.split=odd", "data.split"),
    ("data.path=[]", "data.path: the list is empty"),
    ("optim.lr=0", "optim.lr: 0 is out of range"),
    ("optim.lr=1e400", "optim.lr"),
    ("optim.min_lr=1", "optim.min_lr: 1 is out of range"),
    ("optim.beta1=1", "optim.beta1"),
    ("optim.beta2=-0.1", "optim.beta2"),
    ("optim.eps=0", "optim.eps"),
    ("optim.weight_decay=-1", "optim.weight_decay"),
    ("optim.clip=inf", "optim.clip"),
    ("optim.schedule=cosin", "optim.schedule"),
    ("eval.max_batches=0", "eval.max_batches"),
    ("sample.temperature=-1", "sample.temperature"),
    ("sample.top_p=0", "sample.top_p"),
    ("sample.top_k=-1", "sample.top_k: expected a whole number"),
    ("sample.tokens=9223372036854775807", "sample.tokens: 9223372036854775807 is out of range"),
    ("run.name=a/b", "run.name: a/b is out of range"),
    ("run.name=..", "run.name"),
    ("run.name=", "run.name"),
];

fn flags() -> Vec<Case> {
    let wrong: [(&'static str, &'static str); 51] = [
        ("trian", "trian"),
        ("train --stepz 3", "--stepz"),
        ("train a.toml b.toml", "b.toml"),
        ("train --threads 0", "--threads"),
        ("train --threads -1", "-1"),
        ("train --threads 99999", "--threads"),
        ("train --threads two", "--threads"),
        ("train --device abacus", "--device"),
        ("train --resume runs/a tiny.toml", "--resume"),
        ("train tiny.toml --set", "--set"),
        ("sample", "<MODEL>"),
        ("sample runs/a --tokens -1", "-1"),
        ("sample runs/a --tokens 1e3", "--tokens"),
        ("sample runs/a --tokens 99999999999999999999", "--tokens"),
        ("sample runs/a --temperature -1", "--temperature"),
        ("sample runs/a --temperature inf", "--temperature"),
        ("sample runs/a --temperature nan", "--temperature"),
        ("sample runs/a --top-p 0", "--top-p"),
        ("sample runs/a --top-p 1.1", "--top-p"),
        ("sample runs/a --top-k x", "--top-k"),
        ("sample runs/a --seed x", "--seed"),
        ("sample runs/a --num 0.5", "--num"),
        ("data", "subcommand"),
        ("data tokenizer ok.txt --vocab 0", "--vocab"),
        ("data tokenizer ok.txt --vocab 99999999999", "--vocab"),
        ("data tokenizer ok.txt --vocab many", "--vocab"),
        ("data tokenizer ok.txt --kind word", "--kind"),
        ("data shard ok.txt --tokenizer tok.json --out new --val-fraction 0", "--val-fraction"),
        ("data shard ok.txt --tokenizer tok.json --out new --val-fraction nan", "--val-fraction"),
        ("data shard ok.txt --tokenizer tok.json --out new --shard-tokens 0", "--shard-tokens"),
        ("data shard ok.txt --tokenizer tok.json --out new --shard-tokens 9999999999", "--shard-tokens"),
        ("data shard ok.txt --tokenizer tok.json --out new --split-seed x", "--split-seed"),
        ("data shard ok.txt --tokenizer tok.json --out new --format csv", "--format"),
        ("data inspect set --samples 1001", "--samples"),
        ("bench step nano --reps 0", "--reps"),
        ("bench step huge", "huge"),
        ("bench step none.txt", "none.txt"),
        ("bench decode nano --prompt 200 --tokens 57", "256"),
        ("bench gemm --shape 3x4", "--shape 3x4"),
        ("bench gemm --precision f64", "f64"),
        ("bench gemm --only 77x", "--only 77x"),
        ("bench gemm --against jax", "--against jax"),
        ("bench xent --against faer", "faer multiplies matrices"),
        ("bench gelu --against torch:compile", "torch:compile"),
        ("bench data --shard-tokens 5", "--shard-tokens"),
        ("bench roofline --out a.gif", "a.gif"),
        ("review", "nothing to judge"),
        ("review runs/a runs/a --each 2", "--each"),
        ("review runs/a --gold-share 1", "--gold-share"),
        ("review runs/a --reviewer ", "--reviewer"),
        ("review --summary", "is no review"),
    ];
    wrong.into_iter().map(|(call, says)| (call, 2, says, nothing())).collect()
}

fn texts() -> Vec<Case> {
    const ON_BAD: &str = "train tiny.toml --data bad.txt";
    const JSONL: &str = "train tiny.toml --data bad.jsonl";
    vec![
        (ON_BAD, 1, "bad.txt: byte 3: expected UTF-8 text", file("bad.txt", b"caf\xe9 au lait")),
        (ON_BAD, 1, "the sources hold no text", file("bad.txt", "")),
        (ON_BAD, 1, "too little text", file("bad.txt", "a")),
        (ON_BAD, 2, "train.context: a window of 16 tokens", file("bad.txt", "hello")),
        ("train tiny.toml --data none.txt", 1, "none.txt: No such file", nothing()),
        (JSONL, 1, "bad.jsonl: line 3, column", file("bad.jsonl", "{\"text\":\"a\"}\n\n{\"text\":\"b}\n")),
        (JSONL, 1, "bad.jsonl: line 2: expected an object", file("bad.jsonl", "{\"text\":\"a\"}\n{\"txt\":\"b\"}\n")),
        (JSONL, 1, "a number in it", file("bad.jsonl", "{\"text\":1}\n")),
        (JSONL, 1, "bad.jsonl: line 1, column", file("bad.jsonl", "[".repeat(100_000))),
        ("train tiny.toml --data bad.gz", 1, "bad.gz: kind of file", file("bad.gz", b"\x1f\x8b")),
        ("train tiny.toml --data noext", 1, "noext: kind of file", file("noext", "text")),
        ("train tiny.toml --data ok.txt/x", 1, "ok.txt/x: Not a directory", nothing()),
        ("train tiny.toml --set data.tokenizer=none.json", 1, "none.json: No such file", nothing()),
        ("train tiny.toml --set run.dir=ok.txt", 1, "ok.txt: Not a directory", nothing()),
        ("data tokenizer ok.txt --out set", 1, "set: kind of file", nothing()),
        ("data tokenizer ok.txt --out ok.txt/tok.json", 1, "ok.txt/tok.json: Not a directory", nothing()),
        ("data tokenizer ok.txt --out none/tok.json", 1, "none/tok.json: No such file", nothing()),
        ("data shard ok.txt --tokenizer tok.json --out ok.txt", 1, "ok.txt: Not a directory", nothing()),
        ("data inspect runs", 1, "runs/dataset.json: No such file", nothing()),
    ]
}

fn runs() -> Vec<Case> {
    let remove = |name: &'static str| -> Damage {
        Box::new(move |dir| fs::remove_file(dir.join(CHECKPOINT).join(name)).expect("it was there"))
    };
    let only: fn() -> Damage =
        || Box::new(|dir| fs::remove_dir_all(dir.join("runs/a/checkpoints/step-000002")).expect("it was there"));
    let both = |a: Damage, b: Damage| -> Damage {
        Box::new(move |dir| {
            a(dir);
            b(dir);
        })
    };
    let weights = |with: fn(&mut Vec<u8>)| sealed(change(MODEL, with));
    vec![
        ("sample runs/none", 1, "runs/none: there is no checkpoint here", nothing()),
        ("sample set", 1, "set: there is no checkpoint here", nothing()),
        ("train --resume set", 1, "set: no run is here", nothing()),
        ("train --resume runs/a --set model.d=32", 2, "model.d: a run that goes on keeps", nothing()),
        (SAMPLE, 1, "no checkpoint here", remove("model.safetensors")),
        (SAMPLE, 1, "SHA256SUMS: No such file", remove("SHA256SUMS")),
        (SAMPLE, 1, "optim.safetensors: No such file", remove("optim.safetensors")),
        (SAMPLE, 1, "state.json: No such file", remove("state.json")),
        (SAMPLE, 1, "tokenizer.json: No such file", remove("tokenizer.json")),
        (
            "train --resume runs/a --set train.steps=9",
            1,
            "config.json: No such file",
            both(only(), remove("config.json")),
        ),
        (SAMPLE, 1, "model.safetensors: checksum", change(MODEL, |b| b[3000] ^= 1)),
        (SAMPLE, 1, "model.safetensors: checksum", change(MODEL, |b| b.truncate(5000))),
        (SAMPLE, 1, "SHA256SUMS: checksum", change("runs/a/checkpoints/step-000004/SHA256SUMS", |b| b.truncate(70))),
        (SAMPLE, 1, "SHA256SUMS", change("runs/a/checkpoints/step-000004/SHA256SUMS", |b| b[0] = 0xff)),
        (
            SAMPLE,
            1,
            "model.safetensors: start: expected a header",
            weights(|b| b[..8].copy_from_slice(&(1u64 << 40).to_le_bytes())),
        ),
        (SAMPLE, 1, "model.safetensors: header", weights(|b| b[8] = b'[')),
        (SAMPLE, 1, "model.safetensors: header", weights(|b| b[9] = 0xff)),
        (SAMPLE, 1, "model.safetensors: end", weights(|b| b.truncate(b.len() - 1))),
        (SAMPLE, 1, "model.safetensors: end", weights(|b| b.push(0))),
        (
            SAMPLE,
            1,
            "ln_f.bias: expected finite numbers, found NaN",
            weights(|b| {
                let at = b.len() - 4;
                b[at..].copy_from_slice(&f32::NAN.to_le_bytes());
            }),
        ),
        (SAMPLE, 1, "\"ln_f.bias\" twice", header(|json| json.replace("ln_f.weight", "ln_f.bias"))),
        (SAMPLE, 1, "wte.weight: expected a tensor", header(|json| json.replace("wte.weight", "wte.wait"))),
        (SAMPLE, 1, "wte.weight: expected a tensor", header(|json| json.replace("[256,16]", "[16,256]"))),
        (
            SAMPLE,
            1,
            "wte.weight: expected as many bytes",
            header(|json| json.replace("[256,16]", "[4294967296,4294967296]")),
        ),
        (SAMPLE, 1, "wte.weight: expected as many bytes", header(|json| json.replacen("F32", "F16", 1))),
        (
            SAMPLE,
            1,
            "wpe.weight: expected bytes from 16384 on",
            header(|json| json.replace("[16384,17408]", "[16380,17404]")),
        ),
        (
            SAMPLE,
            1,
            "wpe.weight: expected bytes from 16384 on",
            header(|json| json.replace("[16384,17408]", "[16388,17412]")),
        ),
        (SAMPLE, 1, "config.json: line 1", sealed(file(CONFIG, "no JSON"))),
        (SAMPLE, 1, "config.json: size", sealed(file(CONFIG, " ".repeat(2 << 20)))),
        (SAMPLE, 1, "config.json: line 1", sealed(file(CONFIG, "[".repeat(100_000)))),
        (SAMPLE, 1, "config.json: model_type", sealed(field(CONFIG, "/model_type", json!("bert")))),
        (SAMPLE, 1, "config.json: n_layer", sealed(field(CONFIG, "/n_layer", json!(1_000_000_000_000_000_000u64)))),
        (
            SAMPLE,
            1,
            "config.json: n_positions: expected at most",
            sealed(field(CONFIG, "/n_positions", json!(4_000_000_000u64))),
        ),
        (SAMPLE, 1, "config.json: vocab_size", sealed(field(CONFIG, "/vocab_size", json!(0)))),
        (SAMPLE, 1, "config.json: n_layer", sealed(field(CONFIG, "/n_layer", json!(1.5)))),
        (SAMPLE, 1, "config.json: n_embd", sealed(field(CONFIG, "/n_head", json!(3)))),
        (
            SAMPLE,
            1,
            "wte.weight: expected a tensor of shape [200, 16]",
            sealed(field(CONFIG, "/vocab_size", json!(200))),
        ),
        (
            SAMPLE,
            1,
            "tokenizer.json: content",
            sealed(change("runs/a/checkpoints/step-000004/tokenizer.json", |b| b.truncate(999))),
        ),
        (SAMPLE, 1, "state.json: line", sealed(change(STATE, |b| b.truncate(30)))),
        (SAMPLE, 1, "state.json: line", sealed(field(STATE, "/tokens", json!("many")))),
        (SAMPLE, 1, "state.json: step", sealed(field(STATE, "/step", json!(1_000_000_000_000_000_000u64)))),
        (SAMPLE, 1, "state.json: record.step", sealed(field(STATE, "/record/step", json!(3)))),
    ]
}

#[cfg(unix)]
fn special_files() -> Vec<Case> {
    vec![
        (ON_SET, 1, "train_000.bin: kind of file", sh("rm set/train_000.bin; mkdir set/train_000.bin")),
        (ON_SET, 1, "train_000.bin: kind of file", sh("rm set/train_000.bin; mkfifo set/train_000.bin")),
        (ON_SET, 1, "train_000.bin: kind of file", sh("ln -sf /dev/zero set/train_000.bin")),
        (ON_SET, 1, "train_000.bin: Too many levels", sh("ln -sf train_000.bin set/train_000.bin")),
        (ON_SET, 1, "tokenizer.json: kind of file", sh("rm set/tokenizer.json; mkfifo set/tokenizer.json")),
        (BAD, 1, "bad.toml: kind of file", sh("mkfifo bad.toml")),
        (BAD, 1, "bad.toml: Is a directory", sh("mkdir bad.toml")),
        ("train tiny.toml --data bad.txt", 1, "bad.txt: kind of file", sh("mkfifo bad.txt")),
        ("train tiny.toml --data bad.txt", 1, "bad.txt: Too many levels", sh("ln -s bad.txt bad.txt")),
        (
            "train tiny.toml --data texts",
            1,
            "texts/out.txt: symbolic link",
            sh("mkdir texts; ln -s ../ok.txt texts/out.txt"),
        ),
        ("train tiny.toml --data texts", 1, "hold no text", sh("mkdir texts")),
        ("train tiny.toml --data caf\u{e9}.txt", 2, "data.path", sh("cp ok.txt \"$(printf 'caf\\351.txt')\"")),
        ("train caf\u{e9}.toml", 1, "No such file", nothing()),
        ("train tiny.toml --set run.name=caf\u{e9}", 2, "UTF-8", nothing()),
        ("data tokenizer ok.txt --out /dev/full", 1, "/dev/full: kind of file", nothing()),
        ("data inspect /dev/zero", 1, "/dev/zero: kind of file", nothing()),
        (
            SAMPLE,
            1,
            "config.json: Is a directory",
            sh("cd runs/a/checkpoints/step-000004; rm config.json; mkdir config.json"),
        ),
        ("train tiny.toml --set run.dir=/proc/none", 1, "/proc/none", nothing()),
    ]
}

/// What a command writes, at most what a pipe holds, and how it ends; nothing where it does not end, as one that waits for
/// a pipe, and is killed.
fn within_a_minute(command: &mut Command) -> Option<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    for _ in 0..6000 {
        if child.try_wait().expect("it is ours").is_some() {
            return Some(child.wait_with_output().expect("it has ended"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// What is wrong with how the program took the case; nothing if all is well.
fn faults((call, exit, says, damage): &Case) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    copy(GOOD.path(), dir.path());
    damage(dir.path());
    let before = snapshot(dir.path());
    let mut command = kiln(dir.path());
    command
        .args(call.split(' ').map(argument))
        .args(["--threads", "1"].iter().take(2 * usize::from(!call.contains("--threads"))));
    let Some(output) = within_a_minute(&mut command) else { return vec![format!("kiln {call}: did not end")] };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let after = snapshot(dir.path());
    let changed: Vec<_> =
        after.iter().filter(|(path, content)| before.get(*path) != Some(content)).map(|c| c.0).collect();
    let gone: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
    let lines: Vec<&str> = err.lines().collect();
    // The work that was under way is announced.
    let announced = ["learning the tokenizer", "tokenising", "reading preferences"];
    let shown = out.lines().filter(|line| !announced.contains(line)).count();
    let checks = [
        (output.status.code() == Some(*exit), format!("exit {:?} instead of {exit}", output.status)),
        (
            lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: "),
            "not an error and a hint".into(),
        ),
        (lines.first().is_some_and(|line| line.contains(says)), format!("not a word of {says:?}")),
        (!err.contains("panicked"), "a panic".into()),
        (shown == 0, format!("on standard output: {out}")),
        (changed.is_empty(), format!("made or changed: {changed:?}")),
        (gone.is_empty(), format!("gone: {gone:?}")),
    ];
    checks.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| format!("kiln {call}: {fault}\n{err}")).collect()
}

/// `\u{e9}` becomes the byte 0xE9, which is no UTF-8.
#[cfg(unix)]
fn argument(text: &str) -> OsString {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(
        text.chars().flat_map(|c| if c == '\u{e9}' { vec![0xe9] } else { c.to_string().into() }).collect(),
    )
}

#[cfg(not(unix))]
fn argument(text: &str) -> OsString {
    text.into()
}

#[cfg(unix)]
#[test]
fn a_full_disk_a_full_pipe_and_a_locked_file_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    copy(GOOD.path(), dir.path());
    let full = fs::File::options().write(true).open("/dev/full");
    if let Ok(full) = full {
        let output = kiln(dir.path()).args(["data", "inspect", "set"]).stdout(full).output().expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.starts_with("error: standard output: No space left") && err.contains("\nhint: "), "{err}");
    } else {
        println!("skipped: there is no /dev/full");
    }
    // A limit on the size of files stands in for a disk that is full. It counts in blocks of 512 or 1024 bytes.
    let before = snapshot(dir.path());
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" data shard ok.txt --tokenizer tok.json --out new";
    let mut command = Command::new("sh");
    command.current_dir(dir.path()).args(["-c", script, env!("CARGO_BIN_EXE_kiln")]);
    let output = command.output().expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.starts_with("error: new/train_000.bin: File too large") && err.contains("\nhint: "), "{err}");
    let mut after = snapshot(dir.path());
    after.remove(&dir.path().join("new"));
    assert!(after == before, "{:?}", after.keys());

    sh("chmod 000 ok.txt")(dir.path());
    if fs::read(dir.path().join("ok.txt")).is_ok() {
        println!("skipped: this user may read every file");
        return;
    }
    let output = kiln(dir.path()).args(["train", "--data", "ok.txt"]).output().expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.starts_with("error: ok.txt: Permission denied") && err.contains("\nhint: "), "{err}");
}

#[test]
fn bad_inputs_give_one_error_that_names_them_and_change_nothing() {
    let mut cases: Vec<Case> =
        [shards(), recipes(), preferences(), flags(), texts(), runs()].into_iter().flatten().collect();
    for (set, says) in KEYS {
        let call = format!("train tiny.toml --set {}", set.replace(' ', " --set "));
        cases.push((call.leak(), 2, says, nothing()));
    }
    #[cfg(unix)]
    cases.extend(special_files());
    let next = AtomicUsize::new(0);
    let work = || -> Vec<String> {
        std::iter::from_fn(|| cases.get(next.fetch_add(1, Relaxed)).map(faults)).flatten().collect()
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no case panics")).collect()
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() > 200);
}
