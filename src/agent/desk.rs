//! A calculator and a store of numbers: look them up, calculate, answer.

use super::arithmetic::{number, value};
use super::task::{shuffle, within};
use super::{Breach, Call, Environment, Reply, Split, Tool, arguments, clip, unknown};
use crate::rng::{Purpose, Rng};
use std::sync::Arc;

/// The stream of tasks of [`Purpose::World`].
const TASK: u32 = 0xa9_0010;

/// Keys of the store, bytes of a key, bytes of a value.
const MOST: [usize; 3] = [64, 64, 1024];
/// Bytes of a list of keys.
const LISTED: usize = 400;

/// The constraint: what was stored at the start stays.
const KEEP: &str = "no overwriting";

/// What is counted; the last few only in tests.
const KEYS: [&str; 16] = [
    "apples", "books", "boats", "carts", "coins", "drums", "goats", "hens", "kites", "nets", "ropes", "stones",
    "bells", "cups", "lamps", "pears",
];
const HELD_OUT: usize = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Kind {
    #[default]
    Sum,
    /// The first less the others.
    Rest,
    /// The sum, which is stored too.
    Store,
}

/// A desk with a calculator and a store.
#[derive(Clone)]
pub struct Desk {
    seed: u64,
    tools: Arc<[Tool]>,
    kind: Kind,
    /// What is stored, in order, and how many keys there were at the start.
    store: Vec<(String, String)>,
    given: usize,
    /// The keys that the task is about, with their numbers, and whether each was read.
    asked: Vec<(String, f64, bool)>,
    calculated: bool,
    answer: Option<f64>,
}

impl Desk {
    /// The tasks of a seed.
    pub fn new(seed: u64) -> Desk {
        let key = ("key", "The key");
        let tools = [
            Tool::new("calculate", "Work out + - * / and parentheses", &[("expression", "As 2 * (3 + 4)")]),
            Tool::new("put", "Store a value under a key", &[key, ("value", "The value")]),
            Tool::new("get", "The value under a key", &[key]),
            Tool::new("list", "All keys", &[]),
            Tool::new("answer", "Answer with a number, and end", &[("text", "The number")]),
        ];
        let mut desk = Desk {
            seed,
            tools: tools.into(),
            kind: Kind::Sum,
            store: Vec::new(),
            given: 0,
            asked: Vec::new(),
            calculated: false,
            answer: None,
        };
        desk.begin(0, Split::Train);
        desk
    }

    fn expected(&self) -> f64 {
        let sign = if self.kind == Kind::Rest { -1.0 } else { 1.0 };
        let numbers = self.asked.iter().enumerate();
        numbers.map(|(i, (_, x, _))| if i == 0 { *x } else { sign * x }).sum()
    }

    fn is_right(&self, text: &str) -> bool {
        text.trim().parse::<f64>().is_ok_and(|x| (x - self.expected()).abs() < 1e-6)
    }

