//! What a model is: its parts, its size, what it was trained on, in rows and in a sentence.

use super::words::{count, list};
use super::{Row, Training, row};
use crate::model::{GptConfig, Positions};
use crate::train::pictures::Painter;
use crate::train::pictures::{gan::GanObjective, vae::VaeObjective, vqvae::VqVaeObjective};
use crate::train::recipe::{ModelKind, Recipe};
use crate::train::tune::{Method, TuneRecipe};
use crate::train::{Account, AnyRecipe};
use std::path::Path;

/// A model as it is described.
pub(super) struct Made {
    /// What it is, as the start of a sentence, without its size.
    pub kind: String,
    /// Elements of all parameters, and those that are trained.
    pub parameters: Option<u64>,
    pub trained: Option<u64>,
    /// Its parts.
    pub parts: Vec<Row>,
    /// Whether it is a language model.
    pub writes: bool,
}

/// What a run trains; `vocab` are its token ids.
pub(super) fn of_run(recipe: &AnyRecipe, vocab: Option<usize>, account: Option<&Account>) -> Made {
    let planned = account.map(|account| (account.planned.parameters as u64, account.planned.trained as u64));
    let (mut parameters, trained) = (planned.map(|p| p.0), planned.map(|p| p.1));
    let train = recipe.train();
    let (kind, mut parts, writes) = match recipe {
        AnyRecipe::Text(recipe) => {
            let config = recipe.model.config(vocab.unwrap_or(recipe.data.vocab), train.context);
            if config.parameters().is_finite() {
                parameters = parameters.or(vocab.map(|_| config.parameters() as u64));
            }
            (format!("A language model of {} kind", like(&config)), gpt(&config), true)
        }
        AnyRecipe::Tune(recipe) | AnyRecipe::Prefer(recipe) | AnyRecipe::Reinforce(recipe) => {
            (tuned(recipe), adapters(recipe), true)
        }
        AnyRecipe::Vae(_) => (<VaeObjective as Painter>::WHAT.to_owned(), Vec::new(), false),
        AnyRecipe::VqVae(_) => (<VqVaeObjective as Painter>::WHAT.to_owned(), Vec::new(), false),
        AnyRecipe::Gan(_) => (<GanObjective as Painter>::WHAT.to_owned(), Vec::new(), false),
    };
    parts.push(row("computed in", train.precision.name()));
    Made { kind, parameters, trained, parts, writes }
}

/// A model from elsewhere.
pub(super) fn of_config(config: &GptConfig) -> Made {
    let kind = format!("A language model of {} kind", like(config));
    Made { kind, parameters: Some(config.parameters() as u64), trained: None, parts: gpt(config), writes: true }
}

fn like(config: &GptConfig) -> &'static str {
    if config.positions == Positions::Learned { "GPT-2's" } else { "Llama's" }
}

fn gpt(config: &GptConfig) -> Vec<Row> {
    let heads = match config.heads == config.kv_heads {
        true => config.heads.to_string(),
        false => format!("{}, {} of keys and values", config.heads, config.kv_heads),
    };
    vec![
        row("layers", config.layers),
        row("width", config.d),
        row("attention heads", heads),
        row("width inside an MLP", config.hidden),
        row("longest sequence, in tokens", count(config.context as u64)),
        row("token ids", count(config.vocab as u64)),
        row("head tied to the embedding", if config.tied { "yes" } else { "no" }),
    ]
}

fn tuned(recipe: &TuneRecipe) -> String {
    let model = &recipe.model;
    let base = model.base.as_deref().map_or("a model".to_owned(), |base| base.display().to_string());
    match model.method {
        Method::Lora => format!("{base} with LoRA adapters of rank {}", model.rank),
        Method::Dora => format!("{base} with DoRA adapters of rank {}", model.rank),
        Method::Full if model.fresh => format!("The architecture of {base} with fresh weights"),
        Method::Full => format!("{base} with all its weights tuned"),
    }
}

fn adapters(recipe: &TuneRecipe) -> Vec<Row> {
    let model = &recipe.model;
    let base = model.base.as_deref().map_or("unknown".to_owned(), |base| base.display().to_string());
    let mut rows = vec![row("base", base)];
    if model.method != Method::Full {
        rows.extend([row("rank", model.rank), row("alpha", model.alpha), row("on", list(&model.targets, 8))]);
    }
    rows
}

