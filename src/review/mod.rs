//! People judge what models make: two answers side by side without knowing whose they are, or one on a scale.
//!
//! ```text
//! prompts (item.rs) → answers of models (answers.rs) → items.jsonl → a page (server.rs) or a terminal
//!   → judgements.jsonl (book.rs) → preferences.jsonl (preferences.rs), a summary (summary.rs)
//! ```
//! A review is a folder:
//!
//! | file | what |
//! |------|------|
//! | `review.json` | what was asked for ([`Plan`]): a second start that asks for something else is refused |
//! | `answers.jsonl` | answers as models give them, so that a start that was killed asks for the others only |
//! | `items.jsonl` | what is judged, in the order in which it is shown; from then on no model is asked |
//! | `judgements.jsonl` | what was said, appended |
//! | `preferences.jsonl` | pairs in TRL's form, written anew after each judgement |
//!
//! Who is on the left is decided for each reviewer and item by the seed ([`item::left`]), and only this side of the page knows.

pub mod answers;
pub mod book;
pub mod item;
pub mod preferences;
pub mod server;
pub mod summary;

pub use book::Verdict;
pub use item::{Answer, Item, Prompt, Question, Side};
pub use server::Server;
pub use summary::Summary;

use crate::data::atomic::write_atomic;
use crate::disk::{self, Disk, Os};
use crate::error::{AtPath, Error, Result};
use book::{Book, Line, Said, standing};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

const PLAN: &str = "review.json";
const ITEMS: &str = "items.jsonl";
/// Bytes of a file of a review at most.
const MAX_FILE: u64 = 1 << 30;
/// Characters of a reviewer's name, and of a note, at most.
const MAX_NAME: usize = 40;
const MAX_NOTE: usize = 4_000;
/// After so many judgements a page is told anew how many more a verdict takes. A number that moved with each would tell whether it
/// went with the others, and so, item by item, whose answers are whose.
const ROUND: usize = 10;

/// What a review was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The models, as they were named: one or two.
    pub models: Vec<String>,
    /// Where prompts or answers are from.
    pub from: String,
    /// SHA-256 of the files of prompts, answers and gold items.
    pub files: Vec<String>,
    /// Prompts at most (0: as many as there are by default), and answers of one model to each.
    pub num: usize,
    /// See above.
    pub each: usize,
    /// The share of gold items.
    pub gold_share: f64,
    /// Of answers, of the order and of the sides.
    pub seed: u64,
    /// How models are asked.
    pub asked: Value,
}

/// Whether `path` is the folder of a review.
pub fn is_at(path: &Path) -> bool {
    path.join(PLAN).is_file()
}

/// The items of the review in the folder `dir`, if they are there already, after a check that it is the one that `plan` says.
///
/// # Errors
/// It is another one, or cannot be read.
pub fn found(dir: &Path, plan: &Plan) -> Result<Option<Vec<Item>>> {
    let has_items = Os.exists(&dir.join(ITEMS)).at(dir)?;
    if !is_at(dir) {
        if has_items || Os.exists(&dir.join(Book::FILE)).at(dir)? {
            let hint = "choose another folder with --out";
            return Err(Error::format(dir.join(PLAN), "content", "what this review was asked for", "no file", hint));
        }
        return Ok(None);
    }
    if !has_items && !answers::any_at(dir) {
        // Nothing came of it.
        return Ok(None);
    }
    let (old, new) = (serde_json::json!(read_plan(dir)?), serde_json::json!(plan));
    let keys = old.as_object().into_iter().flat_map(|all| all.keys());
    if let Some(key) = keys.into_iter().find(|key| old[key.as_str()] != new[key.as_str()]) {
        let problem = format!("{} is another review: {key} is {} there, not {}", dir.display(), old[key], new[key]);
        let hint = format!("choose another folder with --out; or go on with that one: kiln review {}", dir.display());
        return Err(Error::usage(problem, hint));
    }
    if has_items { read_items(dir).map(Some) } else { Ok(None) }
}

/// Makes the folder `dir` that of a review.
fn begin(dir: &Path, plan: &Plan) -> Result<()> {
    disk::make_dirs(&Os, dir)?;
    disk::sweep(&Os, dir)?;
    let text = serde_json::to_string_pretty(plan).expect("a plan is plain data") + "\n";
    write_atomic(&Os, &dir.join(PLAN), text.as_bytes())
}

