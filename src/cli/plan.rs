//! `kiln plan`.

use super::Global;
use super::term::{Ink, Progress, ink, note, print, quote, thousands};
use super::train::{data_path, recipe_of};
use clap::Args;
use kiln::data::atomic::write_atomic;
use kiln::disk::{self, Os};
use kiln::error::{Error, Result};
use kiln::plan::{Advice, Compared, Forecast, Machine, Rates, Settings, Wishes, advise, compare, forecast};
use kiln::train::fit::human;
use kiln::train::recipe::MAX_FILE;
use kiln::train::{Account, Event, Watch, signal};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Say what a run will take before it begins, or what of it came true
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln plan                                        the default recipe: bytes, time, money, carbon dioxide
  kiln plan my.toml --set train.batch=64           measured here, in about ten seconds
  kiln plan my.toml --machine h100 --price 2.5     on a card, by its published figures
  kiln plan --data letters/ --hours 2              which model suits the data; writes planned.toml
  kiln plan --data chats.jsonl --base smollm2      the same for a model that is there already
  kiln plan my.toml --json > my.json; kiln train my.toml
  kiln plan runs/my --against my.json              what was planned beside what it took")]
pub struct PlanArgs {
    /// A recipe, or the directory of a run
    #[arg(value_name = "RECIPE.toml|RUN")]
    what: Option<PathBuf>,
    /// Data for which a recipe is wanted; with a recipe: what it is trained on
    #[arg(long, value_name = "FILE", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Override a key of the recipe; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where: cpu (this machine), a100, h100, h200, rtx3090, rtx4090
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    machine: String,
    /// Seconds of steps that are measured; 0: none, and operations are counted instead
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = amount)]
    seconds: f64,
    /// The share of a card's peak that is assumed
    #[arg(long, value_name = "SHARE", default_value_t = Machine::UTILISATION, value_parser = share)]
    utilisation: f64,
    /// US dollars an hour [default: an assumption for the machine, which is said]
    #[arg(long, value_name = "USD", value_parser = amount)]
    price: Option<f64>,
    /// Watts [default: the card's; 10 a thread]
    #[arg(long, value_name = "W", value_parser = amount)]
    watts: Option<f64>,
    /// Grams of carbon dioxide a kWh
    #[arg(long, value_name = "G", default_value_t = Rates::CARBON, value_parser = amount)]
    carbon: f64,
    /// With a run: what kiln plan --json wrote before it
    #[arg(long, value_name = "FILE.json")]
    against: Option<PathBuf>,
    /// With --data alone: hours of training at most
    #[arg(long, value_name = "H", default_value_t = 1.0, value_parser = amount, help_heading = "With --data alone")]
    hours: f64,
    /// Milliseconds that a token may take when the model writes on this machine
    #[arg(long, value_name = "MS", value_parser = amount, help_heading = "With --data alone")]
    latency: Option<f64>,
    /// A model that is there already, to be fine-tuned
    #[arg(long, value_name = "MODEL", help_heading = "With --data alone")]
    base: Option<PathBuf>,
    /// What somebody else's model costs, US dollars a million tokens or a thousand pictures
    #[arg(long, value_name = "USD", default_value_t = 1.0, value_parser = amount, help_heading = "With --data alone")]
    api_price: f64,
    /// How many of these are made in a month
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = amount, help_heading = "With --data alone")]
    use_a_month: f64,
    /// Where the recipe is written
    #[arg(long, value_name = "FILE.toml", default_value = "planned.toml", help_heading = "With --data alone")]
    out: PathBuf,
}

/// A finite number, 0 or more.
fn amount(text: &str) -> Result<f64, String> {
    let fine = text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0);
    fine.ok_or_else(|| "expected a number, 0 or more".to_owned())
}

/// A share of a whole, above 0.
fn share(text: &str) -> Result<f64, String> {
    amount(text)
        .ok()
        .filter(|n| *n > 0.0 && *n <= 1.0)
        .ok_or_else(|| "expected a share, above 0 and at most 1".to_owned())
}

