//! Sentences with a marked part that is drawn: the small language of `contexts.txt` and `negatives.txt`.

use super::super::choice::Chooser;
use std::ops::Range;

const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const HEX: &[u8] = b"0123456789abcdef";

/// Appends `pattern` to `out`: `#` is drawn from 0–9, `$` from 1–9, `&` from 2–9, `^` from A–Z, `~` from a–z, `%` from the
/// hexadecimal digits; what follows a backslash, and everything else, stands for itself.
pub(super) fn fill(c: &mut Chooser, pattern: &str, out: &mut String) {
    let mut chars = pattern.chars();
    while let Some(mark) = chars.next() {
        let set = match mark {
            '#' => &HEX[..10],
            '$' => &HEX[1..10],
            '&' => &HEX[2..10],
            '^' => UPPER,
            '~' => LOWER,
            '%' => HEX,
            '\\' => {
                out.extend(chars.next());
                continue;
            }
            _ => {
                out.push(mark);
                continue;
            }
        };
        out.push(char::from(c.one_of(set)));
    }
}

/// The sentence `line` with `name` for `{a}` and, for the part between `<` and `>`, what `inside` appends when it is given
/// that part; and where that lies.
pub(super) fn sentence(line: &str, name: &str, inside: impl FnOnce(&str, &mut String)) -> (String, Range<usize>) {
    let (before, rest) = line.split_once('<').expect("a marked part");
    let (part, after) = rest.split_once('>').expect("the end of the marked part");
    let mut text = before.replace("{a}", name);
    let start = text.len();
    inside(part, &mut text);
    let span = start..text.len();
    text.push_str(&after.replace("{a}", name));
    (text, span)
}

/// The sections of a file of sentences: (its name, its lines).
pub(super) fn sections(file: &'static str) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match all.last_mut() {
            Some((_, lines)) if line.contains('<') => lines.push(line),
            _ => all.push((line, Vec::new())),
        }
    }
    all
}
