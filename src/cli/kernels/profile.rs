//! `kiln kernels profile`.

use super::{matching, named, plan_words, simulated, size};
use crate::cli::Global;
use crate::cli::term::{Ink, ink, print, thousands};
use clap::Args;
use kiln::bench::cards::{CARDS, Card, Flops};
use kiln::bench::spots::{Accesses, Spot, spots};
use kiln::device::ptx::{Entry, Module};
use kiln::device::sim::{Class, Counters, Traffic};
use kiln::disk::Os;
use kiln::error::{Error, Result};
use kiln::proof::{Launch, Rig};
use kiln::train::plot::Picture;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Count what a kernel does: instructions, bank conflicts, sectors
///
/// Runs a case on the simulated device, whose counts are exact, and holds them against a card's published figures.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln kernels profile gemm
  kiln kernels profile attention_fwd --case \"of 128\" --card rtx4090
  kiln kernels profile column_sums --out banks.png")]
pub struct ProfileArgs {
    /// A family or a kernel
    name: String,
    /// The first case whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    case: String,
    /// A card's figures: a100, h100, h200, rtx3090, rtx4090
    #[arg(long, value_name = "NAME", default_value = "h100", value_parser = card)]
    card: &'static Card,
    /// Lines of the source to name
    #[arg(long, value_name = "N", default_value_t = 6)]
    lines: usize,
    /// Draw banks and sectors, as .svg or .png; of several kernels, for the one with the most instructions
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn card(name: &str) -> Result<&'static Card, String> {
    let names = || CARDS.iter().map(|card| card.name).collect::<Vec<_>>().join(", ");
    CARDS.iter().find(|card| card.name == name).ok_or_else(|| format!("use one of {}", names()))
}

/// A launch with what was counted.
struct Counted<'a> {
    launch: &'a Launch,
    counters: &'a Counters,
    module: Arc<Module>,
    spots: Vec<Spot>,
    flops: Flops,
}

impl Counted<'_> {
    fn entry(&self) -> Option<&Entry> {
        self.module.entry(self.launch.plan.entry)
    }
}

