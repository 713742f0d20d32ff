//! The life cycle at a glance: what each stage of a tour did, and what came of it.

use super::{GENERATOR, PICTURES, environment, words};
use crate::disk::{self, Os};
use crate::study::effect::Unit;
use crate::study::tour::{Measure, Pace, Shown, Stage, Way};
use minijinja::{Value, context};
use std::path::Path;
use std::time::SystemTime;

/// The page of stages and what they came to; of a stage that was not done what it would do.
pub fn tour(stages: &[(&Stage, Option<Shown>)], pace: Pace) -> String {
    let mut left = PICTURES;
    let all: Vec<Value> =
        (1..).zip(stages).map(|(number, (stage, shown))| one(number, stage, shown.as_ref(), pace, &mut left)).collect();
    let done = stages.iter().filter(|(_, shown)| shown.is_some()).count();
    let measures = || stages.iter().filter_map(|(_, shown)| shown.as_ref()).flat_map(|shown| &shown.measures);
    let mut environment = environment();
    environment
        .add_template("tour.html", include_str!("tour.html"))
        .expect("the template is well formed; a test renders it");
    let page = context! {
        generator => GENERATOR,
        kiln => env!("CARGO_PKG_VERSION"),
        today => words::day(SystemTime::now()),
        pace => if pace == Pace::Quick { "quick" } else { "in full" },
        done,
        all => stages.len(),
        seconds => stages.iter().filter_map(|(_, shown)| shown.as_ref()).map(|shown| shown.seconds).sum::<f64>(),
        measures => measures().count(),
        good => measures().filter(|measure| measure.as_it_should()).count(),
        stages => all,
    };
    let html = environment.get_template("tour.html").and_then(|template| template.render(page));
    html.expect("the template fits; a test renders it") + "\n"
}

fn one(number: usize, stage: &Stage, shown: Option<&Shown>, pace: Pace, left: &mut usize) -> Value {
    let measures: Value = shown.iter().flat_map(|shown| &shown.measures).map(measured).collect();
    let pictures: Value = shown
        .iter()
        .flat_map(|shown| &shown.pictures)
        .filter_map(|(says, path)| Some(context! { says, data => carried(path, left)? }))
        .collect();
    context! {
        number,
        name => stage.name,
        does => stage.does,
        source => stage.source,
        chapter => stage.chapter,
        done => shown.is_some(),
        seconds => shown.map(|shown| shown.seconds),
        budget => stage.budget(pace) as f64,
        measures,
        pictures,
        notes => shown.map(|shown| shown.notes.clone()).unwrap_or_default(),
        sample => shown.and_then(|shown| shown.sample.clone()),
        next => shown.map(|shown| shown.next.clone()).unwrap_or_default(),
    }
}

/// Two bars, the longer of which is as wide as there is room.
fn measured(measure: &Measure) -> Value {
    let Measure { what, unit, before, after, better } = measure;
    let most = [before.1, after.1].into_iter().filter(|x| x.is_finite()).fold(0.0, |most: f64, x| most.max(x.abs()));
    let side = |(of, value): &(String, f64)| {
        let width = if most > 0.0 && value.is_finite() { 100.0 * value.abs() / most } else { 0.0 };
        context! { of, says => said(*value, *unit), width }
    };
    let way = if *better == Way::Up { "more is better" } else { "less is better" };
    context! { what, before => side(before), after => side(after), good => measure.as_it_should(), way }
}

/// A figure in words.
pub fn said(value: f64, unit: Unit) -> String {
    match unit {
        _ if !value.is_finite() => "no number".into(),
        Unit::Share => format!("{:.1} %", 100.0 * value),
        Unit::Bits => format!("{value:.2} bits"),
        Unit::Plain => words::number(value),
    }
}

/// A picture as a `data:` address, where there is room for it.
fn carried(path: &Path, left: &mut usize) -> Option<String> {
    let bytes = disk::read(&Os, path).ok().filter(|bytes| bytes.len() <= *left)?;
    *left -= bytes.len();
    let kind = if path.extension().is_some_and(|e| e == "svg") { "svg+xml" } else { "png" };
    Some(format!("data:image/{kind};base64,{}", base64::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::tour::STAGES;

    #[test]
    fn the_page_has_every_stage_and_no_address_but_its_own() {
        let measure = Measure {
            what: "loss <of all>".into(),
            unit: Unit::Plain,
            before: ("before".into(), 2.0),
            after: ("after".into(), f64::NAN),
            better: Way::Down,
        };
        let shown = Shown { measures: vec![measure], sample: Some("</pre><script>".into()), ..Shown::default() };
        let stages: Vec<(&Stage, Option<Shown>)> =
            STAGES.iter().enumerate().map(|(i, stage)| (stage, (i % 2 == 0).then(|| shown.clone()))).collect();
        let page = tour(&stages, Pace::Quick);
        let text = html_escape::decode_html_entities(&page);
        assert!(STAGES.iter().all(|stage| text.contains(stage.source) && text.contains(stage.name)));
        assert!(page.contains("no number") && page.contains("not done") && !page.contains("<script"));
        assert!(!page.contains("http://") && !page.contains("https://"));
    }
}
