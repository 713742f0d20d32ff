//! `kiln data takedown`: documents out of a data set, and who has seen them.

use crate::cli::term::{print, quote, safe, thousands};
use clap::Args;
use kiln::data::takedown::{Place, RECORD_FILE, find, records, take_down};
use kiln::error::{Error, Result};
use kiln::serve::journal;
use kiln::train::seen::{Seen, Verdict, runs, seen};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Take documents out of a data set, and say which shards and checkpoints saw them
///
/// Shards are written anew without the documents' tokens. Checkpoints that were trained on them are named, and left as they are.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln data takedown wiki-2731 --data data/wiki --runs runs/ --dry-run
  kiln data takedown chatcmpl-4f0c2d --data requests/
  kiln data takedown books/a.txt:1 books/b.txt:1 --data data/books --runs runs/")]
pub struct TakedownArgs {
    /// Names of documents: their id, or FILE:LINE where they have none; of requests: the id that their answer had
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// The data set's folder, or a folder of requests that kiln serve wrote down (--log)
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A folder of runs, or one run, to be asked what its checkpoints were trained on
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Only say where the documents are
    #[arg(long)]
    dry_run: bool,
}

/// Takes requests out of a server's journal.
fn requests(args: &TakedownArgs, json: bool) -> Result<()> {
    let taken = journal::take_down(&args.data, &args.ids, args.dry_run)?;
    if taken == 0 {
        let hint = "an answer carries the id of its request; files older than --keep-days are gone";
        return Err(Error::usage(format!("{}: no request has this id", args.data.display()), hint));
    }
    if json {
        let object = json!({"data": args.data, "requests": taken, "dry_run": args.dry_run});
        return print(&object.to_string());
    }
    let done = if args.dry_run { "would be taken out" } else { "taken out" };
    print(&format!("{taken} requests {done} of {}", quote(&args.data)))
}

/// Runs `kiln data takedown`.
pub fn run(args: &TakedownArgs, json: bool) -> Result<()> {
    if journal::is_journal(&args.data) {
        return requests(args, json);
    }
    let places = find(&args.data, &args.ids)?;
    let gone: BTreeSet<String> =
        records(&args.data)?.into_iter().flat_map(|record| record.places).map(|place| place.document).collect();
    let found = |id: &String| places.iter().any(|place| place.document == *id);
    let already: Vec<&String> = args.ids.iter().filter(|id| !found(id) && gone.contains(*id)).collect();
    if let Some(id) = args.ids.iter().find(|id| !found(id) && !gone.contains(*id)) {
        let hint =
            "names are ids, or FILE:LINE as the text was named when shards were made; kiln data inspect shows some";
        return Err(Error::usage(format!("{}: no document is called {id:?}", args.data.display()), hint));
    }
    // Before the places change.
    let mut checkpoints: Vec<Seen> = Vec::new();
    for run in args.runs.iter().map(|path| runs(path)).collect::<Result<Vec<_>>>()?.concat() {
        checkpoints.extend(seen(&run, &args.ids)?);
    }
    let record = if args.dry_run || places.is_empty() { None } else { Some(take_down(&args.data, &places)?) };
    if json {
        let of = |seen: &Seen| {
            let (verdict, first, why) = match &seen.verdict {
                Verdict::Seen(documents) => ("seen", Some(documents), None),
                Verdict::Unseen => ("unseen", None, None),
                Verdict::Unknown(why) => ("unknown", None, Some(why)),
            };
            json!({"checkpoint": seen.checkpoint, "step": seen.step, "verdict": verdict, "first_steps": first, "why": why})
        };
        let object = json!({"data": args.data, "places": places, "already_gone": already, "dry_run": args.dry_run,
            "checkpoints": checkpoints.iter().map(of).collect::<Vec<Value>>(),
            "dataset_after": record.map(|record| record.after)});
        return print(&object.to_string());
    }
    let mut text = String::new();
    for Place { document, part, shard, tokens, .. } in &places {
        let at = thousands(tokens.start as u64);
        text +=
            &format!("{}  {part}  {shard}, {} tokens from {at} on\n", safe(document), thousands(tokens.len() as u64));
    }
    for id in already {
        text += &format!("{}  was taken out before\n", safe(id));
    }
    for Seen { checkpoint, step, verdict } in &checkpoints {
        let verdict = match verdict {
            Verdict::Seen(documents) => {
                let one = |(name, first): (&String, &u64)| format!("{} from step {first} on", safe(name));
                format!("trained on {}", documents.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Verdict::Unseen => "not trained on any".to_owned(),
            Verdict::Unknown(why) => format!("cannot be told: {why}"),
        };
        text += &format!("{} ({step} steps)  {verdict}\n", checkpoint.display());
    }
    if args.runs.is_some() && checkpoints.is_empty() {
        text += "no checkpoint of these runs is of a data set that holds or held any\n";
    }
    let trained = checkpoints.iter().any(|seen| matches!(seen.verdict, Verdict::Seen(_)));
    text += match &record {
        Some(_) => "taken out; on record in ",
        None if places.is_empty() => "nothing to do; on record in ",
        None => "nothing was changed; without --dry-run it will be on record in ",
    };
    text += &format!("{}\n", args.data.join(RECORD_FILE).display());
    if trained {
        text += "what a model has learnt stays in its weights: remove those checkpoints, and train again\n";
    }
    print(&format!("{text}\nnext: kiln data inspect {}", quote(&args.data)))
}
