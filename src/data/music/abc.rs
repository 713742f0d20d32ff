//! Melodies read, from whatever hand: their notes, and whether key and metre are kept.

use super::{KEYS, Key, METRES};

pub(super) const LETTERS: [char; 7] = ['C', 'D', 'E', 'F', 'G', 'A', 'B'];
/// Semitones of the letters above C.
pub(super) const NATURALS: [i32; 7] = [0, 2, 4, 5, 7, 9, 11];

/// A note that sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Semitones above middle C; `None` for a rest.
    pub pitch: Option<i32>,
    /// Eighths.
    pub length: u32,
}

/// What a text of music, from whatever hand, is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The key that it states, where it is one of ours.
    pub key: Option<&'static str>,
    /// The metre that it states, where it is one of ours.
    pub metre: Option<&'static str>,
    /// Its notes.
    pub notes: Vec<Note>,
    /// Notes that are in the key.
    pub in_key: usize,
    /// Its bars.
    pub bars: usize,
    /// Bars whose notes fill the metre exactly.
    pub full_bars: usize,
    /// Whether it ends with `|]`, on the tonic.
    pub comes_home: bool,
    /// Words that are no notes.
    pub unread: usize,
}

impl Reading {
    /// All notes in the stated key, all bars full, and an end on the tonic; nothing that could not be read.
    pub fn is_right(&self) -> bool {
        let whole = self.key.is_some() && self.metre.is_some() && !self.notes.is_empty() && self.unread == 0;
        whole && self.in_key == self.notes.len() && self.full_bars == self.bars && self.comes_home
    }
}

/// Reads the first melody of `text`.
pub fn read(text: &str) -> Reading {
    let mut reading = Reading::default();
    let (mut key, mut eighths, mut filled, mut ended) = (None, None, 0, false);
    'lines: for line in text.lines().map(str::trim) {
        if let Some((field, value)) = line.split_once(':').filter(|(field, _)| field.len() == 1) {
            match field {
                "K" => key = KEYS.iter().map(|(_, key)| key).find(|key| key.name == value.trim()),
                "M" => eighths = METRES.iter().find(|metre| metre.1 == value.trim()),
                "X" if !reading.notes.is_empty() => break, // the next one
                _ => {}
            }
            continue;
        }
        for word in line.split_whitespace() {
            if matches!(word, "|" | "|]" | "||") {
                reading.bars += 1;
                reading.full_bars += usize::from(eighths.is_some_and(|metre| metre.2 == filled));
                filled = 0;
                ended = word == "|]";
                if ended {
                    break 'lines;
                }
            } else if let Some(note) = note(word) {
                let in_key =
                    |key: &&Key| note.pitch.is_none_or(|pitch| key.scale.contains(&(pitch - key.tonic).rem_euclid(12)));
                reading.in_key += usize::from(key.as_ref().is_some_and(in_key));
                filled += note.length;
                reading.notes.push(note);
            } else {
                reading.unread += 1;
            }
        }
    }
    if filled > 0 {
        reading.bars += 1; // one that never ended
    }
    let last = reading.notes.iter().rev().find_map(|note| note.pitch);
    let home = |key: &Key| last.is_some_and(|pitch| (pitch - key.tonic).rem_euclid(12) == 0);
    reading.comes_home = ended && key.is_some_and(home);
    (reading.key, reading.metre) = (key.map(|key| key.name), eighths.map(|metre| metre.1));
    reading
}

/// A note: `^F'2`, or a rest: `z2`.
pub(super) fn note(word: &str) -> Option<Note> {
    let (accidental, rest) = match word.as_bytes().first()? {
        b'^' => (1, &word[1..]),
        b'_' => (-1, &word[1..]),
        b'=' => (0, &word[1..]),
        _ => (0, word),
    };
    let letter = rest.chars().next()?;
    let marks = rest[letter.len_utf8()..].trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &rest[letter.len_utf8() + marks.len()..];
    let length = if digits.is_empty() { 1 } else { digits.parse().ok().filter(|length| (1..=64).contains(length))? };
    if letter == 'z' && marks.is_empty() {
        return Some(Note { pitch: None, length });
    }
    let natural = NATURALS[LETTERS.iter().position(|&l| l == letter.to_ascii_uppercase())?];
    let mut octave = i32::from(letter.is_ascii_lowercase());
    for mark in marks.chars() {
        octave += match mark {
            '\'' => 1,
            ',' => -1,
            _ => return None,
        };
    }
    let pitch = natural + accidental + 12 * octave;
    (-36..=48).contains(&pitch).then_some(Note { pitch: Some(pitch), length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_melody_is_found() {
        let right = "X:1\nM:3/4\nL:1/8\nK:G\nG2 B d2 e | d3 c B A | G6 |]\n";
        assert!(read(right).is_right());
        let wrong = |from: &str, to: &str| read(&right.replace(from, to));
        assert_eq!((wrong("c B A", "c B =f").in_key, read(right).in_key), (8, 9), "F is not in G major");
        assert_eq!(wrong("d3", "d2").full_bars, 2);
        assert!(!wrong("G6", "A6").comes_home && !wrong(" |]", "").comes_home);
        assert_eq!(wrong("d2 e", "d2 hello").unread, 1);
        assert_eq!((wrong("K:G", "K:H").key, wrong("M:3/4", "M:5/7").metre), (None, None));
        for text in ["", "^", "_", "z", "^^^", "c999999999999", "é2", "X", "|", "K:", "c''''''''''''"] {
            assert!(!read(text).is_right(), "{text}");
        }
    }
}
