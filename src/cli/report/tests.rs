//! The screen, drawn to a buffer and read.

use super::draw::draw;
use super::view::View;
use kiln::report::Live;
use kiln::train::Recipe;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::style::Color;
use std::path::{Path, PathBuf};

/// Runs of 1,200 steps of 32 tokens, each as it is after `steps` of them, and with this last validation loss.
fn runs(dir: &Path, all: &[(&str, u64, f64)]) -> Live {
    let make = |&(name, steps, val_loss): &(&str, u64, f64)| -> PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(path.join("samples")).unwrap();
        let set = ["train.steps=1200", "train.batch=2", "train.context=16"].map(str::to_owned);
        std::fs::write(path.join("recipe.toml"), Recipe::load(None, &set).unwrap().to_toml()).unwrap();
        let line = |step: u64| {
            let loss = 1.0 + 5.0 / step as f64;
            let val =
                if step == steps { format!(",\"val_loss\":{val_loss},\"bits_per_byte\":1.25") } else { String::new() };
            format!("{{\"step\":{step},\"loss\":{loss},\"lr\":0.0005,\"grad_norm\":0.75{val},\"tokens_per_s\":64}}\n")
        };
        std::fs::write(path.join("metrics.jsonl"), (1..=steps).map(line).collect::<String>()).unwrap();
        std::fs::write(path.join("lock"), "process 1 on elsewhere since now\n").unwrap();
        let text = format!("Of {name}: the baker\x1b[2J gave\u{202e} bread.");
        std::fs::write(path.join(format!("samples/step-{:06}.txt", steps / 2)), text).unwrap();
        path
    };
    Live::open(&all.iter().map(make).collect::<Vec<_>>()).unwrap()
}

fn buffer(live: &Live, view: &View, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, live, view)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width);
    buffer.content.chunks(width).map(|row| row.iter().map(|cell| cell.symbol()).collect()).collect()
}

fn screen(live: &Live, view: &View) -> String {
    let text = lines(&buffer(live, view, 120, 40)).join("\n");
    if std::env::var_os("KILN_SCREENS").is_some() {
        crate::cli::term::note(&text);
    }
    text
}

/// Views after these keys.
fn pressed(keys: &[KeyCode], runs: usize) -> View {
    let mut view = View::new(true);
    keys.iter().for_each(|&key| assert!(!view.press(key.into(), runs)));
    view
}

#[track_caller]
fn has(screen: &str, all: &[&str]) {
    for words in all {
        assert!(screen.contains(words), "{words:?} is not on\n{screen}");
    }
}

#[test]
fn a_run_under_way_is_shown_with_all_that_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let live = runs(dir.path(), &[("a", 600, 1.5)]);
    let text = screen(&live, &View::new(true));
    // 600 steps of 32 tokens at 64 a second.
    has(&text, &["running, step 600 of 1,200, 50 %, about 5 min 00 s left, 1.250 bits per byte"]);
    has(&text, &["loss (nats per token), smoothed 0.6", " learning rate ", " gradient norm", " tokens/s"]);
    has(&text, &["── training", "• validation", "a, after step 300", "Of a: the baker\\x1b[2J gave\\u{202e} bread."]);
    has(&text, &["600/1,200", "1.008", "1.500", "5.0e-4", "0.750", "q quit"]);
    assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "no curve:\n{text}");
    // The curve's ends stand at the axes: 6 above, 1 below, each with a margin; the flat rate in the middle; and the steps.
    has(&text, &["│6.200│", "│0.809│", "│4.5e-4│", "│5.5e-4│", "300", "600│"]);
}

#[test]
fn keys_change_what_is_large_and_how_it_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let live = runs(dir.path(), &[("a", 600, 1.5)]);
    let text = screen(&live, &pressed(&[KeyCode::Char('l'), KeyCode::Char('s')], 1));
    has(&text, &["loss (nats per token), smoothed 0.9, log"]);
    let large = |text: &str| text.lines().nth(1).unwrap().split('┐').next().unwrap().to_owned();
    assert!(large(&text).contains("loss"), "{text}");
    let text = screen(&live, &pressed(&[KeyCode::Tab, KeyCode::Tab], 1));
    assert!(large(&text).contains("gradient norm") && !large(&text).contains("loss"), "{text}");
    let text = screen(&live, &pressed(&[KeyCode::Left], 1));
    assert!(large(&text).contains("a, after step 300"), "{text}");
}

