//! What is judged: read from files, or asked of models.

use super::super::serve::template;
use super::super::term::{Progress, note, quote, warn};
use super::{Global, ReviewArgs};
use kiln::data::images::Grid;
use kiln::device::Device;
use kiln::disk::{self, Os};
use kiln::error::{Error, Result};
use kiln::infer::{Engine, Limits};
use kiln::model::sample::SampleOptions;
use kiln::review::answers::Answers;
use kiln::review::item::{self, is_of_pictures, of_pictures, of_world};
use kiln::review::{self, Answer, Item, Plan, Prompt, Question, Side};
use kiln::train::Sampler;
use kiln::train::pictures::sampler::{PictureSampler, draws};
use kiln::train::sampler::foreign;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Bytes for keys and values of what is being written, and texts that are written side by side.
const CACHE: usize = 1 << 30;
const LANES: usize = 8;
/// Prompts that models get by default.
const PROMPTS: usize = 50;

/// What models are.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Writes,
    Draws,
    Pictures,
}

fn kind(path: &Path) -> Result<Kind> {
    if path.is_dir() && is_of_pictures(path) {
        return Ok(Kind::Pictures);
    }
    Ok(if !foreign(path) && draws(path)? { Kind::Draws } else { Kind::Writes })
}

/// Makes sure that the folder `dir` has what is to be judged, of the review that `args` asks for.
pub fn make(args: &ReviewArgs, dir: &Path, global: &Global) -> Result<()> {
    let kinds = args.models.iter().map(|path| kind(path)).collect::<Result<Vec<Kind>>>()?;
    check(args, &kinds)?;
    let plan = plan(args, &kinds)?;
    let gold = match &args.gold {
        None => Vec::new(),
        Some(path) => {
            let all = item::answers(path)?;
            if all.iter().any(|item| item.gold.is_none()) {
                let hint =
                    "each line says which answer is better: {\"prompt\": …, \"a\": …, \"b\": …, \"gold\": \"a\"}";
                return Err(Error::format(path, "content", "gold on each line", "a line without it", hint));
            }
            all
        }
    };
    // Read before the folder is made: a file that cannot be used leaves none behind.
    let given = match (&args.answers, &args.prompts) {
        (Some(path), _) => Given::Items(item::answers(path)?),
        (_, Some(path)) => Given::Questions(item::prompts(path, args.chat)?),
        _ if kinds[0] == Kind::Pictures => {
            Given::Items(of_pictures(&args.models[0], args.models.get(1).map(|p| &**p))?)
        }
        _ if kinds[0] == Kind::Draws => Given::Questions(Vec::new()),
        _ => Given::Questions(of_world(args.seed, prompts(args))),
    };
    if review::found(dir, &plan)?.is_some() {
        return Ok(());
    }
    let device = global.host()?;
    let items = match given {
        Given::Items(items) => items,
        Given::Questions(_) if kinds[0] == Kind::Draws => drawn(args, dir, &device)?,
        Given::Questions(questions) => asked(args, dir, &plan, questions, &device)?,
    };
    let (own, mut items): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| item.gold.is_some());
    items.truncate(args.num.map_or(usize::MAX, |num| num as usize * args.each as usize));
    if items.is_empty() {
        return Err(Error::usage("all answers are gold: nothing is left to judge", "give some without the field gold"));
    }
    let gold = [own, gold].concat();
    if !gold.is_empty() && items[0].b.is_none() {
        return Err(Error::usage(
            "gold items test who compares two answers, and here one is rated",
            "leave --gold out",
        ));
    }
    let wanted = (args.gold_share / (1.0 - args.gold_share) * items.len() as f64).round() as usize;
    if !gold.is_empty() && gold.len() < wanted {
        warn(&format!("there are {} gold items, and {} of all would be {wanted}", gold.len(), args.gold_share));
    }
    let items = item::mixed(items, gold, args.gold_share, args.seed);
    let same = items.iter().filter(|item| item.is_same()).count();
    if same > 0 {
        note(&format!("{same} pairs are word for word the same: they count as ties, and nobody is asked"));
    }
    review::keep(dir, &plan, &items)
}

/// How many prompts models get, at most.
fn prompts(args: &ReviewArgs) -> usize {
    args.num.map_or(PROMPTS, |num| num as usize)
}

/// What there is before models are asked.
enum Given {
    Items(Vec<Item>),
    Questions(Vec<Question>),
}

/// Whether flags and models fit one another.
fn check(args: &ReviewArgs, kinds: &[Kind]) -> Result<()> {
    let wrong = |problem: &str, hint: &str| Err(Error::usage(problem, hint));
    match kinds {
        [] if args.answers.is_none() => {
            wrong("there is nothing to judge", "name one or two models, a review's folder, or --answers FILE")
        }
        [a, b] if a != b => wrong("one of the two writes and the other draws", "compare models of one kind"),
        [_, _] if args.each > 1 => wrong("--each is for one model", "leave it out, or name one model"),
        [Kind::Draws | Kind::Pictures, ..] if args.prompts.is_some() || args.gold.is_some() => {
            wrong("pictures are judged without prompts and gold", "leave --prompts and --gold out")
        }
        [Kind::Draws | Kind::Pictures, ..] if args.each > 1 => wrong("--each is for texts", "leave it out"),
        [] if args.each > 1 => wrong("--each asks a model, and --answers has its answers", "leave it out"),
        [Kind::Draws | Kind::Pictures, ..] if args.terminal => {
            wrong("a terminal shows no pictures", "leave --terminal out")
        }
        _ => Ok(()),
    }
}

