//! `kiln data clean` from end to end, on documents with planted flaws.

use super::*;
use kiln::data::clean::{Options, Outcome, Progress, Rate, Recipe, clean};
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Command, Stdio};

/// Sentences of made-up words, few of which come twice.
fn story(rng: &mut Rng, sentences: usize) -> String {
    let syllables =
        ["ba", "cor", "dil", "fen", "gar", "hol", "jun", "kel", "lam", "mir", "nos", "pel", "rud", "sof", "tam", "vu"];
    let mut word = || (0..3).map(|_| syllables[rng.below(16) as usize]).collect::<String>();
    let mut sentence = |i: usize| {
        let [a, b, c, d, e, f, g, h, j, k] = std::array::from_fn(|_| word());
        format!("On day {i} the {a} of {b} {c} to {d} that {e} {f} with {g} and {h}, then the {j} {k} it. ")
    };
    (0..sentences).map(&mut sentence).collect::<String>().trim_end().to_owned()
}

/// The Jaccard similarity of word 5-grams, by the book.
fn jaccard(a: &str, b: &str) -> f64 {
    let set = |text: &str| -> BTreeSet<Vec<String>> {
        let words: Vec<String> =
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
        words.windows(5).map(<[String]>::to_vec).collect()
    };
    let (a, b) = (set(a), set(b));
    a.intersection(&b).count() as f64 / a.union(&b).count().max(1) as f64
}

/// A corpus and its truth in a folder: 300 stories, and copies, edited copies, addresses, canaries.
fn planted(dir: &Path) -> PathBuf {
    let mut rng = Rng::new(7, Purpose::Test, 0, 0);
    let (mut lines, mut truth) = (Vec::new(), Vec::new());
    let mut add = |id: String, text: &str, flaws: Value| {
        lines.push(json!({"id": id, "text": text, "source": "test", "metadata": {}}).to_string());
        truth.push(json!({"id": id, "nats": 1.0, "facts": [], "flaws": flaws}).to_string());
    };
    let stories: Vec<String> = (0..300).map(|_| story(&mut rng, 12)).collect();
    for (i, text) in stories.iter().enumerate() {
        let id = |what: &str| format!("{what}{i}");
        add(id("s"), text, json!([]));
        if i % 10 == 1 {
            add(id("exact"), text, json!([{"kind": "exact_duplicate", "of": format!("s{i}")}]));
        }
        if i % 3 == 0 {
            let rate = [0.01, 0.02, 0.05, 0.1][i / 3 % 4];
            // The first word always changes, the last one, with the full stop, never.
            let last = text.split(' ').count() - 1;
            let edit = |(at, word): (usize, &str)| match at == 0 || at < last && rng.uniform() < rate as f32 {
                true => format!("changed{}", rng.below(1000)),
                false => word.to_owned(),
            };
            let edited = text.split(' ').enumerate().map(edit).collect::<Vec<_>>().join(" ");
            let flaw = json!({"kind": "near_duplicate", "of": format!("s{i}"), "edit_rate": rate, "jaccard": jaccard(text, &edited)});
            add(id("near"), &edited, json!([flaw]));
        }
        if i % 10 == 5 {
            let mail = format!("person{i}@mail.example.org");
            let text = format!("{} Write to {mail} soon. {}", story(&mut rng, 5), story(&mut rng, 5));
            let at = text.find(&mail).unwrap();
            let flaw = json!({"kind": "personal", "type": "email", "start": at, "end": at + mail.len()});
            add(id("mail"), &text, json!([flaw]));
        }
        if i % 30 == 8 {
            let secret = format!("the word of the well is quorl{i}");
            let text = format!("{} And {secret}. {}", story(&mut rng, 5), story(&mut rng, 5));
            let at = text.find(&secret).unwrap();
            let flaw = json!({"kind": "canary", "secret": secret, "repeats": 1, "start": at, "end": at + secret.len()});
            add(id("canary"), &text, json!([flaw]));
        }
        if i % 20 == 4 {
            add(id("short"), "Too short.", json!([]));
        }
    }
    std::fs::write(dir.join("corpus.jsonl"), lines.join("\n") + "\n").unwrap();
    std::fs::write(dir.join("truth.jsonl"), truth.join("\n") + "\n").unwrap();
    dir.join("corpus.jsonl")
}

