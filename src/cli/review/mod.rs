//! `kiln review`.

mod make;
mod terminal;

use super::serve::listen;
use super::term::{note, print, quote, safe};
use super::{Global, Weights};
use clap::Args;
use kiln::error::{Error, Result};
use kiln::review::server::{MAX_BODY, OPEN};
use kiln::review::{self, Review, Server, Summary};
use kiln::serve::guard::random_token;
use kiln::serve::{Door, Guard};
use kiln::train::signal;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Let people judge what models make: two side by side, blind, or one on a scale
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln review runs/village runs/tuned                   questions about the built-in village
  kiln review old new --prompts prompts.jsonl --chat    yours, as a user's turns
  kiln review runs/tuned --each 2                       one model, 1 to 5, two answers to each prompt
  kiln review --answers pairs.jsonl                     lines of prompt, a and b; no model is asked
  kiln review pictures-a pictures-b                     two folders of .png, or two runs that draw
  kiln review runs/review                               goes on where it was
  kiln review runs/review --json                        what has come out so far

Keys: 1 2 the first, the second is better; 0 as good; b both bad (of one: 1 to 5); n a note; u undo")]
pub struct ReviewArgs {
    /// One or two models, runs that draw, or folders of .png; or the folder of a review
    #[arg(value_name = "MODEL", num_args = 0..=2)]
    models: Vec<PathBuf>,
    /// Prompts: lines of JSON with prompt (a text or messages) or messages; or plain lines [default: about the village]
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Ready answers: lines of JSON with prompt, a and b, or prompt and a
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["prompts", "models"])]
    answers: Option<PathBuf>,
    /// Pairs of which one is better beyond doubt, to test reviewers: lines of JSON with prompt, a, b and gold
    #[arg(long, value_name = "FILE.jsonl")]
    gold: Option<PathBuf>,
    /// The share of these among all that is shown
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = gold_share)]
    gold_share: f64,
    /// Prompts at most [default: 50; of ready answers and pictures all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    num: Option<u32>,
    /// Answers of one model to each prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    each: u32,
    /// Prompts that are texts are what a user says
    #[arg(long, requires = "prompts")]
    chat: bool,
    /// How conversations become text: a file with a template, or chatml [default: each model's own]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Below 1 safer, above 1 wilder; 0: always the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.7, allow_negative_numbers = true, value_parser = super::sample::temperature)]
    temperature: f32,
    /// Choose among the likeliest tokens that have probability P together
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true, value_parser = super::sample::probability)]
    top_p: f32,
    /// Of answers, of their order, and of who is on the left
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How the weights are held: f32, bf16, q8 or q4
    #[arg(long, value_name = "TYPE", default_value = "f32", hide_possible_values = true)]
    weights: Weights,
    /// Where the review is kept
    #[arg(long, value_name = "DIR", default_value = "runs/review")]
    out: PathBuf,
    /// Port on 127.0.0.1; 0: any that is free
    #[arg(long, value_name = "N", default_value_t = 8090)]
    port: u16,
    /// Answer whoever asks on this machine [default: only who knows the token, which is KILN_TOKEN or random]
    #[arg(long)]
    no_token: bool,
    /// Who judges [default: the page asks]
    #[arg(long, value_name = "NAME", value_parser = reviewer)]
    reviewer: Option<String>,
    /// Judge in the terminal: a key and Enter, and behind the key a note
    #[arg(long, conflicts_with = "summary")]
    terminal: bool,
    /// What has come out so far
    #[arg(long)]
    summary: bool,
}

fn gold_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=0.9).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 0.9".into())
}

fn reviewer(text: &str) -> Result<String, String> {
    Review::reviewer(text).map(str::to_owned).map_err(|e| e.to_string())
}

/// Runs `kiln review` and gives the exit code.
pub fn run(args: &ReviewArgs, global: &Global) -> Result<u8> {
    let begun = match &args.models[..] {
        [dir] if review::is_at(dir) => Some(dir.as_path()),
        _ => None,
    };
    if args.summary || (begun.is_some() && global.json && !args.terminal) {
        let dir = begun.unwrap_or(&args.out);
        if !review::is_at(dir) {
            let hint = "begin one: kiln review MODEL_A MODEL_B";
            return Err(Error::usage(format!("{} is no review", dir.display()), hint));
        }
        return tell(&Review::look(dir)?, dir, global).map(|()| 0);
    }
    signal::install()?;
    let dir = begun.unwrap_or(&args.out);
    // Before models are asked.
    let listener = if args.terminal { None } else { Some(listen(args.port)?) };
    if begun.is_none() {
        make::make(args, dir, global)?;
    }
    let review = Review::open(dir)?;
    review.write_preferences()?;
    let summary = match listener {
        None => terminal::judge(review, args.reviewer.as_deref(), global)?,
        Some(listener) => serve(review, listener, args, dir, global)?,
    };
    tell(&summary, dir, global)?;
    Ok(signal::caught().map_or(0, signal::exit_code))
}

/// Shows the page until a signal ends it.
fn serve(
    review: Review,
    (address, listener): (std::net::SocketAddr, std::net::TcpListener),
    args: &ReviewArgs,
    dir: &Path,
    global: &Global,
) -> Result<Summary> {
    let token = (!args.no_token).then(|| match std::env::var("KILN_TOKEN") {
        Ok(token) if !token.is_empty() => token,
        _ => random_token(),
    });
    let door = Door {
        guard: Guard::new(address, token.clone()),
        open: OPEN,
        max_body: MAX_BODY,
        connections: 64,
        patience: Duration::from_secs(30),
    };
    let url = format!("http://{address}/");
    let who = args.reviewer.as_deref().map_or(String::new(), |name| format!("?reviewer={}", percent(name)));
    let page = format!("{url}{who}{}", token.as_ref().map_or(String::new(), |token| format!("#token={token}")));
    if global.json {
        print(&json!({"url": url, "token": token, "page": page, "review": dir.to_string_lossy()}).to_string())?;
    } else {
        print(&format!("page   {page}"))?;
        print(&format!("saved  {}", quote(&dir.join("judgements.jsonl"))))?;
        note("Each reviewer gives a name of their own. Ctrl-C ends it and tells what came out");
    }
    signal::save_first();
    let server = Arc::new(Server::new(door, review));
    server.run(listener, || signal::caught().is_some())?;
    Ok(server.summary())
}

/// A name in an address.
fn percent(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    name.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Prints what has come out.
fn tell(summary: &Summary, dir: &Path, global: &Global) -> Result<()> {
    if global.json {
        return print(&json!(summary).to_string());
    }
    for sentence in &summary.sentences {
        print(&safe(sentence))?;
    }
    let pairs = dir.join(review::preferences::FILE);
    if pairs.exists() {
        print(&format!("\npairs  {} (prompt, chosen, rejected)", quote(&pairs)))?;
    }
    print(&format!("next   kiln review {}", quote(dir)))
}
