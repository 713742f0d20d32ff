//! The model card: `README.md` as Hugging Face's hub reads it, with what is known filled in and the rest said to be unknown.

use crate::report::facts::{Facts, words};
use minijinja::value::Serde;
use minijinja::{Value, context};
use serde_json::{Value as Json, json};
use std::fmt::Write;
use std::path::Path;

/// The card of a model; of one that was written to the folder `exported`, as Hugging Face's `transformers` reads it.
pub fn card(facts: &Facts, exported: Option<&Path>) -> String {
    let mut environment = super::environment();
    // Text of others shall not end the place where it stands.
    environment
        .add_filter("cell", |text: String| text.replace('|', "\\|").replace('<', "&lt;").replace(['\n', '\r'], " "));
    environment.add_filter("plain", |text: String| text.replace('<', "&lt;").replace(['\n', '\r'], " "));
    environment.add_filter("code", |text: String| text.replace(['`', '\n', '\r'], " "));
    environment.add_filter("fence", |text: String| fence(&text));
    environment
        .add_template("card.md", include_str!("card.md"))
        .expect("the template is well formed; a test renders it");
    let page = context! {
        front => front(facts, if exported.is_some() { "transformers" } else { "kiln" }),
        it => Value::from(Serde(facts)),
        kiln => env!("CARGO_PKG_VERSION"),
        exported => exported.is_some(),
        model => words::shell(exported.unwrap_or(Path::new(&facts.path))),
    };
    let card = environment.get_template("card.md").and_then(|t| t.render(page));
    card.expect("the template fits; a test renders it") + "\n"
}

/// A block of text between fences that are longer than any within it.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{}\n{fence}", text.trim_end())
}

/// The metadata, in YAML, of which JSON is a part: so every text is quoted.
fn front(facts: &Facts, library: &str) -> String {
    let mut text = format!("license: other\nlicense_name: unknown\nlibrary_name: {library}\n");
    let mut line = |key: &str, value: Json| {
        let _ = writeln!(text, "{key}: {value}");
    };
    let tags = facts.tags.iter().map(|tag| json!(tag)).chain([json!("kiln")]);
    if let Some(pipeline) = facts.tags.first() {
        line("pipeline_tag", json!(pipeline));
    }
    line("tags", tags.collect());
    if let Some(spent) = &facts.spent
        && let Some(cost) = &spent.cost
    {
        let training = if facts.base.is_some() { "fine-tuning" } else { "pre-training" };
        // The hub counts grams.
        let emissions = json!({"emissions": 1000.0 * cost.co2, "source": format!("kiln: {}", spent.basis), "training_type": training,
            "hardware_used": spent.device});
        line("co2_eq_emissions", emissions);
    }
    let results: Vec<Json> = results(facts);
    if !results.is_empty() {
        line("model-index", json!([{"name": facts.name, "results": results}]));
    }
    text
}

/// What was measured, in the hub's form.
fn results(facts: &Facts) -> Vec<Json> {
    let pipeline = facts.tags.first().copied().unwrap_or("other");
    let result = |name: &str, about: &str, metrics: Vec<Json>| json!({"task": {"type": pipeline, "name": about}, "dataset": {"name": name, "type": name}, "metrics": metrics});
    let mut all = Vec::new();
    if let Some(training) = &facts.training {
        let own = [("loss", training.val_loss), ("bits_per_byte", training.bits_per_byte)];
        let metrics: Vec<Json> = own
            .into_iter()
            .filter_map(|(name, value)| {
                Some(json!({"type": name, "value": value.filter(|v| v.is_finite())?, "name": name}))
            })
            .collect();
        if !metrics.is_empty() {
            all.push(result("held out", "what was held out in training", metrics));
        }
    }
    for judged in &facts.judged {
        let outcome = &judged.saved.outcome;
        let figures = outcome.figures.iter().filter(|figure| figure.value.is_finite());
        let metrics: Vec<Json> = figures
            .map(|figure| {
                let name = super::label(&figure.name);
                match figure.error {
                    Some(error) => json!({"type": figure.name, "value": figure.value, "name": name, "error": error}),
                    None => json!({"type": figure.name, "value": figure.value, "name": name}),
                }
            })
            .collect();
        if !metrics.is_empty() {
            all.push(result(&outcome.task, &judged.claim.what, metrics));
        }
    }
    all
}
