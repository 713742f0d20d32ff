//! The screen as a function of the runs and of what is looked at.

use super::chart::{self, look, short};
use super::view::{Panel, View};
use crate::cli::term::{safe, thousands};
use kiln::report::{Live, Run, Status};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table, Wrap};
use std::time::Duration;

/// Less than this shows nothing.
const LEAST: (u16, u16) = (44, 12);
/// Lines of the table at most, with its head.
const TABLE: usize = 9;
/// The least height of a small panel.
const SMALL: u16 = 6;

/// Draws all of it.
pub fn draw(frame: &mut Frame, live: &Live, view: &View) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("at least {} × {} characters, please; q quits", LEAST.0, LEAST.1);
        return frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
    }
    let rows = (live.runs.len() + 1).min(TABLE).min(usize::from(area.height) / 4) as u16;
    let parts = [Constraint::Length(1), Constraint::Min(6), Constraint::Length(rows), Constraint::Length(1)];
    let [head, body, table, foot] = Layout::vertical(parts).areas(area);
    frame.render_widget(headline(&live.runs[view.run(live.runs.len())], area.width), head);
    panels(frame, body, live, view);
    frame.render_widget(runs(live, view, table), table);
    let keys = " q quit   ←→ panel   ↑↓ run   l log   s smooth";
    frame.render_widget(Line::from(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

/// The chosen panel large, the others beside it, as many as there is room for.
fn panels(frame: &mut Frame, area: Rect, live: &Live, view: &View) {
    let others: Vec<Panel> = Panel::ALL.into_iter().filter(|panel| *panel != view.panel()).collect();
    let room = usize::from(area.height / SMALL).min(others.len());
    if area.width < 80 || room == 0 {
        return panel(frame, area, live, view, view.panel());
    }
    let [large, side] = Layout::horizontal([Constraint::Percentage(62), Constraint::Percentage(38)]).areas(area);
    panel(frame, large, live, view, view.panel());
    // Where not all have room, what was written is worth more than speed.
    let mut shown = others.clone();
    while shown.len() > room {
        let least = [Panel::Speed, Panel::LearningRate, Panel::Gradient, Panel::Sample, Panel::Loss];
        let least = least.into_iter().find(|panel| shown.contains(panel));
        shown.retain(|panel| Some(*panel) != least);
    }
    let areas = Layout::vertical(vec![Constraint::Fill(1); shown.len()]).split(side);
    shown.iter().zip(areas.iter()).for_each(|(&which, &area)| panel(frame, area, live, view, which));
}

fn panel(frame: &mut Frame, area: Rect, live: &Live, view: &View, panel: Panel) {
    match panel.series() {
        Some(series) => chart::draw(frame, area, live, view, panel, series),
        None => sample(frame, area, live, view),
    }
}

/// What the chosen run wrote last.
fn sample(frame: &mut Frame, area: Rect, live: &Live, view: &View) {
    let run = &live.runs[view.run(live.runs.len())];
    let block = Block::bordered();
    let Some(sample) = &run.sample else { return words(frame, area, block.title(" sample "), "nothing yet") };
    let block = block.title(format!(" {}, after step {} ", safe(&run.name), thousands(sample.step)));
    match &sample.text {
        Some(text) => words(frame, area, block, text.trim()),
        None => words(frame, area, block, &format!("a picture: {}", sample.path.display())),
    }
}

/// Text in a frame.
pub fn words(frame: &mut Frame, area: Rect, block: Block, text: &str) {
    let text = safe(text).replace('\t', "    ");
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), area);
}

