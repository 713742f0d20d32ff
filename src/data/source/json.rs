//! One line of JSON: its text, its name, its other fields.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::skip::{Reason, Trouble};
use crate::error::Error;

/// Other fields than the text are built only up to this size: a list of lists takes 30 times its bytes in memory.
const METADATA: usize = 1 << 20;

/// The name of a field that no object has: for lines as they are.
pub(super) const WHOLE: &str = "\0";

/// The text, the name and the other fields of a line.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields {
    pub text: String,
    pub id: String,
    pub metadata: Map<String, Value>,
}

/// Reads `json`, which is line `line` of the file `path`; `field` names the text. A blank line has none.
pub(super) fn fields(json: &str, field: &str, path: &Path, line: u64) -> Result<Fields, Trouble> {
    let json = json.trim_end();
    if json.trim_start().is_empty() {
        return Ok(Fields::default());
    }
    if field == WHOLE {
        return Ok(Fields { text: json.to_owned(), ..Fields::default() });
    }
    let not_json = |at: String, found: String| {
        let hint = "each line of a .jsonl file is one JSON object";
        Trouble::one(Reason::NotJson, Error::format(path, at, "one JSON object", found, hint))
    };
    let malformed = |e: serde_json::Error| {
        let found = e.to_string();
        let found = found.split(" at line ").next().unwrap_or("").to_owned();
        not_json(format!("line {line}, column {}", e.column()), found)
    };
    let no_text = |found: String, hint: &str| {
        let expected = format!("an object with a string in the field {field:?}");
        Trouble::one(Reason::NoText, Error::format(path, format!("line {line}"), expected, found, hint))
    };
    if !json.trim_start().starts_with('{') {
        if json.len() > METADATA {
            return Err(not_json(format!("line {line}"), "something else".to_owned()));
        }
        let value: Value = serde_json::from_str(json).map_err(malformed)?;
        return Err(no_text(kind(&value).to_owned(), "each line of a .jsonl file is one JSON object"));
    }
    let raw: Raw = serde_json::from_str(json).map_err(malformed)?;
    let (mut text, mut others) = (None, Map::new());
    let size: usize = raw.0.iter().filter(|(key, _)| key != field).map(|(_, value)| value.get().len()).sum();
    for (key, value) in raw.0 {
        if key == field {
            text = Some(value);
        } else if size > METADATA {
            let found = format!("fields of {size} bytes beside the text");
            let error =
                Error::format(path, format!("line {line}"), format!("at most {METADATA}"), found, "leave them out");
            return Err(Trouble::one(Reason::TooLong, error));
        } else {
            // Its columns are those of the field; the message names the field instead.
            let value = serde_json::from_str(value.get());
            let at = || format!("line {line}, field {key:?}");
            let value = value.map_err(|e: serde_json::Error| not_json(at(), e.to_string()))?;
            others.insert(key.into_owned(), value);
        }
    }
    let name_it = "name the field of the text with --text-field";
    let Some(text) = text else {
        let names: Vec<_> = others.keys().take(8).map(String::as_str).collect();
        return Err(no_text(format!("the fields {names:?}"), name_it));
    };
    if !text.get().starts_with('"') {
        let found = match text.get().as_bytes()[0] {
            b'n' => "null",
            b't' | b'f' => "true or false",
            b'[' => "a list",
            b'{' => "an object",
            _ => "a number",
        };
        return Err(no_text(format!("{found} in it"), name_it));
    }
    let text = serde_json::from_str(text.get()).map_err(|e: serde_json::Error| {
        not_json(
            format!("line {line}, field {field:?}"),
            e.to_string().split(" at line ").next().unwrap_or("").to_owned(),
        )
    })?;
    let id = match others.shift_remove("id") {
        Some(Value::String(id)) => id,
        Some(other) => {
            others.insert("id".to_owned(), other);
            String::new()
        }
        None => String::new(),
    };
    Ok(Fields { text, id, metadata: others })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// An object whose values are only known to be well-formed.
struct Raw<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw<'de>, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    fields.push((field.0.0, field.1));
                }
                Ok(Raw(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Fields, (Reason, String)> {
        fields(json, "text", Path::new("a.jsonl"), 3).map_err(|t| (t.reason, t.error.to_string()))
    }

    #[test]
    fn text_name_and_the_rest_are_told_apart() {
        let fields = read(r#" {"id": "x", "text": "a\nb\u00e9", "t\u0065": [1, {"b": null}], "n": 1.5} "#).unwrap();
        assert_eq!((fields.text.as_str(), fields.id.as_str()), ("a\nbé", "x"));
        assert_eq!(Value::from(fields.metadata), serde_json::json!({"te": [1, {"b": null}], "n": 1.5}));
        let fields = read(r#"{"id": 7, "text": "first", "text": "last"}"#).unwrap();
        assert_eq!((fields.text.as_str(), fields.id.as_str(), fields.metadata["id"].as_i64()), ("last", "", Some(7)));
        assert_eq!(read("  \t").unwrap(), Fields::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, reason, says) in [
            ("{\"text\": \"a", Reason::NotJson, "line 3, column 11"),
            ("{\"text\": \"a\"} x", Reason::NotJson, "trailing characters"),
            ("{\"text\": \"\\ud800\"}", Reason::NotJson, "line 3"),
            ("[1]", Reason::NoText, "a list"),
            ("3", Reason::NoText, "a number"),
            ("{\"text\": [\"a\"]}", Reason::NoText, "a list in it"),
            ("{\"body\": 1, \"x\": 2}", Reason::NoText, "[\"body\", \"x\"]"),
            ("{\"text\": tru}", Reason::NotJson, "line 3"),
            ("nonsense", Reason::NotJson, "line 3, column 2"),
        ] {
            let (found, message) = read(json).unwrap_err();
            assert_eq!(found, reason, "{json}");
            assert!(message.contains(says), "{json}: {message}");
        }
    }

    #[test]
    fn nesting_without_end_takes_no_stack_and_no_memory() {
        let deep = "[".repeat(1_000_000);
        let (reason, message) = read(&deep).unwrap_err();
        assert!(reason == Reason::NotJson && message.contains("recursion"), "{message}");
        let closed = format!("{deep}{}", "]".repeat(1_000_000));
        assert_eq!(read(&closed).unwrap_err().0, Reason::NotJson);
        assert_eq!(read(&format!("{{\"text\": \"a\", \"x\": {closed}}}")).unwrap_err().0, Reason::TooLong);
        let shallow = format!("{{\"text\": \"a\", \"x\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&shallow).unwrap_err().1.contains("recursion"));
        assert_eq!(read(&"{\"a\":".repeat(1_000_000)).unwrap_err().0, Reason::NotJson);
    }
}