/// Makes the folder `dir` that of a review of these items.
///
/// # Errors
/// There is nothing to judge, or it cannot be written.
pub fn keep(dir: &Path, plan: &Plan, items: &[Item]) -> Result<()> {
    if items.iter().all(|item| item.is_same()) {
        let hint = "compare two models that differ, or other prompts";
        return Err(Error::failed("there is nothing to judge: all answers are the same in pairs", hint));
    }
    begin(dir, plan)?;
    let line = |item: &Item| serde_json::to_string(item).expect("an item is plain data") + "\n";
    write_atomic(&Os, &dir.join(ITEMS), items.iter().map(line).collect::<String>().as_bytes())
}

fn read_plan(dir: &Path) -> Result<Plan> {
    let path = dir.join(PLAN);
    let text = disk::text(&Os, &path, MAX_FILE)?;
    let hint = "begin a new review with --out";
    serde_json::from_str(&text).map_err(|e| Error::format(&path, "content", "what kiln review writes", e, hint))
}

fn read_items(dir: &Path) -> Result<Vec<Item>> {
    let path = dir.join(ITEMS);
    let text = disk::text(&Os, &path, MAX_FILE)?;
    let item = |(n, line): (usize, &str)| {
        let hint = "begin a new review with --out";
        serde_json::from_str(line)
            .map_err(|e| Error::format(&path, format!("line {}", n + 1), "what kiln review writes", e, hint))
    };
    text.lines().enumerate().map(item).collect()
}

/// What a reviewer chose, as they saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One of two.
    Left,
    /// The other one.
    Right,
    /// They are as good.
    Tie,
    /// Neither is any good.
    Bad,
    /// 1 to 5.
    Rating(u8),
}

/// Where a reviewer stands.
#[derive(Debug, PartialEq)]
pub struct View<'a> {
    /// The item to judge now and its number; none: all are judged.
    pub item: Option<(usize, &'a Item)>,
    /// Its answers as they are shown, the left one first.
    pub answers: Vec<&'a Answer>,
    /// Items that this reviewer has judged, and all of them.
    pub done: usize,
    /// See above.
    pub total: usize,
    /// How many more pairs a verdict takes, as told last; 0: it is there; none: nobody can say.
    pub more: Option<u64>,
}

/// A review under way.
pub struct Review {
    dir: PathBuf,
    plan: Plan,
    items: Vec<Item>,
    book: Book,
}

impl Review {
    /// Opens the folder of a review whose items are there, for this process alone.
    ///
    /// # Errors
    /// A file of it cannot be read or written, or another process has it open.
    pub fn open(dir: &Path) -> Result<Review> {
        let (plan, items) = (read_plan(dir)?, read_items(dir)?);
        let book = Book::open(dir, &items)?;
        Ok(Review { dir: dir.to_owned(), plan, items, book })
    }

    /// The summary of a folder, which another process may have open.
    ///
    /// # Errors
    /// A file of it cannot be read.
    pub fn look(dir: &Path) -> Result<Summary> {
        let (plan, items) = (read_plan(dir)?, read_items(dir)?);
        Ok(Summary::new(&plan, &items, &Book::look(dir, &items)?))
    }

    /// What all judgements say.
    pub fn summary(&self) -> Summary {
        Summary::new(&self.plan, &self.items, self.book.lines())
    }

    /// Whether one model is rated, and not two compared.
    pub fn is_rating(&self) -> bool {
        self.items.iter().all(|item| item.b.is_none())
    }

