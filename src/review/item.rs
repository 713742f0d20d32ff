//! What is judged: prompts, and what was made of them, read from files, from folders of pictures, or asked of the built-in world.

use crate::data::chat::Message;
use crate::data::world::{Asker, Form, Split, World};
use crate::disk::{self, Disk, Os};
use crate::error::{AtPath, Error, Result};
use crate::rng::{Purpose, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Bytes of a file of prompts or answers at most.
const MAX_FILE: u64 = 256 << 20;

/// One of the two that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The first model.
    A,
    /// The second one.
    B,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        if self == Side::A { Side::B } else { Side::A }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// A text that goes on.
    Text(String),
    /// A conversation whose next turn is the assistant's.
    Chat(Vec<Message>),
}

/// What was made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// A text.
    Text(String),
    /// A picture in PNG.
    Picture {
        /// Its file.
        picture: PathBuf,
    },
}

/// A prompt before it is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// What is asked.
    pub prompt: Prompt,
    /// A right answer, where one is known: reviewers are shown it.
    pub reference: Option<String>,
}

/// What a reviewer judges: one answer, or two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// What was asked.
    pub prompt: Prompt,
    /// A right answer, where one is known: reviewers are shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What the first model made of it.
    pub a: Answer,
    /// What the second one made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b: Option<Answer>,
    /// Which of the two is better beyond doubt: this item tests the reviewer and not the models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<Side>,
}

impl Item {
    /// 16 digits that stand for all that it says.
    pub fn id(&self) -> String {
        let text = serde_json::to_string(self).expect("an item is plain data");
        Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether its two texts are the same, so that there is nothing to judge.
    pub fn is_same(&self) -> bool {
        self.gold.is_none() && matches!(self.a, Answer::Text(_)) && Some(&self.a) == self.b.as_ref()
    }

    /// The answer of a side.
    pub fn answer(&self, side: Side) -> &Answer {
        match (side, &self.b) {
            (Side::B, Some(b)) => b,
            _ => &self.a,
        }
    }
}

/// The lines of a file that are not empty, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

/// A line of JSON as an object.
struct Fields<'a> {
    all: Map<String, Value>,
    path: &'a Path,
    line: usize,
}