/// What a run reads, in words.
pub(super) fn reads(recipe: &AnyRecipe) -> String {
    let named = |paths: &Option<Vec<std::path::PathBuf>>, own: String| match paths {
        None => own,
        Some(paths) => {
            let names: Vec<String> = paths.iter().map(|path| name(path)).collect();
            list(&names, 3)
        }
    };
    match recipe {
        AnyRecipe::Text(recipe) => named(&recipe.data.path, village(recipe)),
        AnyRecipe::Tune(recipe) | AnyRecipe::Prefer(recipe) | AnyRecipe::Reinforce(recipe) => {
            let own = named(&recipe.data.path, "nothing".to_owned());
            match &recipe.data.replay {
                None => own,
                replay => format!("{own}, beside general text ({})", named(replay, String::new())),
            }
        }
        other => match other.pictures() {
            Some(data) => named(&data.path, format!("the built-in world of shapes (seed {})", data.seed)),
            None => String::new(),
        },
    }
}

fn village(recipe: &Recipe) -> String {
    format!("stories of the built-in village (seed {})", recipe.data.seed)
}

/// Whether a run reads of the built-in village, itself or through what it is tuned from.
pub(super) fn of_village(recipe: &AnyRecipe) -> bool {
    match recipe {
        AnyRecipe::Text(recipe) => recipe.data.path.is_none(),
        AnyRecipe::Tune(recipe) | AnyRecipe::Prefer(recipe) | AnyRecipe::Reinforce(recipe) => {
            recipe.model.base.as_deref().is_some_and(base_of_village)
        }
        _ => false,
    }
}

fn base_of_village(base: &Path) -> bool {
    // A run, or one of its checkpoints.
    let runs = [Some(base), base.parent().and_then(Path::parent)];
    let recipes = runs.into_iter().flatten().filter(|run| run.join("recipe.toml").is_file());
    recipes.take(1).any(|run| match AnyRecipe::of_run(run, &[]) {
        Ok(AnyRecipe::Text(recipe)) => recipe.data.path.is_none(),
        _ => false,
    })
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// What it is and how it came about, in a sentence or two.
pub(super) fn sentence(made: &Made, training: Option<&Training>) -> String {
    let size = match (made.parameters, made.trained) {
        (Some(all), Some(trained)) if trained < all => {
            format!(" with {} parameters, of which {} are trained", count(all), count(trained))
        }
        (Some(all), _) => format!(" with {} parameters", count(all)),
        (None, _) => String::new(),
    };
    let kind = &made.kind;
    let Some(training) = training else {
        return format!("{kind}{size}. What it was trained on is not known here.");
    };
    let Training { seen, unit, reads, step, steps, status, when, .. } = training;
    let how_long = if step < steps {
        format!("{} of {} steps", count(*step), count(*steps))
    } else {
        format!("{} steps", count(*steps))
    };
    let when = match (*status, when) {
        ("running", _) => "; it is under way".to_owned(),
        (_, Some(when)) => format!("; the last step was on {when}"),
        _ => String::new(),
    };
    format!("{kind}{size}, trained on {} {unit} of {reads} in {how_long}{when}.", count(*seen))
}

/// What of a recipe's kind a tag says.
pub(super) fn tags(recipe: &AnyRecipe) -> Vec<&'static str> {
    match recipe {
        AnyRecipe::Text(recipe) => vec![
            "text-generation",
            match recipe.model.kind {
                ModelKind::Gpt2 => "gpt2",
                ModelKind::Llama => "llama",
            },
        ],
        AnyRecipe::Tune(recipe) | AnyRecipe::Prefer(recipe) | AnyRecipe::Reinforce(recipe) => match recipe.model.method
        {
            Method::Full => vec!["text-generation", "fine-tuned"],
            Method::Lora | Method::Dora => vec!["text-generation", "lora", "peft"],
        },
        AnyRecipe::Vae(_) => vec!["unconditional-image-generation", "vae"],
        AnyRecipe::VqVae(_) => vec!["unconditional-image-generation", "vq-vae"],
        AnyRecipe::Gan(_) => vec!["unconditional-image-generation", "gan"],
    }
}
