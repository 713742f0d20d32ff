//! How `kiln bench` prints what it measured.

use crate::cli::Global;
use crate::cli::term::{print, safe, thousands};
use kiln::bench::{Row, Sitting};
use kiln::device::Device;
use kiln::error::Result;

/// The machine's limits: a line, or an object.
pub fn ceilings(sitting: &Sitting, global: &Global) -> Result<()> {
    let (c, threads) = (&sitting.ceilings, sitting.threads());
    if global.json {
        return print(&c.json(threads).to_string());
    }
    let bf16 = c.bf16.map_or(String::new(), |peak| format!(", {peak:.0} in bf16"));
    if let Device::Gpu(_) = sitting.device() {
        return print(&format!("limits: fma {:.0} GFLOP/s in f32{bf16}; copy {:.1} GB/s\n", c.fma, c.copy));
    }
    print(&format!(
        "{threads} {}; limits: fma {:.0} GFLOP/s in f32{bf16}; read {:.1}, copy {:.1}, triad {:.1} GB/s\n",
        if threads == 1 { "thread" } else { "threads" },
        c.fma,
        c.read,
        c.copy,
        c.triad
    ))
}

/// Rows of one case or more: a line each, the case in a line before them; or an object each.
pub fn rows(rows: &[Row], global: &Global) -> Result<()> {
    let mut case = "";
    for row in rows {
        if global.json {
            print(&row.json().to_string())?;
            continue;
        }
        if row.case != case {
            let rounds = match (row.calm, row.dropped) {
                (false, _) => "  (the machine was never calm: all rounds count)".to_owned(),
                (true, 0) => String::new(),
                (true, n) => format!("  ({n} of {} rounds dropped: the peak fell)", n + row.n),
            };
            print(&format!("{} {}{rounds}", row.bench, row.case))?;
            case = &row.case;
        }
        print(&line(row))?;
    }
    Ok(())
}

fn line(row: &Row) -> String {
    let [median, min, max] = [row.rate.median, row.rate.min, row.rate.max].map(number);
    let spread = format!("({min} to {max})");
    let mut line = format!(
        "  {:<20}{median:>9} {:<8} {spread:<18}{:>4.0} % of {}",
        safe(&row.peer),
        row.part.unit.name(),
        100.0 * row.share,
        row.bound
    );
    if let Some(mb) = row.peak_rss_mb {
        line += &format!(", {} MB", thousands(mb as u64));
    }
    if let Some(ratio) = row.ratio {
        line += &format!("; kiln is {:.2} times as fast ({:.2} to {:.2})", ratio.median, ratio.min, ratio.max);
    }
    line
}

/// Four figures, or a whole number.
fn number(x: f64) -> String {
    match x {
        x if x < 10.0 => format!("{x:.2}"),
        x if x < 1000.0 => format!("{x:.1}"),
        x => thousands(x as u64),
    }
}