impl<'a> Fields<'a> {
    fn new(path: &'a Path, line: usize, text: &str) -> Result<Fields<'a>> {
        let all = serde_json::from_str(text).map_err(|e| {
            let hint = "each line is one JSON object, as {\"prompt\": \"…\"}";
            Error::format(path, format!("line {line}, column {}", e.column()), "one JSON object", e, hint)
        })?;
        Ok(Fields { all, path, line })
    }

    fn wrong(&self, expected: &str, found: impl ToString) -> Error {
        let mut found = found.to_string();
        if let Some((end, _)) = found.char_indices().nth(80) {
            found.replace_range(end.., "…");
        }
        let hint = "a line has prompt (a text, or a list of messages) or messages; ready answers are a and b; see kiln review --help";
        Error::format(self.path, format!("line {}", self.line), expected, found, hint)
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        match self.all.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(&format!("a text in the field {name:?}"), other)),
        }
    }

    fn messages(&self, name: &str) -> Result<Vec<Message>> {
        let found = self.all.get(name).cloned().unwrap_or_default();
        let messages: Vec<Message> =
            serde_json::from_value(found).map_err(|e| self.wrong(&format!("messages in the field {name:?}"), e))?;
        if messages.is_empty() { Err(self.wrong("at least one message", "none")) } else { Ok(messages) }
    }

    /// What is asked. Where a conversation ends with an answer, that is the reference.
    fn question(&self) -> Result<Question> {
        let mut reference = self.text("reference")?;
        if let Some(question) = self.text("question")? {
            // As the built-in world writes them.
            let prompt = Prompt::Text(format!("Question: {question}\nAnswer:"));
            return Ok(Question { prompt, reference: reference.or(self.text("answer")?) });
        }
        let prompt = match self.all.get("prompt") {
            Some(Value::Array(_)) => Prompt::Chat(self.messages("prompt")?),
            Some(Value::String(text)) => Prompt::Text(text.clone()),
            None if self.all.contains_key("messages") => {
                let mut messages = self.messages("messages")?;
                while messages.last().is_some_and(|message| message.role() == "assistant") {
                    let last = messages.pop().and_then(|message| message.content().map(str::to_owned));
                    reference = reference.or(last);
                }
                if messages.is_empty() {
                    return Err(self.wrong("a message that is not the assistant's", "none"));
                }
                Prompt::Chat(messages)
            }
            None => {
                let names: Vec<&String> = self.all.keys().take(8).collect();
                return Err(self.wrong("the field \"prompt\" or \"messages\"", format!("the fields {names:?}")));
            }
            Some(other) => return Err(self.wrong("a text or a list of messages in the field \"prompt\"", other)),
        };
        Ok(Question { prompt, reference })
    }

    fn answer(&self, name: &str) -> Result<Option<Answer>> {
        match self.all.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(Answer::Text(text.clone()))),
            Some(Value::Object(fields)) if fields.get("picture").is_some_and(Value::is_string) => {
                let picture = fields["picture"].as_str().expect("a text").into();
                Ok(Some(Answer::Picture { picture }))
            }
            Some(other) => {
                Err(self.wrong(&format!("a text or {{\"picture\": FILE.png}} in the field {name:?}"), other))
            }
        }
    }

    fn item(&self) -> Result<Item> {
        let Question { prompt, reference } = self.question()?;
        let (a, b) = (self.answer("a")?, self.answer("b")?);
        let a = a.ok_or_else(|| self.wrong("an answer in the field \"a\"", "none"))?;
        let gold = match self.text("gold")?.as_deref() {
            None => None,
            Some("a") => Some(Side::A),
            Some("b") => Some(Side::B),
            Some(other) => return Err(self.wrong("\"a\" or \"b\" in the field \"gold\"", format!("{other:?}"))),
        };
        if gold.is_some() && b.is_none() {
            return Err(self.wrong("two answers, a and b, where one is gold", "one"));
        }
        Ok(Item { prompt, reference, a, b, gold })
    }
}

/// The prompts of a file: JSONL (by its name, or where it begins with a brace), else plain lines. With `chat` texts are what a user
/// says.
///
/// # Errors
/// It cannot be read, has none, or has a line that is none.
pub fn prompts(path: &Path, chat: bool) -> Result<Vec<Question>> {
    let text = disk::text(&Os, path, MAX_FILE)?;
    let json = path.extension().is_some_and(|e| e == "jsonl" || e == "json") || text.trim_start().starts_with('{');
    let question = |(number, line): (usize, &str)| match json {
        true => Fields::new(path, number, line)?.question(),
        false => Ok(Question { prompt: Prompt::Text(line.trim().to_owned()), reference: None }),
    };
    let mut all = lines(&text).map(question).collect::<Result<Vec<_>>>()?;
    if all.is_empty() {
        return Err(Error::format(path, "content", "prompts", "none", "write one a line"));
    }
    for Question { prompt, .. } in all.iter_mut().filter(|_| chat) {
        if let Prompt::Text(text) = prompt {
            *prompt = Prompt::Chat(vec![Message::new("user", text)]);
        }
    }
    Ok(all)
}

/// Ready answers: JSONL of `prompt`, `a` and `b`, or of `prompt` and `a`; `gold` says which is better, `reference` what is right.
///
/// # Errors
/// The file cannot be read, has none, has a line that is none, or lines with one answer and lines with two.
pub fn answers(path: &Path) -> Result<Vec<Item>> {
    let text = disk::text(&Os, path, MAX_FILE)?;
    let mut items: Vec<Item> = Vec::new();
    for (number, line) in lines(&text) {
        let fields = Fields::new(path, number, line)?;
        let item = fields.item()?;
        let as_before = items.first().is_none_or(|first| first.b.is_some() == item.b.is_some());
        if !as_before {
            return Err(fields.wrong("as many answers as the lines before have", if item.b.is_some() { 2 } else { 1 }));
        }
        items.push(item);
    }
    if items.is_empty() {
        return Err(Error::format(path, "content", "answers", "none", "write one object a line: prompt, a and b"));
    }
    Ok(items)
}

