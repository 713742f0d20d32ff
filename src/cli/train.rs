//! `kiln train`.

use super::Global;
use super::ranks::ranks;
use super::term::{note, print, quote, safe, thousands, warn};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln::data::images;
use kiln::disk::Os;
use kiln::error::{Error, Result};
use kiln::train::guard::LOSS;
use kiln::train::pictures::vae::CONV;
use kiln::train::private::{Part, Promise};
use kiln::train::{AnyRecipe, Event, Origin, Summary, Watch, signal};
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Train a model on text or pictures, your own or built-in ones
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln train                                   a small model on stories that kiln makes up
  kiln train --data book.txt                   the same model on your text
  kiln train --data photos                     a model of the pictures in a folder
  kiln train recipe.toml --set train.steps=50  as a recipe says, but for one key
  kiln train --resume runs/village             goes on where a run was stopped
  mpirun -n 2 kiln train                       two processes share each step (docs/ranks.md)
  kiln train --branch runs/trunk@400 --set train.steps=500
                                               a run of its own from there: its decay, say (docs/tuning.md)")]
pub struct TrainArgs {
    /// Settings that differ from the default's [see: data/recipes/village.toml]
    #[arg(value_name = "RECIPE.toml")]
    recipe: Option<PathBuf>,
    /// What to train on: text, in files or folders, or what `kiln data shard` wrote; pictures, in a folder or IDX files
    #[arg(long, value_name = "FILE", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Override a key of the recipe; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the run in this directory, from its last checkpoint
    #[arg(long, value_name = "RUN", conflicts_with_all = ["recipe", "data"])]
    resume: Option<PathBuf>,
    /// Begin a new run at a checkpoint of this one, the newest or that of a step; --set changes what comes later
    #[arg(long, value_name = "RUN[@STEP]", conflicts_with_all = ["recipe", "data", "resume"])]
    branch: Option<PathBuf>,
    #[command(flatten)]
    course: Course,
}

/// How far a run goes.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Course {
    /// Say what memory the run would take, and what it would promise where it is private; do no more
    #[arg(long)]
    plan: bool,
    /// Pause after this step: evaluate, save and end; --resume goes on to the same bits
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u64).range(1..))]
    until: Option<u64>,
    /// Save and end when standard input does: of processes that another one started
    #[arg(long, hide = true)]
    leash: bool,
}

/// Runs `kiln train` and gives the exit code.
pub fn run(args: TrainArgs, global: &Global) -> Result<u8> {
    let Some(name) = &args.branch else {
        return carry_out(&recipe(&args)?, args.resume.as_deref(), args.course, global);
    };
    let origin = Origin::find(name)?;
    let recipe = AnyRecipe::of_branch(&origin, &args.set)?;
    if args.course.plan {
        return carry_out(&recipe, Some(&origin.run), args.course, global);
    }
    let run = recipe.begin(&origin)?;
    if !global.json {
        print(&format!("{}: a branch of {}", run.display(), origin.run.display()))?;
    }
    carry_out(&recipe, Some(&run), args.course, global)
}

/// Does what a recipe says and gives the exit code; of a plan, says what memory it would take, and what it would promise.
pub fn carry_out(recipe: &AnyRecipe, resume: Option<&Path>, course: Course, global: &Global) -> Result<u8> {
    let device = global.device()?;
    if course.plan {
        let plan = recipe.plan(resume, &device)?;
        let promise = recipe.promise(resume, &mut |what, done, _| {
            if done == 0 {
                note(what);
            }
        })?;
        if global.json {
            return print(&json!({"memory": plan, "privacy": promise}).to_string()).map(|()| 0);
        }
        let promise = promise.map_or(String::new(), |promise| format!("\nprivate {}", private(&promise)));
        return print(&format!("memory  {plan}{promise}")).map(|()| 0);
    }
    signal::install()?;
    if course.leash {
        signal::when_input_ends();
    }
    let ranks = Arc::new(ranks(&device)?);
    if ranks.rank() > 0 {
        // Rank 0 speaks, and is the one that stops where a signal asks for it.
        signal::save_first();
        return recipe.run_on(&Os, resume, (&device, &ranks), &mut ()).map(|_| 0);
    }
    let mut screen = Screen::new(global.json, course.until);
    if ranks.size() > 1 {
        note(&format!("{} ranks share each step", ranks.size()));
    }
    let summary = recipe.run_on(&Os, resume, (&device, &ranks), &mut screen)?.expect("rank 0 sums up");
    screen.finish();
    if global.json {
        print(&to_json(&summary).to_string())?;
    } else {
        print(&conclusion(&summary))?;
    }
    Ok(summary.stopped.map_or(0, signal::exit_code))
}

