//! `kiln data inspect` of pictures: what they are like, how many each label has, and a sheet of them.

use std::path::Path;

use kiln::data::images::{self, Dims, Found, Grid, Pictures, Reading, Summary};
use kiln::disk::Os;
use kiln::error::Result;
use serde_json::json;

use super::plural;
use crate::cli::term::{print, quote, safe, thousands};

/// Rows and columns of a contact sheet.
const SHEET: (usize, usize) = (8, 12);
/// Labels that are listed.
const LISTED: usize = 20;

/// Prints what is at `path`, and draws a contact sheet.
pub fn inspect(path: &Path, size: Option<usize>, sheet: Option<&Path>, json: bool) -> Result<()> {
    let Found { train, held_out, skips } = images::open(path, &Reading { size, colour: None })?;
    let summary = Summary::of(&train);
    if let Some(file) = sheet {
        contact_sheet(&train).save(&Os, file)?;
    }
    if json {
        let mut object = json!(summary);
        object["path"] = json!(path.to_string_lossy());
        object["held_out"] = json!(held_out.as_ref().map(Pictures::len));
        object["skipped"] = json!(skips.counts);
        return print(&object.to_string());
    }
    let Dims { width, height, channels } = summary.dims;
    let colours = if channels == 1 { "grey" } else { "RGB" };
    let mut text = format!(
        "{} · {} pictures of {width} x {height}, {colours}\n",
        path.display(),
        thousands(summary.pictures as u64)
    );
    if let Some(held_out) = &held_out {
        text += &format!("  held out by the source {}\n", thousands(held_out.len() as u64));
    }
    let numbers = |numbers: &[f64]| numbers.iter().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join(" ");
    text += &format!("  mean {}  deviation {} (of 0 to 1)\n", numbers(&summary.mean), numbers(&summary.std));
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    text += &format!(
        "  black {}  white {}  repeated {}  of one colour {}\n",
        percent(summary.black),
        percent(summary.white),
        thousands(summary.repeated as u64),
        thousands(summary.blank as u64)
    );
    for (reason, count) in &skips.counts {
        let first = skips.list.iter().find(|skipped| skipped.reason == *reason);
        let example = first.map_or(String::new(), |skipped| format!(", as {}", safe(&skipped.path.to_string_lossy())));
        text += &format!("  skipped {} ({}{example})\n", thousands(*count), reason.describe());
    }
    if summary.labels.is_empty() {
        text += "\nno labels\n";
    } else {
        text += &format!("\n{} label{}\n", summary.labels.len(), plural(summary.labels.len()));
    }
    let most = summary.labels.iter().map(|label| label.pictures).max().unwrap_or(0).max(1);
    for label in summary.labels.iter().take(LISTED) {
        let share = 100.0 * label.pictures as f64 / summary.pictures as f64;
        let bar = "█".repeat((24 * label.pictures).div_ceil(most));
        text += &format!("  {:<16} {:>9}  {share:5.1} %  {bar}\n", safe(&label.name), thousands(label.pictures as u64));
    }
    if summary.labels.len() > LISTED {
        text += &format!("  and {} more\n", summary.labels.len() - LISTED);
    }
    text += &match sheet {
        Some(file) => format!("\ndrew {}\n\nnext: look at it", file.display()),
        None => format!("\nnext: kiln data inspect {} --sheet sheet.png", quote(path)),
    };
    print(&text)
}

/// Pictures from all over the set: a row of each label, where there are labels and rows enough.
fn contact_sheet(pictures: &Pictures) -> images::Sheet {
    let (rows, columns) = SHEET;
    let classes = pictures.classes();
    let chosen: Vec<usize> = if (1..=16).contains(&classes) {
        let of = |class: usize| (0..pictures.len()).filter(move |&i| pictures.label(i) == Some(class)).take(columns);
        // A class with fewer than a row has what there is, repeated.
        (0..classes).flat_map(|class| of(class).collect::<Vec<_>>().into_iter().cycle().take(columns)).collect()
    } else {
        let count = (rows * columns).min(pictures.len());
        (0..count).map(|i| i * pictures.len() / count).collect()
    };
    let values: Vec<u8> = chosen.iter().flat_map(|&i| pictures.get(i)).copied().collect();
    Grid::new(columns.min(chosen.len()), pictures.dims()).draw(&values, pictures.dims())
}