/// The first `n` questions about the village of `seed`, each with the right answer.
pub fn of_world(seed: u64, n: usize) -> Vec<Question> {
    let world = World::new(seed);
    let asker = Asker::new(&world, Split::Train, Form::Qa);
    let mut hand = asker.hand();
    let question = |n: u64| {
        let item = asker.item(&mut hand, n);
        let asked = item.body["question"].as_str().unwrap_or_default();
        let reference = item.truth.answer.map(|answer| answer.to_string());
        Question { prompt: Prompt::Text(format!("Question: {asked}\nAnswer:")), reference }
    };
    (0..n as u64).map(question).collect()
}

/// The pictures of a folder, in the order of their names.
fn pictures(dir: &Path) -> Result<Vec<PathBuf>> {
    let names = Os.list(dir).at(dir)?;
    let is_png = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    let mut all: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).filter(is_png).collect();
    all.sort();
    if all.is_empty() {
        return Err(Error::format(dir, "content", ".png files", "none", "give a folder of pictures"));
    }
    Ok(all)
}

/// Whether `path` is a folder of pictures and no model.
pub fn is_of_pictures(path: &Path) -> bool {
    !path.join("config.json").exists() && !path.join("recipe.toml").exists() && pictures(path).is_ok()
}

/// The pictures of one folder, or of two: those of the same names side by side, with the name as what was asked for; where no name is
/// in both, the first beside the first, and so on.
///
/// # Errors
/// A folder cannot be read, or has no .png.
pub fn of_pictures(a: &Path, b: Option<&Path>) -> Result<Vec<Item>> {
    let item = |asked: Option<&Path>, a: &Path, b: Option<&Path>| {
        let picture = |path: &Path| Answer::Picture { picture: path.to_owned() };
        let name = asked.and_then(Path::file_stem).unwrap_or_default().to_string_lossy().into_owned();
        Item { prompt: Prompt::Text(name), reference: None, a: picture(a), b: b.map(picture), gold: None }
    };
    let first = pictures(a)?;
    let Some(b) = b else { return Ok(first.iter().map(|path| item(None, path, None)).collect()) };
    let second = pictures(b)?;
    let twin = |path: &PathBuf| second.iter().find(|other| other.file_name() == path.file_name());
    let named: Vec<Item> = first.iter().filter_map(|path| Some(item(Some(path), path, Some(twin(path)?)))).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    Ok(first.iter().zip(&second).map(|(a, b)| item(None, a, Some(b))).collect())
}

/// Puts things into an order that is a function of `seed` and `stream`.
fn shuffle<T>(all: &mut [T], seed: u64, stream: u32) {
    let numbers = Stream::new(seed, Purpose::Review, stream, 0);
    for i in (1..all.len()).rev() {
        all.swap(i, ((u64::from(numbers.bits(i as u64)) * (i as u64 + 1)) >> 32) as usize);
    }
}

/// Items in the order in which they are shown, with as many of the `gold` ones among them as make `share` of all, or as there are.
pub fn mixed(mut items: Vec<Item>, mut gold: Vec<Item>, share: f64, seed: u64) -> Vec<Item> {
    shuffle(&mut gold, seed, 1);
    let wanted = (share / (1.0 - share) * items.len() as f64).round() as usize;
    items.extend(gold.into_iter().take(wanted));
    shuffle(&mut items, seed, 2);
    items
}

/// Whether the first model is on the left, for this reviewer and this item: a fair coin that is thrown once.
pub fn left(seed: u64, reviewer: &str, item: usize) -> Side {
    let name = Sha256::digest(reviewer);
    let step = u64::from_le_bytes(name[..8].try_into().expect("8 bytes"));
    if Stream::new(seed, Purpose::Review, 3, step).bits(item as u64) & 1 == 0 { Side::A } else { Side::B }
}

