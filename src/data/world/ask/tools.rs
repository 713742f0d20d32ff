//! Tools over the village: look up a value, find who has one, count them. What an agent calls, and what it gets.

use super::super::World;
use super::super::village::Relation;
use super::Query;
use serde_json::{Value, json};

/// The tools as JSON schemas, in the form that chat templates take.
pub fn tools() -> Value {
    let relations: Vec<_> = Relation::ALL.iter().filter(|&&r| r != Relation::House).map(|r| r.name()).collect();
    let relation = json!({"type": "string", "enum": relations, "description": "What is asked about"});
    let value = json!({"type": "string", "description": "The value, as lookup gives it"});
    let tool = |name: &str, description: &str, properties: Value, required: [&str; 2]| {
        json!({"type": "function", "function": {"name": name, "description": description,
            "parameters": {"type": "object", "properties": properties, "required": required}}})
    };
    let name = json!({"type": "string", "description": "A person, an animal, a thing, a place or a food"});
    json!([
        tool(
            "lookup",
            "The value of a relation of somebody or something",
            json!({"name": name, "relation": relation}),
            ["name", "relation"]
        ),
        tool(
            "find",
            "Everybody or everything whose relation has a value",
            json!({"relation": relation, "value": value}),
            ["relation", "value"]
        ),
        tool("count", "How many have a value", json!({"relation": relation, "value": value}), ["relation", "value"]),
    ])
}

impl World {
    /// What a tool gives back: a name, a list of names, or a number.
    ///
    /// # Errors
    /// In words that can be given back to the caller: no such tool, an argument that is missing or unknown, a relation that
    /// is undefined there.
    pub fn call(&self, tool: &str, arguments: &Value) -> Result<Value, String> {
        let argument = |key: &str| {
            let text = arguments.get(key).and_then(Value::as_str);
            text.ok_or_else(|| format!("{tool} needs the argument {key:?}, a string"))
        };
        if !["lookup", "find", "count"].contains(&tool) {
            return Err(format!("there is no tool {tool:?}: lookup, find and count are"));
        }
        let name = argument("relation")?;
        let relation = Relation::named(name).ok_or_else(|| format!("there is no relation {name:?}"))?;
        let entity = |key: &str| {
            let text = argument(key)?;
            self.find(text).ok_or_else(|| format!("the village knows no {text:?}"))
        };
        if tool == "lookup" {
            let e = entity("name")?;
            let value = self.fact(relation, e).ok_or_else(|| format!("{:?} has no {name}", self.name(e)))?;
            return Ok(self.name(value).into());
        }
        let value = entity("value")?;
        let found = self.solve(Query::Find(relation, value)).map(|answer| answer.entities).unwrap_or_default();
        Ok(match tool {
            "count" => found.len().into(),
            _ => found.iter().map(|&e| self.name(e)).collect(),
        })
    }

    /// The calls that answer a query, in order.
    pub(super) fn calls(&self, query: Query) -> Vec<(&'static str, Value)> {
        let lookup = |relation: Relation, e| ("lookup", json!({"name": self.name(e), "relation": relation.name()}));
        let value = |relation: Relation, e| json!({"relation": relation.name(), "value": self.name(e)});
        match query {
            Query::Value(relation, e) => vec![lookup(relation, e)],
            Query::Path(inner, outer, e) => {
                let mid = self.fact(inner, e).map(|mid| lookup(outer, mid));
                [lookup(inner, e)].into_iter().chain(mid).collect()
            }
            Query::Find(relation, e) => vec![("find", value(relation, e))],
            Query::Count(relation, e) => vec![("count", value(relation, e))],
        }
    }
}
