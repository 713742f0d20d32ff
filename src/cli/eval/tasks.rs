//! Questions to language models, and what two models' answers say of the two.

use super::EvalArgs;
use crate::cli::Global;
use crate::cli::study::Quiet;
use crate::cli::term::{Ink, Progress, ink, note, print, quote, safe, warn};
use kiln::data::atomic::write_atomic;
use kiln::data::chat::ChatTemplate;
use kiln::disk::{self, Os};
use kiln::error::{Error, Result};
use kiln::eval::why::{Stage, Why, stages};
use kiln::eval::{Asking, Difference, Endpoint, Item, Local, Model, Outcome, Task, evaluate};
use kiln::train::plot::Picture;
use kiln::train::sampler::foreign;
use kiln::train::signal;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// What a model of the village is asked.
const VILLAGE: [&str; 4] = ["village-text", "village-facts", "village-qa", "village-stories"];

/// Says what tasks there are.
pub(super) fn list(global: &Global) -> Result<()> {
    let all = Task::own().map(|name| Task::open(name).map(|task| (name, task))).collect::<Result<Vec<_>>>()?;
    if global.json {
        let all: Vec<Value> = all.iter().map(|(name, task)| json!({"task": name, "about": task.about})).collect();
        return print(&Value::from(all).to_string());
    }
    let mut text = String::new();
    for (name, task) in &all {
        let _ = writeln!(text, "{name:<16} {}", task.about);
    }
    print(&(text + "\nor a file in TOML: docs/eval.md has its keys\n"))
}

/// The seed of the world that a run has read of.
fn world(path: &Path) -> Option<u64> {
    let text = disk::text(&Os, &path.join("recipe.toml"), 1 << 20).ok()?;
    let recipe: toml::Table = text.parse().ok()?;
    recipe.get("data")?.get("seed")?.as_integer().and_then(|seed| u64::try_from(seed).ok())
}

fn open(path: &Path, args: &EvalArgs, global: &Global) -> Result<Local> {
    let sampler = args.loading.open(path, &global.host()?)?;
    for damage in sampler.damaged() {
        warn(&format!("{damage}; an older checkpoint answers"));
    }
    let template = match args.chat {
        false => None,
        true => Some(ChatTemplate::of(sampler.tokenizer())?.ok_or_else(|| {
            let problem = format!("{} has no chat template", path.display());
            Error::usage(problem, "leave --chat out: prompts are then read as they are")
        })?),
    };
    Local::new(path.display().to_string(), sampler.into_parts(), !foreign(path), template)
}

/// What one task came to.
struct Row {
    outcomes: Vec<Outcome>,
    difference: Option<Difference>,
    noise: Option<f64>,
}

