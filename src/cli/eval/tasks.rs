//! Questions to language models, and what two models' answers say of the two.

use super::{EvalArgs, gates};
use crate::cli::study::Steps;
use crate::cli::term::{Ink, Progress, ink, note, print, quote, safe, warn};
use crate::cli::{Global, Loading};
use kiln::data::atomic::write_atomic;
use kiln::data::chat::ChatTemplate;
use kiln::disk::{self, Os};
use kiln::error::{Error, Result};
use kiln::eval::gate::Policy;
use kiln::eval::why::{Stage, Why, stages};
use kiln::eval::{Asked, Asking, Difference, Endpoint, Item, Local, Model, Outcome, Saved, Task, evaluate, saved};
use kiln::report::page::Chart;
use kiln::train::plot::Picture;
use kiln::train::sampler::foreign;
use kiln::train::{checkpoint, signal};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

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

/// A task with what was given in place of its own.
fn over(task: Task, args: &EvalArgs) -> Task {
    let path = |given: &Option<PathBuf>, own: String| match given {
        Some(path) => path.to_string_lossy().into_owned(),
        None => own,
    };
    Task {
        shots: args.shots.unwrap_or(task.shots),
        data: path(&args.data, task.data),
        lexicon: if args.lexicon.is_empty() { task.lexicon } else { args.lexicon.clone() },
        classifier: path(&args.classifier, task.classifier),
        corpus: path(&args.corpus, task.corpus),
        price: args.price.or(task.price),
        ..task
    }
}

/// Where figures of a model are kept.
struct Keep {
    dir: PathBuf,
    /// Whether somebody named the folder.
    asked: bool,
    /// The steps of the checkpoint that answers.
    step: Option<u64>,
    /// Whether prompts are what a user says.
    chat: bool,
}

impl Keep {
    /// Keeps what came out. Where nobody asked for that, a folder that cannot be written to is no failure.
    fn save(&self, task: &Task, asking: &Asking, outcome: &Outcome) -> Result<()> {
        let asked = Asked { step: self.step, chat: self.chat, ..Asked::of(task, asking) };
        match Saved::new(task, outcome.clone(), asked).save(&self.dir) {
            Err(e) if !self.asked => {
                warn(&format!("the figures are not kept: {e}"));
                Ok(())
            }
            done => done.map(drop),
        }
    }
}

/// A model, and the steps of its checkpoint.
fn open(path: &Path, loading: &Loading, chat: bool, global: &Global) -> Result<(Local, Option<u64>)> {
    let sampler = loading.open(path, &global.host()?)?;
    for damage in sampler.damaged() {
        warn(&format!("{damage}; an older checkpoint answers"));
    }
    let template = match chat {
        false => None,
        true => Some(ChatTemplate::of(sampler.tokenizer())?.ok_or_else(|| {
            let problem = format!("{} has no chat template", path.display());
            Error::usage(problem, "leave --chat out: prompts are then read as they are")
        })?),
    };
    let steps = checkpoint::list(&Os, &path.join("checkpoints"))?;
    let step = steps.iter().rev().nth(sampler.damaged().len()).map(|(step, _)| *step);
    let local = Local::new(path.display().to_string(), sampler.into_parts(), !foreign(path), template)?;
    Ok((local, step))
}

/// What one task came to.
struct Row {
    outcomes: Vec<Outcome>,
    difference: Option<Difference>,
    noise: Option<f64>,
}

