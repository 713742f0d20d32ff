//! The page of a model, or of several side by side: one file of HTML that needs nothing else, and the model card.

mod card;
pub mod chart;
mod compare;
pub mod tour;

pub use card::card;
pub use chart::Chart;
pub use compare::Compared;

use super::curve::smoothed;
use super::facts::{Facts, Figure, Sheet, Side, Study, label, words};
use crate::disk::{self, Os};
use crate::study::effect::Unit;
use chart::{Curve, Style};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use std::time::SystemTime;

/// Bytes of pictures that a page carries along; what is more stays where it is.
const PICTURES: usize = 2_000_000;
/// The weight of what came before in a smoothed loss.
const SMOOTH: f64 = 0.95;
/// By this a page is known as one of ours.
pub const GENERATOR: &str = "kiln report";

/// A chart in a page.
#[derive(Clone, Debug, Serialize)]
struct Shown {
    /// Of what.
    name: String,
    svg: String,
}

/// A picture in a page.
#[derive(Clone, Debug, Serialize)]
struct Carried {
    says: String,
    /// The picture itself, as a `data:` address; empty where it would be too large.
    data: String,
    file: String,
}

/// The page of one model, or of several.
pub fn html(all: &[Facts]) -> String {
    let (mut charts, mut calibration, mut sheets) = (Vec::new(), Vec::new(), Vec::new());
    if let [facts] = all {
        charts = curves(facts);
        for judged in &facts.judged {
            let outcome = &judged.saved.outcome;
            if let Some(sure) = &outcome.calibration {
                let svg = Chart::reliability(&format!("{}: right, by how sure it was", outcome.task), &sure.bins).svg();
                calibration.push(Shown { name: outcome.task.clone(), svg });
            }
        }
        sheets = carried(&facts.sheets);
    }
    let compared = (all.len() > 1).then(|| Compared::of(all));
    if let Some(compared) = &compared {
        charts = compared.curves(all).into_iter().map(|svg| Shown { name: String::new(), svg }).collect();
    }
    let title = match all {
        [facts] => facts.name.clone(),
        _ => format!("{} runs side by side", all.len()),
    };
    let shown = |charts: Vec<Shown>| -> Value {
        let one = |shown: Shown| context! { name => shown.name, svg => Value::from_safe_string(shown.svg) };
        charts.into_iter().map(one).collect()
    };
    let mut environment = environment();
    environment
        .add_template("report.html", include_str!("report.html"))
        .expect("the template is well formed; a test renders it");
    let page = context! {
        title,
        generator => GENERATOR,
        kiln => env!("CARGO_PKG_VERSION"),
        today => words::day(SystemTime::now()),
        style => Value::from_safe_string(chart::STYLE.to_owned()),
        all => Value::from(Serde(all)),
        charts => shown(charts),
        calibration => shown(calibration),
        sheets => Value::from(Serde(sheets)),
        compared => Value::from(Serde(compared)),
        studies => studies(all),
    };
    let html = environment.get_template("report.html").and_then(|t| t.render(page));
    html.expect("the template fits; a test renders it") + "\n"
}

/// What studies found, each of them once, with a chart of each figure.
fn studies(all: &[Facts]) -> Value {
    let mut seen: Vec<&Study> = Vec::new();
    for study in all.iter().flat_map(|facts| &facts.studies) {
        // Not by its figures: what is no number is unlike itself.
        if !seen.iter().any(|other| other.folder == study.folder) {
            seen.push(study);
        }
    }
    let chart = |figure: &Figure| {
        let (scale, unit) = match figure.unit {
            Unit::Share => (100.0, "%"),
            Unit::Bits => (1.0, "bits"),
            Unit::Plain => (1.0, ""),
        };
        let row =
            |side: &Side| (format!("{}: {}", side.of, side.says), side.values.iter().map(|x| scale * x).collect());
        Value::from_safe_string(Chart::rows(&figure.what, unit, &figure.sides.each_ref().map(row)).svg())
    };
    let one = |study: &Study| {
        let charts: Value = study.figures.iter().map(chart).collect();
        context! { it => Value::from(Serde(study)), charts }
    };
    seen.into_iter().map(one).collect()
}

