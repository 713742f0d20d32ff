//! `kiln serve`.

use super::term::{note, print, quote, warn};
use super::{Global, Loading};
use clap::Args;
use kiln::data::chat::ChatTemplate;
use kiln::error::{Error, Result};
use kiln::infer::schema::Schemas;
use kiln::infer::{Engine, Limits};
use kiln::serve::guard::random_token;
use kiln::serve::{Door, Guard, Journal, OPEN, Server};
use kiln::train::{Sampler, signal};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Answer programs that speak OpenAI's protocol, and people on a chat page, on this machine
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln serve SmolLM2-135M-Instruct.gguf
  kiln serve runs/village --port 0 --no-token
  kiln serve smollm2 --weights q8 --feedback thumbs.jsonl
  curl http://127.0.0.1:8080/v1/chat/completions -H \"Authorization: Bearer $TOKEN\" \\
       -H 'Content-Type: application/json' -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'")]
pub struct ServeArgs {
    /// A run, a checkpoint, a Hugging Face directory or a GGUF file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Port on 127.0.0.1; 0: any that is free
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    #[command(flatten)]
    loading: Loading,
    /// Texts that are written side by side
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Texts that wait; more are refused (429)
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    queue: u16,
    /// Mebibytes for what is kept of texts that are and were written
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    cache: u32,
    /// Tokens of an answer at most [default: what the context holds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Kibibytes of a request at most
    #[arg(long, value_name = "KIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_body: u32,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=8192))]
    connections: u16,
    /// Seconds that a client may take to send a request, or to read the next part of an answer
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3600))]
    patience: u16,
    /// Answer whoever asks on this machine [default: only who knows the token, which is KILN_TOKEN or random]
    #[arg(long)]
    no_token: bool,
    /// How conversations become text: a file with a template, or chatml [default: the model's own]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Keep thumbs for answers in this file
    #[arg(long, value_name = "FILE.jsonl")]
    feedback: Option<PathBuf>,
    /// Write requests down in this folder, personal data masked [default: they are not written down]
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Days that requests are kept
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650), requires = "log")]
    keep_days: u16,
}

/// The template that `--template` names, or the model's own.
pub fn template(named: Option<&Path>, sampler: &Sampler) -> Result<Option<ChatTemplate>> {
    match named {
        Some(name) => ChatTemplate::named(name, sampler.tokenizer()).map(Some),
        None => ChatTemplate::of(sampler.tokenizer()),
    }
}

/// The model's name: its file's or its folder's.
fn name(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = if path.is_file() { path.file_stem() } else { path.file_name() };
    name.map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

/// A port on 127.0.0.1; 0: any that is free.
pub fn listen(port: u16) -> Result<(SocketAddr, TcpListener)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    listener.map_err(|e| {
        let hint = "another program may have the port: choose another with --port, or 0 for any that is free";
        Error::failed(format!("port {port}: {e}"), hint)
    })
}

/// Runs `kiln serve`: until SIGINT or SIGTERM.
pub fn run(args: ServeArgs, global: &Global) -> Result<u8> {
    let device = global.host()?;
    signal::install()?;
    // Before the model is read.
    let (address, listener) = listen(args.port)?;
    let journal = Journal::open(args.log, args.keep_days.into(), args.feedback)?;
    let sampler = args.loading.open(&args.model, &device)?;
    for damage in sampler.damaged() {
        warn(&format!("{damage}; an older checkpoint answers"));
    }
    let template = template(args.template.as_deref(), &sampler)?;
    if template.is_none() {
        warn("this model has no chat template, so it answers /v1/completions only; --template chatml gives it one");
    }
    let token = (!args.no_token).then(|| match std::env::var("KILN_TOKEN") {
        Ok(token) if !token.is_empty() => token,
        _ => random_token(),
    });
    let limits = Limits { lanes: args.parallel.into(), waiting: args.queue.into(), cache: (args.cache as usize) << 20 };
    let (gpt, params, tokenizer) = sampler.into_parts();
    let vocab = gpt.config().vocab;
    let engine = Engine::start(gpt, params, &device, tokenizer, limits);
    let server = Server {
        schemas: Schemas::new(engine.tokenizer().clone(), vocab),
        engine,
        name: name(&args.model),
        template,
        door: Arc::new(Door {
            guard: Guard::new(address, token.clone()),
            open: OPEN,
            max_body: (args.max_body as usize) << 10,
            connections: args.connections.into(),
            patience: Duration::from_secs(args.patience.into()),
        }),
        max_tokens: args.max_tokens.map_or(usize::MAX, |n| n as usize),
        journal,
    };
    let url = format!("http://{address}");
    let page = token.as_ref().map_or_else(|| format!("{url}/"), |token| format!("{url}/#token={token}"));
    if global.json {
        print(&json!({"url": url, "token": token, "model": server.name}).to_string())?;
    } else {
        print(&format!("model  {} ({})", server.name, quote(&args.model)))?;
        print(&format!("page   {page}"))?;
        print(&format!("api    {url}/v1  (key {})", token.as_deref().unwrap_or("none needed")))?;
        note("Ctrl-C ends it");
    }
    signal::save_first();
    server.run(listener, || signal::caught().is_some())?;
    Ok(signal::caught().map_or(0, signal::exit_code))
}
