//! Tools: which ones an answer may call, and the calls in what a model wrote.

use super::Refusal;
use crate::agent::{Bounds, Call, calls_within};
use serde_json::{Value, json};

/// What is read of an answer. A call may hold a whole file, so only nesting and the number of calls are bounded.
const BOUNDS: Bounds = Bounds { text: usize::MAX, calls: 128, depth: 100, string: usize::MAX };

/// The calls in an answer, and the text before them; `None`: it is text.
pub fn calls(text: &str) -> Option<(String, Vec<Call>)> {
    calls_within(text, &BOUNDS).ok().flatten()
}

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

#[cfg(test)]
mod tests {
    use super::*;

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