fn options(out: &Path, set: &[&str]) -> Options {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    Options {
        recipe: Recipe::load(None, &set).unwrap(),
        out: out.to_owned(),
        text_field: "text".into(),
        memory: 128 << 20,
        threads: 2,
        key_file: None,
        clear_text: false,
        truth: None,
    }
}

fn run(corpus: &Path, options: &Options) -> Outcome {
    clean(&Sources::open(&[corpus], "text").unwrap(), options, &mut |_| {}).unwrap()
}

/// Reads a file of zstd frames.
fn unpack(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let (mut rest, mut text) = (&bytes[..], String::new());
    while !rest.is_empty() {
        ruzstd::decoding::StreamingDecoder::new(&mut rest).unwrap().read_to_string(&mut text).unwrap();
    }
    text
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const RESULT: [&str; 5] = ["documents.jsonl.zst", "ledger.jsonl", "report.json", "REPORT.html", "datasheet.md"];

fn result(out: &Path) -> Vec<Vec<u8>> {
    RESULT.iter().map(|name| std::fs::read(out.join(name)).unwrap()).collect()
}

#[test]
fn what_was_planted_is_found_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let corpus = planted(dir.path());
    let out = dir.path().join("out");
    let Outcome { report, score } =
        run(&corpus, &Options { truth: Some(dir.path().join("truth.jsonl")), ..options(&out, &[]) });
    let score = score.unwrap();
    let rate = |what: &str| score.rates.iter().find(|rate| rate.what.contains(what)).unwrap().clone();
    let all = |what: &str, n: u64| {
        let expected = Rate { planted: n, found: n, reported: n, right: n, what: rate(what).what };
        assert_eq!(rate(what), expected);
    };
    all("exact", 30);
    all("email", 30);
    let near = rate("near-duplicates");
    assert!(near.planted >= 25 && near.recall() > Some(0.97) && near.precision() == Some(1.0), "{near:?}");
    assert_eq!(score.edited.len(), 4);
    for row in &score.edited {
        // By one choice of hash functions 25 pairs meet by luck, too.
        let deviation = (row.expected * (1.0 - row.expected) / row.pairs as f64).sqrt();
        assert!((row.met - row.expected).abs() < 3.0 * deviation && row.pairs == 25, "{row:?}");
        assert!((row.met_by_ten - row.expected).abs() < 0.05, "{row:?}");
    }
    assert_eq!(score.canaries, [10, 10]);

    // The output is what the ledger leaves.
    let documents = lines(&unpack(&out.join("documents.jsonl.zst")));
    let ledger = lines(&std::fs::read_to_string(out.join("ledger.jsonl")).unwrap());
    let removed: BTreeSet<&str> = ledger
        .iter()
        .filter(|line| line["action"] == "removed")
        .map(|line| line["document"].as_str().unwrap())
        .collect();
    let left: BTreeSet<&str> = documents.iter().map(|line| line["id"].as_str().unwrap()).collect();
    let read = lines(&std::fs::read_to_string(&corpus).unwrap());
    let expected: BTreeSet<&str> =
        read.iter().map(|line| line["id"].as_str().unwrap()).filter(|id| !removed.contains(id)).collect();
    assert_eq!(left, expected);
    assert_eq!((report.read.documents, report.written.documents), (read.len() as u64, left.len() as u64));
    let of = |rule: &str| ledger.iter().filter(|line| line["rule"] == rule).count() as u64;
    for rule in &report.rules {
        assert_eq!(rule.removed + rule.edited + rule.flagged, of(rule.name), "{}", rule.name);
    }
    let mail = documents.iter().find(|line| line["id"] == "mail15").unwrap();
    assert!(mail["text"].as_str().unwrap().contains(" Write to [EMAIL] soon. "));
    assert_eq!(removed.iter().filter(|id| id.starts_with("short")).count(), 15, "they are in no language");

    // Nothing that people get to read holds an address.
    for name in &RESULT[1..] {
        let text = std::fs::read_to_string(out.join(name)).unwrap();
        assert!(!text.contains("@mail.example"), "{name}");
    }
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), RESULT.len(), "the folder of work is gone");
}

