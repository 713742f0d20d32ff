//! What of the runs is looked at, and the keys that change it.

use kiln::report::Series;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A part of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// Training and validation loss.
    Loss,
    /// The learning rate.
    LearningRate,
    /// The gradient's norm.
    Gradient,
    /// Tokens, or pictures, a second.
    Speed,
    /// What the model wrote last.
    Sample,
}

impl Panel {
    /// All of them, in their order.
    pub const ALL: [Panel; 5] = [Panel::Loss, Panel::LearningRate, Panel::Gradient, Panel::Speed, Panel::Sample];

    /// What it draws over the steps.
    pub fn series(self) -> Option<Series> {
        match self {
            Panel::Loss => Some(Series::Loss),
            Panel::LearningRate => Some(Series::LearningRate),
            Panel::Gradient => Some(Series::Gradient),
            Panel::Speed => Some(Series::Speed),
            Panel::Sample => None,
        }
    }
}

/// Weights of the exponential moving average, from none to a strong one.
const SMOOTH: [f64; 4] = [0.0, 0.6, 0.9, 0.98];

/// What is looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The place in [`Panel::ALL`] of what is drawn large.
    panel: usize,
    /// The run that stands out.
    run: usize,
    /// Which panels have a logarithmic scale.
    log: [bool; Panel::ALL.len()],
    /// The place in [`SMOOTH`].
    smooth: usize,
    /// Whether runs differ by colour; else by their marks.
    pub colour: bool,
}

impl View {
    /// The loss, somewhat smoothed, of the first run.
    pub fn new(colour: bool) -> View {
        View { panel: 0, run: 0, log: Default::default(), smooth: 1, colour }
    }

    /// What is drawn large.
    pub fn panel(&self) -> Panel {
        Panel::ALL[self.panel]
    }

    /// Which of `count` runs stands out.
    pub fn run(&self, count: usize) -> usize {
        self.run.min(count.saturating_sub(1))
    }

    /// Whether the scale of a panel is logarithmic.
    pub fn is_log(&self, panel: Panel) -> bool {
        Panel::ALL.iter().position(|p| *p == panel).is_some_and(|place| self.log[place])
    }

    /// The weight of what came before in a smoothed curve. The learning rate is as it is.
    pub fn weight(&self, panel: Panel) -> f64 {
        if panel == Panel::LearningRate { 0.0 } else { SMOOTH[self.smooth] }
    }

    /// Does what a key asks for, with so many runs; gives whether it asks for the end.
    pub fn press(&mut self, key: KeyEvent, runs: usize) -> bool {
        let (panels, runs) = (Panel::ALL.len(), runs.max(1));
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            // In raw mode it is no signal.
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Tab | KeyCode::Right => self.panel = (self.panel + 1) % panels,
            KeyCode::BackTab | KeyCode::Left => self.panel = (self.panel + panels - 1) % panels,
            KeyCode::Down => self.run = (self.run(runs) + 1) % runs,
            KeyCode::Up => self.run = (self.run(runs) + runs - 1) % runs,
            KeyCode::Char('l') => self.log[self.panel] = !self.log[self.panel],
            KeyCode::Char('s') => self.smooth = (self.smooth + 1) % SMOOTH.len(),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_round_and_three_of_them_end() {
        let mut view = View::new(true);
        let mut press = |code: KeyCode| {
            let ends = view.press(code.into(), 3);
            (ends, view.panel(), view.run(3), view.is_log(Panel::Loss), view.weight(Panel::Loss))
        };
        assert_eq!(press(KeyCode::Char('x')), (false, Panel::Loss, 0, false, 0.6));
        assert_eq!(press(KeyCode::Left).1, Panel::Sample);
        assert_eq!([press(KeyCode::Tab).1, press(KeyCode::Tab).1], [Panel::Loss, Panel::LearningRate]);
        press(KeyCode::Char('l'));
        assert_eq!(press(KeyCode::BackTab), (false, Panel::Loss, 0, false, 0.6), "of another panel");
        assert!(press(KeyCode::Char('l')).3 && !press(KeyCode::Char('l')).3);
        assert_eq!([press(KeyCode::Up).2, press(KeyCode::Down).2, press(KeyCode::Down).2], [2, 0, 1]);
        assert_eq!(
            [press(KeyCode::Char('s')).4, press(KeyCode::Char('s')).4, press(KeyCode::Char('s')).4],
            [0.9, 0.98, 0.0]
        );
        assert!(press(KeyCode::Char('q')).0 && press(KeyCode::Esc).0);
        assert!(view.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), 3));
        assert!(!view.press(KeyCode::Char('c').into(), 3));
        assert_eq!((view.run(1), view.run(0)), (0, 0), "runs may be fewer");
    }
}
