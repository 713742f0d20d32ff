//! Cleaning text, all of it and stage by stage: from a file of JSON lines to the files of the result.

use super::data::Folder;
use super::{Case, Part, Started, Unit, Work, repeated};
use crate::data::Sources;
use crate::data::clean::rules::RULES;
use crate::data::clean::{Options, Recipe, clean};
use crate::data::world::{Split, World};
use crate::device::Device;
use crate::error::{AtPath, Result};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Rows: a name, and the rules that run, by the start of their names.
const STAGES: [(&str, &[&str]); 13] = [
    ("every rule", &[""]),
    ("repair, exact duplicates", &["repair", "duplicates.exact"]),
    ("no rule: read, write", &[]),
    ("repair", &["repair"]),
    ("language", &["language"]),
    ("c4", &["c4"]),
    ("gopher, fineweb", &["gopher", "fineweb"]),
    ("repetition", &["repetition"]),
    ("exact duplicates, paragraphs", &["duplicates.exact", "duplicates.paragraphs"]),
    ("near-duplicates", &["duplicates.near"]),
    ("personal data", &["personal"]),
    ("lexicons, evaluation", &["lexicon", "evaluation"]),
    ("labels", &["labels"]),
];

/// Writes about `bytes` of stories into `folder`, one in twenty of them twice, with labels, terms and an evaluation text.
///
/// # Errors
/// It cannot be written.
pub fn corpus(folder: &Folder, bytes: usize) -> Result<PathBuf> {
    let path = folder.path().join("stories.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).at(&path)?);
    let stories = World::new(1).corpus(Split::Train, 0, bytes);
    for (i, text) in stories.documents().enumerate() {
        for copy in 0..1 + usize::from(i % 20 == 7) {
            let topic = ["a", "b", "c"][text.len() % 3];
            let line = json!({"id": format!("s{i}-{copy}"), "text": text, "topic": topic});
            writeln!(file, "{line}").at(&path)?;
        }
    }
    file.flush().at(&path)?;
    let beside = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).at(&path)
    };
    beside("terms.tsv", "snorb\t1\nvlix you\t2\n")?;
    beside("evaluation.txt", "which of the sisters carried the old brass lamp from the mill to the harbour in winter")?;
    Ok(path)
}

/// Cleaning the corpus at `path`.
pub fn cases(path: &Path) -> Vec<Case> {
    let case = |(name, on): (&'static str, &'static [&'static str])| {
        let path = path.to_owned();
        let spec = json!({"bench": "clean", "path": path, "rules": on});
        let start = move |device: &Device| {
            let sources = Sources::open(&[&path], "text")?;
            let folder = path.with_file_name("clean");
            let mut recipe = Recipe::default();
            let off = RULES.iter().filter(|rule| !on.iter().any(|start| rule.name.starts_with(start)));
            recipe.rules.off = off.map(|rule| rule.name.to_owned()).collect();
            recipe.lexicons.files = vec![path.with_file_name("terms.tsv")];
            recipe.evaluation.files = vec![path.with_file_name("evaluation.txt")];
            recipe.labels.field = "topic".to_owned();
            let threads = match device {
                Device::Cpu(host) => host.cpu.threads.count(),
                Device::Gpu(_) => 0,
            };
            let options = Options {
                recipe,
                out: folder,
                text_field: "text".to_owned(),
                memory: 1 << 30,
                threads,
                key_file: None,
                clear_text: false,
                truth: None,
            };
            let bytes = clean(&sources, &options, &mut |_| {})?.report.read.bytes;
            let work = Work { read: bytes as f64, ..Work::default() };
            let repeat =
                repeated(device, 1, move |clock| clock.time(0, || clean(&sources, &options, &mut |_| {}).map(drop)));
            Ok(Started { parts: vec![Part::whole(work, Unit::Text(bytes as usize))], repeat })
        };
        Case::new("clean", name.to_owned(), spec, start)
    };
    STAGES.into_iter().map(case).collect()
}