    fn stored(&self, key: &str) -> Option<&str> {
        self.store.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    fn run(&mut self, call: &Call) -> Result<Reply, String> {
        Ok(match call.name.as_str() {
            "calculate" => {
                let [expression] = arguments(call, ["expression"])?;
                let result = number(value(expression)?);
                self.calculated |= self.is_right(&result);
                Reply::new(result)
            }
            "put" => {
                let [key, value] = arguments(call, ["key", "value"])?;
                self.put(key, value)?;
                Reply::new(format!("Stored under {key}."))
            }
            "get" => {
                let [key] = arguments(call, ["key"])?;
                let value = self.stored(key).ok_or_else(|| format!("Nothing is stored under \"{}\".", clip(key)))?;
                let value = value.to_owned();
                self.asked.iter_mut().filter(|(own, ..)| own == key).for_each(|(.., read)| *read = true);
                Reply::new(value)
            }
            "list" => {
                let [] = arguments(call, [])?;
                Reply::new(self.list())
            }
            "answer" => {
                let [text] = arguments(call, ["text"])?;
                let answer: f64 = text.trim().parse().map_err(|_| "An answer is a number, as 12.5.".to_owned())?;
                if !answer.is_finite() {
                    return Err("An answer is a number, as 12.5.".to_owned());
                }
                self.answer = Some(answer);
                Reply { text: "Thank you.".to_owned(), over: true }
            }
            _ => unknown(call, &self.tools),
        })
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        let [keys, key_bytes, value_bytes] = MOST;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if key.is_empty() || key.len() > key_bytes || !key.chars().all(plain) {
            return Err(format!("A key has 1 to {key_bytes} letters, digits, _ or -."));
        }
        if value.len() > value_bytes {
            return Err(format!("A value has at most {value_bytes} bytes."));
        }
        let full = self.store.len() == keys;
        match self.store.iter_mut().find(|(own, _)| own == key) {
            Some((_, old)) => value.clone_into(old),
            None if full => return Err(format!("The store is full: it has {keys} keys.")),
            None => self.store.push((key.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    fn list(&self) -> String {
        let mut text = String::new();
        for (n, (key, _)) in self.store.iter().enumerate() {
            if text.len() + key.len() > LISTED {
                return text + &format!(" and {} more", self.store.len() - n);
            }
            if n > 0 {
                text.push_str(", ");
            }
            text.push_str(key);
        }
        text
    }

    /// All that a call can change, in one line for tests.
    #[cfg(test)]
    pub(super) fn state(&self) -> String {
        format!("{:?} {:?} {:?} {:?}", self.store, self.asked, self.calculated, self.answer)
    }
}

impl Environment for Desk {
    fn name(&self) -> &str {
        "tools"
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn fresh(&self) -> Box<dyn Environment> {
        Box::new(self.clone())
    }

    fn tools(&self) -> &[Tool] {
        &self.tools
    }

    fn begin(&mut self, task: u64, split: Split) -> String {
        let mut rng = Rng::new(self.seed, Purpose::World, TASK + split as u32, task);
        loop {
            let count = KEYS.len() - if split.held_out() { 0 } else { HELD_OUT };
            let mut keys = KEYS[..count].to_vec();
            shuffle(&mut keys, &mut rng);
            if split.held_out() {
                // One that is held out comes first: it is asked for.
                keys.sort_by_key(|key| KEYS[..KEYS.len() - HELD_OUT].contains(key));
                let mut others = keys.split_off(1);
                shuffle(&mut others, &mut rng);
                keys.extend(others);
            }
            keys.truncate(6);
            self.kind = [Kind::Sum, Kind::Rest, Kind::Store][rng.below(3) as usize];
            let asked = if self.kind == Kind::Store { 2 } else { 2 + rng.below(3) as usize };
            let numbers: Vec<f64> = keys
                .iter()
                .map(|_| f64::from(1 + rng.below(99)) / if rng.below(3) == 0 { 10.0 } else { 1.0 })
                .collect();
            self.asked = keys.iter().zip(&numbers).take(asked).map(|(key, &x)| ((*key).to_owned(), x, false)).collect();
            self.store = keys.iter().zip(&numbers).map(|(key, &x)| ((*key).to_owned(), number(x))).collect();
            self.store.sort();
            self.given = self.store.len();
            (self.calculated, self.answer) = (false, None);
            let mark = format!("{:?}{:?}{:?}", self.kind, self.asked, self.store);
            if within(split, &mark) {
                break;
            }
        }
        let names: Vec<&str> = self.asked.iter().map(|(key, ..)| key.as_str()).collect();
        let (first, others) = names.split_first().expect("two keys at least");
        let (last, before) = names.split_last().expect("two keys at least");
        let (all, others) = (format!("{} and {last}", before.join(", ")), others.join(" and "));
        let test = split.other_words();
        let asked = match self.kind {
            Kind::Sum if test => format!("What do {all} come to?"),
            Kind::Sum => format!("Add the numbers under {all}. Answer with the sum."),
            Kind::Rest if test => format!("How much more is {first} than {others} together?"),
            Kind::Rest => format!("From the number under {first} take {others}. Answer with the rest."),
            Kind::Store if test => format!("Keep what {all} come to under total, and say it."),
            Kind::Store => format!("Add the numbers under {all}. Store the sum under total, and answer with it."),
        };
        format!("{asked} Do not overwrite what is stored.")
    }

    fn judge(&self, call: &Call) -> Vec<Breach> {
        let Ok([key, value]) = arguments(call, ["key", "value"]) else { return Vec::new() };
        let given = self.store[..self.given].iter().any(|(own, _)| own == key);
        if call.name == "put" && given && value.len() <= MOST[2] { vec![Breach::of(KEEP)] } else { Vec::new() }
    }

    fn call(&mut self, call: &Call) -> Reply {
        if self.answer.is_some() {
            return Reply { text: "You have answered already.".to_owned(), over: true };
        }
        self.run(call).unwrap_or_else(Reply::new)
    }

    fn valid(&self) -> Option<Vec<Call>> {
        None
    }

    fn oracle(&self) -> Option<Call> {
        if self.answer.is_some() {
            return None;
        }
        if let Some((key, ..)) = self.asked.iter().find(|(.., read)| !read) {
            return Some(Call::new("get", &[("key", key)]));
        }
        let result = number(self.expected());
        if !self.calculated {
            let sign = if self.kind == Kind::Rest { " - " } else { " + " };
            let numbers: Vec<String> = self.asked.iter().map(|(_, x, _)| number(*x)).collect();
            return Some(Call::new("calculate", &[("expression", &numbers.join(sign))]));
        }
        if self.kind == Kind::Store && !self.stored("total").is_some_and(|value| self.is_right(value)) {
            return Some(Call::new("put", &[("key", "total"), ("value", &result)]));
        }
        Some(Call::new("answer", &[("text", &result)]))
    }

    fn succeeded(&self) -> bool {
        let stored = self.kind != Kind::Store || self.stored("total").is_some_and(|value| self.is_right(value));
        stored && self.answer.is_some_and(|answer| (answer - self.expected()).abs() < 1e-6)
    }

    fn spent(&self) -> f64 {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_bounded_and_what_is_given_is_guarded() {
        let mut desk = Desk::new(1);
        let put = |key: &str, value: &str| Call::new("put", &[("key", key), ("value", value)]);
        let given = desk.store[0].0.clone();
        assert_eq!(desk.judge(&put(&given, "1")), [Breach::of(KEEP)]);
        assert_eq!(desk.judge(&put("other", "1")), []);
        let said = |desk: &mut Desk, call: &Call| desk.call(call).text;
        assert_eq!(said(&mut desk, &put("other", "1")), "Stored under other.");
        assert_eq!(said(&mut desk, &Call::new("get", &[("key", "other")])), "1");
        assert!(said(&mut desk, &put("a b", "1")).contains("letters"));
        assert!(said(&mut desk, &put(&"k".repeat(65), "1")).contains("1 to 64"));
        assert!(said(&mut desk, &put("k", &"v".repeat(1025))).contains("1024 bytes"));
        for i in 0..100 {
            desk.call(&put(&format!("{i}-{}", "k".repeat(50)), "1"));
        }
        assert_eq!(desk.store.len(), 64);
        assert!(said(&mut desk, &put("one-more", "1")).contains("full"));
        assert!(said(&mut desk, &Call::new("list", &[])).len() < 500);
        assert!(said(&mut desk, &Call::new("answer", &[("text", "NaN")])).contains("is a number"));
        assert!(!desk.succeeded());
    }

    #[test]
    fn a_wrong_answer_ends_the_task_without_success() {
        let mut desk = Desk::new(1);
        assert!(desk.call(&Call::new("answer", &[("text", "-1")])).over);
        assert!(!desk.succeeded() && desk.oracle().is_none());
    }
}