fn recipe(args: &TrainArgs) -> Result<AnyRecipe> {
    match &args.resume {
        Some(run) => AnyRecipe::of_run(run, &args.set),
        None => recipe_of(args.recipe.as_deref(), &args.data, &args.set),
    }
}

/// The recipe of `file` on `data` under overrides; without a file the one that suits the data.
pub fn recipe_of(file: Option<&Path>, data: &[PathBuf], set: &[String]) -> Result<AnyRecipe> {
    let is_recipe = |p: &Path| p.extension().is_some_and(|e| e == "toml");
    if let Some(recipe) = data.iter().find(|path| is_recipe(path)) {
        let hint = format!("put it first: kiln train {} --data …", quote(recipe));
        return Err(Error::usage(
            format!("--data takes what is trained on, and {} is a recipe", recipe.display()),
            hint,
        ));
    }
    if let Some(path) = file.filter(|p| !is_recipe(p) && p.exists()) {
        let hint = format!("to train on it: kiln train --data {}", quote(path));
        return Err(Error::usage(format!("{} is no recipe: its name does not end in .toml", path.display()), hint));
    }
    let mut set = set.to_vec();
    // A run on one's own data bears its name, unless something else names it.
    if let (None, Some(name)) = (file, data.first().and_then(|p| p.file_stem())) {
        set.insert(0, format!("run.name={}", name.to_string_lossy()));
    }
    set.extend(data_path(data)?);
    let pictures = data.first().is_some_and(|path| images::are_at(path));
    AnyRecipe::load(file, if pictures { CONV } else { "" }, &set)
}

/// Files as an override of a recipe, where there are any.
pub fn data_path(files: &[PathBuf]) -> Result<Option<String>> {
    let name = |path: &PathBuf| path.to_str().map(str::to_owned).ok_or_else(|| not_utf8(path));
    let paths = files.iter().map(name).collect::<Result<Vec<String>>>()?;
    Ok((!paths.is_empty()).then(|| format!("data.path={}", toml::Value::from(paths))))
}

fn not_utf8(path: &Path) -> Error {
    let problem = format!("{} is not UTF-8, so no recipe can name it", path.display());
    Error::config("data.path", problem, "rename the file, or give a link to it")
}

fn to_json(s: &Summary) -> serde_json::Value {
    json!({
        "run": s.run.to_string_lossy(),
        "parameters": s.parameters,
        "trained": s.trained,
        "steps": s.steps,
        "of_steps": s.of_steps,
        "loss": s.loss,
        "val_loss": s.val_loss,
        "bits_per_byte": s.bits_per_byte,
        "seconds": s.seconds,
        "skipped_steps": s.skipped,
        "rewinds": s.rewinds,
        "stopped": s.stopped,
        "memory": s.memory,
        "privacy": s.privacy,
    })
}

