use super::*;
use crate::train::schedule::Shape;
use toml::Table;

fn load(text: &str, overrides: &[&str]) -> Result<Recipe> {
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    let recipe = TEXT.parse::<Recipe>(text, Path::new("my.toml"), &overrides)?;
    recipe.validate()?;
    Ok(recipe)
}

/// The message and the hint of the error of loading.
#[track_caller]
fn error(text: &str, overrides: &[&str]) -> (String, String) {
    let e = load(text, overrides).expect_err("this recipe is wrong");
    (e.to_string(), e.hint().unwrap_or_default().to_owned())
}

fn full() -> Recipe {
    let mut recipe = Recipe::default();
    recipe.model = Model {
        mup: true,
        base_d: Some(32),
        hidden: Some(320),
        bias: Some(true),
        tied: Some(true),
        activation: Some(Activation::Gelu),
        kv_heads: Some(2),
        rope_theta: Some(5e5),
        rope_scaling: Some(RopeScaling::Linear { factor: 2.5 }),
        ..recipe.model
    };
    recipe.data.path = Some(vec!["a.txt".into(), "b".into()]);
    recipe.optim.muon_lr = Some(0.02);
    recipe.optim.dp =
        Some(Dp { clip: 1.0, noise: None, epsilon: Some(8.0), delta: None, reproducible: false, diagnostics: false });
    recipe.eval.max_batches = Some(7);
    recipe
}

#[test]
fn the_default_is_valid_and_names_every_key_but_the_optional_ones() {
    assert_eq!(load("", &[]).unwrap(), Recipe::default());
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    let table: Table = full().to_toml().parse().unwrap();
    let all = table.iter().flat_map(|(s, t)| t.as_table().unwrap().keys().map(move |k| format!("{s}.{k}")));
    assert_eq!(sorted(all.collect()), sorted(TEXT.keys()));
}

#[test]
fn a_saved_recipe_reads_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    let awkward = load("", &["optim.lr=0.1", "optim.eps=1e-30", "model.dropout=0.1", "data.tokenizer=t.json"]);
    let gpt2 = load("", &["model.hidden=320", "model.bias=false", "model.tied=false", "model.activation=gelu"]);
    let llama =
        ["model.kind=llama", "model.kv_heads=2", "model.rope_theta=5e5", "optim.kind=muon", "optim.muon_lr=0.02"];
    let scaled = [&llama[..], &["model.rope_scaling={rope_type=\"linear\", factor=2.5}"]].concat();
    let bf16 = load("", &["train.precision=bf16"]).unwrap();
    assert!(bf16.to_toml().contains("precision = \"bf16\""));
    for recipe in [Recipe::default(), gpt2.unwrap(), load("", &scaled).unwrap(), awkward.unwrap(), bf16] {
        recipe.save(&crate::disk::Os, &path).unwrap();
        assert_eq!(Recipe::load(Some(&path), &[]).unwrap(), recipe);
    }
}

#[test]
fn the_shakespeare_recipe_reads() {
    let text = include_str!("../../../data/recipes/shakespeare-char-cpu.toml");
    let recipe = load(text, &[]).unwrap();
    assert_eq!((recipe.train.steps, recipe.optim.beta2, recipe.model.bias), (2000, 0.99, Some(false)));
    assert_eq!((recipe.data.tokenizer, recipe.data.split), (TokenizerChoice::Char, SplitRule::Tail));
}

#[test]
fn overrides_win_over_the_file_which_wins_over_the_default() {
    let text = "[train]\nsteps = 7\nbatch = 3\n";
    let recipe = load(text, &["train.steps=9", "run.name=2025", "data.path=a b.txt", "optim.schedule=wsd"]).unwrap();
    assert_eq!((recipe.train.steps, recipe.train.batch, recipe.train.context), (9, 3, 128));
    assert_eq!((recipe.run.name.as_str(), recipe.optim.schedule), ("2025", Shape::Wsd));
    assert_eq!(recipe.data.path, Some(vec!["a b.txt".into()]));
    let recipe = load("", &["data.path=[\"a\", \"b\"]", "train.steps = 4", "optim.lr=1"]).unwrap();
    assert_eq!((recipe.data.path.unwrap().len(), recipe.train.steps, recipe.optim.lr), (2, 4, 1.0));
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    let (message, hint) = error("[train]\nbatch = 3\nstepz = 7\n", &[]);
    assert_eq!(message, "train.stepz: no such key (my.toml, line 3)");
    assert_eq!(hint, "did you mean train.steps?");
    for (key, near) in [
        ("train.lr", "optim.lr"),
        ("steps", "train.steps"),
        ("trian.steps", "train.steps"),
        ("optim.weight-decay", "optim.weight_decay"),
        ("data.paths", "data.path"),
        ("model.n_layers", "model.layers"),
    ] {
        let (message, hint) = error("", &[&format!("{key}=1")]);
        assert_eq!(message, format!("{key}: no such key (--set)"));
        assert_eq!(hint, format!("did you mean {near}?"), "{key}");
    }
    assert_eq!(error("[trian]\nsteps = 7\n", &[]).1, "did you mean train?");
    assert_eq!(error("steps = 7\n", &[]).0, "steps: no such key (my.toml, line 1)");
}

