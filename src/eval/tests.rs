use super::*;
use crate::error::Error;

/// A model whose words are numbers: the probability of a text is set by its length, and it answers with a fixed text.
struct Fake {
    said: &'static str,
    asked: Vec<(String, String)>,
}

impl Fake {
    fn new(said: &'static str) -> Fake {
        Fake { said, asked: Vec::new() }
    }
}

impl Model for Fake {
    fn name(&self) -> &str {
        "fake"
    }

    fn score(&mut self, pairs: &[(&str, &str)], _: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Score>> {
        self.asked.extend(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())));
        // Short texts are likely.
        let one = |(_, text): &(&str, &str)| Score {
            nats: -(text.len() as f64),
            each: vec![-(text.len() as f32)],
            greedy: text.len() < 4,
        };
        Ok(pairs.iter().map(one).collect())
    }

    fn read(&mut self, texts: &[&str], _: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Score>> {
        Ok(texts
            .iter()
            .map(|text| Score {
                nats: -0.5 * text.len() as f64,
                each: vec![-0.25 * text.len() as f32; 2],
                greedy: false,
            })
            .collect())
    }

    fn write(
        &mut self,
        prompts: &[&str],
        _: &Writing,
        told: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<String>> {
        told(prompts.len())?;
        self.asked.extend(prompts.iter().map(|prompt| ((*prompt).to_owned(), String::new())));
        Ok(prompts.iter().map(|_| self.said.to_owned()).collect())
    }
}

const ASKING: Asking = Asking { limit: 100, world: 1, seed: 1 };

/// A task and its lines in a folder of their own.
fn task(toml: &str, lines: &str) -> Result<(Task, Vec<Item>)> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lines.jsonl"), lines).unwrap();
    let path = dir.path().join("mine.toml");
    std::fs::write(&path, format!("data = \"lines.jsonl\"\n{toml}")).unwrap();
    let task = Task::open(path.to_str().unwrap())?;
    let items = task.items(ASKING.limit, ASKING.world, ASKING.seed)?;
    Ok((task, items))
}

fn ask(toml: &str, lines: &str, model: &mut Fake) -> Outcome {
    let (task, items) = task(toml, lines).unwrap();
    evaluate(&task, &items, &ASKING, model, &mut |_, _| Ok(())).unwrap()
}

fn value(outcome: &Outcome, name: &str) -> f64 {
    outcome.figures.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("no {name}")).value
}

const CHOICE: &str =
    "kind = \"choice\"\nprompt = \"Q: {{ q }}\"\nchoices = \"options\"\ngold = \"right\"\nby = \"group\"\n";

#[test]
fn the_likeliest_choice_is_right_or_wrong_by_each_measure_of_length() {
    let lines = r#"{"q": "a", "options": ["no", "yes"], "right": 0, "group": "g"}
{"q": "b", "options": ["ab", "cdefg"], "right": "cdefg", "group": "h"}
"#;
    let mut model = Fake::new("");
    let outcome = ask(CHOICE, lines, &mut model);
    assert_eq!(model.asked[1], ("Q: a".to_owned(), " yes".to_owned()));
    // −3 beats −4, and −3 beats −6; for each letter −3/2 < −4/3, and −3/2 < −6/5.
    assert_eq!((value(&outcome, "acc"), value(&outcome, "acc_norm")), (0.5, 0.5));
    assert_eq!(outcome.groups, [("g".to_owned(), 1, 1.0), ("h".to_owned(), 1, 0.0)]);
    assert_eq!(outcome.figures[0].error, Some(0.5));
    assert_eq!(outcome.records[1].target, "cdefg");
}

#[test]
fn texts_are_measured_in_bits_a_byte_and_by_words() {
    let outcome =
        ask("kind = \"text\"\ntarget = \"{{ t }}\"\n", "{\"t\": \"ab cd\"}\n{\"t\": \"ü\"}\n", &mut Fake::new(""));
    assert!((value(&outcome, "bits_per_byte") - 0.5 / std::f64::consts::LN_2).abs() < 1e-12);
    // 3.5 nats, three words.
    assert!((value(&outcome, "word_perplexity") - (3.5f64 / 3.0).exp()).abs() < 1e-12);
    assert!(outcome.lower_is_better);
    let floor =
        ask("kind = \"text\"\ntarget = \"{{ t }}\"\n", "{\"t\": \"abcd\", \"nats\": 1.0}\n", &mut Fake::new(""));
    assert!((value(&floor, "excess_bits_per_byte") - 0.25 / std::f64::consts::LN_2).abs() < 1e-12);
}