/// Where a run stands, in a line.
fn headline(run: &Run, width: u16) -> Line<'static> {
    let mut parts = vec![run.status.name().to_owned()];
    parts.push(format!("step {} of {}", thousands(run.step()), thousands(run.steps)));
    if run.status != Status::Done {
        parts.push(format!("{} %", 100 * run.step() / run.steps.max(1)));
    }
    parts.extend(run.left().map(|left| format!("about {} left", time(left))));
    parts.extend(run.bits_per_byte.map(|bits| format!("{} bits per byte", short(bits))));
    parts.extend(run.memory.map(|memory| format!("{} of memory", bytes(memory))));
    if run.skipped > 0 {
        parts.push(format!("{} skipped", thousands(run.skipped)));
    }
    let name = format!(" {} ", safe(&run.path.display().to_string()));
    let mut rest = format!(" {}", parts.join(", "));
    while parts.len() > 2 && name.chars().count() + rest.chars().count() > usize::from(width) {
        parts.pop();
        rest = format!(" {}", parts.join(", "));
    }
    Line::from(vec![Span::styled(name, Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED)), rest.into()])
}

/// A column of the table: its head, its width, and what it says of a run.
type Column = (&'static str, u16, fn(&Run) -> String);

const COLUMNS: [Column; 8] = [
    ("step", 15, |run| format!("{}/{}", thousands(run.step()), thousands(run.steps))),
    ("loss", 8, |run| match run.points.last() {
        None => String::new(),
        Some(point) if run.private && point.loss.is_nan() => "private".to_owned(),
        Some(point) => short(point.loss.into()),
    }),
    ("val", 8, |run| run.val_loss().map_or_else(String::new, short)),
    ("left", 12, |run| run.left().map_or_else(|| run.status.name().to_owned(), time)),
    ("per s", 8, |run| run.rate().map_or_else(String::new, short)),
    ("lr", 8, |run| run.points.last().map_or_else(String::new, |point| short(point.lr))),
    ("gradient", 8, |run| run.points.last().map_or_else(String::new, |point| short(point.grad_norm))),
    ("memory", 8, |run| run.memory.map_or_else(String::new, bytes)),
];

/// A line a run, from the one on that brings the chosen one into sight; it is the legend too.
fn runs(live: &Live, view: &View, area: Rect) -> Table<'static> {
    let count = live.runs.len();
    let lines = usize::from(area.height).saturating_sub(1).max(1);
    let first = (view.run(count) + 1).saturating_sub(lines).min(count.saturating_sub(lines));
    let longest = live.runs.iter().map(|run| run.name.chars().count()).max().unwrap_or(0) + 8;
    let name = longest.clamp(10, usize::from(area.width) / 3) as u16;
    let mut left = area.width.saturating_sub(name + 5);
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .take_while(|(_, width, _)| {
            let fits = left > *width;
            left = left.saturating_sub(width + 1);
            fits
        })
        .collect();
    let row = |(i, run): (usize, &Run)| {
        let (style, _, sign) = look(live, view, i);
        let chosen = if view.run(count) == i { ">" } else { " " };
        let best = if live.best() == Some(i) { " (best)" } else { "" };
        let mut cells = vec![format!("{chosen}{sign}"), format!("{}{best}", safe(&run.name))];
        cells.extend(columns.iter().map(|(_, width, says)| format!("{:>1$}", says(run), usize::from(*width))));
        Row::new(cells).style(style)
    };
    let heads = columns.iter().map(|(head, width, _)| format!("{head:>0$}", usize::from(*width)));
    let more = if count > lines { format!("{count} runs") } else { "run".to_owned() };
    let head = Row::new(["".to_owned(), more].into_iter().chain(heads)).style(Style::new().add_modifier(Modifier::DIM));
    let widths = [3, name].into_iter().chain(columns.iter().map(|(_, width, _)| *width)).map(Constraint::Length);
    Table::new(live.runs.iter().enumerate().skip(first).take(lines).map(row), widths).header(head)
}

/// `1 h 02 min`, `3 min 20 s`, `12 s`.
fn time(time: Duration) -> String {
    crate::cli::train::duration(time)
}

/// `512 MB`.
fn bytes(bytes: u64) -> String {
    match bytes as f64 / 1e6 {
        mb if mb >= 1e4 => format!("{:.1} GB", mb / 1e3),
        mb => format!("{mb:.0} MB"),
    }
}
