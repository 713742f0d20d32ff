//! `kiln kernels show`.

use super::named;
use crate::cli::Global;
use crate::cli::term::{note, print};
use clap::Args;
use kiln::device::kernels::{FILES, Variant};
use kiln::device::ptx::{Module, Names, Value};
use kiln::error::{Error, Result};
use serde_json::json;

/// Print a kernel's source, as written or expanded
///
/// Directives in comments (//@) unroll tiles and choose types; --expanded prints what the assembler gets.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln kernels show rope
  kiln kernels show layernorm_fwd
  kiln kernels show gemm --expanded --set T=f16 --set STAGES=3")]
pub struct ShowArgs {
    /// A family or a kernel
    name: String,
    /// Print plain PTX, without directives
    #[arg(long)]
    expanded: bool,
    /// Only this kernel of the family
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// A parameter's value, with --expanded; may be repeated
    #[arg(long, value_name = "NAME=VALUE", requires = "expanded")]
    set: Vec<String>,
}

/// Runs `kiln kernels show`.
pub fn run(args: &ShowArgs, global: &Global) -> Result<()> {
    let found = named(&args.name, &kiln::proof::cases())?;
    let entry = args.entry.as_deref().or(found.entry);
    let file = found.files[0];
    let text = FILES.iter().find(|(name, _)| *name == file).map_or("", |(_, text)| *text);
    let mut names = Names::new();
    for set in &args.set {
        let Some((name, value)) = set.split_once('=') else {
            return Err(Error::usage(format!("--set {set}: no value"), "write it as --set T=bf16"));
        };
        names.insert(name.to_owned(), Value::parse(value));
    }
    let module = match args.set.is_empty() {
        true => Variant::new(file, []).module()?,
        false => Module::new(file, text, &names)?,
    };
    let range = entry.map(|entry| lines(&module, entry, args.expanded)).transpose()?;
    let all = if args.expanded { &module.source.expanded.text } else { text };
    let (first, last) = range.unwrap_or((1, all.lines().count()));
    let shown: Vec<&str> = all.lines().skip(first - 1).take(last + 1 - first).collect();
    if global.json {
        let object = json!({"file": file, "entry": entry, "first_line": first, "expanded": args.expanded,
            "text": shown.join("\n")});
        return print(&object.to_string());
    }
    if let [_, others @ ..] = &found.files[..]
        && !others.is_empty()
    {
        note(&format!("shown: {file}; the same name is in {}", others.join(", ")));
    }
    print(&shown.join("\n"))
}

/// The first and the last line of a kernel, of the expanded text or of the source: there, of the macro that makes it.
fn lines(module: &Module, entry: &str, expanded: bool) -> Result<(usize, usize)> {
    let kernel = &module.entries[kiln::device::driver::find(module, entry)?];
    let (text, first) = match expanded {
        true => (&module.source.expanded.text, kernel.line),
        false => (&module.source.text, module.source.expanded.place(kernel.line, 1).line),
    };
    let end = text.lines().skip(first).position(|line| line.starts_with('}')).unwrap_or(0);
    Ok((first, first + 1 + end))
}
