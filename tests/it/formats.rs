//! Models of other programs, read and written: against `transformers` and gguf-py by the numbers of
//! `tests/reference/models.py`, and damaged in many ways.

use crate::gpt::{close, read};
use kiln::data::{Document, Tokenizer};
use kiln::device::Device;
use kiln::error::Result;
use kiln::formats::convert::{Target, convert};
use kiln::formats::{self, Format, Pretrained};
use kiln::model::{GptConfig, Mlp, Positions, Size};
use kiln::params::Hold;
use kiln::rng::{Purpose, Rng, Stream};
use kiln::tape::{Pass, Tape};
use kiln::tensor::Tensor;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn models() -> SafeTensors<'static> {
    SafeTensors::deserialize(include_bytes!("../fixtures/models.safetensors")).expect("a fixture")
}

fn gguf() -> SafeTensors<'static> {
    SafeTensors::deserialize(include_bytes!("../fixtures/gguf.safetensors")).expect("a fixture")
}

/// The JSON of a fixture.
pub fn about(bytes: &[u8]) -> Value {
    let (_, metadata) = SafeTensors::read_metadata(bytes).expect("a fixture");
    serde_json::from_str(&metadata.metadata().as_ref().expect("metadata")["fixture"]).expect("JSON")
}

/// The weights of the fixture's model `seed`, as `models.py` draws them.
fn weight(seed: u64, k: u32, name: &str, shape: &[usize]) -> Vec<f32> {
    let stream = Stream::new(seed, Purpose::Test, k, 0);
    let numbers = (0..shape.iter().product::<usize>() as u64).map(|i| stream.uniform(i) - 0.5);
    match (name.ends_with("weight"), shape.len()) {
        (true, 1) => numbers.map(|x| 1.0 + 0.25 * x).collect(),
        (_, 1) => numbers.map(|x| 0.25 * x).collect(),
        _ => numbers.map(|x| 0.5 * x).collect(),
    }
}

/// Writes tensors as safetensors.
fn save(path: &Path, tensors: &[(String, Vec<usize>, Dtype, Vec<u8>)]) {
    let views = tensors.iter().map(|(name, shape, dtype, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("a size that fits"))
    });
    std::fs::write(path, safetensors::serialize(views, None).expect("sound")).expect("written");
}

/// The numbers of a tensor in a type of files.
fn bytes(x: &[f32], dtype: Dtype) -> Vec<u8> {
    let mut bytes = Vec::new();
    match dtype {
        Dtype::F16 => Format::F16.encode(x, &mut bytes),
        Dtype::BF16 => Format::Bf16.encode(x, &mut bytes),
        _ => Format::F32.encode(x, &mut bytes),
    }
    bytes
}

type Tensors = Vec<(String, Vec<usize>, Dtype, Vec<u8>)>;

/// Model `seed` of the fixture as a directory that `transformers` might have written.
fn directory(dir: &Path, seed: u64, entry: &Value) -> Tensors {
    std::fs::create_dir_all(dir).expect("a folder");
    std::fs::write(dir.join("config.json"), entry["config"].to_string()).expect("written");
    let mut tensors = Vec::new();
    for (k, tensor) in entry["tensors"].as_array().expect("a list").iter().enumerate() {
        let name = tensor[0].as_str().expect("a name").to_owned();
        let shape: Vec<usize> = serde_json::from_value(tensor[1].clone()).expect("a shape");
        let x = bytes(&weight(seed, k as u32, &name, &shape), Dtype::F32);
        tensors.push((name, shape, Dtype::F32, x));
    }
    save(&dir.join("model.safetensors"), &tensors);
    tensors
}

