//! Where in a kernel's source its instructions and accesses come from; and a picture of the accesses.

use crate::device::ptx::Module;
use crate::device::sim::{Count, Counters, Site};
use crate::train::plot::{GRID, Picture, text};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::collections::BTreeMap;

/// A file of the library, and a line of it.
type Library = Option<(&'static str, usize)>;

/// A line of a kernel's source.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The line, from 1.
    pub line: usize,
    /// The file of the library and its line, for what a macro from there made.
    pub library: Library,
    /// One of the instructions that it became.
    pub text: String,
    /// How often it was executed.
    pub count: Count,
    /// What it accessed.
    pub site: Site,
    /// Of what it was unrolled to, the instruction that takes the banks longest for what it asks.
    pub worst: Site,
}

impl Spot {
    /// Its place, as `gemm.ptx:120` or `lib/vec.ptx:14`.
    pub fn place(&self, module: &Module) -> String {
        match self.library {
            Some((file, line)) => format!("lib/{file}.ptx:{line}"),
            None => format!("{}:{}", module.source.name, self.line),
        }
    }

    /// The opcode, as `ld.global.v4.f32`.
    pub fn opcode(&self) -> &str {
        self.text.split_whitespace().find(|word| !word.starts_with('@')).unwrap_or_default()
    }
}

/// The lines of a module's source that a launch executed, in order; lines of unrolled loops and of macros are one.
pub fn spots(module: &Module, counters: &Counters) -> Vec<Spot> {
    let expanded = &module.source.expanded;
    let texts: Vec<&str> = expanded.text.lines().collect();
    let mut spots: BTreeMap<(usize, Library), Spot> = BTreeMap::new();
    let mut at = |line: usize, add: &dyn Fn(&mut Spot)| {
        let (place, library) = (expanded.place(line, 1).line, expanded.library(line));
        // Calls of one macro of the library are one place.
        let key = (if library.is_some() { 0 } else { place }, library);
        let text = texts.get(line.wrapping_sub(1)).map_or("", |text| text.trim()).to_owned();
        let (count, site) = (Count::default(), Site::default());
        let new = || Spot { line: place, library, text, count, site: site.clone(), worst: site };
        add(spots.entry(key).or_insert_with(new));
    };
    counters.lines.iter().for_each(|(line, count)| at(*line, &|spot| spot.count += *count));
    for (line, site) in &counters.sites {
        at(*line, &|spot| {
            spot.site += site;
            let longer = site.shared.steps * spot.worst.shared.ideal > spot.worst.shared.steps * site.shared.ideal;
            if spot.worst.shared.requests == 0 || longer {
                spot.worst = site.clone();
            }
        });
    }
    spots.into_values().collect()
}

/// What is drawn: each bank's share of a line's accesses to shared memory, and the sectors of its accesses to global.
pub struct Accesses<'a> {
    /// The kernel and the case.
    pub title: [&'a str; 2],
    /// Where its module came from.
    pub module: &'a Module,
    /// Its lines.
    pub spots: &'a [Spot],
}

/// Rows that fit.
const ROWS: usize = 12;
/// Colours from no load to the worst.
const RAMP: [RGBColor; 2] = [RGBColor(222, 235, 247), RGBColor(33, 102, 172)];
const CONFLICT: RGBColor = RGBColor(214, 84, 30);
const IDEAL: RGBColor = RGBColor(120, 160, 200);

impl Accesses<'_> {
    /// The lines with the most steps, in order.
    fn rows(&self, steps: impl Fn(&Site) -> u64) -> Vec<&Spot> {
        let mut rows: Vec<(usize, &Spot)> =
            self.spots.iter().enumerate().filter(|(_, spot)| steps(&spot.site) > 0).collect();
        rows.sort_by_key(|(_, spot)| std::cmp::Reverse(steps(&spot.site)));
        rows.truncate(ROWS);
        rows.sort_by_key(|(i, _)| *i);
        rows.into_iter().map(|(_, spot)| spot).collect()
    }

    fn label(&self, spot: &Spot) -> String {
        let place = spot.place(self.module);
        let line = place.rsplit(':').next().unwrap_or_default();
        let mut words = spot.opcode().split('.').filter(|word| !["sync", "aligned", "global", "shared"].contains(word));
        let name: Vec<&str> = words.by_ref().take(3).collect();
        let file = if spot.library.is_some() { place.trim_end_matches(line) } else { "" };
        format!("{}{line}  {}", file.trim_end_matches(':').replace(".ptx", ":"), name.join("."))
    }
}

