//! The page of a model, or of several: what is known is gathered, or measured first, and written down.

use super::ReportArgs;
use crate::cli::Global;
use crate::cli::eval::tasks::measure;
use crate::cli::term::{Ink, ink, note, print, quote, safe};
use kiln::cpu::limits;
use kiln::data::atomic::write_atomic;
use kiln::disk::{self, Os};
use kiln::error::{AtPath, Error, Result};
use kiln::eval::{Topic, saved};
use kiln::plan::Forecast;
use kiln::report::facts::{Standing, Studies, standard};
use kiln::report::page::{GENERATOR, card, html};
use kiln::report::{Extra, Facts, gather};
use kiln::study::effect;
use kiln::train::health::examine;
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Seconds in which the machine's peak is measured.
const PEAK: f64 = 0.3;
/// By this a model card is known as one of ours.
const OURS: &str = "Made by kiln report";
/// A page or a card is at most so long.
const MAX_FILE: u64 = 16 << 20;

/// Writes the page, and the card where it is asked for.
pub(super) fn run(paths: &[PathBuf], args: &ReportArgs, global: &Global) -> Result<()> {
    let paths = runs(paths)?;
    let plan =
        args.plan.as_deref().map(|path| Forecast::from_json(&disk::text(&Os, path, MAX_FILE)?, path)).transpose()?;
    if paths.len() > 1 && (args.card || plan.is_some()) {
        let flag = if args.card { "--card" } else { "--plan" };
        return Err(Error::usage(format!("{flag}: of which of {} models?", paths.len()), "name one model"));
    }
    let mut studies = Studies::open(&args.study)?;
    let mut all: Vec<Facts> = Vec::new();
    for path in &paths {
        let mut extra = Extra { forecast: plan.clone(), ..Extra::default() };
        if args.eval {
            look(path, &mut extra, args, global)?;
        }
        let mut facts = gather(path, &extra)?;
        studies.add(path, &mut facts);
        all.push(facts);
    }
    tell_apart(&mut all);
    let place = match &paths[..] {
        [path] if path.is_dir() => path.join("report.html"),
        _ => PathBuf::from("report.html"),
    };
    let page = args.out.clone().unwrap_or_else(|| free(place));
    let text = html(&all);
    write_atomic(&Os, &page, text.as_bytes())?;
    let readme = args.card.then(|| page.with_file_name("README.md"));
    if let Some(path) = &readme {
        if path.exists() && !disk::text(&Os, path, MAX_FILE).is_ok_and(|text| text.contains(OURS)) {
            let problem = format!("{} is there, and not of kiln's making", path.display());
            return Err(Error::failed(
                problem,
                "name another place: --out FOLDER/report.html writes the card there too",
            ));
        }
        write_atomic(&Os, path, card(&all[0], None).as_bytes())?;
    }
    if global.json {
        let [page, card] = [Some(&page), readme.as_ref()].map(|path| path.map(|path| path.display().to_string()));
        return print(&json!({"page": page, "card": card, "models": all}).to_string());
    }
    print(&words(&all, &page, text.len(), readme.as_deref()))
}

/// A sweep stands for its trials, and a study for the runs of all its seeds.
fn runs(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = Vec::new();
    for path in paths {
        let within = |folder: &Path| -> Result<Vec<PathBuf>> {
            let entries = std::fs::read_dir(folder).at(folder)?;
            let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            found.sort();
            Ok(found)
        };
        let mut folders = vec![path.join("trials")];
        if !folders[0].is_dir() {
            folders = if path.is_dir() { within(path)? } else { Vec::new() };
            folders.retain(|folder| folder.join(effect::FILE).is_file());
        }
        if folders.is_empty() {
            all.push(path.clone());
        }
        for folder in folders {
            all.extend(within(&folder)?.into_iter().filter(|path| path.join("recipe.toml").is_file()));
        }
    }
    if all.is_empty() {
        return Err(Error::failed("no trial of the sweep has begun yet", "look again when it has"));
    }
    Ok(all)
}

