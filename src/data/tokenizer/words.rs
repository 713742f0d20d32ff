//! Text cut into words, within which byte pairs are merged: the regular expressions of GPT-2 and its followers, by hand.
//!
//! | pattern | who | expression |
//! |---------|-----|------------|
//! | [`Gpt2`](Pattern::Gpt2) | GPT-2 | [`GPT2`] |
//! | [`EachDigit`](Pattern::EachDigit) | StarCoder, SmolLM | each numeric character alone, then GPT-2's on what lies between |
//! | [`Gpt4`](Pattern::Gpt4) | GPT-4 and Llama 3 (numbers of up to 3 digits), Qwen 2 (1) | [`GPT4`] |
//!
//! The classes `\p{L}`, `\p{N}` and `\s` are those of the crate `regex-syntax`, by which the `tokenizers` crate matches too:
//! the same version of Unicode. A pattern tiles the text: every byte is in one word.

use std::sync::LazyLock;

use serde_json::Value;

/// GPT-2's expression, as the `tokenizers` crate has it.
#[cfg(test)]
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The expression of GPT-4 and its followers, as their files have it, around the one for numbers.
pub(crate) const GPT4: [&str; 2] =
    [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|", r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"];

/// How a text is cut into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Letters, or numbers, or other visible characters, with the space before them; and white space.
    Gpt2,
    /// [`Pattern::Gpt2`] between numeric characters, each of which is a word.
    EachDigit,
    /// Letters with any one character before them, numbers of so many digits, other visible characters with the space before
    /// and the line breaks after them; and white space.
    Gpt4 {
        /// Digits of the longest number.
        digits: usize,
    },
}

impl Pattern {
    /// The pattern that the `pre_tokenizer` of a `tokenizer.json` stands for, where it is one of these and turns characters into
    /// bytes.
    pub fn of(pre_tokenizer: &Value) -> Option<Pattern> {
        let bytes = |part: &Value, use_regex: bool| {
            part["type"] == "ByteLevel"
                && part["add_prefix_space"] == false
                && part["use_regex"].as_bool().unwrap_or(true) == use_regex
        };
        if bytes(pre_tokenizer, true) {
            return Some(Pattern::Gpt2);
        }
        let parts = pre_tokenizer["pretokenizers"].as_array().filter(|_| pre_tokenizer["type"] == "Sequence")?;
        let [first, second] = &parts[..] else { return None };
        if first["type"] == "Digits" && first["individual_digits"] == true && bytes(second, true) {
            return Some(Pattern::EachDigit);
        }
        let splits = first["type"] == "Split" && first["behavior"] == "Isolated" && first["invert"] != true;
        let number = first["pattern"]["Regex"].as_str()?.strip_prefix(GPT4[0])?.strip_suffix(GPT4[1])?;
        let digits = match number {
            r"\p{N}" => 1,
            r"\p{N}{1,3}" => 3,
            _ => return None,
        };
        (splits && bytes(second, false)).then_some(Pattern::Gpt4 { digits })
    }

    /// Calls `each` with the words of `text`, in order, as ranges of bytes.
    #[inline]
    pub fn words(self, text: &str, mut each: impl FnMut(usize, usize)) {
        let reader = Reader { text, classes: &CLASSES };
        let mut at = 0;
        match self {
            Pattern::Gpt2 => {
                while at < text.len() {
                    let end = reader.gpt2(at, text.len());
                    each(at, end);
                    at = end;
                }
            }
            Pattern::EachDigit => {
                while at < text.len() {
                    let number = text[at..].char_indices().find(|(_, c)| c.is_numeric());
                    let (start, end) =
                        number.map_or((text.len(), text.len()), |(i, c)| (at + i, at + i + c.len_utf8()));
                    while at < start {
                        let word = reader.gpt2(at, start);
                        each(at, word);
                        at = word;
                    }
                    if start < end {
                        each(start, end);
                    }
                    at = end;
                }
            }
            Pattern::Gpt4 { digits } => {
                while at < text.len() {
                    let end = reader.gpt4(at, digits);
                    each(at, end);
                    at = end;
                }
            }
        }
    }
}

const OTHER: u8 = 0;
const LETTER: u8 = 1;
const NUMBER: u8 = 2;
const SPACE: u8 = 3;

/// The class of each code point.
static CLASSES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut classes = vec![OTHER; char::MAX as usize + 1];
    for (class, name) in [(LETTER, r"\p{L}"), (NUMBER, r"\p{N}"), (SPACE, r"\s")] {
        let hir = regex_syntax::parse(name).expect("the expression is one");
        let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(ranges)) = hir.kind() else {
            unreachable!("{name} is a class of characters")
        };
        for range in ranges.ranges() {
            classes[range.start() as usize..=range.end() as usize].fill(class);
        }
    }
    classes
});