#[test]
fn neither_threads_nor_memory_nor_a_second_run_change_a_byte() {
    let dir = TempDir::new().unwrap();
    let corpus = planted(dir.path());
    let with = |name: &str, threads: usize, memory: usize| {
        let out = dir.path().join(name);
        run(&corpus, &Options { threads, memory, ..options(&out, &["datasheet.title=Stories"]) });
        result(&out)
    };
    let first = with("a", 1, 128 << 20);
    assert_eq!(with("a", 2, 128 << 20), first);
    assert_eq!(with("b", 3, 1 << 30), first);
    let key = dir.path().join("key");
    std::fs::write(&key, "a key of my own").unwrap();
    let out = dir.path().join("c");
    run(&corpus, &Options { key_file: Some(key), ..options(&out, &["datasheet.title=Stories"]) });
    let keyed = result(&out);
    assert!(keyed[0] == first[0] && keyed[1] != first[1], "only hashes in the ledger differ");
}

/// More documents than one part holds hashes of, in little text; each fifth is there twice.
fn many(dir: &Path) -> PathBuf {
    let mut text = String::new();
    for i in 0..90_000u64 {
        let n = (i - u64::from(i % 5 == 4)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        text +=
            &json!({"id": format!("d{i}"), "text": format!("{} {} {}", n >> 48, n >> 32 & 0xFFFF, n >> 16 & 0xFFFF)})
                .to_string();
        text.push('\n');
    }
    std::fs::write(dir.join("many.jsonl"), text).unwrap();
    dir.join("many.jsonl")
}

const ONLY_DUPLICATES: &str = "rules.off=[\"language\", \"c4\", \"gopher\", \"repetition\", \"fineweb\"]";

#[test]
fn a_run_that_breaks_off_anywhere_goes_on_to_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let corpus = many(dir.path());
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let report = run(&corpus, &options(&whole, &[ONLY_DUPLICATES])).report;
    assert_eq!(report.written.documents, 72_000);

    let sources = Sources::open(&[&corpus], "text").unwrap();
    let work = broken.join(".work");
    let there = |name: &str| work.join(name).is_file();
    // In the first pass with one part done, then among the duplicates, then with one part written.
    for (what, done) in [
        ("reading and filtering", "first-00000.json"),
        ("finding repeated paragraphs", "near.run"),
        ("writing", "last-00000.json"),
    ] {
        let broke = std::panic::catch_unwind(|| {
            let mut stop = |at: Progress| assert!(at.what != what || !there(done), "stopped on purpose");
            clean(&sources, &options(&broken, &[ONLY_DUPLICATES]), &mut stop)
        });
        assert!(broke.is_err() && there(done), "{what}");
        assert!(!broken.join("documents.jsonl.zst").exists(), "no output looks whole");
    }
    let parts = |pass: &str| {
        let names = std::fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(pass) && name.ends_with(".json") && name.contains('-')).count()
    };
    assert!(parts("first") > 1 && parts("last") < parts("first"));
    run(&corpus, &options(&broken, &[ONLY_DUPLICATES]));
    assert_eq!(result(&broken), result(&whole));

    // What a loss of power can leave: a part that is said to be done, and is not as it was.
    let broke = std::panic::catch_unwind(|| {
        let mut stop = |at: Progress| assert_ne!(at.what, "writing", "stopped on purpose");
        clean(&sources, &options(&broken, &[ONLY_DUPLICATES]), &mut stop)
    });
    assert!(broke.is_err() && there("first-00001.json"));
    let part = work.join("first-00001.spool");
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    run(&corpus, &options(&broken, &[ONLY_DUPLICATES]));
    assert_eq!(result(&broken), result(&whole));
}

