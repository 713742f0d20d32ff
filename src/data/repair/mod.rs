//! Repairs what transport does to text: wrong decodings, line ends, control and invisible characters, several spellings
//! of one character.
//!
//! [`repair`] applied twice changes nothing more. Text that needs nothing is borrowed, and costs one look at each byte.
//! What bytes mean is told by [`decode`].

mod encoding;
mod mojibake;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

pub use encoding::{Decoded, decode};

/// What is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Lines of UTF-8 that were read as Latin-1 or Windows-1252, once or more often: `cafÃ©` to `café`.
    pub mojibake: bool,
    /// Control characters and escape sequences of terminals go; line feeds and tabs stay.
    pub controls: bool,
    /// Zero-width and bidirectional marks, byte-order marks and tags go. Joiners stay where scripts and emoji need them.
    pub invisible: bool,
    /// `\r\n`, `\r`, form feeds and Unicode's line separators become `\n`.
    pub line_ends: bool,
    /// Characters are composed (Unicode's normalisation form C).
    pub nfc: bool,
    /// Blanks at the ends of lines go.
    pub trailing_spaces: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { mojibake: true, controls: true, invisible: true, line_ends: true, nfc: true, trailing_spaces: false }
    }
}

/// How much was repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repairs {
    /// Lines that were decoded anew.
    pub mojibake: u64,
    /// Control characters, and escape sequences.
    pub controls: u64,
    /// Invisible characters.
    pub invisible: u64,
    /// Line ends.
    pub line_ends: u64,
    /// Texts that were not composed.
    pub nfc: u64,
    /// Lines that ended in blanks.
    pub trailing_spaces: u64,
}

impl Repairs {
    /// Whether nothing was repaired.
    pub fn is_none(&self) -> bool {
        *self == Repairs::default()
    }
}

impl std::ops::AddAssign for Repairs {
    fn add_assign(&mut self, other: Repairs) {
        self.mojibake += other.mojibake;
        self.controls += other.controls;
        self.invisible += other.invisible;
        self.line_ends += other.line_ends;
        self.nfc += other.nfc;
        self.trailing_spaces += other.trailing_spaces;
    }
}

/// Repairs `text`; what it returns needs no repair.
pub fn repair<'a>(text: &'a str, options: &Options) -> (Cow<'a, str>, Repairs) {
    let mut repairs = Repairs::default();
    let mut text = Cow::Borrowed(text);
    // One repair may uncover another: a mark between the halves of a wrong decoding. Each round leaves fewer characters
    // or more composed ones, so there are few.
    loop {
        let mut needs = Needs::of(&text);
        let mut round = Repairs::default();
        if options.mojibake
            && needs.mojibake
            && let Some(better) = mojibake::repair(&text, &mut round.mojibake)
        {
            text = Cow::Owned(better);
            needs = Needs::of(&text);
        }
        if needs.characters(options) {
            let before = round;
            let better = characters(&text, options, &mut round);
            if round != before {
                text = Cow::Owned(better);
            }
        }
        if options.nfc && needs.nfc && !unicode_normalization::is_nfc(&text) {
            text = Cow::Owned(text.nfc().collect());
            round.nfc = 1;
        }
        if options.trailing_spaces
            && let Some(trimmed) = trim_lines(&text, &mut round.trailing_spaces)
        {
            text = Cow::Owned(trimmed);
        }
        if round.is_none() {
            return (text, repairs);
        }
        let nfc = repairs.nfc.max(round.nfc);
        repairs += round;
        repairs.nfc = nfc;
    }
}

/// What a text may need.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    mojibake: bool,
    controls: bool,
    invisible: bool,
    line_ends: bool,
    nfc: bool,
}

