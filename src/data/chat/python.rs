//! Values as Python writes them: `str`, `repr`, `json.dumps`. Templates were written against these.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};
use regex_syntax::hir::{Class, HirKind};
use std::fmt::Write;
use std::sync::OnceLock;

/// Containers within each other; more are refused. (Python itself gives up at about a thousand.)
pub const MAX_DEPTH: usize = 64;

/// A text that may not grow beyond what a template may still use.
pub struct Text {
    text: String,
    max: usize,
}

impl Text {
    /// An empty one, which ends where the fuel of `state` does.
    pub fn new(state: &State) -> Text {
        // A unit of fuel pays for 64 bytes.
        let max = state.fuel_levels().map_or(usize::MAX, |(_, left)| (left as usize).saturating_mul(64));
        Text { text: String::new(), max }
    }

    /// Appends `text`.
    ///
    /// # Errors
    /// No fuel is left for it.
    pub fn push(&mut self, text: &str) -> Result<(), Error> {
        if text.len() > self.max - self.text.len() {
            return Err(ErrorKind::OutOfFuel.into());
        }
        self.text.push_str(text);
        Ok(())
    }

    /// Makes sure that a text of so many bytes may be had, before it is made.
    pub fn reserve(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.max { Err(ErrorKind::OutOfFuel.into()) } else { Ok(()) }
    }

    /// What was written.
    pub fn finish(self) -> String {
        self.text
    }

    /// Appends `str(value)`.
    pub fn str(&mut self, value: &Value) -> Result<(), Error> {
        match (value.as_str(), value.is_undefined()) {
            (Some(text), _) => self.push(text),
            (None, true) => Ok(()),
            (None, false) => self.repr(value, 0),
        }
    }

    /// Appends `repr(value)`.
    fn repr(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        let (open, close) = match value.kind() {
            ValueKind::Undefined => return self.push("Undefined"),
            ValueKind::String => return self.push(&quoted(value.as_str().unwrap_or_default())),
            ValueKind::Number => return self.push(&number(value)),
            ValueKind::Map => ("{", "}"),
            ValueKind::Seq | ValueKind::Iterable if value.is_tuple() => ("(", ")"),
            ValueKind::Seq | ValueKind::Iterable => ("[", "]"),
            // True, False, None; a function has no members.
            _ => return self.push(&value.to_string()),
        };
        self.push(open)?;
        for (n, item) in value.try_iter()?.checked().enumerate() {
            let item = item?;
            if n > 0 {
                self.push(", ")?;
            }
            self.repr(&item, depth + 1)?;
            if value.kind() == ValueKind::Map {
                self.push(": ")?;
                self.repr(&value.get_item(&item)?, depth + 1)?;
            }
        }
        if value.is_tuple() && value.len() == Some(1) {
            self.push(",")?;
        }
        self.push(close)
    }

    /// Appends `json.dumps(value)`.
    pub fn json(&mut self, value: &Value, style: &Json) -> Result<(), Error> {
        self.json_at(value, style, 0)
    }

    fn json_at(&mut self, value: &Value, style: &Json, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        let (open, close) = match value.kind() {
            ValueKind::String => return self.json_string(value.as_str().unwrap_or_default(), style),
            ValueKind::Number => return self.push(&json_number(value)),
            ValueKind::Bool => return self.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::None => return self.push("null"),
            ValueKind::Map => ("{", "}"),
            ValueKind::Seq | ValueKind::Iterable => ("[", "]"),
            other => {
                let what = if other == ValueKind::Undefined { "Undefined" } else { "function" };
                let problem = format!("Object of type {what} is not JSON serializable");
                return Err(Error::new(ErrorKind::BadSerialization, problem));
            }
        };
        let mut items = value.try_iter()?.checked().collect::<Result<Vec<Value>, Error>>()?;
        if style.sort_keys && value.kind() == ValueKind::Map {
            items.sort();
        }
        self.push(open)?;
        for (n, item) in items.iter().enumerate() {
            if n > 0 {
                self.push(&style.item)?;
            }
            self.new_line(style, depth + 1)?;
            if value.kind() == ValueKind::Map {
                let key = match item.kind() {
                    ValueKind::String => item.as_str().unwrap_or_default().to_owned(),
                    ValueKind::Number => json_number(item),
                    ValueKind::Bool => if item.is_true() { "true" } else { "false" }.to_owned(),
                    _ => "null".to_owned(),
                };
                self.json_string(&key, style)?;
                self.push(&style.key)?;
                self.json_at(&value.get_item(item)?, style, depth + 1)?;
            } else {
                self.json_at(item, style, depth + 1)?;
            }
        }
        if !items.is_empty() {
            self.new_line(style, depth)?;
        }
        self.push(close)
    }

