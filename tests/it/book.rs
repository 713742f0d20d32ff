//! The documentation as a book: its pages hang together, and what its chapters say to try works, here at about a hundredth of the size (`tests/book.sh` does
//! all of it in full).

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a small run of the village's recipe is, where a chapter says `TINY`.
const TINY: &str = "--set model.layers=1 --set model.d=32 --set model.heads=2 --set train.context=96 --set train.batch=2 \
                    --set data.bytes=30000 --set data.vocab=300 --set train.sample_every=0 --set optim.warmup=2";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The pages in the order of the book.
fn pages() -> Vec<String> {
    let summary = std::fs::read_to_string(docs().join("SUMMARY.md")).expect("a summary");
    let page = |line: &str| Some(line.split_once("](")?.1.strip_suffix(')')?.to_owned());
    summary.lines().filter_map(page).collect()
}

/// Commands of a chapter's part of this name, and how each is made small.
fn commands(text: &str) -> Vec<(String, String)> {
    let Some((_, part)) = text.split_once("\n## Try it\n") else { return Vec::new() };
    let part = part.split("\n## ").next().unwrap_or_default();
    let all: Vec<&str> =
        part.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with("kiln ")).collect();
    let small = part.lines().find_map(|line| line.strip_prefix("<!-- small:")?.strip_suffix("-->"));
    let small: Vec<&str> = small.expect("a line says how commands are made small").split('|').map(str::trim).collect();
    assert_eq!(all.len(), small.len(), "{all:?} {small:?}");
    all.into_iter().zip(small).map(|(command, small)| (command.to_owned(), small.to_owned())).collect()
}

/// The arguments of a command, made small: `A=>B` puts B in the place of A, all else comes behind.
fn arguments(command: &str, small: &str) -> Vec<String> {
    let (mut words, mut more) = (shell(command), Vec::new());
    for change in small.replace("TINY", TINY).split_whitespace() {
        match change.split_once("=>") {
            Some((from, to)) => words.iter_mut().for_each(|word| {
                if word == from || word.ends_with(&format!("={from}")) {
                    *word = word.replace(from, to);
                }
            }),
            None => more.push(change.to_owned()),
        }
    }
    words.extend(more);
    words.remove(0);
    words
}

/// Words as a shell splits them, quotes taken away; recipes are found where they are.
fn shell(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in command.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, ' ') => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            _ => word.push(c),
        }
    }
    words.push(word);
    let recipes = format!("{}/data/recipes/", env!("CARGO_MANIFEST_DIR"));
    words.into_iter().map(|word| word.replace("data/recipes/", &recipes)).collect()
}

#[test]
fn the_book_has_every_page_once_and_its_links_lead_somewhere() {
    let mut all = pages();
    for page in &all {
        let text = std::fs::read_to_string(docs().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let outside = link.contains("://") || link.contains(' ') || file.is_empty();
            assert!(outside || docs().join(file).exists(), "{page}: {link} is not there");
        }
    }
    all.push("SUMMARY.md".into());
    all.sort();
    let entries = std::fs::read_dir(docs()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = entries.filter(|name| name.ends_with(".md")).collect();
    files.sort();
    assert_eq!(all, files);
}

#[test]
fn what_the_book_says_to_try_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for page in pages() {
        for (command, small) in commands(&std::fs::read_to_string(docs().join(&page)).unwrap()) {
            let start = std::time::Instant::now();
            let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"));
            kiln.current_dir(folder.path())
                .args(arguments(&command, &small))
                .args(["--threads", "1"])
                .stdin(Stdio::null());
            let output = kiln.output().expect("kiln runs");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{page}: {command}\n(small: {small})\n{error}");
            println!("{:>6.1} s  {page}: {command}", start.elapsed().as_secs_f64());
            count += 1;
        }
    }
    assert!(count > 40, "{count} commands");
}