/// What all templates of a page share.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters"));
    environment.add_filter("count", words::count);
    environment.add_filter("size", words::size);
    environment.add_filter("span", words::span);
    environment.add_filter("label", |name: String| label(&name));
    // What is no number is `none` in JSON, and here.
    environment.add_filter("number", |x: Option<f64>| x.map_or("no number".to_owned(), words::number));
    environment
        .add_filter("measured", |x: Option<f64>, error: Option<f64>| words::measured(x.unwrap_or(f64::NAN), error));
    environment.add_filter("percent", |x: f64| format!("{:.0} %", 100.0 * x));
    environment
}

/// The curves of one run.
fn curves(facts: &Facts) -> Vec<Shown> {
    let curves = &facts.curves;
    let unit = facts.training.as_ref().map_or("", |training| training.loss_unit);
    let of_what = facts.training.as_ref().map_or("", |training| training.unit);
    let smooth = smoothed(&curves.loss, SMOOTH);
    // Of two networks there is no loss on what is held out: it is a distance.
    let apart = facts.training.as_ref().is_some_and(|training| training.distance().is_some());
    let val: &[(f64, f64)] = if apart { &[] } else { &curves.val };
    // The first steps are steep, and single ones shoot up: neither shall squeeze the rest.
    let late = &smooth[smooth.len() / 50..];
    let shown = late.iter().chain(val).map(|dot| dot.1).chain(curves.floor);
    let floor = curves.floor.zip(curves.loss.last()).map(|(floor, last)| vec![(0.0, floor), (last.0, floor)]);
    let loss = [
        Curve { name: "", points: curves.loss.clone(), style: Style::Faint(0) },
        Curve { name: "training, smoothed", points: smooth.clone(), style: Style::Line(0) },
        Curve { name: "held out", points: val.to_vec(), style: Style::Dots(1) },
        Curve { name: "nobody can go below", points: floor.unwrap_or_default(), style: Style::Dashed(2) },
    ];
    let title = format!("loss ({unit})");
    let one = |title: &str, dots: &[(f64, f64)]| {
        let curve = Curve { name: "", points: dots.to_vec(), style: Style::Line(0) };
        Chart::lines(title, "steps", &[curve], chart::span(dots.iter().map(|dot| dot.1)))
    };
    let all = [
        ("loss", Chart::lines(&title, "steps", &loss, chart::span(shown))),
        ("distance", if apart { one("Fréchet distance from what is held out", &curves.val) } else { None }),
        ("learning rate", one("learning rate", &curves.lr)),
        ("gradient", one("norm of the gradient", &curves.gradient)),
        ("speed", one(&format!("{of_what} a second"), &curves.speed)),
    ];
    all.into_iter().filter_map(|(name, chart)| Some(Shown { name: name.to_owned(), svg: chart?.svg() })).collect()
}

/// The sheets of pictures, as far as a page can carry them.
fn carried(sheets: &[Sheet]) -> Vec<Carried> {
    let mut left = PICTURES;
    let one = |sheet: &Sheet| {
        let small = sheet.file.metadata().is_ok_and(|meta| meta.len() <= left as u64);
        let bytes = small.then(|| disk::read(&Os, &sheet.file).ok()).flatten().filter(|bytes| bytes.len() <= left);
        let data = bytes.map_or(String::new(), |bytes| {
            left -= bytes.len();
            format!("data:image/png;base64,{}", base64::encode(bytes))
        });
        Carried { says: sheet.says.clone(), data, file: sheet.file.display().to_string() }
    };
    sheets.iter().map(one).collect()
}