/// Asks the models, and gives the exit code.
pub(super) fn run(args: &EvalArgs, global: &Global) -> Result<u8> {
    let policy = args.gate.as_deref().map(Policy::open).transpose()?;
    let mut names: Vec<String> = match (args.tasks.is_empty(), &policy) {
        (true, None) => VILLAGE.map(str::to_owned).to_vec(),
        _ => args.tasks.clone(),
    };
    let gated = policy.as_ref().map(Policy::tasks).unwrap_or_default();
    names.extend(gated.into_iter().filter(|name| !args.tasks.contains(name)));
    if args.data.is_some() && names.len() > 1 {
        let hint = "ask one task at a time, or name the data in its file";
        return Err(Error::usage(format!("--data: for which of {} tasks?", names.len()), hint));
    }
    let mut asked = Vec::new();
    let seed_of = args.world.or_else(|| world(args.what.as_deref()?)).unwrap_or(1);
    let asking = Asking { limit: args.limit.map_or(usize::MAX, |n| n as usize), world: seed_of, seed: args.seed };
    let mut tasks = Vec::new();
    for name in &names {
        tasks.push(over(Task::open(name)?, args));
    }
    // Which task each gate is of; what cannot be settled is said before anything is asked.
    let mut gates = Vec::new();
    for gate in policy.iter().flat_map(|policy| &policy.gates) {
        let place = names.iter().position(|name| *name == gate.task).expect("the policy's tasks are asked");
        gate.check(&tasks[place], args.other.is_some())?;
        gates.push((place, gate));
    }
    for task in tasks {
        let items = task.items(asking.limit, asking.world, asking.seed)?;
        asked.push((task, items));
    }
    if args.why {
        return why(args, global, &asked, &asking).map(|()| 0);
    }
    let mut models: Vec<(Box<dyn Model>, Option<Keep>)> = Vec::new();
    for path in args.what.iter().chain(&args.other) {
        let (model, step) = open(path, &args.loading, args.chat, global)?;
        // Changed by an adapter, or in fewer bits, it is not the run's model.
        let own = path.join("recipe.toml").is_file() && args.loading.is_plain();
        let dir = args.save.clone().or_else(|| own.then(|| path.join(saved::FOLDER)));
        let keep = dir.map(|dir| Keep { dir, asked: args.save.is_some(), step, chat: args.chat });
        models.push((Box::new(model), keep));
    }
    if let Some(url) = &args.endpoint {
        let key = std::env::var("OPENAI_API_KEY").ok().filter(|key| !key.is_empty());
        let keep = args.save.clone().map(|dir| Keep { dir, asked: true, step: None, chat: args.chat });
        models.push((Box::new(Endpoint::new(url, args.model.as_deref(), key, args.chat)?), keep));
    }
    let shown = models.len();
    for path in &args.seeds {
        models.push((Box::new(open(path, &args.loading, args.chat, global)?.0), None));
    }
    let mut rows = Vec::new();
    for (task, items) in &asked {
        let mut outcomes = Vec::new();
        for (model, keep) in &mut models {
            let outcome = ask(task, items, &asking, &mut **model, global)?;
            if let Some(dir) = &args.log_samples {
                log(dir, &outcome, model.name())?;
            }
            if let Some(dir) = &args.diagrams {
                draw(dir, &outcome, model.name())?;
            }
            if let Some(keep) = keep {
                keep.save(task, &asking, &outcome)?;
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
    let outcomes = |place: usize| (&rows[place].outcomes[0], rows[place].outcomes.get(1));
    let verdicts: Vec<_> =
        gates.iter().map(|(place, gate)| gate.judge(outcomes(*place).0, outcomes(*place).1)).collect();
    let code = u8::from(verdicts.iter().any(|verdict| !verdict.passed));
    let names: Vec<&str> = models[..shown].iter().map(|(model, _)| model.name()).collect();
    if global.json {
        let row = |row: &Row| json!({"task": row.outcomes[0].task, "models": row.outcomes, "difference": row.difference, "noise": row.noise});
        let mut all =
            json!({"models": names, "world": asking.world, "tasks": rows.iter().map(row).collect::<Vec<_>>()});
        if policy.is_some() {
            (all["gates"], all["passed"]) = (json!(verdicts), json!(code == 0));
        }
        return print(&all.to_string()).map(|()| code);
    }
    print(&table(&names, &rows))?;
    if policy.is_some() {
        print(&gates::table(&verdicts))?;
    }
    if let Some(dir) = &args.log_samples {
        note(&format!("each item is in {}", quote(dir)));
    }
    if let Some((_, Some(keep))) = models.first() {
        note(&format!("the figures are in {}", quote(&keep.dir)));
    }
    Ok(code)
}

/// Asks a run `names` of kiln's own tasks, `limit` items of each, and keeps what comes out in its folder.
pub(in crate::cli) fn measure(run: &Path, names: &[String], limit: usize, global: &Global) -> Result<()> {
    let (mut model, step) = open(run, &Loading::plain(), false, global)?;
    let keep = Keep { dir: run.join(saved::FOLDER), asked: true, step, chat: false };
    let asking = Asking { limit, world: world(run).unwrap_or(1), seed: 1 };
    for name in names {
        let task = Task::open(name)?;
        let items = task.items(asking.limit, asking.world, asking.seed)?;
        match ask(&task, &items, &asking, &mut model, global) {
            // Not every model can be asked everything: its context may be too short.
            Err(e @ Error::Usage { .. }) => warn(&format!("{name}: {e}")),
            outcome => keep.save(&task, &asking, &outcome?)?,
        }
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
    let stages = stages([first, last], &args.out, &global.device()?, &mut told, &mut Steps::default())?;
    // One model in memory at a time.
    let mut found: Vec<Vec<Outcome>> = asked.iter().map(|_| Vec::new()).collect();
    for stage in &stages {
        let (mut model, _) = open(&stage.run, &args.loading, args.chat, global)?;
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

/// A file of what a model made of a task.
fn place(dir: &Path, outcome: &Outcome, model: &str, extension: &str) -> Result<PathBuf> {
    disk::make_dirs(&Os, dir)?;
    let plain: String = model.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    Ok(dir.join(format!("{}.{}.{extension}", outcome.task, plain.trim_matches(['-', '.']))))
}

/// Draws how sure it was, and how often right, where it chose.
fn draw(dir: &Path, outcome: &Outcome, model: &str) -> Result<()> {
    let Some(sure) = &outcome.calibration else { return Ok(()) };
    let title = format!("{}: right, by how sure {model} was", outcome.task);
    let path = place(dir, outcome, model, "svg")?;
    write_atomic(&Os, &path, Chart::reliability(&title, &sure.bins).file().as_bytes())
}

/// Writes a line an item.
fn log(dir: &Path, outcome: &Outcome, model: &str) -> Result<()> {
    let path = place(dir, outcome, model, "jsonl")?;
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
