//! `kiln update`.

mod list;
mod rounds;

use super::Global;
use super::term::{print, quote};
use clap::{Args, Subcommand};
use kiln::continual::line::Line;
use kiln::error::Result;
use kiln::train::signal;
use serde_json::json;
use std::path::PathBuf;

/// Keep a model good: watch what it meets, learn, judge, promote or go back
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln update start lines/village --model runs/village    a line of versions, of which this is 0001
  kiln serve lines/village                                serves the version in service; so do eval, chat, sample
  kiln update watch lines/village --data inbox/           waits for documents; an alarm where they change
  kiln update run lines/village --data new.jsonl          a version that learns these too, judged
  kiln update list lines/village                          every version, and which one serves
  kiln update promote lines/village                       the newest that passed goes into service
  kiln update rollback lines/village                      back to the one before, bit for bit
  kiln update forget lines/village letter-17              a document out, and of every model

lines/village/update.toml says how: data/recipes/update.toml explains its keys, docs/continual.md the rest")]
pub struct UpdateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Begin a line of versions with a model
    Start(StartArgs),
    /// Watch files for documents that differ from what the model has learnt
    Watch(rounds::WatchArgs),
    /// Make a version that learns new documents, and judge it beside the one in service
    Run(rounds::RunArgs),
    /// Put a version into service
    Promote(PromoteArgs),
    /// Go back to the version that was in service before
    Rollback(RollbackArgs),
    /// Show all versions, or what one was made of and had to pass
    List(list::ListArgs),
    /// Take documents out, withdraw versions that learnt them, and train one anew from before
    Forget(rounds::ForgetArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln update start lines/village --model runs/village
  kiln update start lines/chats --model smollm2.gguf --data chats/
  kiln update start lines/village --model runs/village --set gate.policy=policy.toml")]
struct StartArgs {
    /// A new folder
    #[arg(value_name = "LINE")]
    line: PathBuf,
    /// A run, a checkpoint, a Hugging Face directory, a GGUF file
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// What it was trained on, or text like it: to compare with and to learn along [default: the run's data]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Set a key of its update.toml; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln update promote lines/village                the newest that passed its gates
  kiln update promote lines/village 0003")]
struct PromoteArgs {
    /// The line's folder
    #[arg(value_name = "LINE")]
    line: PathBuf,
    /// Which version [default: the newest that passed]
    #[arg(value_name = "VERSION")]
    version: Option<String>,
    /// Although its gates refused it
    #[arg(long, requires = "version")]
    force: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln update rollback lines/village               to the one before, bit for bit
  kiln update rollback lines/village 0001")]
struct RollbackArgs {
    /// The line's folder
    #[arg(value_name = "LINE")]
    line: PathBuf,
    /// Which version [default: the one before]
    #[arg(value_name = "VERSION")]
    version: Option<String>,
}

/// Runs `kiln update` and gives the exit code: 1 where gates refuse a version.
pub fn run(args: UpdateArgs, global: &Global) -> Result<u8> {
    signal::install()?;
    match args.what {
        What::Start(args) => start(&args, global).map(|()| 0),
        What::Watch(args) => rounds::watch(&args, global),
        What::Run(args) => rounds::run(&args, global),
        What::Promote(args) => promote(&args, global).map(|()| 0),
        What::Rollback(args) => roll_back(&args, global).map(|()| 0),
        What::List(args) => list::run(&args, global).map(|()| 0),
        What::Forget(args) => rounds::forget(&args, global),
    }
}

fn start(args: &StartArgs, global: &Global) -> Result<()> {
    let line = Line::start(&args.line, &args.model, args.data.as_deref(), &args.set)?;
    let version = line.version("0001")?;
    let dir = quote(&args.line);
    if global.json {
        return print(&json!({"line": args.line, "version": version}).to_string());
    }
    let [learnt, held] = ["learnt", "held"].map(|name| version.count(name));
    print(&format!(
        "{dir}: 0001 is {}; {learnt} documents to learn along, {held} held out to compare with\n\
         settings {}\n\nnext: kiln update watch {dir} --data FOLDER",
        quote(&args.model),
        quote(&args.line.join(kiln::continual::line::SETTINGS)),
    ))
}

fn promote(args: &PromoteArgs, global: &Global) -> Result<()> {
    let line = Line::open(&args.line, &[])?;
    let before = line.pointer()?.current;
    let name = line.promote(args.version.as_deref(), args.force)?;
    if global.json {
        return print(&json!({"in_service": name, "before": before}).to_string());
    }
    let dir = quote(&args.line);
    print(&format!(
        "{name} is in service; before: {before}\n\nnext: kiln update watch {dir} --data FOLDER\n      kiln update rollback {dir}  (goes back)"
    ))
}

fn roll_back(args: &RollbackArgs, global: &Global) -> Result<()> {
    let line = Line::open(&args.line, &[])?;
    let from = line.pointer()?.current;
    let name = line.roll_back(args.version.as_deref())?;
    if global.json {
        return print(&json!({"in_service": name, "before": from}).to_string());
    }
    print(&format!("{name} is in service again, in place of {from}\n\nnext: kiln update list {}", quote(&args.line)))
}
