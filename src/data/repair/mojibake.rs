//! UTF-8 that was read as Windows-1252 or Latin-1: `cafÃ©` for `café`, `â€™` for `’`.
//!
//! A line is decoded anew where each of its characters is one byte of Windows-1252, these bytes are UTF-8, and its
//! characters show that nobody wrote them so: a capital after a small letter, currency signs inside of words, an emoji's
//! four bytes. One letter with a quotation mark behind it proves nothing (`«CAFÉ»`). The idea is ftfy's
//! (R. Speer, "ftfy", 2019), the rules are stricter: a line that is partly right is left alone.

/// The characters of the bytes 0x80 to 0x9f in Windows-1252; the five that it leaves open are themselves, as in Latin-1.
const HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The byte that Windows-1252 or Latin-1 reads as `c`.
fn byte(c: char) -> Option<u8> {
    match c {
        '\0'..='\u{ff}' => Some(c as u8),
        _ => HIGH.iter().position(|&high| high == c).map(|at| 0x80 + at as u8),
    }
}

/// Whether `before` and `c` could be the first two bytes of a character in UTF-8.
pub(super) fn suspicious(before: char, c: char) -> bool {
    ('\u{c2}'..='\u{f4}').contains(&before) && byte(c).is_some_and(|b| (0x80..0xc0).contains(&b))
}

/// Decodes the lines of `text` anew that are better so and counts them; `None` where there are none.
pub(super) fn repair(text: &str, count: &mut u64) -> Option<String> {
    let mut out = String::new();
    let mut done = 0;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(better) = line_repaired(line) {
            out.push_str(&text[done..start]);
            out.push_str(&better);
            done = start + line.len();
            *count += 1;
        }
        start += line.len();
    }
    if done == 0 {
        return None;
    }
    out.push_str(&text[done..]);
    Some(out)
}

fn line_repaired(line: &str) -> Option<String> {
    let first = decoded(line)?;
    if !convincing(line, &first) {
        return None;
    }
    // What was read wrongly twice is decoded twice.
    let mut text = first;
    while let Some(next) = decoded(&text) {
        text = next;
    }
    (!text.chars().any(|c| matches!(c, '\u{80}'..='\u{9f}'))).then_some(text)
}

/// The line as its bytes of Windows-1252 say in UTF-8, where they are UTF-8 and say something else.
fn decoded(line: &str) -> Option<String> {
    if line.is_ascii() {
        return None;
    }
    let bytes = line.chars().map(byte).collect::<Option<Vec<u8>>>()?;
    String::from_utf8(bytes).ok()
}

/// Whether the characters of `line` were written by nobody: one that is proof, or two that are likely.
fn convincing(line: &str, decoded: &str) -> bool {
    let mut read = line.chars();
    let (mut before, mut likely) = (' ', 0);
    for c in decoded.chars() {
        let lead = read.next().unwrap_or(' ');
        if c.is_ascii() {
            before = lead;
            continue;
        }
        let mut last = lead;
        for _ in 1..c.len_utf8() {
            last = read.next().unwrap_or(' ');
        }
        let after = read.clone().next().unwrap_or(' ');
        let proof = match c {
            // A capital or a sign right behind a small letter, right before a letter, or one that no text has there.
            '\u{80}'..='\u{7ff}' => {
                let inside = before.is_ascii_lowercase() && lead != 'ß';
                usual(c) && (inside || after.is_ascii_alphabetic() || !closes(last))
            }
            // Quotation marks, dashes, currencies, arrows, signs.
            '\u{2000}'..='\u{27bf}' => true,
            _ => c >= '\u{10000}',
        };
        if proof {
            return true;
        }
        likely += u32::from(usual(c));
        before = last;
    }
    likely >= 2
}

/// Whether `c` is of a script that is commonly read wrongly. The letters of phonetics and old scripts are what capitals
/// with quotation marks behind them would be.
fn usual(c: char) -> bool {
    matches!(c, '\u{a0}'..='\u{17f}' | '\u{218}'..='\u{21b}' | '\u{386}'..='\u{45f}' | '\u{490}'..='\u{491}'
        | '\u{5d0}'..='\u{5ea}' | '\u{621}'..='\u{64a}' | '\u{900}'..='\u{d7ff}' | '\u{f900}'..)
}

/// Whether `c` may follow a word.
fn closes(c: char) -> bool {
    matches!(
        c,
        '”' | '’'
            | '“'
            | '‘'
            | '»'
            | '›'
            | '«'
            | '…'
            | '–'
            | '—'
            | '•'
            | '™'
            | '€'
            | '°'
            | '®'
            | '©'
            | '·'
            | '¡'
            | '¿'
            | '²'
            | '³'
            | '¹'
            | 'º'
            | 'ª'
            | '\u{a0}'
            | '\u{ad}'
            | '§'
            | '¢'
            | '£'
            | '¥'
            | '†'
            | '‡'
            | '‰'
    )
}