/// Logits of the fixture's ids for model `seed`.
fn logits(model: &Pretrained, seed: u64, length: usize) -> Vec<f32> {
    let device = Device::cpu(2).expect("a CPU");
    let (gpt, params) = model.load(Hold::Frozen, &device).expect("weights");
    let stream = Stream::new(seed, Purpose::Test, 1000, 0);
    let ids: Vec<i32> = (0..length as u64).map(|i| (stream.uniform(i) * model.config.vocab as f32) as i32).collect();
    let mut tape = Tape::new(&device);
    tape.begin(&params, Pass::default());
    let x = tape.constant(Tensor::from_slice(&device, &ids, [1, length]));
    tape.no_grad(|| gpt.logits(x).value().f32().to_vec())
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The message of an error that says what to do.
fn refused(result: Result<Pretrained>) -> String {
    let error = result.expect_err("a refusal");
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    error.to_string()
}

fn written(model: &Pretrained, out: &Path, format: Option<Format>) -> Result<formats::convert::Written> {
    convert(model, out, Target::of(out), format, &mut |_, _| {})
}

/// Where `KILN_MODELS_OUT` is set, directories go there, for `models.py --back`.
#[test]
fn models_of_transformers_have_its_logits_and_come_back_bit_for_bit() {
    let (file, about) = (models(), about(include_bytes!("../fixtures/models.safetensors")));
    let temporary = tempfile::tempdir().expect("a folder");
    let out = std::env::var_os("KILN_MODELS_OUT").map_or(temporary.path().to_owned(), PathBuf::from);
    let (mut gguf, mut llmc) = (0, 0);
    for (seed, entry) in about.as_array().expect("a list").iter().enumerate() {
        let dir = temporary.path().join(format!("in-{seed}"));
        directory(&dir, seed as u64, entry);
        let model = formats::open(&dir).expect("a model");
        let (shape, want) = read(&file, &format!("{seed}.logits"));
        let ours = logits(&model, seed as u64, shape[1]);
        close(&format!("model {seed}, {:?}", model.config), &ours, &want, 1e-5, 0.0);

        for name in ["hf", "model.gguf", "model.bin"] {
            let path = out.join(format!("{seed:02}-{name}"));
            match written(&model, &path, None) {
                Ok(_) => {}
                // What these files cannot say.
                Err(e) if name != "hf" && e.exit_code() == 2 => continue,
                Err(e) => panic!("{seed} as {name}: {e}"),
            }
            (gguf, llmc) = (gguf + usize::from(name == "model.gguf"), llmc + usize::from(name == "model.bin"));
            let again = formats::open(&path).expect("what was written");
            assert_eq!(bits(&logits(&again, seed as u64, shape[1])), bits(&ours), "{seed} as {name}");
        }
    }
    assert!(gguf >= 14, "{gguf} as GGUF");
    // llm.c has a single kind of model.
    let config = GptConfig::gpt2(Size { vocab: 130, context: 9, layers: 2, heads: 3, d: 12 });
    let dir = temporary.path().join("plain");
    let entry = plain(&config);
    directory(&dir, 5, &entry);
    let model = formats::open(&dir).expect("a model");
    let ours = logits(&model, 5, 9);
    for (format, version) in [(Format::F32, 3), (Format::Bf16, 5)] {
        let path = temporary.path().join(format!("plain-{version}.bin"));
        written(&model, &path, Some(format)).expect("written");
        let file = std::fs::read(&path).expect("a file");
        assert_eq!(file[4..8], i32::to_le_bytes(version));
        let again = formats::open(&path).expect("a checkpoint");
        if format == Format::F32 {
            assert_eq!(bits(&logits(&again, 5, 9)), bits(&ours));
        }
        let once_more = temporary.path().join(format!("again-{version}.bin"));
        written(&again, &once_more, None).expect("written");
        assert_eq!(std::fs::read(&once_more).expect("a file"), file, "out and in again");
    }
    let _ = llmc;
}

/// A GPT-2 and the names of its tensors, as `models.py` lists them.
fn plain(config: &GptConfig) -> Value {
    let (_, decls) = kiln::model::Gpt::new(config.clone());
    let tensors: Vec<Value> = decls
        .iter()
        .flat_map(|decl| decl.images())
        .map(|image| {
            let mut shape = image.shape.to_vec();
            if image.transposed {
                shape.reverse();
            }
            json!([image.name, shape])
        })
        .collect();
    json!({"config": config.to_json(), "tensors": tensors})
}

#[test]
fn other_peoples_names_files_and_types_are_read() {
    let about = about(include_bytes!("../fixtures/models.safetensors"));
    let temporary = tempfile::tempdir().expect("a folder");
    let tied = |kind: &str| {
        let all = about.as_array().expect("a list").iter().enumerate();
        let fits = |(_, entry): &(usize, &Value)| {
            entry["config"]["model_type"] == kind && entry["config"]["tie_word_embeddings"] == true
        };
        all.into_iter().find(fits).expect("a tied model")
    };
    for kind in ["gpt2", "llama"] {
        let (seed, entry) = tied(kind);
        let dir = temporary.path().join(kind);
        let tensors = directory(&dir, seed as u64, entry);
        let file = dir.join("model.safetensors");
        let length = 7;
        let ours = logits(&formats::open(&dir).expect("a model"), seed as u64, length);
        let same = |what: &str| {
            let model = formats::open(&dir).unwrap_or_else(|e| panic!("{kind}: {what}: {e}"));
            assert_eq!(bits(&logits(&model, seed as u64, length)), bits(&ours), "{kind}: {what}");
        };
        // Without the prefix, with old files' masks, and with the head that is the embedding.
        let prefix = if kind == "gpt2" { "transformer." } else { "model." };
        let mut bare: Tensors = tensors.clone();
        bare.iter_mut().for_each(|tensor| tensor.0 = tensor.0.replacen(prefix, "", 1));
        save(&file, &bare);
        same("bare names");
        let block = if kind == "gpt2" { "h.0.attn.bias" } else { "layers.0.self_attn.rotary_emb.inv_freq" };
        bare.push((block.to_owned(), vec![1, 1, 2, 2], Dtype::U8, vec![1; 4]));
        let table =
            bare.iter().find(|tensor| tensor.0.starts_with("wte") || tensor.0.starts_with("embed")).expect("one");
        let head = ("lm_head.weight".to_owned(), table.1.clone(), table.2, table.3.clone());
        bare.push(head.clone());
        save(&file, &bare);
        same("with more in the file");
        // A head of its own counts, as in `transformers`.
        let zeros = vec![0; head.3.len()];
        bare.last_mut().expect("the head").3 = zeros;
        save(&file, &bare);
        let untied = formats::open(&dir).expect("a model");
        assert!(!untied.config.tied && logits(&untied, 1, 3).iter().all(|x| *x == 0.0));

        // In shards.
        std::fs::remove_file(&file).expect("removed");
        let mut map = HashMap::new();
        for (i, part) in tensors.chunks(tensors.len().div_ceil(3)).enumerate() {
            let name = format!("model-{i:05}-of-00003.safetensors");
            save(&dir.join(&name), part);
            map.extend(part.iter().map(|tensor| (tensor.0.clone(), name.clone())));
        }
        let index = dir.join("model.safetensors.index.json");
        std::fs::write(&index, json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string()).expect("written");
        same("in shards");
        map.insert("more".into(), "model-00000-of-00003.safetensors".into());
        std::fs::write(&index, json!({"weight_map": map}).to_string()).expect("written");
        assert!(refused(formats::open(&dir)).contains("more: expected a tensor, as the index says"));
        map.remove("more");
        let first = tensors[0].0.clone();
        map.insert(first, "../x.safetensors".into());
        std::fs::write(&index, json!({"weight_map": map}).to_string()).expect("written");
        assert!(refused(formats::open(&dir)).contains("names of safetensors files beside it"));
        std::fs::remove_file(&index).expect("removed");

        // In half precision: the values are those of f32, so writing them out loses nothing.
        for (dtype, format) in [(Dtype::F16, Format::F16), (Dtype::BF16, Format::Bf16)] {
            let narrow: Tensors = tensors
                .iter()
                .enumerate()
                .map(|(k, (name, shape, ..))| {
                    (name.clone(), shape.clone(), dtype, bytes(&weight(seed as u64, k as u32, name, shape), dtype))
                })
                .collect();
            save(&file, &narrow);
            let model = formats::open(&dir).expect("a model");
            let half = logits(&model, seed as u64, length);
            assert_ne!(bits(&half), bits(&ours));
            let out = temporary.path().join(format!("{kind}-{dtype:?}"));
            assert_eq!(written(&model, &out, None).expect("written").format, format);
            let again = formats::open(&out).expect("a model");
            assert_eq!(bits(&logits(&again, seed as u64, length)), bits(&half));
            let max = ours.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            assert!(half.iter().zip(&ours).all(|(a, b)| (a - b).abs() < 0.05 * max));
        }
    }
}

#[test]
fn directories_that_contradict_themselves_are_refused() {
    let about = about(include_bytes!("../fixtures/models.safetensors"));
    let temporary = tempfile::tempdir().expect("a folder");
    let dir = temporary.path();
    let tensors = directory(dir, 1, &about[1]);
    let file = dir.join("model.safetensors");
    let with = |change: &dyn Fn(&mut Tensors)| {
        let mut changed = tensors.clone();
        change(&mut changed);
        save(&file, &changed);
        refused(formats::open(dir))
    };
    assert!(with(&|all| drop(all.remove(1))).contains("found none of that name"));
    assert!(with(&|all| all.push(("z".into(), vec![1], Dtype::F32, vec![0; 4]))).contains("also z"));
    assert!(with(&|all| all[1].2 = Dtype::I32).contains("in F32, F16 or BF16, found shape"));
    assert!(with(&|all| all[1].1.insert(0, 1)).contains("a tensor of shape"));
    save(&file, &tensors);
    let config = |change: &dyn Fn(&mut Value)| {
        let mut json = about[1]["config"].clone();
        change(&mut json);
        std::fs::write(dir.join("config.json"), json.to_string()).expect("written");
        refused(formats::open(dir))
    };
    assert!(config(&|json| json["num_hidden_layers"] = json!(4_000_000_000u64)).contains("size: expected"));
    assert!(config(&|json| json["vocab_size"] = json!(1u64 << 31)).contains("size: expected"));
    assert!(config(&|json| json["model_type"] = json!("mamba")).contains("model_type"));
    assert!(config(&|json| json["max_position_embeddings"] = json!(1u64 << 31)).contains("at most"));
    std::fs::remove_file(dir.join("config.json")).expect("removed");
    assert!(refused(formats::open(dir)).contains("config.json"));
    std::fs::write(dir.join("x.txt"), "what is this").expect("written");
    assert!(refused(formats::open(&dir.join("x.txt"))).contains("expected a model"));
}

#[test]
fn blocks_have_the_values_and_codes_of_gguf_py() {
    let file = gguf();
    let all = [Format::F16, Format::Bf16, Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q4K, Format::Q6K];
    for format in all {
        let name = format.code().1;
        let (_, want) = read(&file, &format!("{name}.values"));
        let bytes = file.tensor(&format!("{name}.bytes")).expect("bytes").data().to_vec();
        let mut got = vec![0.0; want.len()];
        format.decode(&bytes, &mut got);
        let want: Vec<f32> = want.iter().map(|&x| x as f32).collect();
        assert_eq!(bits(&got), bits(&want), "{name}");
        if format.block().0 == 1 {
            let mut again = Vec::new();
            format.encode(&got, &mut again);
            assert_eq!(again, bytes, "{name}");
        }
    }
    let x: Vec<f32> = read(&file, "Q8_0.x").1.iter().map(|&x| x as f32).collect();
    let mut codes = Vec::new();
    Format::Q8_0.encode(&x, &mut codes);
    assert_eq!(codes, file.tensor("Q8_0.encoded").expect("bytes").data());
}

/// The file that gguf-py wrote, on disk.
fn gguf_file(dir: &Path) -> PathBuf {
    let path = dir.join("small.gguf");
    std::fs::write(&path, gguf().tensor("file").expect("bytes").data()).expect("written");
    path
}

#[test]
fn a_file_of_gguf_py_has_the_logits_of_transformers_and_the_ids_of_its_tokenizer() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = formats::open(&gguf_file(dir.path())).expect("a model");
    let Positions::Rope { theta, scaling } = model.config.positions else { panic!("a Llama") };
    assert_eq!((theta, model.config.eps, model.config.kv_heads, model.config.tied), (5e5, 1e-5, 2, true));
    assert_eq!(format!("{scaling:?}"), "Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 }");
    let (shape, want) = read(&gguf(), "file.logits");
    let ours = logits(&model, 77, shape[1]);
    close("a GGUF file", &ours, &want, 1e-5, 0.0);

    let text = about(include_bytes!("../fixtures/gguf.safetensors"))["text"].as_str().expect("a text").to_owned();
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let ids: Vec<u32> = read(&gguf(), "text.ids").1.iter().map(|&id| id as u32).collect();
    assert_eq!(tokenizer.encode_with_special(&text).expect("ids"), ids);
    assert_eq!((tokenizer.start(), tokenizer.ends()), (Some(0), &[0][..]));
    assert_eq!(tokenizer.chat_template().as_deref(), Some("{{ messages[0].content }}"));

    // Quantised weights come out as f32, and go on as the same values.
    for name in ["out", "out.gguf"] {
        let out = dir.path().join(name);
        assert_eq!(written(&model, &out, None).expect("written").format, Format::F32);
        let again = formats::open(&out).expect("a model");
        assert_eq!(bits(&logits(&again, 77, shape[1])), bits(&ours), "{name}");
        let tokenizer = again.tokenizer().expect("a tokenizer");
        assert_eq!(tokenizer.encode_with_special(&text).expect("ids"), ids, "{name}");
        assert_eq!(tokenizer.chat_template().as_deref(), Some("{{ messages[0].content }}"));
        assert_eq!(again.config, model.config);
    }
    let out = dir.path().join("q8.gguf");
    let small = written(&model, &out, Some(Format::Q8_0)).expect("written");
    assert!(small.bytes < small.parameters * 5 / 4);
    close("in q8_0", &logits(&formats::open(&out).expect("a model"), 77, shape[1]), &want, 0.03, 0.0);
    let message = written(&model, &dir.path().join("q8"), Some(Format::Q8_0)).unwrap_err().to_string();
    assert!(message.contains("no q8_0"), "{message}");
    let message = written(&model, &dir.path().join("x.bin"), None).unwrap_err().to_string();
    assert!(message.contains("llm.c has GPT-2 only"), "{message}");
    let message = written(&model, &out, None).unwrap_err().to_string();
    assert!(message.contains("is there already"), "{message}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").map(|e| e.expect("one").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn what_a_format_cannot_hold_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = GptConfig::gpt2(Size { vocab: 9, context: 4, layers: 1, heads: 1, d: 4 });
    let mut tensors = directory(&dir.path().join("a"), 3, &plain(&config));
    tensors[0].3[..4].copy_from_slice(&1e6f32.to_le_bytes());
    save(&dir.path().join("a/model.safetensors"), &tensors);
    let model = formats::open(&dir.path().join("a")).expect("a model");
    let message = written(&model, &dir.path().join("half"), Some(Format::F16)).unwrap_err().to_string();
    assert!(message.contains("wte.weight: 1000000 is too large for F16"), "{message}");
    assert!(!dir.path().join("half").exists());
    tensors[0].3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    save(&dir.path().join("a/model.safetensors"), &tensors);
    let model = formats::open(&dir.path().join("a")).expect("the header is fine");
    let message = written(&model, &dir.path().join("b"), None).unwrap_err().to_string();
    assert!(message.contains("wte.weight: expected finite numbers"), "{message}");
}

#[test]
fn a_model_is_converted_and_sampled_by_the_program() {
    let dir = tempfile::tempdir().expect("a folder");
    gguf_file(dir.path());
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kiln"));
        let output = command.current_dir(dir.path()).args(args).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, text, error) = run(&["convert", "small.gguf", "--out", "deep/hf", "--dtype", "bf16"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(text.starts_with("model  deep/hf (hf, bf16: ") && text.ends_with("next: kiln sample deep/hf\n"), "{text}");
    let (code, text, _) = run(&["convert", "deep/hf", "--out", "again.gguf", "--json"]);
    let object: Value = serde_json::from_str(&text).expect("an object");
    assert_eq!((code, &object["to"], &object["dtype"]), (Some(0), &json!("gguf"), &json!("bf16")));
    let sample = |model: &str| {
        let (code, text, error) = run(&["sample", model, "--prompt", "The", "--tokens", "5", "--json"]);
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str::<Value>(&text).expect("an object")["samples"].clone()
    };
    assert_eq!(sample("deep/hf"), sample("again.gguf"));
    sample("small.gguf");
    let (code, _, error) = run(&["convert", "small.gguf", "--out", "again.gguf"]);
    assert!(code == Some(2) && error.contains("is there already") && error.contains("hint: "), "{error}");
    std::fs::remove_file(dir.path().join("deep/hf/tokenizer.json")).expect("removed");
    let (code, _, error) = run(&["sample", "deep/hf"]);
    assert!(code == Some(1) && error.contains("tokenizer: expected a tokenizer.json"), "{error}");
    let (code, _, error) = run(&["sample", "again.gguf", "--grid", "2x2"]);
    assert!(code == Some(2) && error.contains("writes text and draws no pictures"), "{error}");
}

#[test]
fn new_tokens_have_the_mean_of_their_pieces_rows_and_nothing_else_changes() {
    let temporary = tempfile::tempdir().expect("a folder");
    let document = |text: &str| Ok(Document { text: text.to_owned(), ..Document::default() });
    let general = "the man and the woman went to the sea and sat on the sand then they ran to the man";
    let domain = "the phosphatase and the kinase; the kinase and a phosphatase: phosphatase kinase";
    let tokenizer = Tokenizer::train_bpe([document(general)].into_iter(), 270, &|_| {}).expect("a tokenizer");
    let ids = tokenizer.vocab_size();
    let size = |vocab| Size { vocab, context: 8, layers: 1, heads: 2, d: 8 };
    // Tied, with rows to spare; with a head of its own, and none.
    for (i, config) in [GptConfig::gpt2(size(ids + 5)), GptConfig::llama(size(ids))].into_iter().enumerate() {
        let (dir, out) = (temporary.path().join(format!("in-{i}")), temporary.path().join(format!("out-{i}")));
        directory(&dir, 3, &plain(&config));
        tokenizer.save(dir.join("tokenizer.json")).expect("written");
        let base = formats::open(&dir).expect("a model");
        let wider = formats::open(&dir).expect("a model");
        let wider = wider.extended([document(domain)].into_iter(), 9, &|_| {}).expect("more tokens");
        written(&wider, &out, None).expect("written");
        let wider = formats::open(&out).expect("what was written");
        let more = wider.need_tokenizer().expect("it came along");
        assert_eq!((more.vocab_size(), wider.config.vocab), (ids + 9, (config.vocab).max(ids + 9)));

        let device = Device::cpu(1).expect("a CPU");
        let [was, is] = [&base, &wider].map(|model| model.load(Hold::Frozen, &device).expect("weights").1);
        let mut tables = 0;
        for id in is.ids() {
            let (name, row) = (is.name(id), config.d);
            let [was, is] = [(&was, was.find(name).expect("as before")), (&is, id)]
                .map(|(params, id)| params.weight(id).read::<f32>().into_owned());
            if was.len() == is.len() && was == is {
                continue;
            }
            tables += 1;
            assert_eq!(bits(&is[..ids * row]), bits(&was[..ids * row]), "{name}");
            for new in ids..ids + 9 {
                let pieces = tokenizer.encode(&more.decode(&[new as u32])).expect("text");
                assert!(pieces.len() > 1, "{pieces:?}");
                for j in 0..row {
                    let mean: f32 =
                        pieces.iter().map(|&piece| was[piece as usize * row + j]).sum::<f32>() / pieces.len() as f32;
                    assert!((is[new * row + j] - mean).abs() < 1e-6, "{name}, token {new}");
                }
            }
        }
        assert_eq!(tables, if config.tied { 1 } else { 2 });
    }
}

/// Files with a few bytes changed, cut or doubled: read or refused with a hint, and what is read can be used. `KILN_FUZZ_ROUNDS`
/// for each (40).
#[test]
fn damaged_files_are_read_or_refused() {
    let rounds: u32 = std::env::var("KILN_FUZZ_ROUNDS").map_or(40, |n| n.parse().expect("a number"));
    let temporary = tempfile::tempdir().expect("a folder");
    let (root, about) = (temporary.path(), about(include_bytes!("../fixtures/models.safetensors")));
    let gguf = gguf_file(root);
    let opened = formats::open(&gguf).expect("a model");
    let hf = root.join("hf");
    written(&opened, &hf, Some(Format::Bf16)).expect("written");
    directory(&root.join("gpt2"), 0, &about[0]);
    let config = GptConfig::gpt2(Size { vocab: 9, context: 4, layers: 1, heads: 1, d: 4 });
    directory(&root.join("plain"), 3, &plain(&config));
    let llmc = root.join("plain.bin");
    written(&formats::open(&root.join("plain")).expect("a model"), &llmc, None).expect("written");
    let files = [
        (gguf.clone(), gguf.clone(), 9000),
        (hf.join("model.safetensors"), hf.clone(), 3000),
        (hf.join("tokenizer.json"), hf.clone(), usize::MAX),
        (hf.join("config.json"), hf.clone(), usize::MAX),
        (hf.join("tokenizer_config.json"), hf.clone(), usize::MAX),
        (root.join("gpt2/model.safetensors"), root.join("gpt2"), 1500),
        (llmc.clone(), llmc.clone(), 64),
    ];
    let (mut read, mut not) = (0, 0);
    for (n, (file, model, head)) in files.iter().enumerate() {
        let good = std::fs::read(file).expect("a file");
        let mut rng = Rng::new(7, Purpose::Test, n as u32, 0);
        let mut below = |n: usize| rng.below(n.max(1) as u32) as usize;
        for _ in 0..rounds {
            let mut bytes = good.clone();
            for _ in 0..=below(3) {
                // Mostly in the header.
                let end = if below(8) > 0 { bytes.len().min(*head) } else { bytes.len() };
                let at = below(end);
                match below(6) {
                    0 => bytes.truncate(at),
                    1 => bytes.extend_from_within(at..(at + below(9)).min(bytes.len())),
                    2 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0xff),
                    3 => drop(bytes.splice(at..(at + below(9)).min(bytes.len()), [])),
                    _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << below(8)),
                }
            }
            std::fs::write(file, &bytes).expect("written");
            match formats::open(model) {
                Err(e) => {
                    not += 1;
                    assert!(e.hint().is_some_and(|hint| !hint.is_empty()), "no hint: {e}");
                }
                Ok(model) => {
                    read += 1;
                    // A context of millions is a table of them.
                    if model.config.context < 1 << 12 {
                        let _ = model
                            .load(Hold::Frozen, &Device::cpu(1).expect("a CPU"))
                            .map_err(|e| assert!(e.hint().is_some()));
                    }
                    let tokenizer: Option<&Tokenizer> = model.tokenizer();
                    tokenizer.map(|tokenizer| tokenizer.encode_with_special("The <|end|> of 2010"));
                }
            }
        }
        std::fs::write(file, &good).expect("written");
    }
    assert!(read > 0 && not > 2 * rounds as usize, "{read} read, {not} refused");
}

