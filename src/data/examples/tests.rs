use super::*;
use crate::data::Document;
use crate::data::chat::CHATML;
use std::collections::BTreeSet;

/// Bytes, and a template in which turns end with the token that ends a text.
fn tokenizer() -> Tokenizer {
    let document = Document { text: "abc".into(), ..Document::default() };
    let bytes = Tokenizer::train_bpe([document].into_iter().map(Ok), 257, &|_| {}).unwrap();
    bytes.with_chat_template(crate::data::chat::PLAIN)
}

fn read(name: &str, text: &str, longest: usize) -> Result<Examples> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let tokenizer = tokenizer();
    let template = ChatTemplate::of(&tokenizer).unwrap();
    Examples::read(&[path], &tokenizer, template.as_ref(), longest, &mut |_, _| {})
}

/// The text of an example, with what is trained on in brackets.
fn marked(example: &Example) -> String {
    let tokenizer = tokenizer();
    let mut text = String::new();
    let mut open = false;
    for (&id, &trained) in example.ids.iter().zip(&example.trained) {
        if trained != open {
            text.push(if trained { '[' } else { ']' });
            open = trained;
        }
        text += &tokenizer.decode(&[id]);
    }
    if open { text + "]" } else { text }
}

#[test]
fn what_the_assistant_says_is_trained_on_with_the_token_that_ends_its_turn() {
    let chat = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]}"#;
    let found = read("a.jsonl", chat, 1000).unwrap();
    let end = "<|endoftext|>";
    let want = format!("User:\nHi\nAssistant:\n[Ho{end}]\nUser:\nA\nAssistant:\n[B{end}]\n");
    assert_eq!(marked(&found.all[0]), want);
    assert_eq!(found.found.ended, 1);
    // Of a prompt of messages only what follows it is.
    let given = r#"{"prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "A"}], "completion": [{"role": "assistant", "content": "B"}]}"#;
    let given = marked(&read("a.jsonl", given, 1000).unwrap().all[0]);
    assert_eq!(given, want.replace(&format!("[Ho{end}]"), &format!("Ho{end}")));
    let alpaca = r#"{"instruction": "Add.", "input": "1 2", "output": "3"}"#;
    let alpaca = marked(&read("a.jsonl", alpaca, 1000).unwrap().all[0]);
    assert_eq!(alpaca, format!("User:\nAdd.\n\n1 2\nAssistant:\n[3{end}]\n"));
}

#[test]
fn completions_are_trained_on_and_texts_as_a_whole() {
    let found = read("a.jsonl", "{\"prompt\": \"1+1=\", \"completion\": \"2\"}\n{\"text\": \"abc\"}\n", 1000).unwrap();
    let end = "<|endoftext|>";
    assert_eq!(marked(&found.all[0]), format!("{end}1+1=[2{end}]"));
    assert_eq!(marked(&found.all[1]), format!("[{end}abc{end}]"));
    let asked = read("a.jsonl", "{\"question\": \"Who?\", \"answer\": \"Bob\"}", 1000).unwrap();
    assert_eq!(marked(&asked.all[0]), format!("{end}Question: Who?\nAnswer:[ Bob{end}]"));
    assert_eq!(found.all[1].targets(), 4);
    assert_eq!(marked(&read("b.txt", "abc", 1000).unwrap().all[0]), format!("[{end}abc{end}]"));
    assert_eq!((found.found.examples, found.found.tokens, found.found.trained), (2, 12, 6));
}

#[test]
fn long_examples_lose_their_end_and_long_texts_go_on_in_the_next() {
    let long = format!(
        "{{\"prompt\": \"ab\", \"completion\": \"{}\"}}\n{{\"prompt\": \"{}\", \"completion\": \"x\"}}",
        "c".repeat(20),
        "p".repeat(20)
    );
    let Examples { all, found, .. } = read("a.jsonl", &long, 10).unwrap();
    assert_eq!((all.len(), all[0].ids.len(), found.truncated, found.cut), (1, 10, 1, 14));
    assert_eq!((found.ended, found.refused), (0, 1));
    assert!(found.first_refused.unwrap().ends_with("line 2: its prompt alone is longer than a row (train.context)"));
    // 27 tokens: every one but the first is a target once.
    let Examples { all, found, .. } = read("a.txt", &"x".repeat(25), 10).unwrap();
    assert_eq!(all.iter().map(|example| example.ids.len()).collect::<Vec<_>>(), [10, 10, 9]);
    assert_eq!((found.trained, found.truncated), (26, 0));
}

