//! Calls of tools in what a model wrote.
//!
//! Models write calls in a few ways. Two are read: JSON between `<tool_call>` marks (Hermes, Qwen, SmolLM), and an answer
//! that is a JSON object with a `name` and `arguments` or `parameters`, or a list of such (Llama 3.1 and others).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::io::{self, Write};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A call: the tool's name, and its arguments as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The name.
    pub name: String,
    /// The arguments, an object.
    pub arguments: Value,
}

impl Call {
    /// A call with arguments that are texts.
    pub fn new(name: &str, arguments: &[(&str, &str)]) -> Call {
        let arguments: Map<String, Value> =
            arguments.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
        Call { name: name.to_owned(), arguments: arguments.into() }
    }

    /// The call as Hermes and Qwen write it, between marks on lines of their own.
    pub fn text(&self) -> String {
        format!("{OPEN}\n{}\n{CLOSE}", self.json())
    }

    /// The call as JSON alone, as Llama 3.1 writes it.
    pub fn json(&self) -> String {
        spaced(self)
    }

    /// The call in OpenAI's form, without its id.
    pub fn openai(&self) -> Value {
        json!({"type": "function", "function": {"name": self.name, "arguments": spaced(&self.arguments)}})
    }
}

fn spaced(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Spaced)).expect("JSON in memory");
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// JSON in one line with a blank behind commas and colons, as Python writes it.
struct Spaced;

fn comma<W: ?Sized + Write>(writer: &mut W, first: bool) -> io::Result<()> {
    if first { Ok(()) } else { writer.write_all(b", ") }
}

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        comma(writer, first)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        comma(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// How much a text with calls may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the text.
    pub text: usize,
    /// Calls in it.
    pub calls: usize,
    /// Lists and objects within each other.
    pub depth: usize,
    /// Bytes of a text in the arguments, or of a name.
    pub string: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { text: 64 << 10, calls: 16, depth: 32, string: 4 << 10 }
    }
}

/// The calls in what a model wrote, and the text before them; `None`: there is none.
///
/// # Errors
/// In words that can be given back to the model: a bound of [`Bounds::default`] is broken.
pub fn calls(text: &str) -> Result<Option<(String, Vec<Call>)>, String> {
    calls_within(text, &Bounds::default())
}

/// The same within other bounds.
///
/// # Errors
/// A bound is broken.
pub fn calls_within(text: &str, bounds: &Bounds) -> Result<Option<(String, Vec<Call>)>, String> {
    if text.len() > bounds.text {
        return Err(format!("A message has at most {} bytes.", bounds.text));
    }
    let mut found = Vec::new();
    let Some((before, mut rest)) = text.split_once(OPEN) else {
        return Ok(bounds.read(text, &mut found)?.then_some((String::new(), found)));
    };
    loop {
        // The last mark is often cut off.
        let (inside, after) = rest.split_once(CLOSE).unwrap_or((rest, ""));
        if !bounds.read(inside, &mut found)? {
            return Ok(None);
        }
        match after.split_once(OPEN) {
            Some((_, next)) => rest = next,
            None => return Ok(Some((before.trim_end().to_owned(), found))),
        }
    }
}

impl Bounds {
    /// Reads one call or a list of calls; `false` where the text is something else.
    fn read(&self, text: &str, found: &mut Vec<Call>) -> Result<bool, String> {
        let Some(value) = self.parse(text.trim())? else { return Ok(false) };
        let all = match value {
            Value::Array(all) if !all.is_empty() => all,
            value => vec![value],
        };
        for value in &all {
            let Some(call) = self.one(value)? else { return Ok(false) };
            if found.len() == self.calls {
                return Err(format!("A message has at most {} calls.", self.calls));
            }
            found.push(call);
        }
        Ok(true)
    }

    fn one(&self, value: &Value) -> Result<Option<Call>, String> {
        let Some(name) = value["name"].as_str().filter(|name| !name.is_empty()) else { return Ok(None) };
        let Some(arguments) = value.get("arguments").or_else(|| value.get("parameters")) else { return Ok(None) };
        // Some write the arguments as a text of JSON, as they are sent.
        let arguments = match arguments {
            Value::String(text) => match self.parse(text)? {
                Some(value) => Cow::Owned(value),
                None => return Ok(None),
            },
            value => Cow::Borrowed(value),
        };
        if !arguments.is_object() {
            return Ok(None);
        }
        if name.len() > self.string || longest(&arguments) > self.string {
            return Err(format!("A text in a call has at most {} bytes.", self.string));
        }
        Ok(Some(Call { name: name.to_owned(), arguments: arguments.into_owned() }))
    }