#[test]
fn runs_lie_over_one_another_with_a_legend_and_the_best_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let live = runs(dir.path(), &[("first", 600, 1.5), ("second", 300, 1.25), ("third", 1200, 1.75)]);
    let text = screen(&live, &View::new(true));
    has(&text, &["── first", "── second", "── third", "second (best)", "first, after step 300", "1,200/1,200"]);
    let legend: Vec<usize> = ["── first", "── second", "── third"].map(|entry| text.find(entry).unwrap()).into();
    assert!(legend.is_sorted(), "{text}");
    assert!(!text.contains("first (best)") && !text.contains("• validation"), "{text}");
    let chosen = |text: &str| text.lines().find(|line| line.starts_with('>')).unwrap().to_owned();
    assert!(chosen(&text).contains("first"), "{text}");
    let text = screen(&live, &pressed(&[KeyCode::Down], 3));
    assert!(chosen(&text).contains("second") && text.contains("second, after step 150"), "{text}");
    // Curves have the colours that the table shows.
    let colours = |view: &View| -> Vec<Color> {
        let buffer = buffer(&live, view, 120, 40);
        let braille = |c: &&ratatui::buffer::Cell| c.symbol().chars().all(|c| ('\u{2801}'..='\u{28ff}').contains(&c));
        let mut colours: Vec<Color> = Vec::new();
        buffer.content.iter().filter(braille).for_each(|cell| {
            if !colours.contains(&cell.fg) {
                colours.push(cell.fg);
            }
        });
        colours
    };
    let with = colours(&View::new(true));
    assert!([Color::Cyan, Color::Yellow, Color::Magenta].iter().all(|colour| with.contains(colour)), "{with:?}");
    assert_eq!(colours(&View::new(false)), [Color::Reset], "NO_COLOR");
    let plain = screen(&live, &View::new(false));
    has(&plain, &["⠒⠒ first", "▄▄ second", "██ third"]);
}

#[test]
fn of_many_runs_the_best_and_the_chosen_one_stand_out() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..20).map(|i| format!("{i:04}")).collect();
    let all: Vec<(&str, u64, f64)> = names.iter().zip(0..).map(|(n, i)| (&**n, 20 + i, 3.0 - 0.1 * i as f64)).collect();
    let live = runs(dir.path(), &all);
    let text = screen(&live, &View::new(true));
    has(&text, &["20 runs", ">── 0000"]);
    assert!(!text.contains("0019 (best)"), "it is further down\n{text}");
    let view = pressed(&[KeyCode::Up], 20);
    has(&screen(&live, &view), &[">── 0019 (best)"]);
    let buffer = buffer(&live, &View::new(true), 120, 40);
    let used = |colour: Color| buffer.content.iter().any(|cell| cell.fg == colour);
    assert!(used(Color::Green) && used(Color::Cyan) && used(Color::DarkGray) && !used(Color::Magenta));
}

#[test]
fn every_size_and_every_state_draws() {
    let dir = tempfile::tempdir().unwrap();
    let live = runs(dir.path(), &[("one", 0, 1.0), ("two", 1, f64::from(f32::MAX)), ("three", 30, 1.0)]);
    let strange = "{\"step\":1,\"loss\":null,\"lr\":0,\"grad_norm\":null}\n{\"step\":2,\"loss\":-1e30,\"lr\":1,\"grad_norm\":1e300}\n";
    std::fs::write(dir.path().join("three/metrics.jsonl"), strange).unwrap();
    let strange = Live::open(&[dir.path().join("three")]).unwrap();
    let keys = [KeyCode::Char('l'), KeyCode::Tab, KeyCode::Char('l'), KeyCode::Tab, KeyCode::Char('l'), KeyCode::Down];
    for live in [&live, &strange] {
        for presses in 0..=keys.len() {
            let view = pressed(&keys[..presses], live.runs.len());
            for (width, height) in [(1, 1), (44, 12), (43, 50), (60, 13), (79, 24), (80, 24), (81, 12), (200, 70)] {
                buffer(live, &view, width, height);
            }
        }
    }
    let small = lines(&buffer(&live, &View::new(true), 40, 10)).join(" ");
    assert!(small.contains("at least 44 × 12 characters"), "{small}");
    let narrow = lines(&buffer(&live, &pressed(&[KeyCode::Down], 3), 60, 16)).join("\n");
    assert!(narrow.contains("1/1,200") && narrow.contains("running, step 1 of 1,200"), "{narrow}");
}

#[test]
fn a_private_run_does_not_tell_its_loss() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("letters");
    std::fs::create_dir(&run).unwrap();
    let set = ["optim.dp.noise=1.0", "data.tokenizer=byte"].map(str::to_owned);
    std::fs::write(run.join("recipe.toml"), Recipe::load(None, &set).unwrap().to_toml()).unwrap();
    let line = "{\"step\":1,\"loss\":null,\"lr\":0.0005,\"grad_norm\":0.75,\"tokens_per_s\":64}\n";
    std::fs::write(run.join("metrics.jsonl"), line).unwrap();
    let text = screen(&Live::open(&[run]).unwrap(), &View::new(true));
    assert!(text.contains("private") && !text.contains("NaN"), "{text}");
}