#[test]
fn a_wrong_type_names_what_was_expected_and_where() {
    let cases = [
        ("[train]\nsteps = \"many\"", "train.steps: expected a whole number, 0 or more, found string \"many\""),
        ("[train]\nsteps = 1.5", "train.steps: expected a whole number, 0 or more, found floating point 1.5"),
        ("[train]\nsteps = -5", "train.steps: expected a whole number, 0 or more, found integer -5"),
        ("[optim]\nlr = true", "optim.lr: expected a number, found boolean true"),
        ("[model]\nbias = 1", "model.bias: expected true or false, found integer 1"),
        ("[data]\npath = 1", "data.path: expected a path or a list of paths, found integer 1"),
        ("[run]\nname = 5", "run.name: expected a string, found integer 5"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text, &[]).0, format!("{expected} (my.toml, line 2)"));
    }
    let (message, hint) = error("", &["optim.schedule=cosin"]);
    let known = "\"constant\" or \"linear\" or \"cosine\" or \"rising\" or \"wsd\"";
    assert_eq!(message, format!("optim.schedule: expected {known}, found \"cosin\" (--set)"));
    assert_eq!(hint, "did you mean \"cosine\"?");
    assert!(error("train = 5", &[]).0.starts_with("train: expected a section, found integer (my.toml, line 1)"));
}

#[test]
fn what_is_no_toml_is_named_by_line() {
    let (message, _) = error("[train]\nsteps = 5\nname = my run\n", &[]);
    assert!(message.starts_with("my.toml: line 3: expected TOML, found "), "{message}");
    assert!(error("[train]\nsteps = 5\nsteps = 6\n", &[]).0.contains("line 3"));
    assert_eq!(load("", &["train.steps"]).unwrap_err().exit_code(), 2);
    assert!(Recipe::load(Some(Path::new("no/such.toml")), &[]).unwrap_err().to_string().contains("no/such.toml"));
}

#[test]
fn values_out_of_range_are_refused() {
    let wrong = [
        "run.name=",
        "run.name=a/b",
        "run.name=..",
        "model.layers=0",
        "model.heads=0",
        "model.heads=3",
        "model.d=0",
        "model.dropout=1.0",
        "model.dropout=nan",
        "model.hidden=0",
        "data.vocab=256",
        "model.base_d=64",
        "data.bytes=1",
        "data.val_fraction=0.0",
        "data.val_fraction=1.0",
        "data.path=[]",
        "train.steps=0",
        "train.batch=0",
        "train.context=0",
        "train.accumulate=0",
        "train.keep=0",
        "train.batch=9000000000000000000",
        "optim.lr=0.0",
        "optim.lr=inf",
        "optim.lr=nan",
        "optim.min_lr=1.0",
        "optim.beta1=1.0",
        "optim.beta2=-0.1",
        "optim.eps=0.0",
        "optim.eps=1e-60",
        "optim.eps=inf",
        "optim.weight_decay=-1.0",
        "optim.clip=nan",
        "optim.muon_lr=0.0",
        "optim.muon_momentum=1.0",
        "guard.max_bad_steps=0",
        "guard.spike_window=1",
        "guard.spike_deviations=0.0",
        "eval.max_batches=0",
        "sample.temperature=-1.0",
        "sample.top_p=0.0",
    ];
    for set in wrong {
        let e = load("", &[set]).expect_err(set);
        let key = if set == "model.heads=3" { "model.d" } else { set.split_once('=').unwrap().0 };
        assert!(e.to_string().starts_with(&format!("{key}: ")), "{set}: {e}");
        assert!(e.hint().is_some(), "{set}: {e}");
    }
    assert_eq!(error("", &["model.heads=3"]).1, "try model.d = 126 or 129");
    assert_eq!(error("", &["model.kind=llama", "model.d=36", "model.heads=4"]).1, "try model.d = 32 or 40");
    for set in [
        "model.activation=gelu",
        "model.kv_heads=0",
        "model.kv_heads=3",
        "model.rope_theta=1.0",
        "model.rope_scaling.factor={rope_type=\"linear\", factor=0.5}",
        "model.rope_scaling.high_freq_factor={rope_type=\"llama3\", factor=8, low_freq_factor=4, high_freq_factor=4, \
         original_max_position_embeddings=64}",
    ] {
        let (key, value) = set.split_once('=').unwrap();
        let set = format!("{}={value}", key.split('.').take(2).collect::<Vec<_>>().join("."));
        let e = load("", &["model.kind=llama", &set]).expect_err(&set);
        assert!(e.to_string().starts_with(&format!("{key}: ")), "{set}: {e}");
    }
}

#[test]
fn each_kind_has_its_own_defaults_and_refuses_the_keys_of_the_other() {
    let config = |set: &[&str]| load("", set).unwrap().model.config(1024, 128);
    let (gpt2, llama) = (config(&[]), config(&["model.kind=llama"]));
    assert_eq!((gpt2.hidden, gpt2.bias, gpt2.tied, gpt2.kv_heads), (512, true, true, 4));
    assert_eq!((llama.hidden, llama.bias, llama.tied, llama.kv_heads), (352, false, false, 4));
    let scaling = "model.rope_scaling={rope_type=\"linear\", factor=2}";
    let llama = config(&["model.kind=llama", "model.tied=true", "model.rope_theta=500000", scaling]);
    let scaling = crate::ops::rope::RopeScaling::Linear(2.0);
    assert_eq!(llama.positions, crate::model::Positions::Rope { theta: 5e5, scaling });
    assert!(llama.tied);
    for set in ["model.kv_heads=2", "model.rope_theta=1e4", "model.rope_scaling={rope_type=\"linear\", factor=2}"] {
        let (message, hint) = error("", &[set]);
        assert!(message.contains(": gpt2 "), "{message}");
        assert_eq!(hint, "leave it out, or choose another model.kind");
    }
    let (message, _) = error("", &["model.kind=llama", "model.rope_scaling={rope_type=\"yarn\", factor=2}"]);
    assert_eq!(message, "model.rope_scaling.rope_type: expected \"linear\" or \"llama3\", found \"yarn\" (--set)");
}
