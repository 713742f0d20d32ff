//! PTX text to tokens.

use super::Problem;

/// A piece of PTX text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A name, a directive or an instruction with its modifiers: `%r1`, `$loop`, `.reg`, `ld.global.v4.f32`.
    Word,
    /// An integer.
    Int(u64),
    /// An f32 by its bits, `0f3f800000`.
    F32(u32),
    /// An f64 by its bits, `0d3ff0000000000000`.
    F64(u64),
    /// A quoted text.
    Text,
    /// Any other character.
    Mark(u8),
    /// The end of the text.
    End,
}

/// A token: what it is, its text, and where it begins.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// As it is written.
    pub text: &'a str,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// All tokens of `text`, the last one [`Kind::End`]. Comments are skipped.
///
/// # Errors
/// A number that is none, a comment or a quote that has no end, a character that PTX does not know.
pub fn lex(text: &str) -> Result<Vec<Token<'_>>, Problem> {
    let mut tokens = Vec::new();
    let mut in_comment = None;
    let mut last = 1;
    for (i, line) in text.lines().enumerate() {
        let number = i + 1;
        // NVIDIA's assembler takes ASCII alone, also in comments.
        if let Some((at, other)) = line.char_indices().find(|(_, c)| !c.is_ascii()) {
            let problem = Problem::at(number, at + 1, format!("PTX has no character `{other}`"));
            return Err(problem.hint("write ASCII, also in comments"));
        }
        last = number;
        let mut at = 0;
        while at < line.len() {
            let rest = &line[at..];
            if in_comment.is_some() {
                let Some(end) = rest.find("*/") else { break };
                at += end + 2;
                in_comment = None;
                continue;
            }
            if rest.starts_with("//") {
                break;
            }
            if rest.starts_with("/*") {
                in_comment = Some((number, at + 1));
                at += 2;
                continue;
            }
            let first = rest.as_bytes()[0];
            if first.is_ascii_whitespace() {
                at += 1;
                continue;
            }
            let problem = |message: String| Err(Problem::at(number, at + 1, message));
            let (kind, len) = if first == b'"' {
                let Some(end) = rest[1..].find('"') else { return problem("the text has no closing `\"`".into()) };
                (Kind::Text, end + 2)
            } else if first.is_ascii_digit() {
                let len = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
                match number_of(&rest[..len]) {
                    Some(kind) => (kind, len),
                    None => return problem(format!("`{}` is not a number", &rest[..len])),
                }
            } else if is_word(first) {
                (Kind::Word, word_len(rest))
            } else if first.is_ascii_punctuation() {
                (Kind::Mark(first), 1)
            } else {
                return problem(format!("PTX has no character {first:#04x}"));
            };
            tokens.push(Token { kind, text: &rest[..len], line: number, column: at + 1 });
            at += len;
        }
    }
    if let Some((line, column)) = in_comment {
        return Err(Problem::at(line, column, "the comment has no `*/`"));
    }
    tokens.push(Token { kind: Kind::End, text: "the end of the file", line: last, column: 1 });
    Ok(tokens)
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// The length of the word that `text` begins with; `::` joins two words, as in `.shared::cta`.
fn word_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut len = 1;
    while len < bytes.len() {
        if is_word(bytes[len]) {
            len += 1;
        } else if bytes[len..].starts_with(b"::") && bytes.get(len + 2).is_some_and(u8::is_ascii_alphabetic) {
            len += 2;
        } else {
            break;
        }
    }
    len
}

fn number_of(text: &str) -> Option<Kind> {
    let hex = |digits: &str, count: usize| {
        let full = digits.len() == count;
        u64::from_str_radix(digits, 16).ok().filter(|_| full)
    };
    if let Some(digits) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
        return hex(digits, 8).map(|bits| Kind::F32(bits as u32));
    }
    if let Some(digits) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
        return hex(digits, 16).map(Kind::F64);
    }
    let text = text.strip_suffix('U').unwrap_or(text);
    let integer = if let Some(digits) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        u64::from_str_radix(digits, 16)
    } else if let Some(digits) = text.strip_prefix("0b").or(text.strip_prefix("0B")) {
        u64::from_str_radix(digits, 2)
    } else {
        text.parse()
    };
    integer.ok().map(Kind::Int)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_marks_have_their_places() {
        let text = "@!%p ld.shared::cta.v2.f32 {%a,%b}, [x+0x1F]; // c\n$l: /* a\nb */ mov 0f3F800000, 0d3ff0000000000000, 7U;";
        let tokens = lex(text).unwrap();
        let texts: Vec<&str> = tokens.iter().map(|t| t.text).collect();
        let expected = "@ ! %p ld.shared::cta.v2.f32 { %a , %b } , [ x + 0x1F ] ; $l : mov 0f3F800000 , \
                        0d3ff0000000000000 , 7U ;";
        assert_eq!(texts[..texts.len() - 1], expected.split_whitespace().collect::<Vec<_>>());
        let find = |text: &str| tokens.iter().find(|t| t.text == text).unwrap();
        assert_eq!(find("0x1F").kind, Kind::Int(31));
        assert_eq!(find("0f3F800000").kind, Kind::F32(1.0f32.to_bits()));
        assert_eq!(find("0d3ff0000000000000").kind, Kind::F64(1.0f64.to_bits()));
        assert_eq!(find("7U").kind, Kind::Int(7));
        assert_eq!((find("mov").line, find("mov").column), (3, 6));
    }

    #[test]
    fn what_is_no_token_is_refused_at_its_place() {
        for (text, line, column, message) in [
            ("add 0f3f80;", 1, 5, "`0f3f80` is not a number"),
            ("\n  12x", 2, 3, "`12x` is not a number"),
            ("a /* b", 1, 3, "the comment has no `*/`"),
            (".pragma \"x", 1, 9, "the text has no closing `\"`"),
            ("x\n; // é", 2, 6, "PTX has no character `é`"),
            ("\u{1}", 1, 1, "PTX has no character 0x01"),
        ] {
            let problem = lex(text).unwrap_err();
            assert_eq!((problem.line, problem.column, problem.message.as_str()), (line, column, message));
        }
    }
}