    /// A reviewer's name without blanks around it.
    ///
    /// # Errors
    /// It is empty, too long, or has control characters.
    pub fn reviewer(name: &str) -> Result<&str> {
        let name = name.trim();
        let fits = !name.is_empty() && name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control);
        let problem = "a reviewer's name has 1 to 40 characters, none of them a control character";
        if fits { Ok(name) } else { Err(Error::usage(problem, "give another name")) }
    }

    /// Whose answer this reviewer sees on the left.
    fn left(&self, reviewer: &str, item: usize) -> Side {
        item::left(self.plan.seed, reviewer, item)
    }

    /// An answer of an item as this reviewer sees them: 0 the left one, 1 the right one.
    pub fn answer(&self, reviewer: &str, item: usize, place: usize) -> Option<&Answer> {
        let found = self.items.get(item)?;
        match (&found.b, place) {
            (None, 0) => Some(&found.a),
            (Some(_), 0) => Some(found.answer(self.left(reviewer, item))),
            (Some(_), 1) => Some(found.answer(self.left(reviewer, item).other())),
            _ => None,
        }
    }

    /// Where a reviewer stands.
    pub fn view(&self, reviewer: &str) -> View<'_> {
        let said = standing(self.book.lines());
        let shown = || self.items.iter().enumerate().filter(|(_, item)| !item.is_same());
        let item = shown().find(|(i, _)| !said.contains_key(&(reviewer, *i)));
        let answers = item.iter().flat_map(|&(i, _)| (0..2).filter_map(move |place| self.answer(reviewer, i, place)));
        let lines = self.book.lines();
        View {
            item,
            answers: answers.collect(),
            done: said.keys().filter(|(own, _)| *own == reviewer).count(),
            total: shown().count(),
            more: if self.is_rating() {
                None
            } else {
                summary::more(&self.items, &lines[..lines.len() / ROUND * ROUND])
            },
        }
    }

    /// Writes down what a reviewer says of an item; it is on disk then.
    ///
    /// # Errors
    /// There is no such item, it cannot be judged so, or nothing can be written.
    pub fn judge(&mut self, reviewer: &str, item: usize, choice: Choice, note: &str) -> Result<()> {
        let wrong = |problem: &str| Err(Error::usage(problem, "reload the page"));
        let reviewer = Review::reviewer(reviewer)?.to_owned();
        let Some(found) = self.items.get(item).filter(|item| !item.is_same()) else {
            return wrong("there is no such item");
        };
        if note.chars().count() > MAX_NOTE {
            return wrong("a note has at most 4,000 characters");
        }
        let left = self.left(&reviewer, item);
        let of = |side| Said::Verdict(if side == Side::A { Verdict::A } else { Verdict::B });
        let said = match (choice, found.b.is_some()) {
            (Choice::Left, true) => of(left),
            (Choice::Right, true) => of(left.other()),
            (Choice::Tie, true) => Said::Verdict(Verdict::Tie),
            (Choice::Bad, true) => Said::Verdict(Verdict::Bad),
            (Choice::Rating(n @ 1..=5), false) => Said::Rating(n),
            _ => return wrong("this item cannot be judged so"),
        };
        let (id, left) = (found.id(), found.b.is_some().then_some(left));
        self.write(Line { time: book::now(), reviewer, item, id, left, said, note: note.trim().to_owned() })
    }

    /// Takes back what a reviewer said last, if they said anything.
    ///
    /// # Errors
    /// Nothing can be written.
    pub fn undo(&mut self, reviewer: &str) -> Result<()> {
        let reviewer = Review::reviewer(reviewer)?;
        let said = standing(self.book.lines());
        let stands = |line: &&Line| said.get(&(reviewer, line.item)).is_some_and(|last| std::ptr::eq(*last, *line));
        let Some(last) = self.book.lines().iter().rev().find(|line| line.reviewer == reviewer && stands(line)) else {
            return Ok(());
        };
        let undone = Line { time: book::now(), said: Said::Undone(true), note: String::new(), ..last.clone() };
        self.write(undone)
    }

    /// Adds a line to the judgements, and makes the preferences follow.
    fn write(&mut self, line: Line) -> Result<()> {
        self.book.append(line)?;
        self.write_preferences()
    }

    /// Writes the pairs for training, where there are any or were.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_preferences(&self) -> Result<()> {
        let path = self.dir.join(preferences::FILE);
        let pairs = preferences::of(&self.items, self.book.lines());
        if pairs.is_empty() && !Os.exists(&path).at(&path)? {
            return Ok(());
        }
        let text: String = pairs.iter().map(|pair| pair.to_string() + "\n").collect();
        write_atomic(&Os, &path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(n: usize) -> Vec<Item> {
        let answer = |text: String| Answer::Text(text);
        let item = |i| Item {
            prompt: Prompt::Text(format!("prompt {i}")),
            reference: None,
            a: answer(format!("first {i}")),
            b: Some(answer(format!("second {i}"))),
            gold: None,
        };
        (0..n).map(item).collect()
    }

    fn begun(n: usize) -> (tempfile::TempDir, Review) {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(found(dir.path(), &Plan::default()).expect("a folder"), None);
        keep(dir.path(), &Plan::default(), &items(n)).expect("kept");
        let review = Review::open(dir.path()).expect("a review");
        (dir, review)
    }

    #[test]
    fn a_choice_is_written_as_a_verdict_on_the_model_that_was_there() {
        let (dir, mut review) = begun(12);
        for i in 0..12 {
            let view = review.view("anna");
            let (n, item) = view.item.expect("an item");
            assert_eq!((n, view.done, view.total), (i, i, 12));
            // Anna likes the second model, wherever it stands.
            let place = view.answers.iter().position(|answer| Some(*answer) == item.b.as_ref()).expect("a place");
            review.judge("anna", n, [Choice::Left, Choice::Right][place], "").expect("saved");
        }
        assert_eq!(review.view("anna").item, None);
        let pairs = review.summary().pairs.expect("pairs");
        assert_eq!((pairs.a_wins, pairs.b_wins), (0, 12));
        let kept = disk::text(&Os, &dir.path().join(preferences::FILE), 1 << 20).expect("a file");
        let chosen = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["chosen"].clone();
        assert!(kept.lines().map(chosen).all(|text| text.as_str().is_some_and(|text| text.starts_with("second"))));
        // Both sides were seen.
        let lefts: Vec<Option<Side>> = review.book.lines().iter().map(|line| line.left).collect();
        assert!(lefts.contains(&Some(Side::A)) && lefts.contains(&Some(Side::B)), "{lefts:?}");
    }

    #[test]
    fn what_was_said_last_can_be_taken_back_again_and_again() {
        let (dir, mut review) = begun(3);
        for (item, choice) in [(0, Choice::Left), (1, Choice::Tie)] {
            review.judge("anna", item, choice, "because").expect("saved");
        }
        review.judge("bo", 0, Choice::Bad, "").expect("saved");
        let at = |review: &Review| review.view("anna").item.map(|(i, _)| i);
        for back in [1, 0, 0] {
            review.undo("anna").expect("saved");
            assert_eq!(at(&review), Some(back));
        }
        assert_eq!(review.view("bo").done, 1);
        assert_eq!(disk::text(&Os, &dir.path().join(preferences::FILE), 1 << 20).expect("a file"), "");
        drop(review);
        assert_eq!(at(&Review::open(dir.path()).expect("a review")), Some(0));
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let (_dir, mut review) = begun(2);
        let mut refused = |who: &str, item, choice, note: &str| review.judge(who, item, choice, note).is_err();
        assert!(refused("anna", 2, Choice::Left, ""));
        assert!(refused("anna", 0, Choice::Rating(3), ""));
        assert!(refused("", 0, Choice::Left, "") && refused("a\nb", 0, Choice::Left, ""));
        assert!(refused(&"x".repeat(41), 0, Choice::Left, "") && refused("anna", 0, Choice::Left, &"x".repeat(4001)));
        assert!(!refused("anna", 0, Choice::Left, &"x".repeat(4000)));
    }

    #[test]
    fn the_number_that_is_still_needed_moves_in_rounds_only() {
        let (_dir, mut review) = begun(30);
        let mut told = Vec::new();
        for i in 0..30 {
            let (n, item) = review.view("anna").item.expect("an item");
            let wants = if i % 3 == 0 { &item.a } else { item.b.as_ref().expect("two") };
            let place = review.view("anna").answers.iter().position(|answer| *answer == wants).expect("a place");
            review.judge("anna", n, [Choice::Left, Choice::Right][place], "").expect("saved");
            told.push(review.view("anna").more);
        }
        assert!(told[..9].iter().all(Option::is_none), "{told:?}");
        assert!(told[9..].chunks(10).all(|round| round.iter().all(|more| *more == round[0])), "{told:?}");
        assert!(told[9].is_some());
    }

    #[test]
    fn a_folder_is_that_of_one_review() {
        let (dir, review) = begun(2);
        assert!(is_at(dir.path()));
        assert_eq!(found(dir.path(), &Plan::default()).expect("the same"), Some(items(2)));
        let other = found(dir.path(), &Plan { seed: 7, ..Plan::default() }).expect_err("another").to_string();
        assert!(other.contains("is another review: seed is 0 there, not 7"), "{other}");
        assert_eq!(Review::look(dir.path()).expect("a summary"), review.summary());
        let same = Item { b: Some(Answer::Text("first 0".into())), ..items(1).remove(0) };
        assert!(keep(dir.path(), &Plan::default(), &[same]).is_err());
        let foreign = tempfile::tempdir().expect("a folder");
        std::fs::write(foreign.path().join(ITEMS), "").expect("written");
        assert!(found(foreign.path(), &Plan::default()).is_err());
    }

    #[test]
    fn pairs_that_are_the_same_are_ties_and_nobody_is_asked() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut items = items(3);
        items[0].b = Some(items[0].a.clone());
        keep(dir.path(), &Plan::default(), &items).expect("kept");
        let mut review = Review::open(dir.path()).expect("a review");
        let view = review.view("anna");
        assert_eq!((view.item.map(|(i, _)| i), view.total), (Some(1), 2));
        assert!(review.judge("anna", 0, Choice::Left, "").is_err());
        review.judge("anna", 1, Choice::Left, "").expect("saved");
        let pairs = review.summary().pairs.expect("pairs");
        assert_eq!((pairs.ties, pairs.same), (1, 1));
    }
}
