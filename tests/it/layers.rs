//! The shape of the source: which module may import which, where `unsafe` may stand, how long a file may be.

use std::path::{Path, PathBuf};

/// From the top; a module may import its own layer and those below.
const LAYERS: [&[&str]; 12] = [
    &["main", "cli"],
    &["train"],
    &["model"],
    &["nn", "optim"],
    &["ops"],
    &["tape"],
    &["params"],
    &["tensor"],
    &["device"],
    &["cpu"],
    &["data"],
    &["error", "rng"],
];

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the source is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every source file by its path below src/, with its lines up to the unit tests, comments left out.
fn sources() -> Vec<(String, Vec<String>)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&src, &mut paths);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&src).expect("below src").to_string_lossy().replace('\\', "/");
        let text = std::fs::read_to_string(path).expect("UTF-8");
        let code = text.split("#[cfg(test)]\nmod tests").next().expect("a first part");
        let lines = code.lines().map(|line| line.split("//").next().expect("a first part").to_owned());
        (name, lines.collect())
    };
    paths.iter().map(read).collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&module))
}

#[test]
fn imports_only_go_down() {
    for (file, lines) in sources().iter().filter(|(file, _)| file != "lib.rs") {
        let own = file.split(['/', '.']).next().expect("a module");
        let from = layer(own).unwrap_or_else(|| panic!("src/{file}: {own} is in no layer"));
        for line in lines {
            for (at, _) in line.match_indices("crate::") {
                let to = line[at + 7..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                // `crate::simd_fn!` is exported at the root by its macro; `crate::{…}` is not written in this source.
                if let Some(below) = layer(to) {
                    assert!(below >= from || to == own, "src/{file} imports {to}, which lies above it: {line}");
                } else {
                    assert_eq!(to, "simd_fn", "src/{file}: {to} is in no layer: {line}");
                }
            }
        }
    }
}

#[test]
fn unsafe_code_stands_only_where_it_may() {
    let may = |file: &str| {
        file.starts_with("cpu/") || file.starts_with("device/") || ["tensor.rs", "data/shard.rs"].contains(&file)
    };
    for (file, lines) in sources().iter().filter(|(file, _)| !may(file)) {
        let found = lines.iter().find(|line| line.contains("unsafe"));
        assert!(found.is_none(), "src/{file}: {found:?}");
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for (file, lines) in sources() {
        assert!(lines.len() <= 700, "src/{file} has {} lines", lines.len());
    }
}

#[test]
fn only_the_command_line_prints() {
    for (file, lines) in sources().iter().filter(|(file, _)| !file.starts_with("cli/")) {
        let found = lines.iter().find(|line| line.contains("print!(") || line.contains("println!("));
        assert!(found.is_none(), "src/{file}: {found:?}");
    }
}
