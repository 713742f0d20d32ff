use super::*;
use crate::data::clean::tally::Event;
use crate::rng::{Purpose, Rng};

/// Sentences of made-up words, few of which come twice: what every filter lets pass.
fn prose(sentences: usize) -> String {
    let mut rng = Rng::new(1, Purpose::Test, 0, 0);
    let syllables =
        ["ba", "cor", "dil", "fen", "gar", "hol", "jun", "kel", "lam", "mir", "nos", "pel", "rud", "sof", "tam"];
    let mut word = || (0..3).map(|_| syllables[rng.below(15) as usize]).collect::<String>();
    let mut sentence = |i: usize| {
        let [a, b, c, d, e, f, g] = std::array::from_fn(|_| word());
        format!("On day {i} {a} and {b} {c} to the {d} that {e} of {f} with {g} in it.")
    };
    (0..sentences).map(&mut sentence).collect::<Vec<_>>().join(" ")
}

fn judged(text: &str, set: &[&str]) -> Option<Reason> {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let recipe = Recipe::load(None, &set).unwrap();
    let words = Words::of(text);
    judge(&Analysis { text, layout: Layout::of(text), words: &words }, &recipe, recipe.rules().unwrap())
}

fn rule(text: &str) -> Option<&'static str> {
    judged(text, &[]).map(|(rule, _)| rule.name())
}

fn c4(text: &str, set: &[&str]) -> (String, Vec<Event>, Option<&'static str>) {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let recipe = Recipe::load(None, &set).unwrap();
    let filter = C4Filter::new(&recipe.c4, recipe.rules().unwrap());
    let mut events = Vec::new();
    let (edited, placeholder) = filter.edit(text, &Layout::of(text), &mut events);
    let text = edited.unwrap_or_else(|| text.to_owned());
    let reason = filter.judge(&text, placeholder).map(|(rule, _)| rule.name());
    (text, events, reason)
}

#[test]
fn prose_passes_every_filter() {
    for sentences in [6, 20, 60] {
        let text = prose(sentences);
        assert_eq!(judged(&text, &[]), None, "{text}");
        assert_eq!(c4(&text, &["rules.off=[]"]), (text.clone(), vec![], None));
    }
}

#[test]
fn gopher_drops_what_is_no_prose() {
    let words = |word: &str, n: usize| vec![word; n].join(" ");
    assert_eq!(rule("too short, that is all"), Some("gopher.words"));
    assert_eq!(rule(&words("a", 100_001)), Some("gopher.words"));
    let evidence = judged(&prose(1), &[]).unwrap().1;
    assert_eq!((evidence["value"].as_u64(), evidence["at_least"].as_u64()), (Some(18), Some(50)));
    assert_eq!(rule(&words("of", 60)), Some("gopher.word_length"));
    assert_eq!(rule(&words("incomprehensibilities", 60)), Some("gopher.word_length"));
    assert_eq!(rule(&format!("{} {}", prose(6), words("#tag", 30))), Some("gopher.symbols"));
    assert_eq!(rule(&format!("{} {}", prose(6), words("more...", 30))), Some("gopher.symbols"));
    let lines = |start: &str, end: &str| -> String {
        (0..10).map(|i| format!("{start}{}{end}\n", prose(1).replace("day 0", &format!("day {i}")))).collect()
    };
    assert_eq!(rule(&lines("• ", "")), Some("gopher.bullets"));
    assert_eq!(rule(&lines("", "..")), Some("gopher.ellipses"));
    assert_eq!(rule(&format!("{} {}", prose(3), words("12:30", 20))), Some("gopher.alphabetic"));
    let german = "Anna ging zur Mühle am Fluss und fragte nach Mehl für das Brot ".repeat(5);
    assert_eq!(rule(&german), Some("gopher.stop_words"));
}