#[test]
fn what_teaches_nothing_or_has_no_prompt_is_refused_with_the_reason() {
    let refused = |text: &str, reason: &str| {
        let message = read("a.jsonl", text, 1000).unwrap_err().to_string();
        assert!(message.contains("a.jsonl") && message.contains(reason), "{message}");
    };
    refused(r#"{"messages": [{"role": "user", "content": "Hi"}]}"#, "nothing in it is the assistant's");
    refused(r#"{"messages": []}"#, "an empty list");
    refused(r#"{"messages": 3}"#, "a list of messages");
    refused(r#"{"prompt": 1, "completion": "x"}"#, "a text in the field \"prompt\"");
    refused(r#"{"query": "x", "answer": "y"}"#, "[\"query\", \"answer\"]");
    refused("{\"text\": ", "line 1, column");
    // Beside one that can be used it is counted.
    let two = "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}";
    let found = read("a.jsonl", two, 1000).unwrap().found;
    assert_eq!((found.examples, found.refused), (1, 1));
    assert!(found.first_refused.unwrap().contains("line 2"));
}

#[test]
fn a_prompt_of_nothing_is_refused_where_no_token_begins_a_text() {
    // Without such a token all of it would be trained on.
    let mut examples = Examples::default();
    let parts = [Part { text: String::new(), train: false }, Part { text: "abc".into(), train: true }];
    examples.add(&parts, true, ("a.jsonl".into(), 7), &tokenizer(), 100).unwrap();
    assert!(examples.found.first_refused.unwrap().contains("line 7: all of it would be trained on"));
}

#[test]
fn examples_with_one_prompt_are_held_out_together() {
    let line = |i: usize, j: usize| format!("{{\"prompt\": \"question {i}\", \"completion\": \"{j}\"}}\n");
    let text: String = (0..200).flat_map(|i| (0..2).map(move |j| line(i, j))).collect();
    let [train, val] = read("a.jsonl", &text, 1000).unwrap().split(0.2, 1);
    let keys = |side: &[Example]| side.iter().map(|example| example.key).collect::<BTreeSet<_>>();
    assert!(keys(&train).is_disjoint(&keys(&val)));
    assert!((50..110).contains(&val.len()) && train.len() + val.len() == 400, "{}", val.len());
}

#[test]
fn a_conversation_without_a_template_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    std::fs::write(&path, r#"{"messages": [{"role": "user", "content": "Hi"}]}"#).unwrap();
    let error = Examples::read(&[path], &Tokenizer::bytes(), None, 100, &mut |_, _| {}).unwrap_err();
    assert!(error.hint().unwrap().contains("data.template=chatml"), "{error}");
    assert!(ChatTemplate::new(CHATML, &[]).is_ok());
}

/// An example of so many tokens.
fn of(tokens: usize) -> Example {
    let ids = (0..tokens as u32).collect();
    Example { ids, trained: vec![true; tokens], source: Default::default(), key: 0 }
}

#[test]
fn rows_hold_every_example_once_and_few_are_needed() {
    let examples: Vec<Example> = (0..500).map(|i| of(2 + i * 37 % 90)).collect();
    let context = 128;
    let rows = pack(&examples, context, false);
    let mut seen: Vec<u32> = rows.concat();
    seen.sort_unstable();
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
    let places = |row: &Row| row.iter().map(|&i| examples[i as usize].ids.len() - 1).sum::<usize>();
    assert!(rows.iter().all(|row| places(row) <= context));
    let least = rows.iter().map(places).sum::<usize>().div_ceil(context);
    assert!(rows.len() * 9 <= least * 11, "{} rows, {least} at the least", rows.len());
    assert_eq!(pack(&examples, context, true).len(), 500);
}

#[test]
fn a_row_has_each_example_whole_and_nothing_of_what_is_behind_counts() {
    let examples = vec![of(3), of(4)];
    let rows = Rows::new(examples, 8, false);
    assert_eq!((rows.len(), rows.targets(0)), (1, 5));
    let (mut ids, mut targets, mut weights, mut places) = ([9; 8], [9; 8], [9.0; 8], [9; 8]);
    rows.fill(0, 0.5, RowMut { ids: &mut ids, targets: &mut targets, weights: &mut weights, places: &mut places });
    assert_eq!(ids, [0, 1, 0, 1, 2, 0, 0, 0]);
    assert_eq!(targets, [1, 2, 1, 2, 3, 0, 0, 0]);
    assert_eq!(weights, [0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0]);
    assert_eq!(places, [0, 1, 0, 1, 2, 0, 1, 2]);
    let visited: BTreeSet<usize> = (0..1).map(|i| rows.at(i, 3)).collect();
    assert_eq!(visited.len(), 1);
}
