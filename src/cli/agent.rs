//! `kiln agent`.

use super::Global;
use super::align::{FULL_LR, rewarded};
use super::term::{Ink, Progress, ink, print, quote, safe, thousands};
use super::train::{Course, carry_out};
use super::tune::Start;
use clap::{Args, Subcommand, ValueEnum};
use kiln::agent::{self, Agent, Ended, Environment, Episode, Hold, Limits, Oracle, Random, Split, Trace};
use kiln::data::atomic::AtomicFile;
use kiln::disk::Os;
use kiln::error::{Error, Result};
use kiln::measure::judgements::wilson;
use kiln::train::rl::{Manner, Player, Reinforcement};
use kiln::train::tune::REINFORCE;
use kiln::train::{AnyRecipe, signal};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Let agents act: tasks over several turns with tools and constraints
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln agent run                                         a random agent in the village
  kiln agent run --agent oracle --save traces.jsonl      the planner, written down
  kiln agent run shop --hold mask                        what breaks a constraint is refused
  kiln agent replay traces.jsonl --task 3                what happened, call by call
  kiln agent chores --out chores.jsonl                   texts to read before
  kiln agent demos --out demos.jsonl                     conversations for kiln tune
  kiln agent train runs/cloned --full                    learns to act by rewards
  kiln agent run --model runs/agent                      how often it succeeds

Environments: village, shop, tools, or your own in a .toml file (docs/agents.md)")]
pub struct AgentArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Let an agent act at many tasks, and tell how often it succeeds and what it breaks
    #[command(after_help = "Examples:
  kiln agent run                                         100 tasks of the village's test split
  kiln agent run tools --agent oracle --split train
  kiln agent run --hold mask --tasks 300 --save traces.jsonl
  kiln agent run garden.toml --json                      one object")]
    Run(RunArgs),
    /// Show what an agent did, or do it again and compare
    #[command(after_help = "Examples:
  kiln agent replay traces.jsonl                         the first one
  kiln agent replay traces.jsonl --task 3
  kiln agent replay traces.jsonl --check                 all of them, byte for byte")]
    Replay(ReplayArgs),
    /// Learn to act: many trajectories at a task, of which those that fared better are learnt from (GRPO)
    #[command(after_help = "Examples:
  kiln agent train runs/cloned --full                    errands in the village
  kiln agent train runs/cloned shop --reward success --reward calls=-0.1
  kiln agent train runs/cloned --reward success --reward breaches=-0.3
  kiln agent train --resume runs/agent                   goes on where a run was stopped

Rewards: success, breaches, calls, random; docs/agents.md says of each. data/recipes/reinforce.toml names every key.")]
    Train(TrainArgs),
    /// Write what the planner does as conversations to learn from
    #[command(after_help = "Examples:
  kiln agent demos --out demos.jsonl
  kiln agent demos shop --out demos.jsonl --tasks 1000 --form text
  kiln tune runs/village --data demos.jsonl")]
    Demos(DemosArgs),
    /// Write texts for a model to read before: chores in the village, each told in words and done
    #[command(after_help = "Examples:
  kiln agent chores --out chores.jsonl
  kiln agent chores --out others.jsonl --seed 2          another village
  kiln train --set model.kind=llama --set optim.kind=muon --set train.context=768 --set data.path=chores.jsonl")]
    Chores(ChoresArgs),
}

/// Tasks that a model acts at side by side.
const AT_ONCE: usize = 256;

/// Why a trace has no end: the model's context was full.
const NO_ROOM: &str = "the model had no room left";