/// The last lines: the losses, where everything is, what to do next.
fn conclusion(s: &Summary) -> String {
    // Private training tells no loss of its own.
    let training = (!s.loss.is_nan()).then(|| format!(", training loss {:.3}", s.loss));
    let held_out = s.val_loss.map(|val| format!(", {} {val:.3}", s.judged));
    let mut losses: String = training.into_iter().chain(held_out).collect();
    if let Some(bits) = s.bits_per_byte {
        losses += &format!(" ({bits:.3} bits per byte)");
    }
    let run = quote(&s.run);
    let (how, next) = match s.stopped {
        Some(signal) => (format!("stopped by signal {signal} and saved"), format!("kiln train --resume {run}")),
        None if s.steps < s.of_steps => ("paused and saved".to_owned(), format!("kiln train --resume {run}")),
        None => ("done".to_owned(), format!("{}{run}{}", s.next[0], s.next[1])),
    };
    let time = duration(Duration::from_secs_f64(s.seconds.max(0.0)));
    let of = if s.steps < s.of_steps { format!(" of {}", thousands(s.of_steps)) } else { String::new() };
    let mut text = format!("\n{how}: {}{of} steps, {time}{losses}\n", thousands(s.steps));
    if s.skipped > 0 || s.rewinds > 0 {
        let skipped = count(s.skipped, "step was skipped", "steps were skipped");
        let back =
            count(s.rewinds, "time the run went back to a checkpoint", "times the run went back to a checkpoint");
        text += &format!("{skipped} (\"skipped\" in metrics.jsonl), {back}");
        text += "; a lower optim.lr or a longer optim.warmup helps\n";
    }
    if let Some(promise) = &s.privacy {
        text += &format!("{} (docs/privacy.md says for what)\n", promise.guarantee);
    }
    text += &format!("run    {}\n", s.run.display());
    for picture in ["loss.svg", "loss.png"].map(|name| s.run.join(name)).iter().filter(|p| p.is_file()) {
        text += &format!("curve  {}\n", picture.display());
    }
    text + &format!("\nnext: {next}")
}

/// What private training does to examples, and what it will promise.
fn private(promise: &Promise) -> String {
    let Promise { guarantee, examples, clip, spent, .. } = promise;
    let Some(Part { rate, noise, .. }) = spent.last() else { return guarantee.clone() };
    format!(
        "a step draws each of {} examples with probability {rate:.3e}, clips its gradient to {clip}, adds noise of {noise:.3} \
         times that\n        by the last step: {guarantee}",
        thousands(*examples)
    )
}

/// `no step was skipped`, `1 step was skipped`, `2 steps were skipped`.
fn count(n: u64, one: &str, many: &str) -> String {
    match n {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        n => format!("{} {many}", thousands(n)),
    }
}

/// What a run shows: on a terminal a bar below the lines, else lines alone, with `--json` a bar or nothing.
pub(super) struct Screen {
    bar: Option<ProgressBar>,
    json: bool,
    start: Instant,
    first_step: u64,
    /// Lines of progress so far, as a share of the run in thirtieths.
    thirtieths: u64,
    /// Whether steps are being done.
    started: bool,
    /// The work that was announced last.
    preparing: String,
    /// How many times steps were skipped; those in a row are one time.
    skips: u64,
    /// Where the run pauses.
    until: Option<u64>,
}

