//! The rules of the source tree, read from the source: imports go down, and a few words stay where they belong.

use std::fs;
use std::path::Path;

/// Names at the root of the crate that are not modules, and the module that each comes from.
const REEXPORTS: [(&str, &str); 4] =
    [("Error", "error"), ("Result", "error"), ("simd_fn", "cpu"), ("scalar_fn", "cpu")];

/// Modules that import less than what stands below them.
const NARROW: [(&str, &[&str]); 3] = [
    ("agent", &["data", "disk", "error", "measure", "rng", "settings"]),
    ("data", &["disk", "error", "rng", "settings"]),
    ("measure", &["error", "rng"]),
];

/// Where `unsafe` may stand: kernels, devices, the memory of tensors and maps of files.
const UNSAFE: [&str; 4] = ["cpu/", "device/", "tensor.rs", "data/map.rs"];

/// The program; the rest is the library.
const PROGRAM: [&str; 2] = ["main.rs", "cli/"];

const MAX_LINES: usize = 700;

/// A file below `src/`.
struct Source {
    /// Its path from `src/`, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn all() -> Vec<Source> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder of sources") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let name = path.strip_prefix(&root).expect("below src").to_string_lossy().replace('\\', "/");
                    sources.push(Source { path: name, text: fs::read_to_string(&path).expect("UTF-8") });
                }
            }
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(sources.len() > 50, "only {} sources found", sources.len());
        sources
    }

    /// Whether the path is one of these, or in one of these folders.
    fn within(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || (place.ends_with('/') && self.path.starts_with(place)))
    }

    /// The module at the root of the library that the file belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().expect("a path").trim_end_matches(".rs")
    }

    /// Whether the whole file is a test module.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
    }

    /// The text without comments and without what is compiled for tests only.
    fn code(&self) -> String {
        code(&self.text)
    }
}

/// `text` without comments and `#[cfg(test)]` items. It is formatted by rustfmt, so an item ends at the first `}` or `;`
/// that is indented as it is.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if line.trim() == "#[cfg(test)]" {
            let ends = |line: &str| {
                let same = line.strip_prefix(indent).is_some_and(|rest| !rest.starts_with(' '));
                same && (line.ends_with('}') || line.ends_with(';'))
            };
            lines.by_ref().find(|line| ends(line));
            continue;
        }
        // A comment begins a line or follows a blank; `//` in an address does neither.
        let end = if line.trim_start().starts_with("//") { 0 } else { line.find(" //").unwrap_or(line.len()) };
        code.push_str(&line[..end]);
        code.push('\n');
    }
    code
}

/// The identifiers of `code` and the places where they begin.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.split(move |c| !is_word(c)).filter(|word| !word.is_empty()).map(move |word| {
        // Both point into the same text.
        (word.as_ptr() as usize - code.as_ptr() as usize, word)
    })
}