fn plan(args: &ReviewArgs, kinds: &[Kind]) -> Result<Plan> {
    let files = [&args.prompts, &args.answers, &args.gold];
    let hash = |path: &PathBuf| {
        let bytes = disk::read(&Os, path)?;
        Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    };
    let from = match (&args.answers, &args.prompts, kinds.first()) {
        (Some(path), ..) | (_, Some(path), _) => path.to_string_lossy().into_owned(),
        (.., Some(Kind::Writes)) => "the built-in world".into(),
        _ => "pictures".into(),
    };
    let ReviewArgs { chat, tokens, temperature, top_p, num, each, gold_share, seed, .. } = *args;
    let asked = match kinds.first() {
        Some(Kind::Writes) => {
            json!({"chat": chat, "template": args.template, "tokens": tokens, "temperature": temperature,
            "top_p": top_p, "weights": format!("{:?}", args.weights).to_lowercase()})
        }
        _ => json!(null),
    };
    let models = match &args.models[..] {
        [] => vec!["A".into(), "B".into()],
        models => models.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
    };
    Ok(Plan {
        models,
        from,
        files: files.into_iter().flatten().map(hash).collect::<Result<_>>()?,
        num: num.map_or(0, |num| num as usize),
        each: each as usize,
        gold_share,
        seed,
        asked,
    })
}

/// Lets the models answer, one after the other.
fn asked(
    args: &ReviewArgs,
    dir: &Path,
    plan: &Plan,
    mut questions: Vec<Question>,
    device: &Device,
) -> Result<Vec<Item>> {
    questions.truncate(prompts(args));
    let (each, count) = (args.each as usize, questions.len() * args.each as usize);
    let mut answers = Answers::open(dir, plan)?;
    let sides = || [Side::A, Side::B].into_iter().zip(&args.models);
    for (side, path) in sides().filter(|(side, _)| answers.lack(*side, count)).collect::<Vec<_>>() {
        note(&format!("{} answers {count} times", quote(path)));
        let sampler = Sampler::open(path, &[], args.weights.hold(), device)?;
        for damage in sampler.damaged() {
            warn(&format!("{damage}; an older checkpoint answers"));
        }
        let template = template(args.template.as_deref(), &sampler)?;
        let plain = questions.iter().all(|question| matches!(question.prompt, Prompt::Text(_)));
        if template.is_some() && plain && args.prompts.is_some() {
            note("prompts are texts, which it goes on with; --chat asks them as a user's turns");
        }
        let (gpt, params, tokenizer) = sampler.into_parts();
        let limits = Limits { lanes: LANES, waiting: count.max(1), cache: CACHE };
        let engine = Engine::start(gpt, params, device, tokenizer, limits);
        let options = SampleOptions {
            tokens: args.tokens as usize,
            temperature: args.temperature,
            top_k: 0,
            top_p: args.top_p,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: args.seed,
        };
        let progress = Progress::count("answers", count as u64);
        let mut told = |done: usize, _: usize| progress.set(done as u64);
        answers.ask(side, &questions, each, &engine, template.as_ref(), &options, &mut told)?;
    }
    let mut texts = sides().map(|(side, _)| answers.take(side, count)).collect::<Vec<_>>().into_iter();
    let (a, b) = (texts.next().unwrap_or_default(), texts.next());
    let mut b = b.map(Vec::into_iter);
    let item = |(i, a): (usize, String)| {
        let Question { prompt, reference } = questions[i / each].clone();
        let b = b.as_mut().and_then(Iterator::next).map(Answer::Text);
        Item { prompt, reference, a: Answer::Text(a), b, gold: None }
    };
    Ok(a.into_iter().enumerate().map(item).collect())
}

/// Lets models draw: pictures of the same latent numbers beside one another, where they have as many.
fn drawn(args: &ReviewArgs, dir: &Path, device: &Device) -> Result<Vec<Item>> {
    let mut files: Vec<Vec<PathBuf>> = Vec::new();
    for (name, path) in ["pictures-a", "pictures-b"].iter().zip(&args.models) {
        let folder = dir.join(name);
        disk::make_dirs(&Os, &folder)?;
        let mut sampler = PictureSampler::open(path, args.weights.hold(), device)?;
        for damage in sampler.damaged() {
            warn(&format!("{damage}; an older checkpoint draws"));
        }
        let dims = sampler.dims();
        let grid = Grid { columns: 1, gap: 0, scale: 1 };
        let mut of = Vec::new();
        for (i, picture) in sampler.pictures(prompts(args), args.seed).chunks_exact(dims.values()).enumerate() {
            let file = folder.join(format!("{:05}.png", i + 1));
            grid.draw(picture, dims).save(&Os, &file)?;
            of.push(file);
        }
        files.push(of);
    }
    let picture = |file: &PathBuf| Answer::Picture { picture: file.clone() };
    let item = |i: usize| Item {
        prompt: Prompt::Text(String::new()),
        reference: None,
        a: picture(&files[0][i]),
        b: files.get(1).map(|of| picture(&of[i])),
        gold: None,
    };
    Ok((0..prompts(args)).map(item).collect())
}