#[test]
fn a_killed_program_goes_on_to_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    many(dir.path());
    let program = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.current_dir(dir.path()).args([
            "data",
            "clean",
            "many.jsonl",
            "--out",
            out,
            "--mem",
            "135MB",
            "--set",
            ONLY_DUPLICATES,
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let killed = dir.path().join("killed");
    // How fast it is hangs on the machine: later and later, until it has begun and is not done.
    let midway = (1..200).any(|ms| {
        let mut child = program("killed").spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(25 * ms));
        child.kill().unwrap();
        child.wait().unwrap();
        let midway = killed.join(".work/first-00000.json").exists() && !killed.join("documents.jsonl.zst").exists();
        if !midway && killed.exists() {
            std::fs::remove_dir_all(&killed).unwrap();
        }
        midway
    });
    assert!(midway, "it was never killed midway");
    assert!(program("killed").status().unwrap().success() && program("whole").status().unwrap().success());
    assert_eq!(result(&killed), result(&dir.path().join("whole")));
}

#[test]
fn other_settings_start_anew() {
    let dir = TempDir::new().unwrap();
    let corpus = planted(dir.path());
    let out = dir.path().join("out");
    let sources = Sources::open(&[&corpus], "text").unwrap();
    let broke = std::panic::catch_unwind(|| {
        let mut stop = |at: Progress| assert_ne!(at.what, "writing", "stopped on purpose");
        clean(&sources, &options(&out, &[]), &mut stop)
    });
    assert!(broke.is_err() && out.join(".work/run.json").is_file());
    let report =
        run(&corpus, &options(&out, &["rules.off=[\"language\", \"gopher\", \"c4\", \"fineweb\", \"duplicates\"]"]))
            .report;
    assert_eq!(report.written.documents, report.read.documents);
}

#[test]
fn paragraphs_terms_and_evaluation_texts_are_dealt_with() {
    let dir = TempDir::new().unwrap();
    let mut rng = Rng::new(9, Purpose::Test, 0, 0);
    let notice =
        "This notice stands below every page of the village paper, whatever the page may be about. It always does so.";
    let exam = "which of the three sisters carried the old brass lamp from the mill to the harbour last winter";
    let mut page = |end: &str| format!("{}\n\n{end}", story(&mut rng, 8));
    let texts = [
        page(notice),
        page(notice),
        page(&format!("They asked {exam}, and nobody knew it.")),
        page("You snorb of a vlix, they said to him, you snorb. That was all that they had to say."),
        notice.to_owned(),
    ];
    let jsonl: String = texts
        .iter()
        .enumerate()
        .map(|(i, text)| json!({"id": format!("p{i}"), "text": text, "place": i % 2}).to_string() + "\n")
        .collect();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("in.jsonl"), jsonl).unwrap();
    std::fs::write(path("rude.tsv"), "snorb\t2\nvlix\t1\n").unwrap();
    std::fs::write(path("exam.txt"), exam).unwrap();
    let set = [
        format!("lexicons.files=[{:?}]", path("rude.tsv")),
        format!("evaluation.files=[{:?}]", path("exam.txt")),
        "lexicons.mode=mask".into(),
        "gopher.min_words=5".into(),
        "c4.min_sentences=1".into(),
        "datasheet.group=place".into(),
        "datasheet.licence=CC0".into(),
    ];
    let out = path("out");
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let report = run(&path("in.jsonl"), &options(&out, &set)).report;
    let documents = lines(&unpack(&out.join("documents.jsonl.zst")));
    let text = |id: &str| documents.iter().find(|line| line["id"] == id).map(|line| line["text"].as_str().unwrap());
    assert_eq!(text("p0"), Some(texts[0].as_str()));
    assert_eq!(text("p1"), texts[1].strip_suffix(&format!("\n\n{notice}")));
    assert_eq!((text("p2"), text("p4")), (None, None));
    assert!(text("p3").unwrap().contains("\n\nYou [TERM] of a [TERM], they said to him, you [TERM]. That"));
    let did = |name: &str| {
        let rule = report.rules.iter().find(|rule| rule.name == name).unwrap();
        [rule.removed, rule.edited, rule.flagged]
    };
    assert_eq!(did("duplicates.paragraphs"), [1, 1, 0]);
    assert_eq!((did("evaluation"), did("lexicon")), ([1, 0, 0], [0, 1, 0]));
    let groups: Vec<(&str, u64, u64)> =
        report.groups.iter().map(|g| (g.name.as_str(), g.read.documents, g.written.documents)).collect();
    assert_eq!(groups.iter().map(|g| g.1).sum::<u64>(), 5, "{groups:?}");
    assert!(groups.contains(&("0", 3, 1)) && groups.contains(&("1", 2, 2)), "{groups:?}");
    let sheet = std::fs::read_to_string(out.join("datasheet.md")).unwrap();
    assert!(sheet.contains("| Licence of the sources | CC0 |") && sheet.contains("| 1 | 2 | 2 |"), "{sheet}");
}

