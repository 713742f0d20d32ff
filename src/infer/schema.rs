//! Text that fits a JSON schema: which tokens may come next, by the parser of `llguidance`.

use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::model::sample::Constraint;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

const HINT: &str = "simplify the schema";

/// Makes constraints for texts in the tokens of a model.
pub struct Schemas {
    tokenizer: Arc<Tokenizer>,
    /// Ids of the model.
    vocab: usize,
    /// Made when it is first needed: all tokens as a tree.
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl Schemas {
    /// For a model of `vocab` ids, of which `tokenizer` names the first ones.
    pub fn new(tokenizer: Arc<Tokenizer>, vocab: usize) -> Schemas {
        Schemas { tokenizer, vocab, factory: OnceLock::new() }
    }

    /// Lets only a value that fits `schema` be written, without white space but one blank after commas and colons.
    ///
    /// # Errors
    /// The schema is none, or uses what is not known.
    pub fn constraint(&self, schema: &Value) -> Result<Box<dyn Constraint>> {
        let factory = self.factory.get_or_init(|| self.factory());
        let factory = factory.as_ref().map_err(|e| Error::failed(e, "use another tokenizer"))?;
        let mut schema = schema.clone();
        if let Some(schema) = schema.as_object_mut() {
            // A model that is not sure what to write would write blanks for ever.
            let form = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
            schema.insert("x-guidance".into(), form);
        }
        let grammar = TopLevelGrammar::from_json_schema(schema);
        let matcher = Matcher::new(factory.create_parser(grammar));
        if let Some(problem) = matcher.get_error() {
            return Err(Error::usage(problem.lines().next().unwrap_or("it cannot be used"), HINT));
        }
        Ok(Box::new(Keeper { matcher, end: self.vocab }))
    }

    fn factory(&self) -> Result<ParserFactory, String> {
        let special = self.tokenizer.special();
        let mut words: Vec<Vec<u8>> = (0..self.vocab as u32).map(|id| self.tokenizer.bytes_of(id)).collect();
        for (_, id) in special {
            words[*id as usize].insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
        }
        // The end of the text, which no model has: whoever asks what may come sees it, and stops.
        words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], b"<end>".as_slice()].concat());
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, self.vocab as u32), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(factory)
    }
}

/// Keeps a text to its shape.
struct Keeper {
    matcher: Matcher,
    /// The token that says that the text may end; beyond the model's.
    end: usize,
}

impl Constraint for Keeper {
    fn narrow(&mut self, logits: &mut [f32]) -> bool {
        // What cannot go on any more ends here.
        let Ok(allowed) = self.matcher.compute_mask_or_eos() else { return false };
        let mut any = false;
        for (id, logit) in logits.iter_mut().enumerate() {
            match id < self.end && allowed.is_allowed(id as u32) {
                true => any = true,
                false => *logit = f32::NEG_INFINITY,
            }
        }
        any
    }

    fn accept(&mut self, id: u32) {
        // What goes wrong here is found again when it is asked what may come.
        let _ = self.matcher.consume_token(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    /// What a model that knows nothing writes, byte by byte.
    fn write(schemas: &Schemas, schema: &Value, seed: u64) -> String {
        let mut constraint = schemas.constraint(schema).expect("a schema");
        let mut rng = Rng::new(seed, Purpose::Test, 0, 0);
        let mut text = Vec::new();
        for i in 0..2000 {
            let mut logits = vec![0.0; 256];
            if !constraint.narrow(&mut logits) {
                return String::from_utf8(text).expect("whole characters");
            }
            let allowed: Vec<u8> = (0..=255).filter(|&id| logits[usize::from(id)] == 0.0).collect();
            // It would end a string or a list now and then.
            let ending = allowed.iter().copied().find(|byte| b"\"]}".contains(byte));
            let any = allowed[rng.below(allowed.len() as u32) as usize];
            let byte = if i % 5 == 0 { ending.unwrap_or(any) } else { any };
            text.push(byte);
            constraint.accept(u32::from(byte));
        }
        panic!("no end: {}", String::from_utf8_lossy(&text));
    }

    fn schemas() -> Schemas {
        Schemas::new(Arc::new(Tokenizer::bytes()), 256)
    }

    #[test]
    fn whatever_is_written_fits_the_schema() {
        let schema = json!({"type": "object", "properties": {
            "name": {"enum": ["buy", "sell"]}, "count": {"type": "integer", "minimum": 1, "maximum": 12},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
            "to": {"anyOf": [{"type": "null"}, {"type": "boolean"}]}},
            "required": ["name", "count", "tags", "to"], "additionalProperties": false});
        let schemas = schemas();
        for seed in 0..20 {
            let text = write(&schemas, &schema, seed);
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let count = value["count"].as_u64().expect("a count");
            assert!(value["name"] == "buy" || value["name"] == "sell", "{text}");
            assert!((1..=12).contains(&count) && value.as_object().expect("an object").len() == 4, "{text}");
            assert!(value["tags"].as_array().expect("a list").len() <= 3, "{text}");
            assert!(value["to"].is_null() || value["to"].is_boolean(), "{text}");
        }
    }

    #[test]
    fn a_schema_may_speak_of_itself() {
        let schema = json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object",
            "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}},
            "required": ["left"], "additionalProperties": false}}});
        for seed in 0..5 {
            let text = write(&schemas(), &schema, seed);
            assert!(text.starts_with("{\"left\": "), "{text}");
            serde_json::from_str::<Value>(&text).expect("JSON");
        }
    }

    #[test]
    fn schemas_that_are_none_are_refused() {
        let schemas = schemas();
        let bad = [
            json!({"type": "number", "minimum": 3, "maximum": 1}),
            json!({"type": "nothing"}),
            json!({"$ref": "#/no"}),
            json!({"type": "string", "pattern": "("}),
        ];
        for schema in bad {
            assert!(schemas.constraint(&schema).is_err(), "{schema}");
        }
    }
}