/// Asks the models.
pub(super) fn run(args: &EvalArgs, global: &Global) -> Result<()> {
    let names: Vec<String> = match args.tasks.is_empty() {
        true => VILLAGE.map(str::to_owned).to_vec(),
        false => args.tasks.clone(),
    };
    if args.data.is_some() && names.len() > 1 {
        let hint = "ask one task at a time, or name the data in its file";
        return Err(Error::usage(format!("--data: for which of {} tasks?", names.len()), hint));
    }
    let mut asked = Vec::new();
    let seed_of = args.world.or_else(|| world(args.what.as_deref()?)).unwrap_or(1);
    let asking = Asking { limit: args.limit.map_or(usize::MAX, |n| n as usize), world: seed_of, seed: args.seed };
    for name in &names {
        let mut task = Task::open(name)?;
        if let Some(shots) = args.shots {
            task.shots = shots;
        }
        if let Some(data) = &args.data {
            task.data = data.to_string_lossy().into_owned();
        }
        if !args.lexicon.is_empty() {
            task.lexicon.clone_from(&args.lexicon);
        }
        task.price = args.price.or(task.price);
        if let Some(classifier) = &args.classifier {
            task.classifier = classifier.to_string_lossy().into_owned();
        }
        if let Some(corpus) = &args.corpus {
            task.corpus = corpus.to_string_lossy().into_owned();
        }
        let items = task.items(asking.limit, asking.world, asking.seed)?;
        asked.push((task, items));
    }
    if args.why {
        return why(args, global, &asked, &asking);
    }
    let mut models: Vec<Box<dyn Model>> = Vec::new();
    for path in args.what.iter().chain(&args.other) {
        models.push(Box::new(open(path, args, global)?));
    }
    if let Some(url) = &args.endpoint {
        let key = std::env::var("OPENAI_API_KEY").ok().filter(|key| !key.is_empty());
        models.push(Box::new(Endpoint::new(url, args.model.as_deref(), key, args.chat)?));
    }
    let shown = models.len();
    for path in &args.seeds {
        models.push(Box::new(open(path, args, global)?));
    }
    let mut rows = Vec::new();
    for (task, items) in &asked {
        let mut outcomes = Vec::new();
        for model in &mut models {
            let outcome = ask(task, items, &asking, &mut **model, global)?;
            if let Some(dir) = &args.log_samples {
                log(dir, &outcome, model.name())?;
            }
            outcomes.push(outcome);
        }
        let same_seed = outcomes.iter().skip(shown).chain(&outcomes[..1]).map(|outcome| outcome.figures[0].value);
        let (low, high) = same_seed.fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(x), h.max(x)));
        let noise = (!args.seeds.is_empty()).then_some(high - low);
        let difference = if shown == 2 { outcomes[0].compare(&outcomes[1], noise) } else { None };
        outcomes.truncate(shown);
        rows.push(Row { outcomes, difference, noise });
    }
    let names: Vec<&str> = models[..shown].iter().map(|model| model.name()).collect();
    if global.json {
        let row = |row: &Row| json!({"task": row.outcomes[0].task, "models": row.outcomes, "difference": row.difference, "noise": row.noise});
        let all = json!({"models": names, "world": asking.world, "tasks": rows.iter().map(row).collect::<Vec<_>>()});
        return print(&all.to_string());
    }
    print(&table(&names, &rows))?;
    if let Some(dir) = &args.log_samples {
        note(&format!("each item is in {}", quote(dir)));
    }
    Ok(())
}

/// Asks one model one task.
fn ask(task: &Task, items: &[Item], asking: &Asking, model: &mut dyn Model, global: &Global) -> Result<Outcome> {
    let mut bar: Option<Progress> = None;
    evaluate(task, items, asking, model, &mut |done, all| {
        if !global.json {
            bar.get_or_insert_with(|| Progress::count("asking", all as u64)).set_of(done as u64, all as u64);
        }
        Ok(())
    })
}

/// Trains what lies between two runs, and asks all of them.
fn why(args: &EvalArgs, global: &Global, asked: &[(Task, Vec<Item>)], asking: &Asking) -> Result<()> {
    let (Some(first), Some(last)) = (&args.what, &args.other) else {
        return Err(Error::usage("--why: two runs are needed", "kiln eval runs/a runs/b --why"));
    };
    signal::install()?;
    let mut told = |stage: &Stage| {
        if !global.json {
            note(&format!("{}: {}", stage.factor, stage.changes.join(", ")));
        }
    };
    let stages = stages([first, last], &args.out, &global.device()?, &mut told, &mut Quiet)?;
    // One model in memory at a time.
    let mut found: Vec<Vec<Outcome>> = asked.iter().map(|_| Vec::new()).collect();
    for stage in &stages {
        let mut model = open(&stage.run, args, global)?;
        for ((task, items), outcomes) in asked.iter().zip(&mut found) {
            outcomes.push(ask(task, items, asking, &mut model, global)?);
        }
    }
    let all: Vec<Why> = found.iter().map(|outcomes| Why::new(&stages, outcomes)).collect();
    let mut text = String::new();
    for why in &all {
        let [svg, png] = ["svg", "png"].map(|kind| args.out.join(format!("why-{}.{kind}", why.task)));
        disk::make_dirs(&Os, &args.out)?;
        why.save_svg(&Os, &svg)?;
        why.save_png(&Os, &png)?;
        let _ = writeln!(text, "{}", ink(&format!("{}: {}", why.task, why.figure), Ink::Bold));
        for (i, step) in why.steps.iter().enumerate() {
            let _ = match &step.change {
                None => writeln!(
                    text,
                    "  {:<12}{:>10.4}  {}",
                    if i == 0 { "first" } else { &step.factor },
                    step.value,
                    safe(&step.run)
                ),
                Some((change, [low, high])) => writeln!(
                    text,
                    "  {:<12}{:>10.4}  {change:+.4} ({low:+.4} to {high:+.4})  {}",
                    step.factor,
                    step.value,
                    safe(&step.changes.join(", "))
                ),
            };
        }
        let _ = writeln!(text, "  picture {}", quote(&svg));
    }
    if global.json {
        return print(&serde_json::json!(all).to_string());
    }
    print(&text)
}

