//! The notation of [`table`](super::table): which words an instruction may have, in the notation of the PTX manual.
//!
//! `add{.rn}{.ftz}.{f32|f64}` is the opcode, two words that may be left out and one that must be one of two. `<name>`
//! stands for a [set](SETS) of words.

use super::types::{Type, Word};

/// Sets of types with names.
pub const SETS: [(&str, &str); 6] = [
    ("int", "u16|s16|u32|s32|u64|s64"),
    ("anyint", "u8|s8|u16|s16|u32|s32|u64|s64"),
    ("bits", "b16|b32|b64"),
    ("any", "b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64"),
    ("mem", "b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64"),
    ("half", "f16|f16x2|bf16|bf16x2"),
];

/// The words of an instruction: its opcode and its modifiers.
pub struct Mods<'a>(pub Vec<&'a str>);

impl<'a> Mods<'a> {
    /// The words of `text`, as `ld.global.f32`.
    pub fn new(text: &'a str) -> Mods<'a> {
        Mods(text.split('.').collect())
    }

    /// Whether a word is there.
    pub fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    /// The first word that is one of `T`'s.
    pub fn find<T: Word>(&self) -> Option<T> {
        self.0.iter().find_map(|word| T::named(word))
    }

    /// The same, where the syntax says that there is one.
    pub fn get<T: Word>(&self) -> T {
        self.find().unwrap_or(T::ALL[0].0)
    }

    /// The type that is written as the `i`-th from the left; the last one where there are fewer.
    pub fn ty(&self, i: usize) -> Type {
        let types = || self.0.iter().filter_map(|word| Type::named(word));
        types().nth(i).or(types().next_back()).unwrap_or(Type::B32)
    }

    /// How many elements `.v2`, `.x4` and so on ask for; else 1.
    pub fn count(&self) -> u8 {
        if self.has("v4") || self.has("x4") {
            4
        } else if self.has("v2") || self.has("x2") {
            2
        } else {
            1
        }
    }
}

/// A place in a syntax: words of which one may stand here, or must.
struct Group<'a> {
    words: &'a str,
    optional: bool,
}

impl Group<'_> {
    fn accepts(&self, word: &str) -> bool {
        self.words.split('|').any(|w| match w.strip_prefix('<').and_then(|w| w.strip_suffix('>')) {
            Some(set) => SETS.iter().any(|(name, words)| *name == set && words.split('|').any(|w| w == word)),
            None => w.trim_start_matches('.') == word,
        })
    }
}

fn groups(syntax: &str) -> impl Iterator<Item = Group<'_>> {
    let mut rest = syntax;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (optional, dotted) = (rest.starts_with("{."), rest.starts_with('.'));
        let body = rest.strip_prefix('.').unwrap_or(rest);
        let (words, after) = match body.strip_prefix('{') {
            Some(inner) => inner.split_once('}')?,
            None => {
                // A plain word ends where the next group begins.
                let end = body.find(['.', '{']).unwrap_or(body.len());
                body.split_at(end)
            }
        };
        debug_assert!(optional || dotted || std::ptr::eq(rest.as_ptr(), syntax.as_ptr()));
        rest = after;
        Some(Group { words, optional })
    })
}

/// Whether `words` are what `syntax` allows; else how many of them are.
pub fn accepts(syntax: &str, words: &[&str]) -> Result<(), usize> {
    let mut at = 0;
    for group in groups(syntax) {
        if words.get(at).is_some_and(|word| group.accepts(word)) {
            at += 1;
        } else if !group.optional {
            return Err(at);
        }
    }
    if at == words.len() { Ok(()) } else { Err(at) }
}

/// A syntax with the names of sets replaced by what they stand for.
pub fn spelled(syntax: &str) -> String {
    SETS.iter().fold(syntax.to_owned(), |text, (name, words)| text.replace(&format!("<{name}>"), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_takes_its_words_in_order() {
        let syntax = "{add|sub}{.rn}{.ftz}.{f32|<half>}";
        for (text, result) in [
            ("add.f32", Ok(())),
            ("sub.rn.ftz.bf16x2", Ok(())),
            ("mul.f32", Err(0)),
            ("add", Err(1)),
            ("add.rz.f32", Err(1)),
            ("add.ftz.rn.f32", Err(2)),
            ("add.rn.f32.sat", Err(3)),
        ] {
            assert_eq!(accepts(syntax, &Mods::new(text).0), result, "{text}");
        }
        assert_eq!(accepts("cp.async.{ca|cg}.global", &["cp", "async", "cg", "global"]), Ok(()));
        assert_eq!(spelled("x.{<half>|f32}"), "x.{f16|f16x2|bf16|bf16x2|f32}");
    }
}
