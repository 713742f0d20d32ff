//! Tools: which ones an answer may call, and the calls in what a model wrote.
//!
//! Models write calls in a few ways. Two are read: JSON between `<tool_call>` marks (Hermes, Qwen, SmolLM), and an answer
//! that is a JSON object with a `name` and `arguments` or `parameters`, or a list of such (Llama 3.1 and others).

use super::Refusal;
use serde_json::{Value, json};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// What a request says of tools.
pub struct Asked {
    /// Those that the model is shown.
    pub shown: Option<Vec<Value>>,
    /// Whether one has to be called.
    pub must: bool,
    /// What the call has to look like then.
    pub forced: Option<Value>,
}

/// What `tools` and `tool_choice` of a request say.
pub fn asked(request: &Value) -> Result<Asked, Refusal> {
    let none = Asked { shown: None, must: false, forced: None };
    let Some(tools) = request.get("tools").filter(|tools| !tools.is_null()) else {
        return match request.get("tool_choice") {
            None | Some(Value::Null) => Ok(none),
            Some(choice) if choice == "none" || choice == "auto" => Ok(none),
            Some(_) => Err(Refusal::bad("tool_choice", "there are no tools")),
        };
    };
    let tools = tools.as_array().ok_or_else(|| Refusal::bad("tools", "expected a list"))?;
    for (i, tool) in tools.iter().enumerate() {
        let name = tool["function"]["name"].as_str();
        if tool["type"] != "function" || name.is_none_or(str::is_empty) {
            return Err(Refusal::bad(format!("tools[{i}]"), "expected a function with a name"));
        }
    }
    if tools.is_empty() {
        return Ok(none);
    }
    let name = match &request["tool_choice"] {
        Value::Null => return Ok(Asked { shown: Some(tools.clone()), ..none }),
        choice if choice == "none" => return Ok(none),
        choice if choice == "auto" => return Ok(Asked { shown: Some(tools.clone()), ..none }),
        choice if choice == "required" => None,
        choice => match choice["function"]["name"].as_str() {
            Some(name) => Some(name),
            None => return Err(Refusal::bad("tool_choice", "expected none, auto, required or a function's name")),
        },
    };
    let chosen: Vec<&Value> =
        tools.iter().filter(|tool| name.is_none_or(|name| tool["function"]["name"] == name)).collect();
    if chosen.is_empty() {
        return Err(Refusal::bad("tool_choice", "there is no tool of that name"));
    }
    let call = |tool: &&Value| {
        let arguments = match &tool["function"]["parameters"] {
            Value::Null => json!({"type": "object"}),
            schema => schema.clone(),
        };
        json!({"type": "object", "properties": {"name": {"const": tool["function"]["name"]}, "arguments": arguments},
            "required": ["name", "arguments"], "additionalProperties": false})
    };
    let calls: Vec<Value> = chosen.iter().map(call).collect();
    let schema = if let [one] = &calls[..] { one.clone() } else { json!({"anyOf": calls}) };
    Ok(Asked { shown: Some(tools.clone()), must: true, forced: Some(schema) })
}

/// A call: the tool's name, and its arguments as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The name.
    pub name: String,
    /// The arguments, an object.
    pub arguments: Value,
}

/// The calls in what a model wrote, and the rest of the text; `None`: there is none.
pub fn calls(text: &str) -> Option<(String, Vec<Call>)> {
    let one = |value: &Value| {
        let name = value["name"].as_str().filter(|name| !name.is_empty())?.to_owned();
        let arguments = value.get("arguments").or_else(|| value.get("parameters"))?;
        // Some write the arguments as a text of JSON, as they are sent.
        let arguments = match arguments {
            Value::String(text) => serde_json::from_str(text).ok()?,
            value => value.clone(),
        };
        arguments.is_object().then_some(Call { name, arguments })
    };
    let all = |text: &str| -> Option<Vec<Call>> {
        match serde_json::from_str::<Value>(text.trim()).ok()? {
            Value::Array(all) if !all.is_empty() => all.iter().map(one).collect(),
            value => Some(vec![one(&value)?]),
        }
    };
    let Some((before, mut rest)) = text.split_once(OPEN) else { return Some((String::new(), all(text)?)) };
    let mut found = Vec::new();
    loop {
        // The last mark is often cut off.
        let (inside, after) = rest.split_once(CLOSE).unwrap_or((rest, ""));
        found.extend(all(inside)?);
        match after.split_once(OPEN) {
            Some((_, next)) => rest = next,
            None => return Some((before.trim_end().to_owned(), found)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<(String, Vec<String>)> {
        calls(text).map(|(text, calls)| (text, calls.into_iter().map(|call| call.name).collect()))
    }

    #[test]
    fn calls_are_found_in_the_ways_in_which_models_write_them() {
        let two = "Let me see.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\
                   {\"name\": \"sub\", \"arguments\": \"{\\\"b\\\": 2}\"}";
        let (text, calls) = calls(two).expect("calls");
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
    fn choices_of_tools() {
        let tool =
            |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
        let ask = |choice: Value| asked(&json!({"tools": [tool("a"), tool("b")], "tool_choice": choice}));
        assert!(matches!(ask(Value::Null), Ok(Asked { shown: Some(_), must: false, forced: None })));
        assert!(matches!(ask(json!("none")), Ok(Asked { shown: None, must: false, forced: None })));
        assert!(matches!(ask(json!("required")), Ok(Asked { must: true, forced: Some(_), .. })));
        assert!(matches!(ask(json!({"function": {"name": "b"}})), Ok(Asked { must: true, forced: Some(_), .. })));
        assert!(ask(json!({"function": {"name": "c"}})).is_err());
        assert!(ask(json!(7)).is_err());
        assert!(asked(&json!({"tool_choice": "required"})).is_err());
        assert!(asked(&json!({"tools": [{"type": "function"}]})).is_err());
        assert!(asked(&json!({"tools": 1})).is_err());
    }
}