/// A model whose parts no other program has is still kiln's own.
#[test]
fn heads_wider_than_the_stream_divided_are_learnt_and_read() {
    let size = Size { vocab: 20, context: 8, layers: 2, heads: 2, d: 12 };
    let config = GptConfig { head_dim: 10, kv_heads: 1, ..GptConfig::llama(size) };
    assert_eq!((config.qkv_parts(), config.mlp), ([20, 10, 10], Mlp::SwiGlu));
    let device = Device::cpu(1).expect("a CPU");
    let (gpt, decls) = kiln::model::Gpt::new(config.clone());
    let params = kiln::params::Params::new(&device, &decls, 1);
    assert_eq!(params.numel() as f64, config.parameters());
    let mut tape = Tape::new(&device);
    let ids = Tensor::from_slice(&device, &[1, 2, 3, 4, 5, 6, 7, 8], [1, 8]);
    tape.begin(&params, Pass::default());
    let whole = tape.no_grad(|| gpt.logits(tape.constant(ids.clone())).value().f32().to_vec());
    let mut cache = kiln::model::Cache::with_room(&device, gpt.config(), 8);
    let part = kiln::model::Part { ids: &[1, 2, 3, 4, 5, 6, 7, 8], want: 8, cache: &mut cache };
    let cached = gpt.logits_cached(&tape, &mut [part]).f32().to_vec();
    assert_eq!(bits(&whole), bits(&cached));
}