/// A PNG file without what may tell where it is from: of its parts only those that a picture is made of.
///
/// # Errors
/// It cannot be read, or is no PNG.
pub fn plain_png(path: &Path) -> Result<Vec<u8>> {
    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
    let bytes = disk::read(&Os, path)?;
    let wrong = |found: &str| Error::format(path, "picture", "a PNG file", found, "give pictures as .png");
    let mut rest = bytes.strip_prefix(SIGNATURE).ok_or_else(|| wrong("something else"))?;
    let mut out = SIGNATURE.to_vec();
    // Each part: bytes of data, a name, the data, a checksum.
    while let Some((head, _)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes(head[..4].try_into().expect("4 bytes")) as usize;
        let part = length.checked_add(12).and_then(|length| rest.split_at_checked(length));
        let (part, after) = part.ok_or_else(|| wrong("one that is cut off"))?;
        if [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"].iter().any(|name| head[4..] == name[..]) {
            out.extend_from_slice(part);
        }
        rest = after;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        (dir, path)
    }

    fn text(i: usize, gold: Option<Side>) -> Item {
        let answer = |side: &str| Answer::Text(format!("{side}{i}"));
        Item { prompt: Prompt::Text(format!("p{i}")), reference: None, a: answer("a"), b: Some(answer("b")), gold }
    }

    #[test]
    fn prompts_come_in_the_forms_of_trl_and_as_lines() {
        let (_dir, path) = file(
            "p.jsonl",
            "{\"prompt\": \"Once\"}\n\n{\"prompt\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n\
             {\"messages\": [{\"role\": \"user\", \"content\": \"2+2?\"}, {\"role\": \"assistant\", \"content\": \"4\"}]}\n\
             {\"question\": \"Who?\", \"answer\": \"Ada.\"}\n",
        );
        let all = prompts(&path, false).expect("prompts");
        let user = |text: &str| Prompt::Chat(vec![Message::new("user", text)]);
        let asked: Vec<Prompt> = all.iter().map(|q| q.prompt.clone()).collect();
        let world = Prompt::Text("Question: Who?\nAnswer:".into());
        assert_eq!(asked, [Prompt::Text("Once".into()), user("Hi"), user("2+2?"), world]);
        let right: Vec<Option<&str>> = all.iter().map(|q| q.reference.as_deref()).collect();
        assert_eq!(right, [None, None, Some("4"), Some("Ada.")]);
        let (_dir, path) = file("p.txt", "What is it?\n\n Why? \n");
        let asked: Vec<Prompt> = prompts(&path, true).expect("prompts").into_iter().map(|q| q.prompt).collect();
        assert_eq!(asked, [user("What is it?"), user("Why?")]);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let wrong = |name: &str, text: &str| {
            let (_dir, path) = file(name, text);
            let error = if name == "a.jsonl" { answers(&path).err() } else { prompts(&path, false).err() };
            error.expect("an error").to_string()
        };
        for (name, text, says) in [
            ("p.jsonl", "{\"prompt\": 1}", "line 1: expected a text or a list of messages"),
            ("p.jsonl", "{\"prompt\": \"a\"}\n{", "line 2, column 1: expected one JSON object"),
            (
                "p.jsonl",
                "{\"text\": \"a\"}",
                "expected the field \"prompt\" or \"messages\", found the fields [\"text\"]",
            ),
            ("p.jsonl", "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", "not the assistant's"),
            ("p.jsonl", "{\"messages\": []}", "at least one message"),
            ("p.txt", "\n \n", "expected prompts, found none"),
            ("a.jsonl", "{\"prompt\": \"a\"}", "an answer in the field \"a\""),
            ("a.jsonl", "{\"prompt\": \"a\", \"a\": 3}", "in the field \"a\", found 3"),
            ("a.jsonl", "{\"prompt\": \"a\", \"a\": \"x\", \"gold\": \"a\"}", "two answers"),
            ("a.jsonl", "{\"prompt\": \"a\", \"a\": \"x\", \"b\": \"y\", \"gold\": \"c\"}", "found \"c\""),
            ("a.jsonl", "{\"prompt\": \"a\", \"a\": \"x\", \"b\": \"y\"}\n{\"prompt\": \"a\", \"a\": \"x\"}", "line 2"),
            ("a.jsonl", "", "expected answers, found none"),
        ] {
            let said = wrong(name, text);
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn gold_items_are_mixed_in_at_their_share() {
        let plain: Vec<Item> = (0..90).map(|i| text(i, None)).collect();
        let gold: Vec<Item> = (100..150).map(|i| text(i, Some(Side::B))).collect();
        let all = mixed(plain.clone(), gold.clone(), 0.1, 7);
        assert_eq!((all.len(), all.iter().filter(|item| item.gold.is_some()).count()), (100, 10));
        assert_ne!(all, mixed(plain.clone(), gold.clone(), 0.1, 8));
        assert_eq!(all, mixed(plain.clone(), gold, 0.1, 7));
        assert!(plain.iter().all(|item| all.contains(item)));
        let early = all[..50].iter().filter(|item| item.gold.is_some()).count();
        assert!((1..10).contains(&early), "{early} in the first half");
    }

    #[test]
    fn sides_are_a_coin_for_each_reviewer_and_item() {
        let sides = |seed, who: &str| (0..400).map(|i| left(seed, who, i)).collect::<Vec<_>>();
        let (anna, bo) = (sides(1, "anna"), sides(1, "bo"));
        for sides in [&anna, &bo] {
            let first = sides.iter().filter(|side| **side == Side::A).count();
            assert!((160..240).contains(&first), "{first}");
        }
        let alike = anna.iter().zip(&bo).filter(|(a, b)| a == b).count();
        assert!((160..240).contains(&alike), "{alike}");
        assert_ne!(anna, sides(2, "anna"));
        assert_eq!(anna, sides(1, "anna"));
    }

    #[test]
    fn a_png_loses_what_is_no_picture() {
        let part = |name: &[u8], data: &[u8]| [&(data.len() as u32).to_be_bytes()[..], name, data, &[0; 4]].concat();
        let whole = |parts: &[Vec<u8>]| [b"\x89PNG\r\n\x1a\n".to_vec(), parts.concat()].concat();
        let (head, words, end) = (part(b"IHDR", &[1; 13]), part(b"tEXt", b"Software\0model B"), part(b"IEND", b""));
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.png");
        std::fs::write(&path, whole(&[head.clone(), words, end.clone()])).expect("written");
        assert_eq!(plain_png(&path).expect("a picture"), whole(&[head.clone(), end]));
        std::fs::write(&path, &whole(&[head])[..20]).expect("written");
        assert!(plain_png(&path).expect_err("cut off").to_string().contains("cut off"));
        std::fs::write(&path, b"GIF89a").expect("written");
        assert!(plain_png(&path).is_err());
    }

    #[test]
    fn pictures_meet_by_name_or_by_order() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = |name: &str, files: &[&str]| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).expect("a folder");
            files.iter().for_each(|file| std::fs::write(folder.join(file), b"").expect("written"));
            folder
        };
        let (a, b) = (folder("a", &["cat.png", "dog.png", "notes.txt"]), folder("b", &["dog.png", "emu.PNG"]));
        let items = of_pictures(&a, Some(&b)).expect("items");
        assert_eq!((items.len(), &items[0].prompt), (1, &Prompt::Text("dog".into())));
        let c = folder("c", &["1.png"]);
        let items = of_pictures(&a, Some(&c)).expect("items");
        // A name of one folder alone would tell which it is.
        assert_eq!((items.len(), &items[0].prompt), (1, &Prompt::Text(String::new())));
        assert!(is_of_pictures(&a) && !is_of_pictures(dir.path()));
        assert!(of_pictures(dir.path(), None).is_err());
    }

    #[test]
    fn the_village_asks_and_knows() {
        let all = of_world(1, 20);
        assert!(all.iter().all(|q| q.reference.is_some()), "{all:?}");
        assert_eq!(all[..5], of_world(1, 5));
    }
}
