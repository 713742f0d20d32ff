//! A mixture of sources: documents are drawn so that each source keeps its share of the text.
//!
//! The next document comes from the source that is furthest behind, the first named of several: the one whose bytes so far,
//! divided by its weight, are fewest. No draw is random, so the order is a function of the sources alone, and every stretch of
//! the shards holds the mixture. Sources are read up to so many times; when the one that is due has been read that often, the
//! mixture ends, since it would no longer be one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::source::{Document, Sources};
use crate::error::{Error, Result};

/// A source of a mixture, as people write it: `NAME=WEIGHT:PATH`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// What it is called.
    pub name: String,
    /// Its share of the text is its weight divided by the sum of all.
    pub weight: f64,
    /// A file or folder.
    pub path: PathBuf,
}

const HINT: &str = "write it as NAME=WEIGHT:PATH, for example: --mix wiki=0.7:wiki/ books=0.3:books/";

impl FromStr for Component {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Component, String> {
        let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once(':')?)));
        let Some((name, (weight, path))) = parts else { return Err(HINT.to_owned()) };
        let weight = weight.parse().map_err(|_| format!("{weight:?} is no number: {HINT}"))?;
        Ok(Component { name: name.to_owned(), weight, path: path.into() })
    }
}

/// A file that lists components: `[[source]]` with `name`, `weight` and `path`, paths being relative to its folder.
pub fn from_toml(text: &str, path: &Path) -> Result<Vec<Component>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        source: Vec<Component>,
    }
    let hint = "write for each source: [[source]], name = \"wiki\", weight = 0.7, path = \"wiki/\"";
    let read: std::result::Result<File, _> = toml::from_str(text);
    let mut file = read.map_err(|e| Error::format(path, "content", "a list of [[source]]", e.message(), hint))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    file.source.iter_mut().for_each(|source| source.path = folder.join(&source.path));
    Ok(file.source)
}

/// What was taken of a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// The source's name.
    pub name: String,
    /// The share of the text that was asked for.
    pub share: f64,
    /// Documents taken.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// How many times it has been read from start to end.
    pub passes: u32,
}

/// Sources and their shares.
pub struct Mix {
    sources: Vec<(Used, Sources)>,
}

impl Mix {
    /// Finds the files of all sources; `field` names the text in `.jsonl` files.
    ///
    /// # Errors
    /// A path cannot be read, a weight is no positive number, a name comes twice, or there is no source.
    pub fn open(components: &[Component], field: &str) -> Result<Mix> {
        let bad = |problem: String| Err(Error::usage(format!("--mix: {problem}"), HINT));
        let total: f64 = components.iter().map(|component| component.weight).sum();
        let mut sources: Vec<(Used, Sources)> = Vec::new();
        for Component { name, weight, path } in components {
            if !(*weight > 0.0 && weight.is_finite() && total.is_finite()) {
                return bad(format!("{name} has the weight {weight}, which is not above 0"));
            }
            if name.is_empty() || sources.iter().any(|(used, _)| used.name == *name) {
                return bad(format!("the name {name:?} is empty, or comes twice"));
            }
            let used = Used { name: name.clone(), share: weight / total, ..Used::default() };
            sources.push((used, Sources::open(&[path], field)?));
        }
        if sources.is_empty() { bad("there is no source".to_owned()) } else { Ok(Mix { sources }) }
    }

    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.sources.iter().map(|(_, sources)| sources.bytes()).sum()
    }

    /// The documents of the mixture, each source being read up to `passes` times.
    pub fn documents(&self, passes: u32) -> Mixed<'_> {
        let start = |(used, sources): &(Used, Sources)| (used.clone(), Box::new(sources.documents()) as Documents);
        Mixed { mix: self, passes, drawn: self.sources.iter().map(start).collect(), ended: false }
    }
}

type Documents = Box<dyn Iterator<Item = Result<Document>> + Send>;

/// Documents of a [`Mix`], in order.
pub struct Mixed<'a> {
    mix: &'a Mix,
    passes: u32,
    drawn: Vec<(Used, Documents)>,
    ended: bool,
}

