//! `kiln data get`: public data sets, with their licences.

use crate::cli::term::{Progress, note, print, quote, safe, thousands};
use clap::Args;
use kiln::data::get::{self, Curl, Set};
use kiln::disk::{self, Os};
use kiln::error::{Error, Result};
use serde_json::json;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

/// Get a public data set, after its licence is accepted
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  kiln data get --list\n  kiln data get tinystories --accept-licence")]
pub struct GetArgs {
    /// The data set; --list shows all
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<String>,
    /// Show the data sets, with size, licence and address
    #[arg(long)]
    list: bool,
    /// Folder to write into [default: data/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Accept the licence, which is shown
    #[arg(long)]
    accept_licence: bool,
    /// Only the first N files
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parts: Option<u16>,
    /// A table of your own, as kiln's data/sets.toml
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// Runs `kiln data get`.
pub fn run(args: &GetArgs, json: bool) -> Result<()> {
    let sets = match &args.table {
        Some(path) => get::parse(&disk::text(&Os, path, 1 << 20)?, path)?,
        None => get::sets(),
    };
    let Some(name) = args.name.as_ref().filter(|_| !args.list) else {
        if json {
            return print(&json!({ "sets": sets }).to_string());
        }
        let list: String = sets.iter().map(about).collect();
        return print(&format!("{list}next: kiln data get NAME"));
    };
    let set = get::named(sets, name)?;
    let parts = args.parts.map_or(usize::MAX, usize::from);
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("data").join(&set.name));
    accept(args, &set)?;
    let progress = Progress::bytes("fetching", set.bytes);
    let (mut before, mut file, mut within) = (0, String::new(), 0);
    let got = get::get(&Os, &set, parts, &out, &Curl::default(), &mut |name, done| {
        if name != file {
            (before, file) = (before + within, name.to_owned());
        }
        within = done;
        progress.set(before + within);
    })?;
    drop(progress);
    if json {
        let object = json!({"set": set.name, "path": out.to_string_lossy(), "licence": set.licence, "files": got});
        return print(&object.to_string());
    }
    let mut text = String::new();
    for file in &got {
        let how = if file.fetched { "fetched" } else { "is there" };
        text += &format!(
            "  {:<30} {:>15} bytes  {how}, sha256 {}…\n",
            file.name,
            thousands(file.bytes),
            &file.sha256[..12]
        );
    }
    print(&format!("{text}in {}\n\nnext: kiln data clean {} --out clean", out.display(), quote(&out)))
}

fn about(set: &Set) -> String {
    format!(
        "{}\n  {}\n  about {} MB in {} file{}, licence: {}\n  {}\n\n",
        set.name,
        set.about,
        thousands(set.bytes.div_ceil(1_000_000)),
        set.files.len(),
        super::plural(set.files.len()),
        set.licence,
        set.page
    )
}

/// Shows the licence, and goes on where it is accepted.
fn accept(args: &GetArgs, set: &Set) -> Result<()> {
    note(&safe(&format!("{}licence: {}, {}", about(set), set.licence, set.terms)));
    if args.accept_licence {
        return Ok(());
    }
    let refused = || {
        let problem = format!("the licence of {} is not accepted", set.name);
        Error::usage(problem, format!("read it at {}, then: kiln data get {} --accept-licence", set.terms, set.name))
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    note("accept it? type yes:");
    let mut answer = String::new();
    // Who cannot answer has not accepted.
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if answer.trim().eq_ignore_ascii_case("yes") { Ok(()) } else { Err(refused()) }
}
