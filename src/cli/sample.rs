//! `kiln sample`.

use super::term::{note, print, safe, warn};
use super::{Global, Loading};
use clap::Args;
use kiln::data::images::Sheet;
use kiln::data::music;
use kiln::device::Device;
use kiln::disk::Os;
use kiln::error::{AtPath, Error, Result};
use kiln::model::sample::SampleOptions;
use kiln::model::sequence::Pace;
use kiln::train::pictures::codes::Coder;
use kiln::train::pictures::sampler::{PictureSampler, draws};
use kiln::train::sampler::foreign;
use serde_json::json;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Write text, or draw pictures, with a trained model
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln sample runs/village
  kiln sample runs/dcgan --grid 8x8 --out digits.png
  kiln sample runs/village --prompt \"One morning\" --tokens 80 --num 3
  kiln sample runs/village/checkpoints/step-000400 --temperature 0
  kiln sample SmolLM2-135M.Q8_0.gguf --prompt \"The sea is\"")]
pub struct SampleArgs {
    /// A run, a checkpoint, a Hugging Face directory, a GGUF file or an llm.c checkpoint
    #[arg(value_name = "MODEL")]
    run: PathBuf,
    /// Text to go on from [default: the start of a document]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prompt: String,
    /// Tokens to write at most
    #[arg(long, value_name = "N", default_value_t = 200)]
    tokens: usize,
    /// Below 1 safer, above 1 wilder; 0: always the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true, value_parser = temperature)]
    temperature: f32,
    /// Choose among the K likeliest tokens; 0: among all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Choose among the likeliest tokens that have probability P together
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true, value_parser = probability)]
    top_p: f32,
    /// Choose among tokens that have at least the share P of the likeliest one's probability; 0: among all
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true, value_parser = share)]
    min_p: f32,
    /// Above 1: say less often what was said already
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true, value_parser = penalty)]
    repetition_penalty: f32,
    /// The same seed writes the same text
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    loading: Loading,
    /// How many texts, with seeds from --seed on
    #[arg(long, value_name = "N", default_value_t = 1)]
    num: u64,
    /// Of a model of pictures: rows and columns of the sheet [default: 8x8]
    #[arg(long, value_name = "RxC", value_parser = grid)]
    grid: Option<[usize; 2]>,
    /// Of a model of pictures: the class to draw [default: all in turn]
    #[arg(long, value_name = "N")]
    label: Option<usize>,
    /// Of a language model that writes codes of pictures: the VQ-VAE that draws them
    #[arg(long, value_name = "RUN")]
    through: Option<PathBuf>,
    /// Of a model of pictures: where to put the sheet [default: samples.png in the run]
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    /// Play the melody that the text spells in ABC notation into a WAV file (the second text's into FILE-2, and so on)
    #[arg(long, value_name = "FILE")]
    wav: Option<PathBuf>,
}

impl SampleArgs {
    fn options(&self) -> SampleOptions {
        let SampleArgs { tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, .. } = *self;
        SampleOptions { tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed }
    }
}

