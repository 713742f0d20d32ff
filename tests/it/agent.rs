//! `kiln agent` as people call it, and under messages of ill will with the system's calls watched.
#![allow(clippy::print_stdout)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const TABLE: &str = include_str!("../../docs/agents.md");

fn kiln(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).args(["--threads", "1"]).args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The file of the docs.
fn garden(dir: &Path) {
    let (_, rest) = TABLE.split_once("```toml\n").unwrap();
    std::fs::write(dir.join("garden.toml"), rest.split_once("```").unwrap().0).unwrap();
}

#[test]
fn traces_are_written_shown_and_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    garden(dir);
    for environment in ["village", "shop", "tools", "garden.toml"] {
        for (agent, hold) in [("oracle", "log"), ("random", "mask")] {
            let args =
                ["agent", "run", environment, "--agent", agent, "--hold", hold, "--tasks", "20", "--save", "t.jsonl"];
            let run = said(&kiln(dir, &[&args[..], &["--json"]].concat()));
            let run: Value = serde_json::from_str(&run).unwrap();
            assert_eq!(run["tasks"], 20);
            if agent == "oracle" {
                assert_eq!(run["success_without_breach"]["share"], 1.0, "{run}");
            }
            assert_eq!(run["breaches_per_100_tasks"], serde_json::json!({}), "{run}");
            assert!(said(&kiln(dir, &args)).contains("next: kiln agent replay t.jsonl"));
            let check = said(&kiln(dir, &["agent", "replay", "t.jsonl", "--check"]));
            assert_eq!(check, "20 the same byte for byte, 0 not\n");
            let shown = said(&kiln(dir, &["agent", "replay", "t.jsonl", "--task", "3"]));
            assert!(shown.contains("goal: ") && shown.contains("   1  "), "{shown}");
        }
    }
    let text = std::fs::read_to_string(dir.join("t.jsonl")).unwrap();
    std::fs::write(dir.join("t.jsonl"), text.replacen("You are", "You were", 1)).unwrap();
    let check = kiln(dir, &["agent", "replay", "t.jsonl", "--check"]);
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&check.stdout).contains("a reply in step "));
    std::fs::write(dir.join("t.jsonl"), "{\"task\": 1}\n").unwrap();
    let wrong = kiln(dir, &["agent", "replay", "t.jsonl"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("t.jsonl: line 1: expected a trace"));
}

#[test]
fn demonstrations_are_conversations_that_tuning_reads() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for form in ["text", "openai"] {
        said(&kiln(dir, &["agent", "demos", "--out", "d.jsonl", "--tasks", "5", "--form", form]));
        let text = std::fs::read_to_string(dir.join("d.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 5);
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let messages = line["messages"].as_array().unwrap();
            assert_eq!(messages[0]["role"], "user");
            assert_eq!(messages[1]["role"], "assistant");
            assert_eq!(messages[2]["role"], "tool");
            match form {
                "text" => assert!(messages[1]["content"].as_str().unwrap().starts_with("<tool_call>\n{\"name\": ")),
                _ => assert_eq!(messages[1]["tool_calls"][0]["id"], messages[2]["tool_call_id"]),
            }
        }
    }
}

#[test]
fn chores_are_texts_of_which_none_is_an_errand() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = said(&kiln(dir, &["agent", "chores", "--out", "c.jsonl", "--tasks", "20", "--json"]));
    let told: Value = serde_json::from_str(&text).unwrap();
    let lines = std::fs::read_to_string(dir.join("c.jsonl")).unwrap();
    let texts = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].clone());
    let texts: Vec<String> = texts.map(|text| text.as_str().unwrap().to_owned()).collect();
    let calls: usize = texts.iter().map(|text| text.matches("\nTool:\n").count()).sum();
    assert_eq!((&told["written"], &told["calls"]), (&Value::from(texts.len()), &Value::from(calls)));
    assert!(
        texts.len() == 20 && texts.iter().all(|text| text.starts_with("User:\n") && !text.contains("That is all."))
    );
}

/// Hostile messages are answered without a file, a process or a connection.
#[test]
fn hostile_messages_reach_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    garden(dir);
    let has_strace = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !has_strace {
        println!("strace is not installed: the system's calls are not watched");
    }
    for environment in ["village", "shop", "tools", "garden.toml"] {
        let args = ["agent", "run", environment, "--agent", "hostile", "--threads", "1"];
        let mut command = Command::new(if has_strace { "strace" } else { env!("CARGO_BIN_EXE_kiln") });
        if has_strace {
            command.args(["-f", "-o", "calls", "-e", "trace=%file,%process,%network,write"]);
            command.arg(env!("CARGO_BIN_EXE_kiln"));
        }
        let output = command.current_dir(dir).args(args).stdin(Stdio::null()).output().unwrap();
        if has_strace && String::from_utf8_lossy(&output.stderr).contains("ptrace") {
            println!("strace may not trace here: the system's calls are not watched");
            return;
        }
        let text = said(&output);
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert!(last["messages"].as_u64().unwrap() >= 300, "{last}");
        assert!(last["longest"].as_u64().unwrap() <= 500, "{last}");
        assert_eq!((&last["over"], &last["breaches"]), (&Value::from(false), &Value::from(0)), "{last}");
        if has_strace {
            let calls = std::fs::read_to_string(dir.join("calls")).unwrap();
            let (before, rest) = calls.split_once("hostile: begin").expect("the first mark");
            assert!(before.contains("open"), "strace saw no file opened at the start");
            let (between, _) = rest.split_once("hostile: end").expect("the second mark");
            // What is left of the line of the first mark, and the start of that of the second.
            let lines: Vec<&str> = between.lines().skip(1).filter(|line| !line.contains("write(1, \"")).collect();
            assert!(lines.is_empty(), "{environment}: {lines:#?}");
        }
    }
}