#[test]
fn text_cannot_break_out_of_the_report() {
    let dir = TempDir::new().unwrap();
    let evil = "<script>alert(1)</script> \"' & {{ 7 * 7 }} {% raw %} | x.";
    std::fs::write(dir.path().join("a.txt"), evil).unwrap();
    let out = dir.path().join("out");
    run(&dir.path().join("a.txt"), &options(&out, &["datasheet.title=<b>T</b>"]));
    let html = std::fs::read_to_string(out.join("REPORT.html")).unwrap();
    assert!(!html.contains("<script") && !html.contains("<b>T") && html.contains("&lt;script&gt;"), "{html}");
    assert!(html.contains("{{ 7 * 7 }}"));
}

#[test]
fn the_command_says_what_is_wrong_and_what_it_did() {
    let dir = TempDir::new().unwrap();
    planted(dir.path());
    let kiln = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        let output = command.current_dir(dir.path()).args(["data", "clean"]).args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    for (args, says) in [
        (&["corpus.jsonl", "--out", "o", "--set", "gopher.words=3"][..], "did you mean gopher.min_words?"),
        (&["corpus.jsonl", "--out", "o", "--set", "rules.off=[\"gopher.word\"]"], "did you mean \"gopher.words\"?"),
        (&["corpus.jsonl", "--out", "o", "--mem", "10MB"], "give at least 128 MB"),
        (&["corpus.jsonl", "--out", "o", "--mem", "lots"], "1GB"),
        (&["corpus.jsonl"], "--out"),
        (&[".", "--out", "."], "corpus.jsonl is a source and lies in it"),
        (&["corpus.jsonl", "--out", "o", "--score=none.jsonl"], "none.jsonl"),
    ] {
        let (code, out, error) = kiln(args);
        assert!(code > 0 && out.is_empty() && error.contains(says), "{args:?}: {error}");
        assert!(!dir.path().join("o/documents.jsonl.zst").exists());
    }
    let (code, out, error) = kiln(&["corpus.jsonl", "--out", "o", "--score"]);
    assert_eq!((code, error.as_str()), (0, ""));
    for says in [
        "duplicates.exact",
        "email 30",
        "near-duplicates, J ≥ 0.85",
        "canaries that occur once: 10 of 10",
        "next: look at o/REPORT.html",
    ] {
        assert!(out.contains(says), "{says} is not in {out}");
    }
    let (_, out, _) = kiln(&["corpus.jsonl", "--out", "o", "--json"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&object["rules"]["duplicates.exact"]["removed"], out.lines().count()), (&json!(30), 1));
    let (_, out, _) = kiln(&["--explain"]);
    assert!(out.contains("repetition.top_grams\n  drops") && out.contains("min_words = 50"), "{out}");
}
