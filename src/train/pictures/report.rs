//! `report.html`: what became of a run, on one page, with the sheets that it left.

use crate::data::atomic::write_atomic;
use crate::error::Result;
use crate::train::metrics;
use crate::train::run::RunDir;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;

/// The sheets that there may be, in their order, and what they show; `{}` is the last step.
const SHEETS: [(&str, &str); 6] = [
    ("samples/training.png", "The same numbers, or pictures, after each so many steps"),
    ("samples/step-{}.png", "After the last step"),
    ("samples/reconstructions-{}.png", "Held-out pictures, and below each what the model makes of it"),
    ("samples/traversal.png", "A latent variable in each row, from −3 to 3, the others as of one picture"),
    ("samples/interpolation.png", "From one held-out picture to another"),
    ("loss.svg", "The loss"),
];

/// What the numbers of metrics mean, for those whose names do not say it.
const MEANINGS: [(&str, &str); 14] = [
    ("loss", "training loss"),
    ("val_loss", "held-out loss"),
    ("val_iwae", "held-out, importance-weighted"),
    ("val_active", "active latent variables"),
    ("val_frechet", "Fréchet distance, own features"),
    ("val_kernel_distance", "kernel distance, own features"),
    ("val_diversity", "diversity, as a share of the data's"),
    ("val_classes", "classes with 4 % or more"),
    ("val_least_share", "share of the rarest class"),
    ("val_classifier_score", "classifier score"),
    ("val_copies", "share of near-copies (0.01 by chance)"),
    ("val_perplexity", "codes in use (perplexity)"),
    ("d_real", "logit of data"),
    ("d_fake", "logit of what is made"),
];

#[derive(Clone, Debug, Serialize)]
struct Number {
    name: String,
    value: String,
}

#[derive(Clone, Debug, Serialize)]
struct Shown {
    says: &'static str,
    file: String,
    curve: bool,
}

/// Writes the page of a run that has done its last step: `name` is the run's, `about` is what was trained on what, `notes` are
/// sentences below the numbers.
///
/// # Errors
/// The metrics cannot be read, or the page cannot be written.
pub fn write(run: &RunDir, name: &str, about: &str, step: u64, notes: &[String]) -> Result<()> {
    let records = metrics::read(run.disk(), &run.metrics())?;
    let mut numbers = vec![Number { name: "steps".into(), value: step.to_string() }];
    if let Some(last) = records.last() {
        let own = [
            ("loss", Some(f64::from(last.loss))),
            ("val_loss", last.val_loss.filter(|_| !last.more.contains_key("val_frechet"))),
        ];
        let more = last.more.iter().map(|(name, value)| (name.as_str(), Some(*value)));
        for (name, value) in own.into_iter().chain(more) {
            let Some(value) = value else { continue };
            let meaning = MEANINGS.iter().find(|(known, _)| *known == name);
            let name =
                meaning.map_or_else(|| name.replace("val_", "held-out ").replace('_', " "), |(_, m)| (*m).to_owned());
            let digits = if value.abs() >= 1000.0 || value.fract() == 0.0 { 0 } else { 3 };
            numbers.push(Number { name, value: format!("{value:.digits$}") });
        }
    }
    let shown = SHEETS.iter().filter_map(|(file, says)| {
        let (file, curve) = (file.replace("{}", &format!("{step:06}")), file.ends_with(".svg"));
        // The curve is drawn after the page.
        (curve || run.disk().exists(&run.path().join(&file)).unwrap_or(false)).then_some(Shown { says, file, curve })
    });
    let sheets: Vec<Shown> = shown.collect();
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters"));
    environment
        .add_template("report.html", include_str!("report.html"))
        .expect("the template is well formed; a test renders it");
    let [numbers, notes, sheets] =
        [Value::from(Serde(numbers)), Value::from(Serde(notes.to_vec())), Value::from(Serde(sheets))];
    let page = context! { name, about, numbers, notes, sheets };
    let html = environment.get_template("report.html").and_then(|template| template.render(page));
    let html = html.expect("the template fits; a test renders it");
    write_atomic(run.disk(), &run.path().join("report.html"), html.as_bytes())
}