#[test]
fn answers_are_extracted_and_compared_as_the_task_says() {
    let toml = "kind = \"answer\"\nprompt = \"{{ q }}\"\ntarget = \"{{ a }}\"\nextract = '#### (\\S+)'\nignore = [',', '(?s).*#### ']\ncase = false\n";
    let lines = "{\"q\": \"1\", \"a\": \"so #### 1000\"}\n{\"q\": \"2\", \"a\": \"#### 7\"}\n";
    let outcome = ask(toml, lines, &mut Fake::new("so it is #### 1,000 ####"));
    assert_eq!(value(&outcome, "exact_match"), 0.5);
    let none = ask(toml, lines, &mut Fake::new("1000"));
    assert_eq!(value(&none, "exact_match"), 0.0);
}

#[test]
fn several_answers_pass_by_their_numbers() {
    let toml =
        "kind = \"pass\"\nprompt = \"{{ q }}\"\ntarget = \"{{ a }}\"\nverifier = \"number\"\nsamples = 4\nk = [1, 2]\n";
    let outcome =
        ask(toml, "{\"q\": \"1\", \"a\": \"12\"}\n{\"q\": \"2\", \"a\": \"-3\"}\n", &mut Fake::new("it is -3."));
    assert_eq!((value(&outcome, "pass@1"), value(&outcome, "pass@2")), (0.5, 0.5));
    assert_eq!(["x", "1,234 and -7,", "5-"].map(last_number), [None, Some(-7), Some(5)]);
}

#[test]
fn examples_stand_before_the_prompt() {
    let toml = "kind = \"cloze\"\nprompt = \"{{ q }}\"\ntarget = \"{{ a }}\"\nshots = 1\nseparator = \"; \"\n";
    let (_, items) = task(toml, "{\"q\": \"1\", \"a\": \"x\"}\n{\"q\": \"2\", \"a\": \"y\"}\n").unwrap();
    assert_eq!([&*items[0].prompt, &*items[1].prompt], ["2 y; 1", "1 x; 2"]);
    let few =
        task(&toml.replace("shots = 1", "shots = 2"), "{\"q\": \"1\", \"a\": \"x\"}\n{\"q\": \"2\", \"a\": \"y\"}\n");
    assert!(few.unwrap_err().to_string().contains("enough for 2 examples"));
}

#[test]
fn what_was_trained_on_shows_in_how_likely_it_is() {
    let toml = "kind = \"members\"\ntarget = \"{{ t }}\"\nmember = \"seen\"\n";
    let lines =
        "{\"t\": \"ab\", \"seen\": true}\n{\"t\": \"abcdefgh\", \"seen\": false}\n{\"t\": \"abc\", \"seen\": true}\n";
    // Each byte costs half a nat: by the token short texts are the likelier ones.
    let outcome = ask(toml, lines, &mut Fake::new(""));
    assert_eq!((value(&outcome, "auc_loss"), value(&outcome, "auc_min_k")), (1.0, 1.0));
    // Beside a reference that finds all of them as likely, nothing shows.
    assert_eq!(outcome.beside(&outcome), Some(0.5));
    let one = task(toml, "{\"t\": \"ab\", \"seen\": true}\n").unwrap_err();
    assert!(one.to_string().contains("lines that were trained on, and lines that were not"), "{one}");
}

#[test]
fn exposure_is_a_rank_among_many() {
    let options: Vec<String> = (1..=16).map(|i| format!("\"{}\"", "x".repeat(i))).collect();
    let line = |right: usize| {
        format!("{{\"q\": \"a\", \"options\": [{}], \"right\": {right}, \"group\": \"g\"}}\n", options.join(", "))
    };
    // The likeliest of 16, and the fourth.
    let outcome = ask(CHOICE, &(line(0) + &line(3)), &mut Fake::new(""));
    assert_eq!(value(&outcome, "exposure"), (4.0 + 2.0) / 2.0);
}

#[test]
fn mistakes_of_a_task_are_named_by_key_and_line() {
    let line = "{\"q\": \"1\", \"options\": [\"a\", \"b\"], \"right\": 7}\n";
    for (toml, lines, says) in [
        ("kind = \"riddle\"", line, "line 2"),
        ("kind = \"choice\"\nchoices = \"options\"", line, "gold: expected a value, for a task of kind choice"),
        (CHOICE, line, "gold, for line 1: expected one of its 2 choices"),
        (CHOICE, "{\"options\": []}\n", "prompt, for line 1"),
        (CHOICE, "", "lines of JSON"),
        ("kind = \"answer\"\ntarget = \"{{ q }}\"\nextract = '('", line, "extract: expected a regular expression"),
        (
            "kind = \"answer\"\ntarget = \"{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}\"",
            line,
            "target, for line 1",
        ),
        ("kind = \"pass\"\ntarget = \"{{ q }}\"\nk = [2]", line, "k: expected numbers from 1 to samples, 1"),
    ] {
        let said = task(toml, lines).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(says), "{toml}: {said}");
    }
    let near = Task::open("village-fact").unwrap_err();
    assert!(matches!(near, Error::Usage { .. }) && near.to_string().contains("did you mean village-facts?"));
}

