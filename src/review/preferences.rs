//! `preferences.jsonl`: judgements as pairs for training, in TRL's form: `prompt`, `chosen`, `rejected`, as texts, or as lists of
//! messages where the prompt is a conversation.

use super::book::{Line, Said, Verdict, standing};
use super::item::{Answer, Item, Prompt};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The name of the file.
pub const FILE: &str = "preferences.jsonl";

/// The pairs that judgements make. Of two answers the one that more reviewers prefer is chosen; ties, gold items and pictures make
/// none. Of rated answers to the same prompt one is chosen over another where more reviewers who rated both gave it more.
pub fn of(items: &[Item], lines: &[Line]) -> Vec<Value> {
    // By items: more for the first answer than for the second of the pair.
    let mut balance: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    let mut rated: BTreeMap<(&str, String), Vec<(usize, u8)>> = BTreeMap::new();
    for ((reviewer, i), line) in standing(lines) {
        match line.said {
            _ if items[i].gold.is_some() => {}
            Said::Verdict(Verdict::A) => *balance.entry((i, i)).or_default() += 1,
            Said::Verdict(Verdict::B) => *balance.entry((i, i)).or_default() -= 1,
            Said::Rating(rating) => {
                let prompt = serde_json::to_string(&items[i].prompt).expect("a prompt is plain data");
                rated.entry((reviewer, prompt)).or_default().push((i, rating));
            }
            _ => {}
        }
    }
    for all in rated.values() {
        for (k, &(i, first)) in all.iter().enumerate() {
            for &(j, second) in &all[k + 1..] {
                *balance.entry((i, j)).or_default() += i64::from(first > second) - i64::from(first < second);
            }
        }
    }
    let pair = |(&(i, j), &balance): (&(usize, usize), &i64)| {
        let (first, second) = (&items[i].a, if i == j { items[i].b.as_ref()? } else { &items[j].a });
        let (Answer::Text(first), Answer::Text(second)) = (first, second) else { return None };
        let (chosen, rejected) = if balance > 0 { (first, second) } else { (second, first) };
        let says = |text: &String| match items[i].prompt {
            Prompt::Text(_) => json!(text),
            Prompt::Chat(_) => json!([{"role": "assistant", "content": text}]),
        };
        (balance != 0 && first != second)
            .then(|| json!({"prompt": items[i].prompt, "chosen": says(chosen), "rejected": says(rejected)}))
    };
    balance.iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::super::item::Side;
    use super::*;
    use crate::data::chat::Message;

    fn line(items: &[Item], reviewer: &str, item: usize, said: Said) -> Line {
        let id = items[item].id();
        Line { time: String::new(), reviewer: reviewer.into(), item, id, left: None, said, note: String::new() }
    }

    #[test]
    fn what_is_preferred_is_chosen_in_the_form_of_its_prompt() {
        let text = |text: &str| Answer::Text(text.into());
        let item = |prompt: Prompt, gold| Item { prompt, reference: None, a: text("x"), b: Some(text("y")), gold };
        let chat = Prompt::Chat(vec![Message::new("user", "Hi")]);
        let plain = || Prompt::Text("Once".into());
        let items = [
            item(plain(), None),
            item(chat, None),
            item(plain(), Some(Side::A)),
            item(plain(), None),
            item(plain(), None),
        ];
        let said = |who: &str, item, verdict| line(&items, who, item, Said::Verdict(verdict));
        let lines = [
            said("anna", 0, Verdict::B),
            said("anna", 1, Verdict::A),
            said("anna", 2, Verdict::A),
            said("anna", 3, Verdict::Bad),
            said("anna", 4, Verdict::A),
            // One against one: nobody knows.
            said("bo", 4, Verdict::B),
        ];
        let says = |text: &str| json!([{"role": "assistant", "content": text}]);
        let wanted = [
            json!({"prompt": "Once", "chosen": "y", "rejected": "x"}),
            json!({"prompt": [{"role": "user", "content": "Hi"}], "chosen": says("x"), "rejected": says("y")}),
        ];
        assert_eq!(of(&items, &lines), wanted);
    }

    #[test]
    fn ratings_make_pairs_where_one_prompt_has_several_answers() {
        let item = |prompt: &str, answer: &str| {
            let (prompt, a) = (Prompt::Text(prompt.into()), Answer::Text(answer.into()));
            Item { prompt, reference: None, a, b: None, gold: None }
        };
        let items = [item("p", "x"), item("q", "z"), item("p", "y"), item("p", "w")];
        let said = |who: &str, item, rating| line(&items, who, item, Said::Rating(rating));
        // Two reviewers with scales of their own agree on what is better.
        let lines = [said("anna", 0, 5), said("anna", 1, 5), said("anna", 2, 4), said("bo", 0, 2), said("bo", 2, 1)];
        assert_eq!(of(&items, &lines), [json!({"prompt": "p", "chosen": "x", "rejected": "y"})]);
    }
}