/// Runs `kiln kernels profile`.
pub fn run(args: &ProfileArgs, global: &Global) -> Result<()> {
    let extension = args.out.as_ref().map(|out| out.extension().and_then(|e| e.to_str()).unwrap_or_default());
    if let (Some(out), Some(extension)) = (&args.out, extension)
        && !["svg", "png"].contains(&extension)
    {
        return Err(Error::usage(
            format!("--out {}: neither .svg nor .png", out.display()),
            "name a file as banks.svg",
        ));
    }
    let mut cases = matching(&args.name, &args.case)?;
    // The first typical one, else the first.
    cases.sort_by_key(|case| !case.typical);
    let case = &cases[0];
    let sim = simulated(true, global)?;
    let rig = Rig::new(&sim);
    let outcome = rig.run(case)?;
    let mut seen: Vec<Counted<'_>> = Vec::new();
    let by_entry = named(&args.name, &cases)?.entry.is_some();
    for launch in outcome.launches.iter().filter(|launch| launch.plan.variant.file == case.file) {
        let entry = launch.plan.entry;
        let wanted = if by_entry { entry == args.name } else { case.entries.contains(&entry) };
        if let (true, Some(counters)) = (wanted && seen.iter().all(|s| s.launch.plan.entry != entry), &launch.counters)
        {
            let module = rig.function(&launch.plan)?.module;
            let flops = module.entry(entry).map_or(Flops::default(), |entry| Flops::of(entry, counters));
            let spots = spots(&module, counters);
            seen.push(Counted { launch, counters, module, spots, flops });
        }
    }
    for counted in &seen {
        let text =
            if global.json { object(&case.name, counted, args).to_string() } else { words(&case.name, counted, args) };
        print(&text)?;
    }
    if !global.json {
        let Card { name, source, sms, clock, .. } = args.card;
        print(&ink(
            &format!(
                "{name}: {sms} multiprocessors at {clock} GHz; {source}. Of work that fills it evenly, without caches."
            ),
            Ink::Dim,
        ))?;
    }
    let (Some(out), Some(most)) = (&args.out, seen.iter().max_by_key(|seen| seen.counters.total().warp)) else {
        return Ok(());
    };
    let second = format!("{}; {}", case.name, plan_words(&most.launch.plan));
    let picture = Accesses { title: [most.launch.plan.entry, &second], module: &most.module, spots: &most.spots };
    match extension {
        Some("svg") => picture.save_svg(&Os, out)?,
        _ => picture.save_png(&Os, out)?,
    }
    if global.json { Ok(()) } else { print(&format!("\ndrawn: {} ({})", out.display(), most.launch.plan.entry)) }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

fn ratio(traffic: &Traffic) -> f64 {
    if traffic.ideal > 0 { traffic.steps as f64 / traffic.ideal as f64 } else { 1.0 }
}

fn words(case: &str, counted: &Counted<'_>, args: &ProfileArgs) -> String {
    let Counted { launch, counters, flops, .. } = counted;
    let plan = &launch.plan;
    let shared = plan.grid.shared + counted.entry().map_or(0, |entry| entry.shared);
    let mut out = format!("{}  {case}\n", ink(plan.entry, Ink::Bold));
    let mut row = |name: &str, value: String| out += &format!("  {name:<14}{value}\n");
    row(
        "launch",
        format!(
            "{}, {} of shared memory",
            plan_words(plan),
            if shared == 0 { "no byte".to_owned() } else { size(shared as u64) }
        ),
    );
    let total = counters.total();
    let lanes = total.lane as f64 / total.warp.max(1) as f64;
    let divide = match counters.divergent {
        0 => "no jump divides a warp".to_owned(),
        1 => "1 jump divides a warp".to_owned(),
        n => format!("{} jumps divide a warp", thousands(n)),
    };
    row("instructions", format!("{} by warps, {lanes:.1} of 32 lanes at work, {divide}", thousands(total.warp)));
    let mut classes: Vec<(u64, &str)> =
        Class::ALL.iter().map(|(class, name)| (counters.class(*class).warp, *name)).collect();
    classes.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let part = |(count, name): &(u64, &str)| format!("{name} {:.0} %", percent(*count as f64, total.warp as f64));
    row("", classes.iter().filter(|(count, _)| 200 * count >= total.warp).map(part).collect::<Vec<_>>().join(", "));
    let traffic = |t: &Traffic, steps: &str| match t.requests {
        0 => "none".to_owned(),
        n => format!(
            "{} accesses, {}; {} {steps}, {} at best ({:.2})",
            thousands(n),
            size(t.bytes),
            thousands(t.steps),
            thousands(t.ideal),
            ratio(t)
        ),
    };
    row("shared memory", traffic(&counters.shared, "cycles of the banks"));
    row("global memory", traffic(&counters.global, "sectors of 32 bytes"));
    let bytes = 32.0 * counters.global.steps as f64;
    if flops.total() > 0.0 {
        let ridge = args.card.ridge(flops);
        row(
            "operations",
            format!(
                "{} on floats, {:.2} a byte of global memory (the {}'s ridge is at {ridge:.0})",
                thousands(flops.total() as u64),
                flops.total() / bytes.max(1.0),
                args.card.name
            ),
        );
    }
    let parts = args.card.parts(flops, counters);
    let (bound, most) = parts.iter().fold(("", 0.0), |most, part| if part.1 > most.1 { *part } else { most });
    let part = |(name, seconds): &(&str, f64)| format!("{name} {:.0} %", percent(*seconds, most));
    let shares: Vec<String> = parts.iter().filter(|(_, seconds)| *seconds > 0.0).map(part).collect();
    row(&format!("on {}", args.card.name), format!("{:.3} us, by {bound}: {}", 1e6 * most, shares.join(", ")));
    let mut hot: Vec<&Spot> = counted.spots.iter().collect();
    hot.sort_by_key(|spot| std::cmp::Reverse(spot.count.warp));
    for (i, spot) in hot.into_iter().take(args.lines).enumerate() {
        let site = &spot.site;
        let mut line = format!(
            "{:>4.1} %  {:<22}{}",
            percent(spot.count.warp as f64, total.warp as f64),
            spot.place(&counted.module),
            spot.opcode()
        );
        if site.shared.requests > 0 {
            line += &format!("  {:.2} cycles a pass", ratio(&site.shared));
        }
        if site.global.requests > 0 {
            let each = |steps: u64| steps as f64 / site.global.requests as f64;
            line +=
                &format!("  {:.1} sectors an access, {:.1} at best", each(site.global.steps), each(site.global.ideal));
        }
        row(if i == 0 { "most in" } else { "" }, line);
    }
    out
}

fn object(case: &str, counted: &Counted<'_>, args: &ProfileArgs) -> Value {
    let Counted { launch, counters, flops, .. } = counted;
    let traffic = |t: &Traffic| json!({"requests": t.requests, "bytes": t.bytes, "steps": t.steps, "ideal": t.ideal});
    let classes: Map<String, Value> =
        Class::ALL.iter().map(|(class, name)| ((*name).to_owned(), json!(counters.class(*class).warp))).collect();
    let parts: Map<String, Value> =
        args.card.parts(flops, counters).iter().map(|(name, seconds)| ((*name).to_owned(), json!(seconds))).collect();
    let lines: Vec<Value> = counted
        .spots
        .iter()
        .map(|spot| {
            let Spot { count, site, .. } = spot;
            json!({"place": spot.place(&counted.module), "opcode": spot.opcode(), "warp": count.warp, "lane": count.lane,
                "shared": traffic(&site.shared), "global": traffic(&site.global)})
        })
        .collect();
    let plan = &launch.plan;
    json!({"entry": plan.entry, "variant": plan.variant.to_string(), "case": case, "blocks": plan.grid.blocks,
        "threads": plan.grid.threads, "warp": counters.total().warp, "lane": counters.total().lane, "classes": classes,
        "divergent": counters.divergent, "shared": traffic(&counters.shared), "global": traffic(&counters.global),
        "flops": flops.total(), "card": args.card.name, "least_seconds": parts, "lines": lines})
}