/// Runs `kiln plan`.
pub fn run(args: &PlanArgs, global: &Global) -> Result<()> {
    let run = args.what.as_deref().filter(|what| what.is_dir());
    if let (None, Some(against)) = (run, &args.against) {
        let problem = format!("--against {} belongs to the directory of a run", against.display());
        return Err(Error::usage(problem, "kiln plan runs/NAME --against FILE.json"));
    }
    match run {
        Some(run) => account(run, args, global),
        None if args.what.is_none() && !args.data.is_empty() => advice(args, global),
        None => ahead(args, global),
    }
}

impl PlanArgs {
    fn machine(&self, global: &Global) -> Result<(Machine, kiln::device::Device, Rates)> {
        let machine = Machine::named(&self.machine)?;
        let here = global.host()?;
        let usual = machine.rates(here.host().threads.count());
        let (price, watts) = (self.price.unwrap_or(usual.price), self.watts.unwrap_or(usual.watts));
        Ok((machine, here, Rates { price, watts, carbon: self.carbon }))
    }
}

/// Of a recipe.
fn ahead(args: &PlanArgs, global: &Global) -> Result<()> {
    let recipe = recipe_of(args.what.as_deref(), &args.data, &args.set)?;
    let (machine, here, rates) = args.machine(global)?;
    signal::install()?;
    let settings = Settings { machine, seconds: args.seconds, utilisation: args.utilisation, rates };
    let mut screen = Rehearsing { bar: None, seconds: args.seconds };
    let found = forecast(&recipe, &here, &settings, &mut screen)?;
    drop(screen);
    if global.json {
        return print(&json!(found).to_string());
    }
    let next = match &args.what {
        Some(recipe) => format!("kiln train {}", quote(recipe)),
        None => "kiln train".to_owned(),
    };
    print(&shown(&found, args, &next))
}

/// Shows how far the rehearsal is.
struct Rehearsing {
    bar: Option<Progress>,
    seconds: f64,
}

impl Watch for Rehearsing {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Prepare { what, done: 0, .. } => note(what),
            Event::Step { step, .. } => {
                let seconds = self.seconds;
                let bar = self.bar.get_or_insert_with(|| {
                    signal::save_first();
                    note(&format!("measuring steps for about {seconds} s"));
                    Progress::count("steps", 0)
                });
                bar.set_of(step, step);
            }
            _ => {}
        }
    }

    fn stop(&self) -> Option<i32> {
        signal::caught()
    }
}

fn shown(found: &Forecast, args: &PlanArgs, next: &str) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| text += &format!("{}{value}\n", ink(&format!("{name:<13}"), Ink::Bold));
    let trained = match found.trained {
        all if all == found.parameters => String::new(),
        some => format!(", {} of them trained", thousands(some as u64)),
    };
    row("parameters", format!("{}{trained}", thousands(found.parameters as u64)));
    row("memory", found.memory.to_string());
    if let Some(resident) = found.resident {
        row("process", format!("{} with program and data", human(resident)));
    }
    if let Some(batch) = found.largest_batch {
        row("batch", format!("up to {} fits (train.batch)", thousands(batch as u64)));
    }
    let per_step = format!("{} steps of {} {}", thousands(found.steps), thousands(found.per_step), found.unit);
    let flops = if found.flops > 0.0 { format!(", {:.2e} operations", found.flops) } else { String::new() };
    row("work", per_step + &flops);
    match found.seconds {
        Some(seconds) => {
            row("time", format!("{} on {}: {}", duration(seconds), found.machine, found.basis));
            let parts: Vec<String> = found
                .parts
                .iter()
                .filter(|(_, part)| *part > 0.005 * seconds)
                .map(|(name, part)| format!("{name} {}", duration(*part)))
                .collect();
            if !parts.is_empty() {
                row("", parts.join(" · "));
            }
        }
        None => row("time", found.basis.clone()),
    }
    if let Some(cost) = found.cost {
        let assumed = if args.price.is_some() { "" } else { " (assumed)" };
        let Rates { price, watts, carbon } = found.rates;
        row("money", format!("{:.4} USD at {price} an hour{assumed}", cost.money));
        row("energy", format!("{:.4} kWh at {watts} W, {:.4} kg CO2 at {carbon} g/kWh", cost.kwh, cost.co2));
    }
    if let Some(scaling) = found.scaling {
        row(
            "size",
            format!(
                "{:.1} tokens a parameter, where 20 are best (arXiv 2203.15556): {}",
                scaling.ratio,
                scaling.advice()
            ),
        );
    }
    text + &format!("\nnext: {next}")
}