/// Writes a line an item.
fn log(dir: &Path, outcome: &Outcome, model: &str) -> Result<()> {
    disk::make_dirs(&Os, dir)?;
    let plain: String = model.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let path = dir.join(format!("{}.{}.jsonl", outcome.task, plain.trim_matches(['-', '.'])));
    let mut lines = String::new();
    for record in &outcome.records {
        lines += &serde_json::to_string(record).expect("texts and numbers");
        lines.push('\n');
    }
    write_atomic(&Os, &path, lines.as_bytes())
}

fn figure(value: f64, error: Option<f64>) -> String {
    match error {
        Some(error) => format!("{value:.4} ± {error:.4}"),
        None => format!("{value:.4}"),
    }
}

fn table(names: &[&str], rows: &[Row]) -> String {
    let mut text = String::new();
    for (row, first) in rows.iter().zip((0..).map(|i| i == 0)) {
        let head = &row.outcomes[0];
        if !first {
            text.push('\n');
        }
        let _ = writeln!(text, "{}  {}; {} items", ink(&head.task, Ink::Bold), safe(&head.about), head.items);
        for line in head.caveat.lines() {
            let _ = writeln!(text, "  {}", safe(line));
        }
        let _ = writeln!(
            text,
            "  {:<30}{}",
            "",
            names.iter().map(|name| format!("{:>24}", shorter(name))).collect::<String>()
        );
        for (i, own) in head.figures.iter().enumerate() {
            let values: String = row
                .outcomes
                .iter()
                .map(|o| format!("{:>24}", figure(o.figures[i].value, o.figures[i].error)))
                .collect();
            let _ = writeln!(text, "  {:<30}{values}", own.name);
        }
        for (i, (group, items, _)) in head.groups.iter().enumerate() {
            let values: String = row.outcomes.iter().map(|o| format!("{:>24.4}", o.groups[i].2)).collect();
            let _ = writeln!(text, "    {:<28}{values}", format!("{} ({items})", safe(group)));
        }
        if head.calibration.is_some() {
            let of = |name: &str, of: fn(&kiln::eval::Sureness) -> f64| {
                let value = |o: &Outcome| o.calibration.as_ref().map_or(f64::NAN, of);
                let values: String = row.outcomes.iter().map(|o| format!("{:>24.4}", value(o))).collect();
                format!("  {name:<30}{values}\n")
            };
            text += &of("calibration error (ECE)", |c| c.ece);
            text += &of("Brier score", |c| c.brier);
            text += &of("temperature that suits", |c| c.temperature);
            text += &of("ECE, other half, with it", |c| c.scaled[0]);
        }
        if let [own, other] = &row.outcomes[..]
            && let Some(auc) = own.beside(other)
        {
            let _ = writeln!(text, "  {:<30}{auc:>24.4}", "auc_reference (the second)");
        }
        if let Some(difference) = row.difference.as_ref().filter(|d| !d.figure.starts_with("auc_")) {
            text += &verdict(names, head, difference, row.noise);
        }
    }
    text
}

/// The end of a long name.
fn shorter(name: &str) -> String {
    let count = name.chars().count();
    if count <= 22 {
        safe(name).into_owned()
    } else {
        format!("…{}", safe(&name.chars().skip(count - 21).collect::<String>()))
    }
}

/// What the comparison says, in a sentence.
fn verdict(names: &[&str], head: &Outcome, d: &Difference, noise: Option<f64>) -> String {
    let by = match d.mcnemar {
        Some((first, second, p)) => {
            format!("only the first has {first} items right, only the second {second}: McNemar's p = {p:.3}")
        }
        None => format!("95 % between {:+.4} and {:+.4}", d.interval[0], d.interval[1]),
    };
    let seeds = noise.map(|noise| format!("; runs of other seeds differ by {noise:.4}")).unwrap_or_default();
    let says = match d.better {
        0 if head.neutral.is_some() => "neither is surely nearer to no preference".to_owned(),
        0 => "no difference that chance would not make".to_owned(),
        better => {
            let is = if head.neutral.is_some() { "is nearer to no preference" } else { "is better" };
            format!("{} {is}", safe(names[usize::from(better > 0)]))
        }
    };
    ink(&format!("  {says}: {} {:+.4} ({by}{seeds})\n", d.figure, d.difference), Ink::Bold)
}