#[test]
fn every_task_of_our_own_can_be_asked() {
    for name in Task::own() {
        let task = Task::open(name).unwrap();
        if task.data.is_empty() {
            let said = task.items(6, 1, 1).unwrap_err();
            assert!(said.hint().is_some_and(|hint| hint.contains("--data")), "{name}: {said}");
            continue;
        }
        let items = task.items(6, 1, 1).unwrap();
        assert_eq!(items.len(), 6, "{name}");
        let outcome = evaluate(&task, &items, &ASKING, &mut Fake::new(" 5"), &mut |_, _| Ok(())).unwrap();
        assert!(outcome.figures[0].value.is_finite(), "{name}: {:?}", outcome.figures);
    }
}

#[test]
fn who_is_better_is_said_only_where_it_is_more_than_chance() {
    let lines: String = (0..40).map(|i| format!("{{\"q\": \"{i}\", \"a\": \"{}\"}}\n", i % 3)).collect();
    let toml = "kind = \"answer\"\nprompt = \"{{ q }}\"\ntarget = \"{{ a }}\"\n";
    let [zero, one, none] = ["0", "1", "9"].map(|said| ask(toml, &lines, &mut Fake::new(said)));
    // 14 right answers, 13 other right ones: no difference. Against none at all: one.
    let near = zero.compare(&one, None).unwrap();
    assert_eq!((near.better, near.mcnemar.unwrap().0, near.mcnemar.unwrap().1), (0, 14, 13));
    let far = zero.compare(&none, None).unwrap();
    assert!(far.better == -1 && far.interval[1] < 0.0 && far.mcnemar.unwrap().2 < 1e-3);
    assert_eq!(none.compare(&zero, None).unwrap().better, 1);
    // Runs that differ by their seed alone differ as much.
    assert_eq!(zero.compare(&none, Some(0.5)).unwrap().better, 0);
}

#[test]
fn a_gate_holds_figures_to_bounds_and_no_number_passes() {
    let gate = |min, max, max_worse| gate::Gate { task: "t".into(), figure: "acc".into(), min, max, max_worse };
    let (of, _) = task(CHOICE, "{\"q\":\"?\",\"options\":[\"a\",\"bb\"],\"right\":0,\"group\":\"x\"}\n").unwrap();
    let outcome = |acc: f64, lower: bool| {
        let figures = vec![Figure { name: "acc".into(), value: acc, error: None }];
        Outcome::new(&of, figures, lower, Vec::new())
    };
    let passes = |gate: &gate::Gate, acc, other: Option<f64>, lower| {
        gate.judge(&outcome(acc, lower), other.map(|acc| outcome(acc, lower)).as_ref()).passed
    };
    for (gate, acc, other, lower, want) in [
        (gate(Some(0.5), None, None), 0.5, None, false, true),
        (gate(Some(0.5), None, None), 0.49, None, false, false),
        (gate(None, Some(0.5), None), 0.51, None, false, false),
        (gate(Some(0.2), Some(0.5), None), 0.3, None, false, true),
        (gate(Some(0.0), None, None), f64::NAN, None, false, false),
        (gate(None, None, Some(0.125)), 0.5, Some(0.625), false, true),
        (gate(None, None, Some(0.125)), 0.375, Some(0.625), false, false),
        (gate(None, None, Some(0.125)), 0.875, Some(0.625), true, false),
        (gate(None, None, Some(0.0)), 0.5, Some(f64::NAN), false, false),
        (gate(None, None, Some(0.0)), 0.5, None, false, false),
    ] {
        assert_eq!(passes(&gate, acc, other, lower), want, "{gate:?} {acc} {other:?} {lower}");
    }
    let missing = gate::Gate { figure: "acc_norm".into(), ..gate(Some(0.0), None, None) };
    assert_eq!((missing.judge(&outcome(1.0, false), None).value, missing.check(&of, false).is_ok()), (None, true));
    let says = |gate: &gate::Gate, two| gate.check(&of, two).unwrap_err().to_string();
    assert!(
        says(&gate::Gate { figure: "acc_nrm".into(), ..gate(Some(0.0), None, None) }, false)
            .contains("did you mean acc_norm")
    );
    assert!(says(&gate(None, None, Some(0.1)), false).contains("needs a second model"));
    assert!(says(&gate::Gate { max_worse: Some(0.1), ..missing }, true).contains("main figure"));
}

#[test]
fn gates_know_every_figure_that_a_task_has() {
    for name in ["village-text", "village-facts", "village-words", "village-stories", "sums"] {
        let task = Task::open(name).unwrap();
        let items = task.items(3, 1, 1).unwrap();
        let outcome = evaluate(&task, &items, &ASKING, &mut Fake::new("Mia has 3 dogs."), &mut |_, _| Ok(())).unwrap();
        let known = gate::figures(&task);
        let unknown: Vec<&str> =
            outcome.figures.iter().map(|f| &*f.name).filter(|name| !known.iter().any(|known| known == name)).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        assert!(task.kind == Kind::Write || outcome.figures[0].name == known[0], "{name}");
    }
}
