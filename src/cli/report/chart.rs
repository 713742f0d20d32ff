//! Curves of several runs in one picture.

use super::view::{Panel, View};
use crate::cli::term::{safe, thousands};
use kiln::report::curve::{smoothed, thinned};
use kiln::report::{Live, Series};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LegendPosition};

/// Colours of runs, in turn.
const COLOURS: [Color; 6] =
    [Color::Cyan, Color::Yellow, Color::Magenta, Color::Green, Color::LightBlue, Color::LightRed];
/// Marks of runs where there are no colours, and what a legend shows for them.
const MARKS: [(Marker, &str); 4] =
    [(Marker::Braille, "⠒⠒"), (Marker::Bar, "▄▄"), (Marker::Block, "██"), (Marker::Dot, "••")];

/// Of more runs than this only the best and the chosen one have a colour.
const MANY: usize = COLOURS.len();

/// How a run is drawn, and its sign in a legend.
pub fn look(live: &Live, view: &View, run: usize) -> (Style, Marker, &'static str) {
    let count = live.runs.len();
    let (best, chosen) = (live.best() == Some(run), view.run(count) == run && count > 1);
    let emphasis = if best || chosen { Modifier::BOLD } else { Modifier::empty() };
    if !view.colour {
        let (marker, sign) = MARKS[run % MARKS.len()];
        return (Style::new().add_modifier(emphasis), marker, sign);
    }
    let colour = match (count > MANY, best, chosen) {
        (true, true, _) => Color::Green,
        (true, _, true) => Color::Cyan,
        (true, ..) => Color::DarkGray,
        (false, ..) => COLOURS[run % COLOURS.len()],
    };
    (Style::new().fg(colour).add_modifier(emphasis), MARKS[0].0, "──")
}

/// What a panel is called.
fn title(panel: Panel, live: &Live, view: &View) -> String {
    let run = &live.runs[view.run(live.runs.len())];
    let name = match panel {
        Panel::Loss => format!("loss ({})", run.loss_unit),
        Panel::LearningRate => "learning rate".to_owned(),
        Panel::Gradient => "gradient norm".to_owned(),
        Panel::Speed => format!("{}/s", run.unit),
        Panel::Sample => "sample".to_owned(),
    };
    let weight = view.weight(panel);
    let smooth = if weight > 0.0 { format!(", smoothed {weight}") } else { String::new() };
    let log = if view.is_log(panel) { ", log" } else { "" };
    format!(" {name}{smooth}{log} ")
}

/// A curve, ready to be drawn.
struct Curve {
    run: usize,
    series: Series,
    points: Vec<(f64, f64)>,
}

/// The curves of a panel: those that stand out come last, so that they lie on top.
fn curves(live: &Live, view: &View, panel: Panel, series: Series, width: u16) -> Vec<Curve> {
    let (log, weight) = (view.is_log(panel), view.weight(panel));
    // A cell of braille has two points side by side.
    let most = 4 * usize::from(width.max(1));
    let scaled = |points: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
        match log {
            true => points.into_iter().filter(|p| p.1 > 0.0).map(|(x, y)| (x, y.log10())).collect(),
            false => points,
        }
    };
    let mut order: Vec<usize> = (0..live.runs.len()).collect();
    order.sort_by_key(|&run| (live.best() == Some(run), view.run(live.runs.len()) == run));
    let mut all = Vec::new();
    for run in order {
        let points = smoothed(&live.runs[run].series(series), weight);
        all.push(Curve { run, series, points: thinned(scaled(points), most) });
        if panel == Panel::Loss {
            let points = scaled(live.runs[run].series(Series::Validation));
            all.push(Curve { run, series: Series::Validation, points: thinned(points, most) });
        }
    }
    all.retain(|curve| !curve.points.is_empty());
    all
}

/// From the least to the greatest, with a margin, which does not go below 0 where they do not.
fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    if low > high {
        return [0.0, 1.0];
    }
    let margin = if high > low { 0.04 * (high - low) } else { (0.1 * high.abs()).max(1e-12) };
    let least = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
    [(low - margin).max(least), high + margin]
}

/// A number with as many digits as a look takes in.
pub fn short(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        a if a >= 1e7 => format!("{:.1}M", x / 1e6),
        a if a >= 1e4 => format!("{:.1}k", x / 1e3),
        a if a >= 1e3 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        a if a >= 0.1 => format!("{x:.3}"),
        a if a >= 1e-3 => format!("{x:.4}"),
        _ => format!("{x:.1e}"),
    }
}

/// Draws a panel that has curves.
pub fn draw(frame: &mut Frame, area: Rect, live: &Live, view: &View, panel: Panel, series: Series) {
    let chosen = view.panel() == panel;
    let border = if chosen { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    let block = Block::bordered().border_style(border).title(Line::from(title(panel, live, view)).style(border));
    let curves = curves(live, view, panel, series, area.width);
    if curves.is_empty() {
        return super::draw::words(frame, area, block, "nothing yet");
    }
    // A legend lists runs in their order, whichever is drawn last: by entries without points.
    let one = live.runs.len() == 1;
    let entry = |style: Style, text: String| Dataset::default().name(Line::from(text).style(style)).style(style);
    let mut datasets = Vec::new();
    if panel == Panel::Loss {
        datasets.extend((0..live.runs.len()).map(|run| {
            let (style, _, sign) = look(live, view, run);
            entry(style, format!("{sign} {}", if one { "training".into() } else { safe(&live.runs[run].name) }))
        }));
    }
    // Of one run the second curve may have a colour of its own.
    let second = |style: Style| if one && view.colour { style.fg(COLOURS[1]) } else { style };
    if panel == Panel::Loss && one {
        datasets.push(entry(second(look(live, view, 0).0), "• validation".to_owned()));
    }
    datasets.extend(curves.iter().map(|curve| {
        let (style, marker, _) = look(live, view, curve.run);
        let data = Dataset::default().data(&curve.points);
        match curve.series {
            Series::Validation => data.marker(Marker::Dot).graph_type(GraphType::Scatter).style(second(style)),
            _ => data.marker(marker).graph_type(GraphType::Line).style(style),
        }
    }));
    let points = || curves.iter().flat_map(|curve| curve.points.iter());
    let y = range(points().map(|p| p.1));
    let last = points().map(|p| p.0).fold(1.0, f64::max);
    let back = |y: f64| if view.is_log(panel) { 10f64.powf(y) } else { y };
    let ticks = if area.height >= 16 { 5 } else { 3 };
    let labels = (0..ticks).map(|i| short(back(y[0] + (y[1] - y[0]) * f64::from(i) / f64::from(ticks - 1))));
    let steps = [0.0, last / 2.0, last].map(|step| Line::from(thousands(step as u64)));
    // A legend of many runs would hide what it is of; the table below names them.
    let legend = (chosen && live.runs.len() <= MANY).then_some(LegendPosition::TopRight);
    let chart = Chart::new(datasets)
        .block(block)
        .legend_position(legend)
        .x_axis(Axis::default().bounds([0.0, last]).labels(steps))
        .y_axis(Axis::default().bounds(y).labels(labels));
    frame.render_widget(chart, area);
}