    /// JSON, if it is that: a list or an object.
    fn parse(&self, text: &str) -> Result<Option<Value>, String> {
        if !text.starts_with(['{', '[']) {
            return Ok(None);
        }
        if depth(text) > self.depth {
            return Err(format!("A call is nested at most {} deep.", self.depth));
        }
        Ok(serde_json::from_str(text).ok())
    }
}

/// The deepest nesting of brackets outside of quotes.
fn depth(text: &str) -> usize {
    let (mut depth, mut most, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                most = most.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// Bytes of the longest text or key; the value is nested as deep as was allowed.
fn longest(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(longest).max().unwrap_or_default(),
        Value::Object(all) => all.iter().map(|(key, value)| key.len().max(longest(value))).max().unwrap_or_default(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(text: &str) -> Option<(String, Vec<String>)> {
        let found = calls(text).expect("within the bounds");
        found.map(|(text, calls)| (text, calls.into_iter().map(|call| call.name).collect()))
    }

    #[test]
    fn calls_are_found_in_the_ways_in_which_models_write_them() {
        let two = "Let me see.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\
                   {\"name\": \"sub\", \"arguments\": \"{\\\"b\\\": 2}\"}";
        let (text, calls) = calls(two).expect("short").expect("calls");
        assert_eq!(text, "Let me see.");
        assert_eq!(calls[0], Call { name: "add".into(), arguments: json!({"a": 1}) });
        assert_eq!(calls[1], Call { name: "sub".into(), arguments: json!({"b": 2}) });
        let plain = " {\"name\": \"add\", \"parameters\": {}} ";
        assert_eq!(names(plain), Some((String::new(), vec!["add".into()])));
        let list = "[{\"name\": \"a\", \"arguments\": {}}, {\"name\": \"b\", \"arguments\": {}}]";
        assert_eq!(names(list), Some((String::new(), vec!["a".into(), "b".into()])));
    }

    #[test]
    fn what_is_no_call_stays_text() {
        let texts = [
            "",
            "hello",
            "{}",
            "[]",
            "{\"name\": 1}",
            "{\"name\": \"a\"}",
            "{\"name\": \"a\", \"arguments\": 3}",
            "<tool_call>no</tool_call>",
            "{\"name\": \"\", \"arguments\": {}}",
            "[{\"name\": \"a\", \"arguments\": {}}, 1]",
        ];
        for text in texts {
            assert_eq!(names(text), None, "{text}");
        }
    }

    #[test]
    fn a_call_is_written_as_it_is_read() {
        let call = Call::new("move", &[("to", "mill")]);
        assert_eq!(call.text(), "<tool_call>\n{\"name\": \"move\", \"arguments\": {\"to\": \"mill\"}}\n</tool_call>");
        let two = Call { name: "a \"b\"".into(), arguments: json!({"x": [1, "é"], "y": {}}) };
        assert!(two.text().contains(r#"{"name": "a \"b\"", "arguments": {"x": [1, "é"], "y": {}}}"#));
        for call in [call, two] {
            assert_eq!(calls(&call.text()), Ok(Some((String::new(), vec![call]))));
        }
    }

    #[test]
    fn what_breaks_a_bound_is_said_in_words() {
        let call = |arguments: &str| format!("{{\"name\": \"a\", \"arguments\": {arguments}}}");
        let error = |text: &str| calls(text).expect_err("over a bound");
        let nested = |n: usize| call(&format!("{{\"x\": {}1{}}}", "[".repeat(n), "]".repeat(n)));
        assert!(error(&nested(31)).contains("32 deep"));
        assert_eq!(names(&nested(30)).unwrap().1, ["a"]);
        assert!(error(&"[".repeat(60_000)).contains("32 deep"));
        assert!(error(&call(&format!("{{\"x\": \"{}\"}}", "y".repeat(4097)))).contains("4096 bytes"));
        assert!(error(&call(&format!("{{\"{}\": 1}}", "y".repeat(4097)))).contains("4096 bytes"));
        assert!(error(&"x".repeat(65_537)).contains("65536 bytes"));
        assert!(error(&Call::new("a", &[]).text().repeat(17)).contains("16 calls"));
        assert!(error(&format!("[{}]", vec![call("{}"); 17].join(","))).contains("16 calls"));
        assert_eq!(names(&Call::new("a", &[]).text().repeat(16)).unwrap().1.len(), 16);
        // Brackets in quotes are no nesting.
        assert_eq!(names(&call(&format!("{{\"x\": \"\\\"{}\"}}", "[".repeat(99)))).unwrap().1, ["a"]);
    }
}