    fn new_line(&mut self, style: &Json, depth: usize) -> Result<(), Error> {
        let Some(indent) = &style.indent else { return Ok(()) };
        self.push("\n")?;
        (0..depth).try_for_each(|_| self.push(indent))
    }

    fn json_string(&mut self, text: &str, style: &Json) -> Result<(), Error> {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for c in text.chars() {
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\u{8}' => quoted.push_str("\\b"),
                '\u{c}' => quoted.push_str("\\f"),
                c if c < ' ' || (style.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(quoted, "\\u{unit:04x}");
                    }
                }
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        self.push(&quoted)
    }
}

/// How `json.dumps` writes.
pub struct Json {
    /// Everything beyond ASCII is escaped.
    pub ascii: bool,
    /// What a level is set in by, on lines of their own.
    pub indent: Option<String>,
    /// What stands between items.
    pub item: String,
    /// What stands between a key and its value.
    pub key: String,
    /// Keys in their order.
    pub sort_keys: bool,
}

fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value of more than {MAX_DEPTH} lists within each other"))
}

/// `repr` of a number.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let x = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // Rust turns to exponents where Python does, but writes 1e16 for 1e+16 and 1e-5 for 1e-05.
    let text = format!("{x:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

fn json_number(value: &Value) -> String {
    match number(value).as_str() {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        other => other.to_owned(),
    }
}

/// `repr` of a text.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => {
                let _ = match c as u32 {
                    code @ 0..=0xff => write!(out, "\\x{code:02x}"),
                    code @ 0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
    out
}

/// `str.isprintable` of a character.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    static HIDDEN: OnceLock<Vec<(char, char)>> = OnceLock::new();
    let hidden = HIDDEN.get_or_init(|| {
        let class = regex_syntax::parse(r"[\p{C}\p{Z}]").expect("a class of characters");
        let HirKind::Class(Class::Unicode(class)) = class.kind() else { unreachable!("a class of characters") };
        class.iter().map(|range| (range.start(), range.end())).collect()
    });
    let after = hidden.partition_point(|&(start, _)| start <= c);
    after == 0 || hidden[after - 1].1 < c
}

/// `str.isspace` of a character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_written_as_python_does() {
        let floats = [
            (0.1, "0.1"),
            (1.0, "1.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-2.5e-7, "-2.5e-07"),
            (1e-4, "0.0001"),
            (1e300, "1e+300"),
            (-0.0, "-0.0"),
        ];
        floats.iter().for_each(|&(x, want)| assert_eq!(number(&Value::from(x)), want));
        let texts = [
            ("it's", "\"it's\""),
            ("'\"", "'\\'\"'"),
            ("a\u{0}\u{7f}\u{a0}\u{200b}\u{e000}\u{3000}é✓", "'a\\x00\\x7f\\xa0\\u200b\\ue000\\u3000é✓'"),
            ("🔥\u{e0001}", "'🔥\\U000e0001'"),
        ];
        texts.iter().for_each(|(text, want)| assert_eq!(quoted(text), *want));
    }
}
