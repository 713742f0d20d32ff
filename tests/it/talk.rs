//! `kiln chat` as a program: questions by a pipe, its commands, what it writes down.

use kiln::cpu::Simd;
use kiln::data::Tokenizer;
use kiln::device::Device;
use kiln::disk::Os;
use kiln::formats::tensors;
use kiln::model::{Gpt, GptConfig, Size};
use kiln::params::Params;
use kiln::train::checkpoint::weights;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Talks with a small model of random weights in `dir`.
fn chat(dir: &Path, args: &[&str], lines: &str) -> Output {
    let model = dir.join("model");
    std::fs::create_dir_all(&model).expect("a folder");
    let device = Device::cpu_with(Simd::detect().expect("a level"), 1);
    let (gpt, decls) = Gpt::new(GptConfig::llama(Size { vocab: 256, context: 600, layers: 1, heads: 2, d: 32 }));
    let params = Params::new(&device, &decls, 5);
    std::fs::write(model.join("config.json"), gpt.config().to_json().to_string()).expect("a file");
    tensors::write(&Os, &model.join("model.safetensors"), &weights(&params)).expect("a file");
    Tokenizer::bytes().save(model.join("tokenizer.json")).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).arg("chat").arg(model).args(args).env("NO_COLOR", "1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kiln");
    // It may have gone already.
    let _ = child.stdin.take().expect("a pipe").write_all(lines.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn questions_are_answered_one_after_the_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let args =
        ["--json", "--template", "chatml", "--tokens", "5", "--feedback", "thumbs.jsonl", "--system", "Be brief."];
    let said = "Who are you?\n/good\n\nAnd\\\nwho am I?\n/bad\n/save talk.jsonl\n/retry\n/quit\nnever said\n";
    let output = chat(dir.path(), &args, said);
    assert!(output.status.success(), "{output:?}");
    let answers = lines(&output.stdout);
    assert_eq!(answers.len(), 3);
    for answer in &answers {
        assert_eq!(answer["role"], "assistant");
        assert!(answer["content"].is_string() && answer["new_tokens_per_s"].is_number(), "{answer}");
    }
    // The beginning is not read again.
    assert_eq!(answers[0]["cached_tokens"], 0);
    assert!(answers[1]["cached_tokens"].as_u64() > Some(10), "{}", answers[1]);
    let read = |file: &str| lines(&std::fs::read(dir.path().join(file)).expect("a file"));
    let talk = &read("talk.jsonl")[0]["messages"];
    assert_eq!(talk[0]["content"], "Be brief.");
    assert_eq!(talk[3]["content"], "And\nwho am I?");
    assert_eq!((talk.as_array().expect("a list").len(), &talk[4]["content"]), (5, &answers[1]["content"]));
    let thumbs = read("thumbs.jsonl");
    assert_eq!((&thumbs[0]["label"], &thumbs[1]["label"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(thumbs[1]["prompt"].as_array().expect("a list").len(), 4);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = dir.path().join("thumbs.jsonl").metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // The same seed, the same words.
    let again = chat(dir.path(), &args, said);
    let words = |answers: &[Value]| answers.iter().map(|answer| answer["content"].clone()).collect::<Vec<_>>();
    assert_eq!(words(&lines(&again.stdout)), words(&answers));
}

#[test]
fn what_cannot_be_done_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    for (args, said, message, hint) in [
        (&["--template", "none.jinja"][..], "Hi\n", "none.jinja", "hint: "),
        (&["--template", "chatml"], "/good\n", "", ""),
        (&["--template", "chatml"], "/dance\n", "/dance is not understood", "hint: /help"),
        (&["--template", "chatml"], "/retry\n", "there is no answer yet", "hint: ask something"),
        (&["--template", "chatml"], "/save\n", "/save needs a file", "hint: as /save"),
        (&["--template", "chatml"], &"long ".repeat(3000), "the model's context is", "hint: say it in fewer words"),
        (&["--temperature", "-1"], "", "--temperature", "hint: "),
    ] {
        let output = chat(dir.path(), args, said);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(message) && error.contains(hint), "{said:.40}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}