/// Which tasks.
#[derive(Args, Debug)]
struct Tasks {
    /// village, shop, tools, or a .toml file
    #[arg(value_name = "ENV", default_value = "village")]
    environment: String,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    tasks: u64,
    /// The seed of the environment
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Args, Debug)]
struct RunArgs {
    #[command(flatten)]
    tasks: Tasks,
    /// Who acts: random or oracle
    #[arg(long, value_name = "NAME", default_value = "random", hide_possible_values = true)]
    agent: Actor,
    /// A model that acts: a run, a checkpoint, a Hugging Face directory, a GGUF file
    #[arg(long, value_name = "MODEL", conflicts_with = "agent")]
    model: Option<PathBuf>,
    /// Change it by this adapter first; may be repeated
    #[arg(long, value_name = "DIR", requires = "model")]
    adapter: Vec<PathBuf>,
    /// Divides its logits; 0: always the likeliest token
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    temperature: f32,
    /// Tokens of its messages at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    tokens: usize,
    /// How conversations become text: the model's own template, chatml, plain, or a file
    #[arg(long, value_name = "NAME", default_value = "auto")]
    template: String,
    /// Tell it of the tools first
    #[arg(long)]
    tools: bool,
    /// Write the tasks that it did without a breach here, as conversations for kiln tune
    #[arg(long, value_name = "FILE.jsonl")]
    keep: Option<PathBuf>,
    /// Of which split: train, val, test, or people, as test in the words of train
    #[arg(long, value_name = "NAME", default_value = "test", hide_possible_values = true)]
    split: Part,
    /// What a call that breaks a constraint does: log or mask
    #[arg(long, value_name = "NAME", default_value = "log", hide_possible_values = true)]
    hold: Held,
    /// Messages that an agent may say
    #[arg(long, value_name = "N", default_value_t = Limits::default().turns)]
    turns: usize,
    /// Money that may be spent before a task is ended
    #[arg(long, value_name = "AMOUNT")]
    money: Option<f64>,
    /// Write what was done here, a task a line
    #[arg(long, value_name = "FILE.jsonl")]
    save: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct TrainArgs {
    #[command(flatten)]
    start: Start,
    /// village, shop, tools, or a .toml file
    #[arg(long, value_name = "ENV", default_value = "village", conflicts_with = "resume")]
    env: String,
    /// The seed of the environment
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "resume")]
    seed: u64,
    /// What a trajectory is worth; may be repeated, with weights [default: success]
    #[arg(long, value_name = "NAME[=WEIGHT]", conflicts_with = "resume")]
    reward: Vec<String>,
    /// What a call that breaks a constraint does: log or mask
    #[arg(long, value_name = "NAME", default_value = "log", hide_possible_values = true, conflicts_with = "resume")]
    hold: Held,
    #[command(flatten)]
    course: Course,
}

#[derive(Args, Debug)]
struct ReplayArgs {
    /// What kiln agent run --save wrote
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    /// The task with this number
    #[arg(long, value_name = "N")]
    task: Option<u64>,
    /// Do all of it again: is every reply the same?
    #[arg(long)]
    check: bool,
}

#[derive(Args, Debug)]
struct DemosArgs {
    #[command(flatten)]
    tasks: Tasks,
    /// Where to
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Of which split: train, val, test, or people, as test in the words of train
    #[arg(long, value_name = "NAME", default_value = "train", hide_possible_values = true)]
    split: Part,
    /// How calls are written: openai, as tool_calls, or text, in what is said
    #[arg(long, value_name = "NAME", default_value = "openai", hide_possible_values = true)]
    form: Form,
}