/// Of a run.
fn account(run: &Path, args: &PlanArgs, global: &Global) -> Result<()> {
    let account = Account::read(run)?;
    let against = args.against.as_ref().map(|path| Forecast::from_json(&disk::text(&Os, path, MAX_FILE)?, path));
    let rows = compare(&account, against.transpose()?.as_ref());
    if global.json {
        return print(&json!({"run": run.to_string_lossy(), "compared": rows, "account": account}).to_string());
    }
    let mut text = ink(&format!("{:<10} {:>14} {:>14} {:>9}", "", "planned", "it took", "off"), Ink::Bold) + "\n";
    for row in &rows {
        let [planned, actual] = [row.planned, row.actual].map(|value| value.map_or("-".to_owned(), |v| unit(v, row)));
        let off = row.off().map_or(String::new(), |off| format!("{:+.1} %", 100.0 * off));
        text += &format!("{:<10} {planned:>14} {actual:>14} {off:>9}\n", row.what);
    }
    if account.actual.is_none() {
        text += "the run is under way, or was killed: what it takes is written when it ends\n";
    }
    let run = quote(run);
    let next = match (&args.against, &account.actual) {
        (_, None) => format!("kiln train --resume {run}"),
        (None, _) => format!("kiln plan {run}/recipe.toml --json > FILE.json, then --against FILE.json for its time"),
        _ => format!("kiln plan {run}/recipe.toml"),
    };
    print(&format!("{text}\nnext: {next}"))
}

fn unit(value: f64, row: &Compared) -> String {
    match row.unit {
        "bytes" => human(value as u64),
        "s" => duration(value),
        _ => thousands(value as u64),
    }
}

/// From data.
fn advice(args: &PlanArgs, global: &Global) -> Result<()> {
    let [data] = &args.data[..] else {
        return Err(Error::usage("--data: one place at a time is looked at", "give the folder that holds all of it"));
    };
    data_path(&args.data)?;
    let (machine, here, rates) = args.machine(global)?;
    let wishes = Wishes {
        machine,
        utilisation: args.utilisation,
        rates,
        hours: args.hours,
        latency: args.latency,
        base: args.base.clone(),
        api_price: args.api_price,
        use_a_month: args.use_a_month,
    };
    let found = advise(data, &wishes, &here)?;
    let mut written = None;
    if let Some(recipe) = &found.recipe {
        let head = format!(
            "# {}\n# {}\n# As advised for {} by kiln plan --data, within {} hours.\n\n",
            found.what,
            found.data.words(),
            data.display(),
            args.hours
        );
        write_atomic(&Os, &args.out, (head + recipe).as_bytes())?;
        written = Some(&*args.out);
    }
    if global.json {
        let out = written.map(Path::to_string_lossy);
        return print(&json!({"advice": found, "written": out}).to_string());
    }
    print(&advised(&found, written, data))
}

fn advised(found: &Advice, written: Option<&Path>, data: &Path) -> String {
    let mut text = format!("{}\n{}\n", ink(&found.data.words(), Ink::Dim), ink(&found.what, Ink::Bold));
    found.why.iter().for_each(|why| text += &format!("  - {why}\n"));
    text += &format!(
        "\n{}\n",
        ink(&format!("{:<10} {:>12} {:>10}  {}", "way", "USD, 1 year", "hours", "evidence; risk"), Ink::Bold)
    );
    for choice in &found.choices {
        let [cost, hours] = [choice.cost, choice.hours].map(|n| n.map_or("-".to_owned(), |n| format!("{n:.2}")));
        text += &format!(
            "{:<10} {cost:>12} {hours:>10}  {}\n{:36}risk: {}\n",
            choice.way, choice.evidence, "", choice.risk
        );
    }
    let next = match written {
        Some(recipe) => {
            text += &format!("\nrecipe {}\n", recipe.display());
            format!("kiln plan {0}, which measures it, then kiln train {0}", quote(recipe))
        }
        None => format!("kiln plan --data {} --base MODEL", quote(data)),
    };
    text + &format!("\nnext: {next}")
}

/// `2.3 s`, `3 min 20 s`, `1 h 02 min`, `12 days`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..172_800 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}