impl fmt::Debug for Mixed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.drawn.iter().map(|(used, _)| used)).finish()
    }
}

impl Mixed<'_> {
    /// What has been taken of each source so far.
    pub fn used(&self) -> Vec<Used> {
        self.drawn.iter().map(|(used, _)| used.clone()).collect()
    }
}

impl Iterator for Mixed<'_> {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Result<Document>> {
        let behind = |(_, (used, _)): &(usize, &(Used, Documents))| used.bytes as f64 / used.share;
        let due = self.drawn.iter().enumerate().min_by(|a, b| behind(a).total_cmp(&behind(b)));
        let index = due.filter(|_| !self.ended)?.0;
        let (used, documents) = &mut self.drawn[index];
        let mut next = documents.next();
        if next.is_none() {
            used.passes += 1;
            // A source without any document would be read for ever.
            if used.passes < self.passes && used.documents > 0 {
                *documents = Box::new(self.mix.sources[index].1.documents());
                next = documents.next();
            }
        }
        match &next {
            Some(Ok(document)) => {
                used.documents += 1;
                used.bytes += document.text.len() as u64;
            }
            Some(Err(_)) | None => self.ended = true,
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mixture of made-up files: (weight, length of a document, documents).
    fn mix(parts: &[(f64, usize, usize)]) -> (tempfile::TempDir, Mix) {
        let dir = tempfile::tempdir().unwrap();
        let mut components = Vec::new();
        for (i, &(weight, length, documents)) in parts.iter().enumerate() {
            let path = dir.path().join(format!("{i}.jsonl"));
            let line = format!("{{\"text\": \"{}\"}}\n", "x".repeat(length));
            std::fs::write(&path, line.repeat(documents)).unwrap();
            components.push(Component { name: format!("s{i}"), weight, path });
        }
        let mix = Mix::open(&components, "text").unwrap();
        (dir, mix)
    }

    #[test]
    fn every_stretch_holds_the_mixture_until_a_source_is_out() {
        let (_dir, mix) = mix(&[(7.0, 10, 1000), (3.0, 25, 1000)]);
        let mut documents = mix.documents(1);
        let mut bytes = [0u64; 2];
        for document in documents.by_ref() {
            let text = document.unwrap().text;
            bytes[usize::from(text.len() == 25)] += text.len() as u64;
            let all = bytes[0] + bytes[1];
            assert!((bytes[0] as f64 - 0.7 * all as f64).abs() <= 25.0, "{bytes:?}");
        }
        let used = documents.used();
        assert_eq!((used[0].documents, used[0].passes, used[1].passes), (1000, 1, 0));
        assert!((170..=173).contains(&used[1].documents), "{used:?}");
    }

    #[test]
    fn a_source_is_read_as_often_as_allowed() {
        let (_dir, mix) = mix(&[(1.0, 10, 10), (1.0, 10, 25)]);
        let mut documents = mix.documents(2);
        assert_eq!(documents.by_ref().count(), 40);
        assert_eq!(documents.used().iter().map(|used| used.documents).collect::<Vec<_>>(), [20, 20]);
    }

    #[test]
    fn components_are_read_from_words_and_from_files() {
        let one: Component = "wiki=0.7:a/b:c".parse().unwrap();
        assert_eq!(one, Component { name: "wiki".into(), weight: 0.7, path: "a/b:c".into() });
        assert!("wiki".parse::<Component>().is_err() && "wiki=x:y".parse::<Component>().is_err());
        let text = "[[source]]\nname = \"wiki\"\nweight = 0.7\npath = \"a\"\n";
        assert_eq!(from_toml(text, Path::new("d/mix.toml")).unwrap()[0].path, Path::new("d/a"));
        assert!(from_toml("[[source]]\nnam = 1\n", Path::new("m.toml")).is_err());
        for weight in [0.0, -1.0, f64::NAN] {
            let component = Component { name: "a".into(), weight, path: ".".into() };
            assert!(Mix::open(&[component], "text").is_err());
        }
    }
}