#[derive(Args, Debug)]
struct ChoresArgs {
    /// Where to
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// How many texts
    #[arg(long, value_name = "N", default_value_t = 6000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    tasks: u64,
    /// The seed of the village
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Actor {
    Random,
    Oracle,
    /// Messages of ill will, for tests.
    #[value(hide = true)]
    Hostile,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Part {
    Train,
    Val,
    Test,
    People,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Held {
    Log,
    Mask,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Form {
    Text,
    Openai,
}

impl Part {
    fn split(self) -> Split {
        Split::ALL[self as usize]
    }
}

impl Held {
    fn hold(self) -> Hold {
        [Hold::Log, Hold::Mask][self as usize]
    }
}

/// Runs `kiln agent` and gives the exit code.
pub fn run(args: &AgentArgs, global: &Global) -> Result<u8> {
    match &args.command {
        Command::Run(args) if args.agent == Actor::Hostile => hostile(&args.tasks).map(|()| 0),
        Command::Run(args) => act(args, global).map(|()| 0),
        Command::Train(args) => train(args, global),
        Command::Replay(args) if args.check => check(args, global),
        Command::Replay(args) => show(args, global).map(|()| 0),
        Command::Demos(args) => demos(args, global).map(|()| 0),
        Command::Chores(args) => chores(args, global).map(|()| 0),
    }
}

/// Who acts, and the name in traces.
fn actor(args: &RunArgs) -> (Box<dyn Agent>, &'static str) {
    match args.agent {
        Actor::Random | Actor::Hostile => (Box::new(Random::new(args.tasks.seed)), "random"),
        Actor::Oracle => (Box::new(Oracle), "oracle"),
    }
}

/// Lets an agent act at one task after the other.
fn play(
    tasks: &Tasks,
    split: Split,
    hold: Hold,
    limits: Limits,
    (agent, name): (&mut dyn Agent, &str),
    mut each: impl FnMut(&Trace, &dyn Environment) -> Result<()>,
) -> Result<()> {
    let mut environment = agent::open(&tasks.environment, tasks.seed)?;
    for task in 0..tasks.tasks {
        let mut episode = Episode::begin(environment, task, split, name, hold, limits);
        while !episode.over() {
            let said = agent.act(&episode);
            episode.act(&said);
        }
        let trace;
        (trace, environment) = episode.end();
        each(&trace, &*environment)?;
    }
    Ok(())
}

/// What many tasks came to.
#[derive(Default)]
struct Sum {
    tasks: u64,
    solved: u64,
    clean: u64,
    calls: usize,
    refused: usize,
    spent: f64,
    broken: BTreeMap<String, u64>,
    ended: BTreeMap<&'static str, u64>,
}

impl Sum {
    fn add(&mut self, trace: &Trace) {
        self.tasks += 1;
        self.solved += u64::from(trace.success);
        self.clean += u64::from(trace.success && trace.breaches == 0);
        self.calls += trace.calls();
        self.refused += trace.refused;
        self.spent += trace.spent;
        trace.broken().for_each(|constraint| *self.broken.entry(constraint.to_owned()).or_default() += 1);
        *self.ended.entry(trace.ended.map_or(NO_ROOM, Ended::words)).or_default() += 1;
    }

    fn per_task(&self, x: f64) -> f64 {
        x / self.tasks.max(1) as f64
    }

    fn json(&self) -> Value {
        let rate = |n: u64| json!({"share": self.per_task(n as f64), "interval": wilson(n, self.tasks)});
        let broken: BTreeMap<&String, f64> =
            self.broken.iter().map(|(name, &n)| (name, 100.0 * self.per_task(n as f64))).collect();
        json!({"tasks": self.tasks, "success": rate(self.solved), "success_without_breach": rate(self.clean),
            "breaches_per_100_tasks": broken, "refused": self.per_task(self.refused as f64),
            "calls": self.per_task(self.calls as f64), "spent": self.per_task(self.spent), "ended": self.ended})
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for (name, n) in [("success", self.solved), ("success without a breach", self.clean)] {
            let [low, high] = wilson(n, self.tasks).map(|x| 100.0 * x);
            let share = 100.0 * self.per_task(n as f64);
            let _ = writeln!(text, "  {name:<28}{share:>7.1} %   95 % of such runs: {low:.1} to {high:.1} %");
        }
        let all: u64 = self.broken.values().sum();
        let _ = writeln!(text, "  {:<28}{:>7.1}", "breaches per 100 tasks", 100.0 * self.per_task(all as f64));
        for (name, &n) in &self.broken {
            let _ = writeln!(text, "    {:<26}{:>7.1}", safe(name), 100.0 * self.per_task(n as f64));
        }
        let figures = [("calls", self.calls as f64), ("refused", self.refused as f64), ("money spent", self.spent)];
        for (name, x) in figures.into_iter().filter(|(name, x)| *name == "calls" || *x > 0.0) {
            let _ = writeln!(text, "  {:<28}{:>7.1}", format!("{name} a task"), self.per_task(x));
        }
        let ends: Vec<String> = self.ended.iter().map(|(why, &n)| format!("{why} {}", thousands(n))).collect();
        text + &format!("  ended: {}", ends.join(", "))
    }
}

/// Lets a model act at all tasks, many side by side.
fn model(
    path: &Path,
    args: &RunArgs,
    limits: Limits,
    global: &Global,
    mut each: impl FnMut(&Trace) -> Result<()>,
) -> Result<()> {
    signal::install()?;
    let environment = agent::open(&args.tasks.environment, args.tasks.seed)?;
    let mut player = Player::open(path, &args.adapter, &args.template, &*environment, args.tools, &global.host()?)?;
    let hold = args.hold.hold();
    let manner = Manner {
        temperature: args.temperature,
        seed: args.tasks.seed,
        message: args.tokens,
        only_allowed: hold == Hold::Mask,
    };
    let bar = Progress::count("tasks", args.tasks.tasks);
    let name = path.to_string_lossy();
    for first in (0..args.tasks.tasks).step_by(AT_ONCE) {
        let some = first..args.tasks.tasks.min(first + AT_ONCE as u64);
        let begin = |task| Episode::begin(environment.fresh(), task, args.split.split(), &name, hold, limits);
        let mut told = |over: usize| {
            bar.set(first + over as u64);
            signal::caught().is_none()
        };
        let Some(traces) = player.play(some.map(begin).collect(), manner, &mut told)? else {
            return Err(Error::failed("stopped by a signal", "the same command begins anew"));
        };
        traces.iter().try_for_each(&mut each)?;
    }
    Ok(())
}

/// Runs `kiln agent train`.
fn train(args: &TrainArgs, global: &Global) -> Result<u8> {
    let TrainArgs { start, env, seed, reward, hold, course } = args;
    if !start.data.is_empty() {
        let hint = "leave --data out; kiln tune learns from demonstrations";
        return Err(Error::usage("agents learn in an environment, not from files", hint));
    }
    let mut more = Vec::new();
    if start.resume.is_none() {
        let env = toml::Value::from(env.as_str());
        let hold = hold.hold().name();
        let agent = format!("model.reinforce.agent={{ environment = {env}, seed = {seed}, hold = \"{hold}\" }}");
        more.extend(["run.name=agent".to_owned(), agent]);
        let all = if reward.is_empty() { vec!["success".to_owned()] } else { reward.clone() };
        let all = all.iter().map(|reward| rewarded(reward)).collect::<Result<Vec<_>>>()?;
        more.push(format!("model.reinforce.rewards={{ {} }}", all.join(", ")));
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let recipe = start.recipe(REINFORCE, &more, FULL_LR)?;
    let acts = |own: &Reinforcement| own.agent.is_some();
    match &recipe {
        AnyRecipe::Reinforce(own) if own.model.reinforce.as_ref().is_some_and(acts) => {
            carry_out(&recipe, start.resume.as_deref(), *course, global)
        }
        _ => Err(Error::config("model.reinforce.agent", "this recipe does not act", "run it with: kiln align")),
    }
}

fn act(args: &RunArgs, global: &Global) -> Result<()> {
    let (split, hold) = (args.split.split(), args.hold.hold());
    if args.money.is_some_and(|money| money.is_nan() || money < 0.0) {
        return Err(Error::usage("--money: not an amount", "give a number, 0 or more"));
    }
    let money = args.money.unwrap_or(f64::INFINITY);
    let limits = Limits { turns: args.turns.max(1), money, ..Limits::default() };
    let mut lines = args.save.as_deref().map(Lines::new).transpose()?;
    let mut kept = args.keep.as_deref().map(Lines::new).transpose()?;
    let mut sum = Sum::default();
    let mut each = |trace: &Trace| {
        sum.add(trace);
        if let (Some(kept), true) = (&mut kept, trace.success && trace.breaches == 0) {
            kept.add(&json!({"messages": trace.messages()}).to_string())?;
        }
        lines.as_mut().map_or(Ok(()), |lines| lines.add(&trace.line()))
    };
    let name = match &args.model {
        Some(path) => {
            model(path, args, limits, global, each)?;
            "model"
        }
        None => {
            let (mut agent, name) = actor(args);
            play(&args.tasks, split, hold, limits, (&mut *agent, name), |trace, _| each(trace))?;
            name
        }
    };
    kept.map_or(Ok(()), Lines::end)?;
    lines.map_or(Ok(()), Lines::end)?;
    let Tasks { environment, seed, tasks } = &args.tasks;
    if global.json {
        let mut object = json!({"environment": environment, "seed": seed, "split": split.name(), "agent": name,
            "hold": hold.name()});
        object.as_object_mut().expect("an object").extend(sum.json().as_object().expect("an object").clone());
        return print(&object.to_string());
    }
    let what = format!("{}, {} split, seed {seed}", safe(environment), split.name());
    print(&format!("{}: {} tasks, {name} agent, hold {}", ink(&what, Ink::Bold), thousands(*tasks), hold.name()))?;
    print(&sum.table())?;
    match &args.save {
        Some(path) => print(&format!("next: kiln agent replay {}", quote(path))),
        None => Ok(()),
    }
}

fn show(args: &ReplayArgs, global: &Global) -> Result<()> {
    let all = Trace::read(&Os, &args.file)?;
    let found: Vec<&Trace> = all.iter().filter(|trace| args.task.is_none_or(|task| trace.task == task)).collect();
    let Some(first) = found.first() else {
        let problem =
            args.task.map_or("there is no trace".to_owned(), |task| format!("there is no trace of task {task}"));
        let hint = match all.first() {
            Some(trace) => format!("{} has {} traces, the first of task {}", quote(&args.file), all.len(), trace.task),
            None => format!("{} is empty: kiln agent run --save {0}", quote(&args.file)),
        };
        return Err(Error::usage(problem, hint));
    };
    if global.json {
        return print(&first.line());
    }
    print(&told(first))?;
    match all.len() {
        1 => Ok(()),
        n => print(&format!(
            "one of {} traces: --task N shows another, --check does all of it again",
            thousands(n as u64)
        )),
    }
}

/// A trace to be read.
fn told(trace: &Trace) -> String {
    let head = format!("{}, seed {}, {} task {}", trace.environment, trace.seed, trace.split.name(), trace.task);
    let mut text =
        format!("{}  {} agent, hold {}\n", ink(&safe(&head), Ink::Bold), safe(&trace.agent), trace.hold.name());
    let _ = writeln!(text, "goal: {}", safe(&trace.goal));
    let mut n = 0;
    for step in &trace.steps {
        if step.calls.is_empty() {
            let said: String = step.said.chars().take(200).collect();
            let _ = writeln!(text, "      says: {}", safe(&said));
        }
        for (i, reply) in step.replies.iter().enumerate() {
            if let Some(call) = step.calls.get(i) {
                n += 1;
                let arguments: Vec<String> = call
                    .arguments
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| match value {
                        Value::String(text) => format!("{key}: {text}"),
                        other => format!("{key}: {other}"),
                    })
                    .collect();
                let call = format!("{}({})", call.name, arguments.join(", "));
                let _ = writeln!(text, "{n:>4}  {}", ink(&safe(&call), Ink::Bold));
            }
            let _ = writeln!(text, "      {}", safe(reply));
            for breach in step.breaches.get(i).into_iter().flatten() {
                let _ = writeln!(text, "      {}", ink(&safe(&format!("breaks: {}", breach.constraint)), Ink::Red));
            }
        }
    }
    let (end, shade) = if trace.success { ("done", Ink::Green) } else { ("not done", Ink::Red) };
    let why = trace.ended.map_or(NO_ROOM, Ended::words);
    let Trace { breaches, refused, spent, .. } = trace;
    text + &format!("{}: {why}; {breaches} breaches, {refused} refused, {spent} spent", ink(end, shade))
}

fn check(args: &ReplayArgs, global: &Global) -> Result<u8> {
    let all = Trace::read(&Os, &args.file)?;
    let chosen = (1..).zip(&all).filter(|(_, trace)| args.task.is_none_or(|task| trace.task == task));
    let (mut same, mut differ) = (0u64, Vec::new());
    for (line, trace) in chosen {
        match agent::replay(trace) {
            Ok(()) => same += 1,
            Err(error) => differ.push((line, trace.task, error)),
        }
    }
    if global.json {
        let list: Vec<Value> = differ
            .iter()
            .map(|(line, task, error)| json!({"trace": line, "task": task, "difference": error.to_string()}))
            .collect();
        print(&json!({"same": same, "differ": list}).to_string())?;
    } else {
        for (line, task, error) in &differ {
            print(&format!("trace {line}, task {task}: {}", safe(&error.to_string())))?;
        }
        print(&format!("{} the same byte for byte, {} not", thousands(same), thousands(differ.len() as u64)))?;
    }
    Ok(u8::from(!differ.is_empty()))
}

fn demos(args: &DemosArgs, global: &Global) -> Result<()> {
    let mut lines = Lines::new(&args.out)?;
    let (mut written, mut skipped, mut calls) = (0u64, 0u64, 0usize);
    let oracle = (&mut Oracle as &mut dyn Agent, "oracle");
    play(&args.tasks, args.split.split(), Hold::Log, Limits::default(), oracle, |trace, environment| {
        if !trace.success {
            skipped += 1;
            return Ok(());
        }
        written += 1;
        calls += trace.calls();
        let tools: Vec<Value> = environment.tools().iter().map(agent::Tool::openai).collect();
        let line = match args.form {
            Form::Text => json!({"messages": trace.texts()}),
            Form::Openai => json!({"messages": trace.messages(), "tools": tools}),
        };
        lines.add(&line.to_string())
    })?;
    lines.end()?;
    if global.json {
        return print(&json!({"file": args.out, "written": written, "unsolved": skipped, "calls": calls}).to_string());
    }
    let each = calls as f64 / written.max(1) as f64;
    print(&format!("{} conversations with {each:.1} calls each: {}", thousands(written), quote(&args.out)))?;
    print(&format!("next: kiln tune MODEL --data {}", quote(&args.out)))
}

fn chores(args: &ChoresArgs, global: &Global) -> Result<()> {
    let ChoresArgs { out, tasks, seed } = args;
    let mut lines = Lines::new(out)?;
    let (mut village, mut calls) = (agent::Village::new(*seed), 0);
    let bar = Progress::count("texts", *tasks);
    for task in 0..*tasks {
        let chores = village.chores(task);
        calls += chores.steps.len();
        lines.add(&json!({"text": chores.text()}).to_string())?;
        bar.set(task + 1);
    }
    drop(bar);
    lines.end()?;
    if global.json {
        return print(&json!({"file": out, "written": tasks, "calls": calls}).to_string());
    }
    let each = calls as f64 / *tasks as f64;
    print(&format!("{} texts with {each:.1} calls each: {}", thousands(*tasks), quote(out)))?;
    let set = "--set model.kind=llama --set optim.kind=muon --set train.context=768";
    print(&format!("next: kiln train {set} --set data.path={}", quote(out)))
}

/// A file of lines, written whole or not at all.
struct Lines<'a>(AtomicFile<'a>);

impl Lines<'_> {
    fn new(path: &Path) -> Result<Self> {
        Ok(Lines(AtomicFile::create(&Os, path)?))
    }

    fn add(&mut self, line: &str) -> Result<()> {
        self.0.write(line.as_bytes())?;
        self.0.write(b"\n")
    }

    fn end(self) -> Result<()> {
        self.0.commit()
    }
}

/// Says all messages of ill will between two marks, so that a test can watch the system calls between them.
fn hostile(tasks: &Tasks) -> Result<()> {
    let environment = agent::open(&tasks.environment, tasks.seed)?;
    let messages = agent::hostile::messages(environment.tools(), 300);
    let limits = Limits { turns: usize::MAX, calls: usize::MAX, tokens: usize::MAX, ..Limits::default() };
    let mut episode = Episode::begin(environment, 0, Split::Train, "hostile", Hold::Log, limits);
    print("hostile: begin")?;
    let mut longest = 0;
    for message in &messages {
        let told = episode.act(message);
        longest = told.iter().map(|told| told.text.len()).fold(longest, usize::max);
    }
    print("hostile: end")?;
    let trace = episode.trace();
    let (over, n) = (episode.over(), messages.len());
    print(&json!({"messages": n, "longest": longest, "over": over, "breaches": trace.breaches}).to_string())
}