impl Screen {
    pub(super) fn new(json: bool, until: Option<u64>) -> Screen {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style("{msg} {spinner}"));
            bar
        });
        let start = Instant::now();
        let preparing = String::new();
        Screen { bar, json, start, first_step: 0, thirtieths: 0, started: false, preparing, skips: 0, until }
    }

    /// Prints lines above the bar.
    fn say(&self, text: &str) {
        if self.json {
            return;
        }
        // Where nobody reads, a run goes on.
        let write = || drop(print(text));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Warns above the bar.
    fn warn(&self, text: &str) {
        let write = || warn(text);
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn left(&self, step: u64, steps: u64) -> String {
        let done = step.saturating_sub(self.first_step).max(1);
        duration(self.start.elapsed().mul_f64(steps.saturating_sub(step) as f64 / done as f64))
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Screen {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Prepare { what, done, total } => {
                if self.started {
                    // The bar stands for steps by now.
                    let of = if total > 0 { format!(" {done}/{total}") } else { String::new() };
                    self.bar.iter().for_each(|bar| bar.set_message(format!("{what}{of}")));
                } else if let Some(bar) = &self.bar {
                    bar.set_message(what.to_owned());
                    if total > 0 {
                        bar.set_style(style("{msg} {wide_bar:.dim} {percent} %"));
                        bar.set_length(total);
                    }
                    bar.set_position(done);
                } else if self.preparing != what {
                    self.say(what);
                }
                what.clone_into(&mut self.preparing);
            }
            Event::Memory { plan } => self.say(&format!("memory  {plan}")),
            Event::Start { run, parameters, trained, steps, first_step, data, precision } => {
                signal::save_first();
                (self.start, self.first_step, self.started) = (Instant::now(), first_step, true);
                let data: String = data.iter().map(|&(n, what)| format!(", {} {what}", thousands(n))).collect();
                let part = match trained {
                    all if all == parameters => String::new(),
                    some => {
                        let share = 100.0 * some as f64 / parameters as f64;
                        format!(" ({} of them trained, {share:.2} %)", thousands(some as u64))
                    }
                };
                let (run, parameters, precision) = (run.display(), thousands(parameters as u64), precision.name());
                self.say(&format!("{run}: {parameters} parameters{part}, in {precision}{data}"));
                if first_step > 0 {
                    self.say(&format!("going on after step {}", thousands(first_step)));
                }
                self.thirtieths = first_step * 30 / steps.max(1);
                if let Some(bar) = &self.bar {
                    bar.reset();
                    bar.set_style(style("{pos}/{len} {wide_bar:.cyan/dim} {msg}"));
                    bar.set_message("");
                    bar.set_length(steps);
                    bar.set_position(first_step);
                }
            }
            Event::Private { promise } => self.say(&format!("private {}", private(promise))),
            Event::Step { step, steps, loss, parts, rate, unit, share_of_peak, .. } => {
                let peak = share_of_peak.map_or(String::new(), |share| format!("  {:.0} % of peak", 100.0 * share));
                let rate = thousands(rate.max(0.0) as u64);
                let parts: String = parts.iter().map(|(name, value)| format!("  {} {value:.3}", words(name))).collect();
                // Private training tells none.
                let loss = if loss.is_nan() { String::new() } else { format!("loss {loss:.3}") };
                let rest = format!("{loss}{parts}  {rate} {unit}/s{peak}  {} left", self.left(step, steps));
                let rest = rest.trim_start();
                if let Some(bar) = &self.bar {
                    bar.set_message(rest.to_owned());
                    bar.set_position(step);
                } else if step * 30 / steps.max(1) > self.thirtieths || step == self.first_step + 1 {
                    self.thirtieths = step * 30 / steps.max(1);
                    self.say(&format!("{}  {rest}", at(step, steps)));
                }
            }
            Event::Eval { step, judged, val_loss, parts, bits_per_byte, floor } => {
                let others = parts.iter().filter(|(_, value)| *value != val_loss);
                let parts: String = others.map(|(name, value)| format!(", {} {value:.3}", words(name))).collect();
                let bits = bits_per_byte.map_or(String::new(), |bits| format!(", {bits:.3} bits per byte"));
                let floor = floor.map_or(String::new(), |floor| format!("; {floor:.3} is the least possible"));
                let step = thousands(step);
                self.say(&format!("after step {step}: {judged} {val_loss:.3}{parts}{bits}{floor}"));
            }
            Event::Pictures { step, path } => {
                self.say(&format!("after step {}: {}", thousands(step), path.display()));
            }
            Event::Sample { step, text } => {
                self.say(&format!("── written after step {} ──\n{}\n──", thousands(step), safe(text.trim())));
            }
            Event::Checkpoint { .. } => {}
            Event::Warning { text } => self.warn(text),
            Event::Skipped { step, loss, first, in_a_row } => {
                // Those in a row are told of once, and of many only the first few and every tenth power.
                self.skips += u64::from(in_a_row == 1);
                let shown = self.skips <= 3 || self.skips == 10u64.pow(self.skips.ilog10());
                if in_a_row == 1 && shown {
                    let what = match first {
                        LOSS => format!("its loss is {loss}"),
                        name => format!("loss {loss}, and the gradient of {name} is not finite or too large"),
                    };
                    self.warn(&format!("step {} is skipped, the weights stay as they were: {what}", thousands(step)));
                    if self.skips == 3 {
                        self.warn("from now on not each of such steps is told of; metrics.jsonl has all of them");
                    }
                }
            }
            Event::Rewind { from, to, why, tries, max_tries } => {
                let back = if to == 0 { "the initial weights".to_owned() } else { format!("step {}", thousands(to)) };
                self.warn(&format!(
                    "step {}: {why}; going back to {back}, and on with later data (time {tries} of {max_tries})",
                    thousands(from)
                ));
                (self.start, self.first_step, self.thirtieths) = (Instant::now(), to, 0);
            }
            Event::Stopped { signal, step } => {
                self.say(&format!("signal {signal}: saved after step {}", thousands(step)));
            }
        }
    }

    fn until(&self) -> Option<u64> {
        self.until
    }

    fn stop(&self) -> Option<i32> {
        signal::caught()
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid").progress_chars("━╸─")
}

/// `d_loss` as people write it.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// `step   20/600`, in columns.
fn at(step: u64, steps: u64) -> String {
    let steps = steps.to_string();
    format!("step {step:>width$}/{steps}", width = steps.len())
}

/// `1 h 02 min`, `3 min 20 s`, `12 s`.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        s if s >= 3600 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        s if s >= 60 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        let text = |s| duration(Duration::from_secs(s));
        assert_eq!([text(0), text(59), text(61), text(3725)], ["0 s", "59 s", "1 min 01 s", "1 h 02 min"]);
    }

    #[test]
    fn the_json_object_has_the_promised_names() {
        let mut summary = Summary {
            run: "runs/a".into(),
            parameters: 10,
            trained: 10,
            steps: 60,
            of_steps: 60,
            loss: 1.5,
            judged: "validation loss",
            next: ["kiln sample ", ""],
            val_loss: Some(1.75),
            bits_per_byte: None,
            seconds: 2.5,
            skipped: 0,
            rewinds: 0,
            stopped: None,
            memory: Default::default(),
            privacy: None,
        };
        let object = to_json(&summary);
        assert_eq!(object["run"], "runs/a");
        assert_eq!((object["steps"].as_u64(), object["loss"].as_f64()), (Some(60), Some(1.5)));
        assert_eq!((object["val_loss"].as_f64(), object["seconds"].as_f64()), (Some(1.75), Some(2.5)));
        assert!(conclusion(&summary).ends_with("next: kiln sample runs/a") && !conclusion(&summary).contains("skip"));
        (summary.skipped, summary.rewinds) = (1200, 1);
        assert_eq!(
            (to_json(&summary)["skipped_steps"].as_u64(), to_json(&summary)["rewinds"].as_u64()),
            (Some(1200), Some(1))
        );
        let text = conclusion(&summary);
        assert!(text.contains("\n1,200 steps were skipped") && text.contains(", 1 time the run went back"), "{text}");
        summary.stopped = Some(2);
        assert!(conclusion(&summary).ends_with("next: kiln train --resume runs/a"));
    }

    #[test]
    fn a_run_on_ones_own_text_bears_its_name() {
        let args = |set: &[&str]| TrainArgs {
            recipe: None,
            data: vec!["my/book.txt".into()],
            set: set.iter().map(|s| s.to_string()).collect(),
            resume: None,
            branch: None,
            course: Course::default(),
        };
        let made = |set: &[&str]| match recipe(&args(set)).unwrap() {
            AnyRecipe::Text(recipe) => recipe,
            other => panic!("{other:?}"),
        };
        assert_eq!((&*made(&[]).run.name, made(&[]).data.path), ("book", Some(vec!["my/book.txt".into()])));
        assert_eq!(made(&["run.name=mine"]).run.name, "mine");
        let misplaced = TrainArgs { data: vec!["a.txt".into(), "r.toml".into()], ..args(&[]) };
        assert_eq!(recipe(&misplaced).unwrap_err().exit_code(), 2);
    }
}