/// Models that are called alike are called by their folder too.
fn tell_apart(all: &mut [Facts]) {
    let names: Vec<String> = all.iter().map(|facts| facts.name.clone()).collect();
    for facts in all {
        let folder = Path::new(&facts.path).parent().and_then(Path::file_name);
        if let (Some(folder), 2..) = (folder, names.iter().filter(|name| **name == facts.name).count()) {
            facts.name = format!("{}/{}", folder.display(), facts.name);
        }
    }
}

/// A name that takes no other page's place: training writes one of pictures.
fn free(place: PathBuf) -> PathBuf {
    let marked = format!("content=\"{GENERATOR}\"");
    let ours = |path: &Path| !path.exists() || disk::text(&Os, path, MAX_FILE).is_ok_and(|text| text.contains(&marked));
    if ours(&place) { place } else { place.with_file_name("page.html") }
}

/// Measures what nobody has: kiln's own tasks where the model has read of the village, the doctor's look, this machine's peak.
fn look(path: &Path, extra: &mut Extra, args: &ReportArgs, global: &Global) -> Result<()> {
    let before = gather(path, &Extra::default())?;
    let Some(training) = &before.training else {
        return Err(Error::usage(
            format!("--eval: {} is no run of kiln, so nothing is known of what to ask it", path.display()),
            format!("ask it: kiln eval {0} --tasks text --data FILE --save {0}/{1}", quote(path), saved::FOLDER),
        ));
    };
    if training.step == 0 {
        return Err(Error::failed(format!("--eval: {} has done no step", path.display()), "let it train first"));
    }
    // Only what the page would call missing.
    let wanted =
        before.missing.iter().filter_map(|missing| missing.command.split_once(" --tasks ")).map(|(_, names)| names);
    let wanted: Vec<&str> = wanted.flat_map(|names| names.split(',')).collect();
    let mut names = Vec::new();
    for topic in Topic::ALL {
        names.extend(standard(topic)?.into_iter().filter(|name| wanted.contains(&&**name)));
    }
    let device = global.host()?;
    if !global.json {
        note(&format!(
            "asking {}: {}",
            quote(path),
            if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
        ));
    }
    if !names.is_empty() {
        measure(path, &names, args.limit as usize, global)?;
    }
    if !global.json {
        note("looking at its weights, its data and this machine");
    }
    extra.health = Some(examine(path, &device, &mut |_, _, _| {})?);
    let on_cpu = before.spent.as_ref().is_some_and(|spent| spent.device == "cpu");
    extra.peak = on_cpu.then(|| limits::fma_peak(device.host(), PEAK));
    Ok(())
}

/// The first screen of the page, in words.
fn words(all: &[Facts], page: &Path, bytes: usize, card: Option<&Path>) -> String {
    let mut text = String::new();
    for facts in all.iter().take(8) {
        let _ = writeln!(text, "{}: {}", ink(&safe(&facts.name), Ink::Bold), safe(&facts.what));
    }
    if let [facts] = all {
        for claim in &facts.claims {
            let word = match claim.standing {
                Standing::Can => ink("can   ", Ink::Green),
                Standing::Cannot => ink("cannot", Ink::Red),
                Standing::Plain => "is    ".to_owned(),
            };
            let [what, figure, beside] = [&claim.what, &claim.figure, &claim.beside].map(|text| safe(text));
            let _ = writeln!(text, "  {word}  {what}: {figure}; {beside}");
        }
        for risk in facts.risks.iter().filter(|risk| risk.bad) {
            let _ = writeln!(text, "  {}  {}", ink("mind  ", Ink::Red), safe(&risk.says));
        }
        for missing in &facts.missing {
            let _ = writeln!(text, "  {}  {}", ink("not measured:", Ink::Dim), safe(&missing.what));
        }
    }
    let _ = writeln!(text, "\npage {} ({} kB)", quote(page), bytes.div_ceil(1000));
    if let Some(card) = card {
        let _ = writeln!(text, "card {}", quote(card));
    }
    if let [Facts { next, .. }] = all
        && let Some(next) = next.first()
    {
        let _ = write!(text, "next: {}  ({})", safe(&next.command), next.why);
    }
    text.trim_end().to_owned()
}