struct Reader<'a> {
    text: &'a str,
    classes: &'a [u8],
}

impl Reader<'_> {
    /// The class of the character at `at`, which is not the end, and where the next one starts.
    #[inline(always)]
    fn class(&self, at: usize) -> (u8, usize) {
        let byte = self.text.as_bytes()[at];
        if byte < 0x80 { (self.classes[usize::from(byte)], at + 1) } else { self.wide(at) }
    }

    #[inline(never)]
    fn wide(&self, at: usize) -> (u8, usize) {
        let c = self.text[at..].chars().next().unwrap_or('\0');
        (self.classes[c as usize], at + c.len_utf8())
    }

    /// Where the characters of a class from `at` on end, before `limit`.
    #[inline(always)]
    fn run(&self, class: u8, mut at: usize, limit: usize) -> usize {
        while at < limit {
            let (found, next) = self.class(at);
            if found != class {
                break;
            }
            at = next;
        }
        at
    }

    /// The end of white space that starts at `at` and of which a word takes all but its last character, unless that is its only
    /// one, or nothing follows before `limit`: `\s+(?!\S)|\s+`.
    fn space(&self, at: usize, limit: usize) -> usize {
        let end = self.run(SPACE, at, limit);
        let last = self.text[at..end].char_indices().next_back().map_or(0, |(last, _)| last);
        if end == limit || last == 0 { end } else { at + last }
    }

    /// The end of `'s|'t|'re|'ve|'m|'ll|'d` at the apostrophe at `at`.
    fn contraction(&self, at: usize) -> Option<usize> {
        let rest = &self.text.as_bytes()[at + 1..];
        match rest {
            [b's' | b't' | b'm' | b'd', ..] => Some(at + 2),
            [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => Some(at + 3),
            _ => None,
        }
    }

    /// The same with letters of either case. U+017F is a small s too.
    fn any_contraction(&self, at: usize) -> Option<usize> {
        let rest = &self.text.as_bytes()[at + 1..];
        match rest {
            [b's' | b't' | b'm' | b'd' | b'S' | b'T' | b'M' | b'D', ..] => Some(at + 2),
            [b'r' | b'v' | b'R' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..] => Some(at + 3),
            [0xC5, 0xBF, ..] => Some(at + 3),
            _ => None,
        }
    }

    /// The end of the word of [`Pattern::Gpt2`] that starts at `at`, in a text that ends at `limit`.
    #[inline(always)]
    fn gpt2(&self, at: usize, limit: usize) -> usize {
        let bytes = self.text.as_bytes();
        let (class, next) = self.class(at);
        if class != SPACE {
            if bytes[at] == b'\''
                && let Some(end) = self.contraction(at)
                && end <= limit
            {
                return end;
            }
            return self.run(class, next, limit);
        }
        if bytes[at] == b' ' && next < limit {
            let (class, next) = self.class(next);
            if class != SPACE {
                return self.run(class, next, limit);
            }
        }
        self.space(at, limit)
    }

    /// The end of the word of [`Pattern::Gpt4`] that starts at `at`.
    #[inline(always)]
    fn gpt4(&self, at: usize, digits: usize) -> usize {
        let (bytes, limit) = (self.text.as_bytes(), self.text.len());
        if bytes[at] == b'\''
            && let Some(end) = self.any_contraction(at)
        {
            return end;
        }
        let (class, next) = self.class(at);
        if class == LETTER {
            return self.run(LETTER, next, limit);
        }
        if class == NUMBER {
            let mut end = next;
            for _ in 1..digits {
                match (end < limit).then(|| self.class(end)) {
                    Some((NUMBER, next)) => end = next,
                    _ => break,
                }
            }
            return end;
        }
        let is_break = |at: usize| matches!(bytes.get(at), Some(b'\r' | b'\n'));
        if !is_break(at) && next < limit && self.class(next).0 == LETTER {
            return self.run(LETTER, next, limit);
        }
        let visible = match class {
            OTHER => Some(next),
            _ if bytes[at] == b' ' && next < limit && self.class(next).0 == OTHER => Some(self.class(next).1),
            _ => None,
        };
        if let Some(start) = visible {
            let mut end = self.run(OTHER, start, limit);
            while is_break(end) {
                end += 1;
            }
            return end;
        }
        // `\s*[\r\n]+`: up to the last line break of the white space.
        let space = self.run(SPACE, at, limit);
        match bytes[at..space].iter().rposition(|b| matches!(b, b'\r' | b'\n')) {
            Some(last) => at + last + 1,
            None => self.space(at, limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};
    use serde_json::json;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

    fn files() -> [(Pattern, Value); 4] {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let sequence = |first: Value, regex| json!({"type": "Sequence", "pretokenizers": [first, bytes(regex)]});
        let split = |number: &str| {
            let regex = format!("{}{number}{}", GPT4[0], GPT4[1]);
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
        };
        [
            (Pattern::Gpt2, bytes(true)),
            (Pattern::EachDigit, sequence(json!({"type": "Digits", "individual_digits": true}), true)),
            (Pattern::Gpt4 { digits: 3 }, sequence(split(r"\p{N}{1,3}"), false)),
            (Pattern::Gpt4 { digits: 1 }, sequence(split(r"\p{N}"), false)),
        ]
    }

    /// Ends of words by the crate.
    fn theirs(pre: &PreTokenizerWrapper, text: &str) -> Vec<usize> {
        let mut split = PreTokenizedString::from(text);
        pre.pre_tokenize(&mut split).unwrap();
        let words = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
        words.iter().map(|(_, range, _)| range.1).collect()
    }

    fn ours(pattern: Pattern, text: &str) -> Vec<usize> {
        let (mut ends, mut at) = (Vec::new(), 0);
        pattern.words(text, |start, end| {
            assert!(start == at && end > start, "words tile the text");
            at = end;
            ends.push(end);
        });
        assert_eq!(at, text.len());
        ends
    }

    #[test]
    fn patterns_are_known_by_their_files_and_no_others_are() {
        for (pattern, file) in files() {
            assert_eq!(Pattern::of(&file), Some(pattern));
        }
        let mut other = files()[2].1.clone();
        other["pretokenizers"][0]["pattern"]["Regex"] = json!(GPT2);
        assert_eq!(Pattern::of(&other), None);
        let mut prefixed = files()[0].1.clone();
        prefixed["add_prefix_space"] = json!(true);
        assert_eq!(Pattern::of(&prefixed), None);
        assert_eq!(Pattern::of(&Value::Null), None);
    }

    #[test]
    fn words_of_random_text_are_those_of_the_expressions() {
        let parts = [
            " ",
            "  ",
            "\n",
            "\r\n",
            "\t",
            "\u{a0}",
            "\u{3000}",
            "'",
            "'s",
            "'LL",
            "'ſ",
            "'re",
            "'v",
            "a",
            "Zebra",
            "ſ",
            "é",
            "e\u{301}",
            "火",
            "1",
            "23",
            "4567",
            "٣",
            "½",
            "²",
            "!",
            "...",
            "🔥",
            "👩‍👩‍👧",
            "\0",
            "\u{7f}",
            "\u{200b}",
            "\u{85}",
            "_",
            "\u{1F1E6}",
            "\u{2028}",
        ];
        for (pattern, file) in files() {
            let pre: PreTokenizerWrapper = serde_json::from_value(file).unwrap();
            for seed in 0..400 {
                let mut rng = Rng::new(seed, Purpose::Test, 0, 0);
                let mut text = String::new();
                for _ in 0..rng.below(40) {
                    match rng.below(8) {
                        0 => {
                            let top = [0x300, 0x3000, 0x1_0000, 0x11_0000][rng.below(4) as usize];
                            text.extend(char::from_u32(rng.below(top)));
                        }
                        _ => text.push_str(parts[rng.below(parts.len() as u32) as usize]),
                    }
                }
                assert_eq!(ours(pattern, &text), theirs(&pre, &text), "{pattern:?} on {text:?}");
            }
        }
    }

    #[test]
    fn every_character_has_the_class_of_the_expressions() {
        // Between two letters a character joins them, stands alone or splits them.
        for (pattern, file) in files() {
            let pre: PreTokenizerWrapper = serde_json::from_value(file).unwrap();
            let common = '\0'..='\u{3100}';
            let some = ('\u{3100}'..=char::MAX).step_by(if pattern == Pattern::Gpt2 { 37 } else { 1009 });
            let all: Vec<char> = common.step_by(if pattern == Pattern::Gpt2 { 1 } else { 7 }).chain(some).collect();
            for chunk in all.chunks(5000) {
                let text: String = chunk.iter().flat_map(|&c| ['a', c, 'b', c, c, ' ']).collect();
                assert!(ours(pattern, &text) == theirs(&pre, &text), "{pattern:?} near {:?}", chunk[0]);
            }
        }
    }
}