impl Picture for Accesses<'_> {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let s = scale as i32;
        let [font, bold] = [false, true].map(|bold| move |size| text(size, scale, bold));
        let right = |size: u32| font(size).pos(Pos::new(HPos::Right, VPos::Center));
        let left = |size: u32| font(size).pos(Pos::new(HPos::Left, VPos::Center));
        area.fill(&WHITE)?;
        area.draw(&Text::new(self.title[0], (14 * s, 12 * s), bold(20)))?;
        area.draw(&Text::new(self.title[1], (14 * s, 36 * s), font(14)))?;

        let width = area.dim_in_pixel().0 as i32;
        let (shared, global) = (self.rows(|site| site.shared.steps), self.rows(|site| site.global.steps));
        let rows = (shared.len().max(1) + global.len().max(1)) as i32;
        let height = ((460 * s - 168 * s) / rows).min(22 * s);
        let label = 170 * s;
        let figures = 118 * s;
        let (from, to) = (14 * s + label, width - figures);

        let mut y = 70 * s;
        area.draw(&Text::new("Shared memory: words that each bank gives in a pass, 1 at best", (14 * s, y), bold(15)))?;
        y += 22 * s;
        if shared.is_empty() {
            area.draw(&Text::new("none is used", (14 * s, y + height / 2), left(14)))?;
            y += height;
        }
        for spot in &shared {
            let middle = y + height / 2;
            let site = &spot.worst;
            area.draw(&Text::new(self.label(spot), (from - 8 * s, middle), right(13)))?;
            let cell = f64::from(to - from) / 32.0;
            for (bank, words) in site.banks.iter().enumerate() {
                // Words a pass: up to 1 where no two lanes of a pass meet.
                let load = *words as f64 / site.shared.ideal as f64;
                let mix = |a: u8, b: u8, part: f64| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
                let blend = |a: RGBColor, b: RGBColor, part: f64| {
                    RGBColor(mix(a.0, b.0, part), mix(a.1, b.1, part), mix(a.2, b.2, part))
                };
                let colour = match load {
                    0.0 => WHITE,
                    load if load <= 1.0 => blend(RAMP[0], RAMP[1], load),
                    load => blend(RGBColor(253, 219, 180), CONFLICT, (load.log2() / 3.0).min(1.0)),
                };
                let x = |i: usize| from + (cell * i as f64) as i32;
                let square = [(x(bank), y + s), (x(bank + 1) - s, y + height - s)];
                area.draw(&Rectangle::new(square, colour.filled()))?;
                area.draw(&Rectangle::new(square, GRID.stroke_width(scale)))?;
                if load > 1.0 {
                    let centre = Pos::new(HPos::Center, VPos::Center);
                    let number = bold(12).pos(centre);
                    area.draw(&Text::new(format!("{load:.0}"), ((square[0].0 + square[1].0) / 2, middle), number))?;
                }
            }
            let ratio = site.shared.steps as f64 / site.shared.ideal as f64;
            let style = if ratio > 1.0 { right(13).color(&CONFLICT) } else { right(13) };
            area.draw(&Text::new(format!("{ratio:.2} cycles a pass"), (width - 10 * s, middle), style))?;
            y += height;
        }
        if !shared.is_empty() {
            for bank in [0, 8, 16, 24, 31] {
                let x = from + ((f64::from(bank) + 0.5) * f64::from(to - from) / 32.0) as i32;
                area.draw(&Text::new(
                    bank.to_string(),
                    (x, y + 9 * s),
                    font(12).pos(Pos::new(HPos::Center, VPos::Center)),
                ))?;
            }
            area.draw(&Text::new("bank", (from - 8 * s, y + 9 * s), right(12)))?;
            y += 16 * s;
        }

        y += 16 * s;
        area.draw(&Text::new("Global memory: sectors of 32 bytes an access, and the fewest", (14 * s, y), bold(15)))?;
        y += 22 * s;
        let each = |steps: u64, spot: &Spot| steps as f64 / spot.site.global.requests.max(1) as f64;
        let most = global.iter().fold(1.0f64, |most, spot| most.max(each(spot.site.global.steps, spot)));
        if global.is_empty() {
            area.draw(&Text::new("none is used", (14 * s, y + height / 2), left(14)))?;
        }
        for spot in &global {
            let middle = y + height / 2;
            let (got, ideal) = (each(spot.site.global.steps, spot), each(spot.site.global.ideal, spot));
            area.draw(&Text::new(self.label(spot), (from - 8 * s, middle), right(13)))?;
            let x = |sectors: f64| from + (f64::from(to - from) * sectors / most) as i32;
            area.draw(&Rectangle::new([(from, y + 2 * s), (x(got), y + height - 2 * s)], CONFLICT.filled()))?;
            area.draw(&Rectangle::new([(from, y + 2 * s), (x(ideal), y + height - 2 * s)], IDEAL.filled()))?;
            let style = if got > 1.05 * ideal { right(13).color(&CONFLICT) } else { right(13) };
            area.draw(&Text::new(format!("{got:.1} of {ideal:.1}"), (width - 10 * s, middle), style))?;
            y += height;
        }
        Ok(())
    }
}