/// Runs `kiln sample`: text appears as it is written, and its speed in the end.
pub fn run(args: SampleArgs, global: &Global) -> Result<()> {
    let host = global.host()?;
    if let Some(coder) = &args.through {
        return draw_codes(&args, coder, &host, global.json);
    }
    if args.grid.is_some() || args.label.is_some() || args.out.is_some() || (!foreign(&args.run) && draws(&args.run)?) {
        return draw(&args, &host, global.json);
    }
    let start = Instant::now();
    let mut sampler = args.loading.open(&args.run, &host)?;
    for damage in sampler.damaged() {
        warn(&format!("{damage}; an older checkpoint writes"));
    }
    // Before anything is shown.
    kiln::train::text::start(sampler.tokenizer(), &args.prompt)?;
    let (mut samples, mut pace) = (Vec::new(), Pace::default());
    for n in 0..args.num {
        let seed = args.seed.wrapping_add(n);
        let options = SampleOptions { seed, ..args.options() };
        let mut text = String::new();
        let mut screen = Screen { error: None, quiet: global.json };
        if n > 0 {
            screen.write("────\n");
        }
        screen.write(&safe(&args.prompt));
        pace += sampler.generate(&args.prompt, &options, &mut |piece| {
            text.push_str(piece);
            screen.write(&safe(piece))
        })?;
        screen.write("\n");
        match screen.error {
            // The reader, as `head`, has seen enough.
            Some(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Some(e) => return Err(e).at("standard output"),
            None => samples.push(json!({"seed": seed, "text": text})),
        }
        if let Some(file) = &args.wav {
            let file = numbered(file, n);
            let seconds = music::play(&format!("{}{text}", args.prompt), &file)?;
            note(&format!("wrote {} ({seconds:.1} s)", file.display()));
        }
    }
    let (reading, writing) = pace.rates();
    if global.json {
        let seconds = start.elapsed().as_secs_f64();
        let speed = json!({"prompt_tokens": pace.prompt, "prompt_tokens_per_s": reading, "new_tokens_per_s": writing});
        let all = json!({"run": args.run.to_string_lossy(), "prompt": args.prompt, "samples": samples,
            "seconds": seconds, "speed": speed});
        return print(&all.to_string());
    }
    if pace.more > 0 {
        note(&format!("{reading:.0} prompt tokens/s, {writing:.0} new tokens/s"));
    }
    Ok(())
}

/// Draws a sheet.
fn draw(args: &SampleArgs, host: &Device, json: bool) -> Result<()> {
    if foreign(&args.run) || !draws(&args.run)? {
        let hint = "leave out --grid, --label and --out";
        return Err(Error::usage(format!("{} writes text and draws no pictures", args.run.display()), hint));
    }
    let start = Instant::now();
    let mut sampler = PictureSampler::open(&args.run, args.loading.hold(), host)?;
    for damage in sampler.damaged() {
        warn(&format!("{damage}; an older checkpoint draws"));
    }
    let sheet = sampler.sheet(args.grid.unwrap_or([8, 8]), args.label, args.seed)?;
    show(args, &sheet, start, json)
}

/// Draws the pictures whose codes a language model writes.
fn draw_codes(args: &SampleArgs, coder: &Path, host: &Device, json: bool) -> Result<()> {
    let start = Instant::now();
    let mut coder = Coder::open(coder, host)?;
    let mut writer = args.loading.open(&args.run, host)?;
    let [rows, columns] = args.grid.unwrap_or([8, 8]);
    let mut texts = Vec::new();
    for n in 0..(rows * columns) as u64 {
        let options = SampleOptions { tokens: coder.cells(), seed: args.seed.wrapping_add(n), ..args.options() };
        let mut text = String::new();
        writer.generate(&args.prompt, &options, &mut |piece| {
            text.push_str(piece);
            true
        })?;
        texts.push(text);
    }
    let sheet = coder.sheet(&texts, columns);
    show(args, &sheet, start, json)
}

/// Saves a sheet and says so.
fn show(args: &SampleArgs, sheet: &Sheet, start: Instant, json: bool) -> Result<()> {
    let grid = args.grid.unwrap_or([8, 8]);
    let out = args.out.clone().unwrap_or_else(|| args.run.join("samples.png"));
    sheet.save(&Os, &out)?;
    let seconds = start.elapsed().as_secs_f64();
    if json {
        let object = json!({"run": args.run.to_string_lossy(), "sheet": out.to_string_lossy(), "rows": grid[0],
            "columns": grid[1], "label": args.label, "seed": args.seed, "seconds": seconds});
        return print(&object.to_string());
    }
    print(&format!("sheet  {} ({} pictures)", out.display(), grid[0] * grid[1]))
}

/// `8x8`.
fn grid(text: &str) -> Result<[usize; 2], String> {
    let sides =
        text.split_once(['x', '×']).and_then(|(rows, columns)| Some([rows.parse().ok()?, columns.parse().ok()?]));
    sides
        .filter(|sides| sides.iter().all(|n| (1..=64).contains(n)))
        .ok_or_else(|| "expected rows and columns of 1 to 64, as 8x8".into())
}

/// `a.wav`, `a-2.wav`, `a-3.wav` for text 0, 1, 2.
fn numbered(file: &Path, n: u64) -> PathBuf {
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    match n {
        0 => file.to_owned(),
        _ => file.with_file_name(format!("{}-{}.{}", part(file.file_stem()), n + 1, part(file.extension()))),
    }
}

/// Standard output, until it fails.
struct Screen {
    error: Option<std::io::Error>,
    quiet: bool,
}

impl Screen {
    /// Shows `text` at once; false where there is nobody to see it.
    fn write(&mut self, text: &str) -> bool {
        if self.error.is_none() && !self.quiet {
            let mut out = std::io::stdout().lock();
            self.error = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
        }
        self.error.is_none()
    }
}

pub fn temperature(text: &str) -> Result<f32, String> {
    within(text, |t| t >= 0.0 && t.is_finite(), "a number, 0 or more")
}

pub fn probability(text: &str) -> Result<f32, String> {
    within(text, |p| p > 0.0 && p <= 1.0, "a number above 0, at most 1")
}

pub fn share(text: &str) -> Result<f32, String> {
    within(text, |p| (0.0..=1.0).contains(&p), "a number from 0 to 1")
}

pub fn penalty(text: &str) -> Result<f32, String> {
    within(text, |x| x > 0.0 && x.is_finite(), "a number above 0")
}

fn within(text: &str, fits: impl Fn(f32) -> bool, expected: &str) -> Result<f32, String> {
    text.parse().ok().filter(|&x| fits(x)).ok_or_else(|| format!("expected {expected}"))
}