/// The names that `crate::` is followed by, in a path or as the members of a group.
fn imports(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in words(code).filter(|(_, word)| *word == "crate") {
        let Some(path) = code[at + "crate".len()..].strip_prefix("::") else { continue };
        let Some(group) = path.strip_prefix('{') else {
            names.extend(words(path).next().map(|(_, word)| word));
            continue;
        };
        let mut depth = 1;
        let mut start = 0;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                names.extend(words(&group[start..i]).next().map(|(_, word)| word));
                start = i + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

#[test]
fn imports_only_go_down() {
    let sources = Source::all();
    // The order, from the top, is that of the declarations in lib.rs.
    let lib = sources.iter().find(|source| source.path == "lib.rs").expect("lib.rs").code();
    let order: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let height = |module: &str| order.iter().rev().position(|m| *m == module);
    assert!(height("train") > height("model") && height("tape") > height("tensor"), "{order:?}");
    let mut wrong = Vec::new();
    let mut count = 0;
    for source in sources.iter().filter(|s| s.path != "lib.rs" && !s.within(&PROGRAM) && !s.is_test()) {
        let own = source.module();
        let Some(top) = height(own) else {
            wrong.push(format!("src/{}: lib.rs does not declare {own}", source.path));
            continue;
        };
        for name in imports(&source.code()) {
            count += 1;
            let module = REEXPORTS.iter().find(|(from, _)| *from == name).map_or(name, |(_, module)| module);
            let narrow = NARROW.iter().find(|(module, _)| *module == own);
            let allowed = narrow.is_none_or(|(_, below)| module == own || below.contains(&module));
            match height(module) {
                None => wrong.push(format!("src/{}: crate::{name} is not a module of lib.rs", source.path)),
                Some(h) if h > top => wrong.push(format!("src/{}: {own} stands below {module}", source.path)),
                Some(_) if !allowed => wrong.push(format!("src/{}: {own} does not import {module}", source.path)),
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} imports found");
}

#[test]
fn unsafe_code_stays_in_its_places() {
    let unsafe_in = |source: &Source| words(&source.code()).any(|(_, word)| word == "unsafe");
    let (inside, outside): (Vec<Source>, Vec<Source>) =
        Source::all().into_iter().filter(unsafe_in).partition(|source| source.within(&UNSAFE));
    assert!(!inside.is_empty(), "no unsafe code found");
    assert!(outside.is_empty(), "unsafe in {:?}", outside.iter().map(|s| &s.path).collect::<Vec<_>>());
}

#[test]
fn only_the_program_prints() {
    let prints = |source: &Source| {
        let code = source.code();
        let macros = ["print", "println", "eprint", "eprintln"];
        words(&code).any(|(at, word)| macros.contains(&word) && code[at + word.len()..].starts_with('!'))
    };
    let printing: Vec<String> = Source::all()
        .into_iter()
        .filter(|source| !source.within(&PROGRAM) && !source.is_test() && prints(source))
        .map(|source| source.path)
        .collect();
    assert!(printing.is_empty(), "{printing:?}");
}

#[test]
fn no_file_is_longer_than_a_reader_can_finish() {
    let lines = |source: &Source| source.text.lines().count();
    let long: Vec<String> = Source::all()
        .iter()
        .filter(|source| lines(source) > MAX_LINES)
        .map(|source| format!("src/{}: {} lines", source.path, lines(source)))
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines: {long:?}");
}

/// The scanner itself, on a text with what could mislead it.
#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let text = "\
//! [`crate::a`]
use crate::{b, c::{d, e},
    f as g};
let x = $crate::h::i(); // crate::j
let y = mycrate::k; pub(crate) fn l() {}
#[cfg(test)]
mod tests {
    use crate::m;
    fn n() {
    }
}
#[cfg(test)]
use crate::o;
let z = \"https://crate::p\";
";
    assert_eq!(imports(&code(text)), ["b", "c", "f", "h", "p"]);
}

#[test]
fn promises_name_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests: Vec<String> = Source::all().iter().flat_map(|source| declared(&source.text)).collect();
    let mut folders = vec![root.join("tests/it")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of tests") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "rs") => {
                    tests.extend(declared(&fs::read_to_string(&path).expect("UTF-8")));
                }
                false => {}
            }
        }
    }
    let mut named = 0;
    for file in ["docs/SECURITY.md", "docs/reliability.md"] {
        let text = fs::read_to_string(root.join(file)).expect(file);
        // The last column of each row.
        for column in text.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|')?.rsplit_once('|')) {
            for test in column.1.split('`').skip(1).step_by(2) {
                named += 1;
                assert!(tests.iter().any(|own| own == test), "{file}: there is no test {test}");
            }
        }
    }
    assert!(named > 40, "{named} tests named");
}

/// The names of functions without parameters that a text declares.
fn declared(text: &str) -> Vec<String> {
    let name = |line: &str| Some(line.trim().strip_prefix("fn ")?.split_once("()")?.0.to_owned());
    text.lines().filter_map(name).collect()
}