impl Needs {
    fn of(text: &str) -> Needs {
        const BLOCK: usize = 64;
        // `|` instead of `||`: the loop over a block then has no branches, and is one over vectors.
        let plain = |b: u8| (b' '..0x7f).contains(&b) | (b == b'\n') | (b == b'\t');
        let bytes = text.as_bytes();
        let (mut needs, mut at, mut before) = (Needs::default(), 0, ' ');
        while at < bytes.len() {
            if let Some(block) = bytes.get(at..at + BLOCK)
                && block.iter().fold(true, |all, &b| all & plain(b))
            {
                (at, before) = (at + BLOCK, ' ');
                continue;
            }
            // To the end of this block, and of a character there.
            let end = (at + BLOCK).min(bytes.len());
            for c in text[at..].chars() {
                if at >= end {
                    break;
                }
                at += c.len_utf8();
                if !(c.is_ascii() && plain(c as u8)) {
                    needs.look(before, c);
                }
                before = c;
            }
        }
        needs
    }

    fn look(&mut self, before: char, c: char) {
        self.nfc |= c >= '\u{300}' && !matches!(c, '\u{2010}'..='\u{205f}');
        self.mojibake |= mojibake::suspicious(before, c);
        match kind(c) {
            Kind::Plain => {}
            Kind::LineEnd => self.line_ends = true,
            Kind::Control => self.controls = true,
            Kind::Invisible | Kind::Joiner | Kind::Tag => self.invisible = true,
        }
    }

    fn characters(&self, options: &Options) -> bool {
        (self.controls && options.controls)
            || (self.invisible && options.invisible)
            || (self.line_ends && options.line_ends)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    LineEnd,
    Control,
    Invisible,
    /// Joins or parts letters and emoji.
    Joiner,
    /// Spells the name of a flag, or hides text.
    Tag,
}

fn kind(c: char) -> Kind {
    match c {
        '\n' | '\t' | ' '..='~' => Kind::Plain,
        '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => Kind::LineEnd,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Kind::Control,
        '\u{200c}' | '\u{200d}' => Kind::Joiner,
        // Soft hyphen, word joiner and the like, zero-width spaces, bidirectional marks, byte-order marks, noncharacters.
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' => {
            Kind::Invisible
        }
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fdd0}'..='\u{fdef}' => Kind::Invisible,
        '\u{e0000}'..='\u{e007f}' => Kind::Tag,
        c if c as u32 & 0xfffe == 0xfffe => Kind::Invisible,
        _ => Kind::Plain,
    }
}

/// Line ends, control characters and invisible ones.
fn characters(text: &str, options: &Options, repairs: &mut Repairs) -> String {
    const FLAG: char = '\u{1f3f4}';
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match kind(c) {
            Kind::LineEnd if options.line_ends => {
                if c == '\r' {
                    chars.next_if_eq(&'\n');
                }
                out.push('\n');
                repairs.line_ends += 1;
            }
            // Where line ends stay as they are, a carriage return is one.
            Kind::Control if options.controls => {
                repairs.controls += 1;
                if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
                    // ECMA-48: parameters, then one final byte.
                    while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
                    chars.next_if(|c| matches!(c, '@'..='~'));
                }
            }
            Kind::Invisible if options.invisible => repairs.invisible += 1,
            Kind::Joiner if options.invisible => {
                let joins = |c: Option<&char>| c.is_some_and(|c| !c.is_ascii() && kind(*c) == Kind::Plain);
                if joins(out.chars().next_back().as_ref()) && joins(chars.peek()) {
                    out.push(c);
                } else {
                    repairs.invisible += 1;
                }
            }
            Kind::Tag if options.invisible => match out.chars().next_back() {
                Some(FLAG | '\u{e0020}'..='\u{e007e}') => out.push(c),
                _ => repairs.invisible += 1,
            },
            _ => out.push(c),
        }
    }
    out
}

/// `text` without blanks at the ends of lines, if there are any.
fn trim_lines(text: &str, count: &mut u64) -> Option<String> {
    let blank = |c: char| c == ' ' || c == '\t' || c == '\u{a0}' || c == '\u{3000}';
    let ends = |line: &str| line.trim_end_matches(blank).len();
    *count = text.split('\n').filter(|line| ends(line) < line.len()).count() as u64;
    if *count == 0 {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            out.push('\n');
        }
        out.push_str(&line[..ends(line)]);
    }
    Some(out)
}

#[cfg(test)]
mod tests;
