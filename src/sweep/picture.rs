//! Parallel coordinates: an axis a key and one for the result, a line a trial.

use super::ledger::shown;
use super::outcome::Outcome;
use super::space::{Domain, Space};
use crate::train::plot::{GRID, INK, Picture, text};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The best trials are drawn above the others in this colour.
const BEST: RGBColor = RGBColor(214, 84, 30);
/// The colours of a good and a bad result.
const ENDS: [RGBColor; 2] = [RGBColor(23, 78, 140), RGBColor(206, 220, 236)];
/// How far two lines with the same choice are drawn apart, as a share of an axis.
const APART: f64 = 0.02;

/// A sweep as a picture.
pub struct Coordinates<'a> {
    /// What stands above.
    pub title: &'a str,
    /// The trials.
    pub outcome: &'a Outcome,
    /// Their axes.
    pub space: &'a Space,
}

/// Four digits of a number, at most.
fn number(x: f64) -> String {
    if x != 0.0 && !(1e-3..1e5).contains(&x.abs()) {
        format!("{x:.1e}")
    } else {
        format!("{}", (x * 1e4).round() / 1e4)
    }
}

impl Picture for Coordinates<'_> {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let s = scale as i32;
        let (width, height) = area.dim_in_pixel();
        let (left, right, top, bottom) = (60 * s, width as i32 - 90 * s, 84 * s, height as i32 - 44 * s);
        let axes = &self.space.axes;
        let x = |axis: usize| left + (right - left) * axis as i32 / axes.len() as i32;
        let y = |place: f64| bottom - ((bottom - top) as f64 * place.clamp(0.0, 1.0)) as i32;
        let write = |words: &str, size: u32, at: (i32, i32), pos: Pos| {
            area.draw(&Text::new(words.to_owned(), at, text(size, scale, false).pos(pos)))
        };
        area.fill(&WHITE)?;
        let bold = text(22, scale, true).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(self.title.to_owned(), (width as i32 / 2, 10 * s), bold))?;

        // The last result of each trial that has one; the best is drawn last.
        let trials: Vec<(usize, f64)> = self
            .outcome
            .order
            .iter()
            .rev()
            .filter_map(|&i| {
                let value = *self.outcome.trials[i].progress.values.last()?;
                value.is_finite().then_some((i, value))
            })
            .collect();
        // Few bad results must not squeeze the rest: the axis ends at thrice the median's distance from the best.
        let mut sorted: Vec<f64> = trials.iter().map(|t| t.1).collect();
        sorted.sort_by(f64::total_cmp);
        let (low, median) =
            (sorted.first().copied().unwrap_or(0.0), sorted.get(sorted.len() / 2).copied().unwrap_or(1.0));
        let high = sorted.last().copied().unwrap_or(1.0).min(low + 3.0 * (median - low)).max(low + 1e-9);
        // Low losses stand high.
        let place = |value: f64| 1.0 - ((value - low) / (high - low)).clamp(0.0, 1.0);
        for (drawn, &(i, value)) in trials.iter().enumerate() {
            let good = place(value);
            let mix = |at: fn(&RGBColor) -> u8| {
                (f64::from(at(&ENDS[1])) * (1.0 - good) + f64::from(at(&ENDS[0])) * good) as u8
            };
            let best = drawn + 1 == trials.len();
            let colour = if best { BEST } else { RGBColor(mix(|c| c.0), mix(|c| c.1), mix(|c| c.2)) };
            let places = self.space.place(&self.outcome.trials[i].setting);
            let apart = |axis: usize| match axes[axis].domain {
                Domain::Float { .. } => 0.0,
                _ => APART * ((i * 7 % 11) as f64 / 5.0 - 1.0),
            };
            let mut line: Vec<(i32, i32)> =
                (0..axes.len()).map(|axis| (x(axis), y(places[axis] + apart(axis)))).collect();
            line.push((x(axes.len()), y(good)));
            area.draw(&PathElement::new(line, colour.stroke_width(if best { 3 } else { 1 } * scale)))?;
        }
        for axis in 0..=axes.len() {
            let (name, ends) = match axes.get(axis) {
                Some(found) => {
                    let values: Vec<(f64, String)> = match &found.domain {
                        Domain::Choice(values) => values.iter().map(|v| (found.domain.place(v), shown(v))).collect(),
                        Domain::Float { from, to, .. } => vec![(0.0, number(*from)), (1.0, number(*to))],
                        Domain::Int { from, to, .. } => vec![(0.0, from.to_string()), (1.0, to.to_string())],
                    };
                    (found.key.as_str(), values)
                }
                None => (self.outcome.metric.as_str(), vec![(1.0, number(low)), (0.0, number(high))]),
            };
            area.draw(&PathElement::new([(x(axis), top), (x(axis), bottom)], INK.stroke_width(scale)))?;
            // Names of neighbours stand at two heights.
            let above = if axis % 2 == 0 { 14 } else { 32 };
            write(name, 15, (x(axis), top - above * s), Pos::new(HPos::Center, VPos::Bottom))?;
            for (place, words) in ends {
                let at = (x(axis) + 6 * s, y(place));
                let width = 7 * s * words.chars().count() as i32;
                area.draw(&Rectangle::new(
                    [(at.0 - 2 * s, at.1 - 8 * s), (at.0 + width, at.1 + 8 * s)],
                    WHITE.mix(0.8).filled(),
                ))?;
                write(&words, 14, at, Pos::new(HPos::Left, VPos::Center))?;
                area.draw(&PathElement::new([(x(axis) - 4 * s, at.1), (x(axis), at.1)], GRID.stroke_width(scale)))?;
            }
        }
        Ok(())
    }
}