#[test]
fn repetition_is_measured_by_what_came_before() {
    let lines: String =
        (0..12).map(|i| format!("{}\n", prose(3).replace("day ", &format!("day {}", 90 - i)))).collect();
    assert_ne!(rule(&lines), Some("repetition.lines"));
    let text = |copies: usize| {
        let line = "This very line is said once more. ";
        let mut lines: Vec<String> =
            (0..10).map(|i| format!("{} {}", prose(i + 3).split_once("On day 2").unwrap().1, i)).collect();
        lines.extend(vec![line.to_owned(); copies]);
        lines.join("\n")
    };
    // 10 lines, and 5 of which 4 came before: 4 of 15; with 7 copies 6 of 17.
    let reason = |copies: usize| {
        judged(
            &text(copies),
            &[
                "rules.off=[\"gopher\", \"fineweb\", \"repetition.line_characters\", \"repetition.top_grams\", \"repetition.duplicate_grams\"]",
            ],
        )
    };
    assert_eq!(reason(5), None);
    assert_eq!(reason(7).unwrap(), (Rule::DuplicateLines, serde_json::json!({"value": 0.3529, "at_most": 0.3})));
    let half = format!("{}\n\n{}", prose(8), prose(8));
    assert_eq!(rule(&half), Some("repetition.lines"));
    let off = |rules: &str| {
        judged(&half, &[&format!("rules.off=[\"repetition.lines\", \"repetition.line_characters\"{rules}]")])
    };
    assert_eq!(off("").unwrap().0.name(), "repetition.paragraphs");
    let grams = ", \"repetition.paragraphs\", \"repetition.paragraph_characters\", \"repetition.top_grams\"";
    let (rule, evidence) = off(grams).unwrap();
    assert_eq!((rule.name(), evidence["words"].as_u64()), ("repetition.duplicate_grams", Some(5)));
}

#[test]
fn the_commonest_gram_counts_with_all_its_occurrences() {
    // "one two" ten times of 7 bytes in 10 · 18 − 1 bytes: 70/179 > 0.2
    let text = (0..10).map(|i| format!("one two three f{i} g{i}")).collect::<Vec<_>>().join(" ");
    let (rule, evidence) = judged(&text, &["rules.off=[\"gopher\", \"fineweb\"]"]).unwrap();
    assert_eq!(rule, Rule::TopGrams);
    let value = 70.0 / text.len() as f64;
    assert!((evidence["value"].as_f64().unwrap() - value).abs() < 1e-3 && evidence["words"] == 2, "{evidence} {value}");
}

#[test]
fn fineweb_drops_lists_and_menus() {
    let off = "rules.off=[\"gopher\", \"repetition\"]";
    let name = |text: &str| judged(text, &[off]).map(|(rule, _)| rule.name());
    let many = |line: &dyn Fn(usize) -> String| (0..20).map(line).collect::<Vec<_>>().join("\n");
    assert_eq!(
        name(&many(&|i| format!("an entry of a long list without any end, number {i}"))),
        Some("fineweb.line_punctuation")
    );
    assert_eq!(name(&many(&|i| format!("A short line {i}."))), Some("fineweb.short_lines"));
    assert_eq!(
        name(&many(&|i| format!("This is quite a long line of the text, said {}.", i / 2))),
        Some("fineweb.duplicate_lines")
    );
    assert_eq!(name(&many(&|i| format!("This is quite a long line of the text, said {i}."))), None);
}

#[test]
fn c4_takes_out_lines_and_says_by_which_rule() {
    let good = "This is the first good line. It has two sentences.\nAnd this is the second one here.";
    let text = format!(
        "{good}\nHome | About\nPlease enable JavaScript to see this page.\nWe use Cookies, and use cookies well.\n\
         a line with no end at all"
    );
    let (left, events, reason) = c4(&text, &[]);
    assert_eq!((left.as_str(), reason), (format!("{good}\na line with no end at all").as_str(), None));
    let by: Vec<(&str, u64)> = events.iter().map(|e| (e.rule.name(), e.evidence["lines"].as_u64().unwrap())).collect();
    assert_eq!(by, [("c4.javascript", 1), ("c4.policy", 1), ("c4.short_lines", 1)]);
    assert_eq!(events[2].bytes, "Home | About".len() as u64);
    let (left, events, _) = c4(&text, &["rules.off=[]"]);
    assert_eq!((left.as_str(), events.last().unwrap().rule), (good, Rule::TerminalPunctuation));
    assert_eq!(c4(&text, &["rules.off=[\"c4\"]"]), (text.clone(), vec![], None));
}

#[test]
fn c4_drops_placeholders_code_and_what_is_too_short() {
    assert_eq!(c4(&format!("{} Lorem Ipsum dolor.", prose(4)), &[]).2, Some("c4.lorem_ipsum"));
    assert_eq!(c4(&format!("{} if (x) {{ y }}.", prose(4)), &[]).2, Some("c4.curly_bracket"));
    assert_eq!(c4("There are two sentences. Version 1.2 is the second one.", &[]).2, Some("c4.sentences"));
    assert_eq!(c4("There are three of them. \"Are there?\" He counted them: yes", &[]).2, None);
    let text =
        "Six words make up this title\n\nA sentence with quite some words.\n\nAnother one with quite some words.";
    assert_eq!(c4(text, &[]).2, None);
}
