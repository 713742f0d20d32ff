//! A reader's own kernel in the place of one of kiln's: the same cases, and what it costs beside the other.

use super::run::{RunArgs, device, line, object};
use super::{named, stem};
use crate::cli::Global;
use crate::cli::term::{note, print, thousands};
use kiln::device::kernels::{FILES, Variant};
use kiln::disk::{self, Os};
use kiln::error::{Error, Result};
use kiln::proof::{self, Case, Outcome, Rig};
use serde_json::json;
use std::path::Path;

/// Kernels are written by hand.
const MAX_FILE: u64 = 1 << 20;

/// Whether a name is a file's, and not a family's.
pub(super) fn is_file(name: &str) -> bool {
    name.ends_with(".ptx") && !FILES.iter().any(|(file, _)| *file == name)
}

/// The text with the parameters of `file` declared that it does not declare itself: plain PTX takes no notice of them.
fn declared(text: &str, file: &str) -> String {
    let of = |text: &str| -> Vec<(String, String)> {
        let named = |line: &str| Some(line.trim().strip_prefix("//@ param ")?.split([' ', '=']).next()?.to_owned());
        text.lines().filter_map(|line| Some((named(line)?, line.to_owned()))).collect()
    };
    let (own, original) = (of(text), FILES.iter().find(|(name, _)| *name == file).map_or("", |(_, text)| text));
    let missing: Vec<String> = of(original)
        .into_iter()
        .filter(|(name, _)| !own.iter().any(|(known, _)| known == name))
        .map(|(_, line)| line)
        .collect();
    // Behind its own, for one may be computed from others.
    let mut lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().rposition(|line| line.trim().starts_with("//@ param ")).map_or(0, |last| last + 1);
    lines.splice(last..last, missing.iter().map(String::as_str));
    lines.join("\n") + "\n"
}

/// The cases of `name`, a family, a kernel, or what kernels begin with, as `gelu_tanh`; all of one file.
fn cases_of(name: &str, only: &str) -> Result<Vec<Case>> {
    let all = proof::cases();
    let begins = |case: &Case| case.entries.iter().any(|entry| entry.starts_with(&format!("{name}_")));
    if !all.iter().any(begins) {
        named(name, &all)?;
    }
    let mut cases: Vec<Case> = all.into_iter().filter(|case| case.is_of(name) || begins(case)).collect();
    let file = cases[0].file;
    cases.retain(|case| case.file == file && case.name.contains(only));
    if cases.is_empty() {
        return Err(Error::usage(format!("--case {only}: {name} has no such case"), "leave it out"));
    }
    Ok(cases)
}

/// Runs `kiln kernels run FILE.ptx --against KERNEL`.
pub(super) fn run(path: &Path, args: &RunArgs, global: &Global) -> Result<()> {
    let Some(name) = args.against.as_deref().and_then(Path::to_str) else {
        let problem = format!("{}: which of kiln's kernels does it stand for?", path.display());
        return Err(Error::usage(problem, "name it: --against gelu_tanh; kiln kernels list names all"));
    };
    let mut cases = cases_of(name, &args.case)?;
    let file = cases[0].file;
    let text = declared(&disk::text(&Os, path, MAX_FILE)?, file);
    let module = Variant::new(file, []).module_of(&text)?;
    let has = |entry: &str| module.entries.iter().any(|own| own.name == entry);
    let all = cases.len();
    cases.retain(|case| case.entries.iter().all(|entry| has(entry)));
    if cases.is_empty() {
        let own: Vec<&str> = module.entries.iter().map(|entry| &*entry.name).collect();
        let problem =
            format!("{}: it has {}, and none of the cases of {name} needs only these", path.display(), own.join(", "));
        return Err(Error::usage(problem, format!("begin with: kiln kernels show {} > my.ptx", stem(file))));
    }
    if cases.len() < all {
        note(&format!("{} of {all} cases need kernels that {} does not have", all - cases.len(), path.display()));
    }
    let driver = device(args, global)?;
    if !global.json {
        print(&format!("on {}\n", driver.describe()))?;
    }
    let own = Rig::with_texts(&*driver, |name, original| if name == file { text.clone() } else { original.to_owned() });
    let kilns = Rig::new(&*driver);
    let mut failed = 0;
    for case in &cases {
        let ran = own.run(case);
        failed += usize::from(!ran.as_ref().is_ok_and(Outcome::holds));
        let [mine, theirs] =
            [ran.as_ref().ok().map(instructions), kilns.run(case).ok().map(|outcome| instructions(&outcome))];
        if global.json {
            let mut object = object(case, &ran);
            object["instructions"] = json!({"own": mine, "kiln": theirs});
            print(&object.to_string())?;
            continue;
        }
        let beside = match (mine, theirs) {
            (Some(mine), Some(theirs)) if theirs > 0 => {
                let times = mine as f64 / theirs as f64;
                format!("\n    {} instructions of warps, {times:.2} times kiln's", thousands(mine))
            }
            _ => String::new(),
        };
        print(&format!("{}{beside}", line(case, &ran)))?;
    }
    match failed {
        0 if global.json => Ok(()),
        0 => print(&format!("\n{} cases, all within their bounds", cases.len())),
        _ => {
            let problem = format!("{failed} of {} cases failed", cases.len());
            Err(Error::failed(problem, "--checks looks at every access, and names the line"))
        }
    }
}

/// Instructions that warps executed, where the device counts.
fn instructions(outcome: &Outcome) -> u64 {
    let counted = outcome.launches.iter().filter_map(|launch| launch.counters.as_ref());
    counted.flat_map(|counters| counters.classes).map(|count| count.warp).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_gets_the_parameters_that_it_lacks() {
        let text = "//@ param T = \"bf16\"\n.version 7.0\n";
        let whole = declared(text, "activation.ptx");
        let lines: Vec<&str> = whole.lines().collect();
        assert_eq!((lines[0], lines.last()), ("//@ param T = \"bf16\"", Some(&".version 7.0")), "{whole}");
        assert!(whole.contains("//@ param V") && whole.contains("//@ param SLOPE"), "{whole}");
        assert_eq!(whole.matches("//@ param T").count(), 1);
        assert!(is_file("my.ptx") && !is_file("gemm.ptx") && !is_file("gemm"));
    }

    #[test]
    fn cases_are_found_by_what_kernels_begin_with() {
        let cases = cases_of("gelu_tanh", "").expect("cases");
        assert!(!cases.is_empty() && cases.iter().all(|case| case.file == "activation.ptx"));
        assert!(cases_of("gelu", "").is_ok() && cases_of("nothing_at_all", "").is_err());
    }
}
