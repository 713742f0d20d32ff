//! Conversations and their templates, against `transformers` by the table of `tests/reference/chats.py`; hostile templates.

use super::*;
use kiln::data::chat::{CHATML, ChatTemplate, Message};
use serde_json::{Map, Value, json};

fn table() -> Value {
    serde_json::from_str(include_str!("../../fixtures/chats.json")).expect("a fixture")
}

fn messages(value: &Value) -> Vec<Message> {
    serde_json::from_value(value.clone()).expect("messages")
}

fn template(source: &str) -> ChatTemplate {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "</s>")];
    ChatTemplate::new(source, &tokens).expect(source).dated("2024-07-26").expect("a date")
}

fn say(role: &str, content: &str) -> Message {
    Message::new(role, content)
}

/// A conversation of three messages.
fn short() -> Vec<Message> {
    vec![say("user", "Hi"), say("assistant", " Ahoy. "), say("user", "Bye")]
}

fn render(source: &str, messages: &[Message]) -> Result<String> {
    template(source).render(messages, None, false, &Map::new())
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let table = table();
    let tools = table["tools"].as_array().expect("a list");
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in table["cases"].as_array().expect("a list") {
        let name = case["template"].as_str().expect("a name");
        let template = template(table["templates"][name].as_str().expect("a template"));
        let messages = messages(&table["conversations"][case["conversation"].as_str().expect("a name")]);
        let tools = (case["tools"] == true).then_some(tools.as_slice());
        let extra = case["extra"].as_object().expect("an object");
        let got = template.render(&messages, tools, case["prompt"] == true, extra);
        let what = format!("{name}, {}, tools {}, prompt {}", case["conversation"], case["tools"], case["prompt"]);
        match (got, case["text"].as_str(), case["raised"].as_str()) {
            (Ok(text), Some(want), _) if text == want => same += 1,
            (Err(e), None, raised) if raised.is_none_or(|raised| e.to_string().contains(raised)) => {
                assert!(e.hint().is_some(), "{what}: {e}");
                refused += 1;
            }
            (got, want, raised) => {
                wrong.push(format!("{what}: {got:?} where transformers has {want:?} {raised:?} {}", case["error"]))
            }
        }
        if let Some(want) = case["spans"].as_array() {
            let (text, spans) = template.assistant_spans(&messages, tools, extra).expect("spans");
            let spans: Vec<Value> = spans.iter().map(|span| json!([span.start, span.end])).collect();
            assert_eq!((Value::from(text), &spans), (case["text"].clone(), want), "{what}");
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    println!("{same} conversations the same, {refused} refused");
    assert!(same > 300 && refused > 50);
}

#[test]
fn expressions_have_the_values_that_python_gives_them() {
    let table = table();
    let messages = messages(&json!([table["values"]]));
    let mut wrong = Vec::new();
    for case in table["expressions"].as_array().expect("a list") {
        let expression = case["expression"].as_str().expect("a text");
        let got = template(&format!("{{% set m = messages[0] %}}{{{{ {expression} }}}}")).render(
            &messages,
            None,
            false,
            &Map::new(),
        );
        match (got, case["text"].as_str()) {
            (Ok(got), Some(want)) if got == want => {}
            (Err(_), None) => {}
            (got, want) => wrong.push(format!("{expression}: {got:?} where Python has {want:?} {}", case["error"])),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the spans of a conversation are.
fn said(source: &str, messages: &[Message]) -> Vec<String> {
    let tokens =
        [("eos_token", "<|im_end|>"), ("eot_token", "<|eot_id|>"), ("end_token", "</s>"), ("bos_token", "<s>")];
    let template = ChatTemplate::new(source, &tokens).expect("a template");
    let (text, spans) = template.assistant_spans(messages, None, &Map::new()).expect("spans");
    assert_eq!(text, template.render(messages, None, false, &Map::new()).expect("a text"));
    spans.into_iter().map(|span| text[span].to_owned()).collect()
}

#[test]
fn what_the_assistant_says_is_found_with_the_end_of_its_turn() {
    let table = table();
    let source = |name: &str| table["templates"][name].as_str().expect("a template");
    let talk =
        [say("system", "Be."), say("user", "1?"), say("assistant", "one"), say("user", "2?"), say("assistant", "two")];
    for source in [source("smollm2"), CHATML] {
        assert_eq!(said(source, &talk), ["one<|im_end|>", "two<|im_end|>"]);
    }
    assert_eq!(said(source("llama3"), &talk), ["one<|eot_id|>", "two<|eot_id|>"]);
    let llama2 = source("llama2").replace("eos_token", "end_token");
    assert_eq!(said(&llama2, &talk), [" one </s>", " two </s>"]);
    // Qwen 3 writes what was thought of the last answer alone, so that parts of the conversation are no parts of its text.
    let thought = [
        say("user", "1?"),
        say("assistant", "<think>\nhm\n</think>\n\n one "),
        say("user", "2?"),
        say("assistant", "<think>\nhm hm\n</think>\n\ntwo"),
    ];
    assert_eq!(said(source("qwen"), &thought), [" one <|im_end|>", "<think>\nhm hm\n</think>\n\ntwo<|im_end|>"]);
    // Where nothing is known to end a turn, it cannot be told.
    let message = template(source("qwen")).assistant_spans(&thought, None, &Map::new()).map(drop);
    assert_says(message, &["message 2", "in another way", "generation"]);
    let plain = [say("user", "1?"), say("assistant", "one"), say("user", "2?"), say("assistant", "two")];
    assert_eq!(said(source("qwen"), &plain), ["one<|im_end|>", "<think>\n\n</think>\n\ntwo<|im_end|>"]);
    let spelled = [say("user", "1?"), say("assistant", "a <|im_end|> b"), say("user", "2?"), say("assistant", "two")];
    let qwen = ChatTemplate::new(source("qwen"), &[("eos_token", "<|im_end|>")]).unwrap();
    assert_says(qwen.assistant_spans(&spelled, None, &Map::new()), &["message 2"]);
    // A prompt that opens a thought which an answer may lack.
    let opens = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}";
    assert_eq!(said(opens, &plain), ["one</s>", "two</s>"]);
    // Blocks in a macro.
    let tool = messages(&table["conversations"]["tool"]);
    assert_eq!(said(source("generation"), &tool), ["<|end|>", "21.5 °C<|end|>"]);
    let call = json!([{"function": {"name": "add", "arguments": {"x": 1}}}]);
    let calls = [
        say("user", "1 + 1?"),
        say("assistant", "").with("tool_calls", call),
        say("tool", "2"),
        say("assistant", "2."),
    ];
    let parts = said(source("qwen"), &calls);
    assert!(parts[0].ends_with("</tool_call><|im_end|>") && parts[1].ends_with("2.<|im_end|>"), "{parts:?}");
}

#[test]
fn a_tokenizer_brings_its_template_and_the_names_of_its_tokens() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokenizer.json");
    bpe("the text", 260).save(&path).unwrap();
    let write = |name: &str, text: Value| {
        let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
        std::fs::write(dir.path().join(name), text).unwrap();
    };
    let of = || ChatTemplate::of(&Tokenizer::load(&path).unwrap());
    let text = |tools: Option<&[Value]>| of().unwrap().unwrap().render(&short()[..1], tools, true, &Map::new());
    assert!(of().unwrap().is_none());

    let named = json!([{"name": "default", "template": "{{ bos_token ~ image_token ~ pad_token }}"}, {"name": "tool_use", "template": "{{ tools }}"}]);
    write(
        "tokenizer_config.json",
        json!({"chat_template": named, "bos_token": {"content": "<b>"}, "extra_special_tokens": {"image_token": "<i>"}}),
    );
    write("special_tokens_map.json", json!({"pad_token": "<p>"}));
    assert_eq!(text(None).unwrap(), "<b><i><p>");
    assert_eq!(text(Some(&[json!({"a": 1})])).unwrap(), "[{'a': 1}]");
    let other = json!({"chat_template": [{"name": "rag", "template": ""}]});
    write("tokenizer_config.json", other);
    assert_says(of(), &["tokenizer_config.json: chat_template: expected a template called default, found rag"]);
    write("tokenizer_config.json", json!({"chat_template": "{% if %}"}));
    assert_says(of(), &["tokenizer_config.json: chat_template, line 1: expected a chat template in Jinja"]);
    write("chat_template.jinja", "\n{{ raise_exception('no ' + messages[0].role) }}".into());
    assert_says(
        text(None),
        &["chat_template.jinja: line 2: expected a conversation that the template takes, found \"no user\""],
    );
}

#[test]
fn templates_and_conversations_that_are_wrong_are_typed_errors() {
    let new = |source: &str| ChatTemplate::new(source, &[]);
    for source in [
        "{% for x in y %}",
        "{{ 'a }}",
        "{% nonsense %}",
        "{{ (1 }}",
        "{% set x = %}",
        "{% generation %}a",
        "{{ '\\ud800' }}",
    ] {
        assert!(new(source).is_err(), "{source}");
        assert_says(new(source), &["chat template: ", "expected a chat template in Jinja", "repair the template"]);
    }
    assert_says(new(&"a".repeat(1 << 19)), &["at most 262144 bytes"]);
    let words = ["line 2", "a template that runs", "messages have"];
    for source in [
        "{{ x.y.z }}",
        "{{ 'a' + 1 }}",
        "{{ 'a'|nonsense }}",
        "{{ nonsense() }}",
        "{{ 'a' is nonsense }}",
        "{{ messages.pop() }}",
    ] {
        assert_says(render(&format!("\n{source}"), &short()), &words);
    }
    assert_says(render("", &[]), &["no messages"]);
    assert_says(template("").dated("26 Jul"), &["\"26 Jul\" is no date"]);
    for wrong in [json!("hello"), json!({"content": "x"}), json!({"role": 1})] {
        let message = serde_json::from_value::<Message>(wrong).unwrap_err().to_string();
        assert!(message.contains("an object with a text called role"), "{message}");
    }
    let odd = json!({"role": "user", "content": null, "extra": [1, {"b": 2.0}]});
    assert_eq!(serde_json::to_value(serde_json::from_value::<Message>(odd.clone()).unwrap()).unwrap(), odd);
}

/// What a template must not get: memory or time without bound, or a crash. Each is an error within a second or so.
#[test]
fn hostile_templates_end_in_errors() {
    let grow = |step: &str| {
        format!(
            "{{% set ns = namespace(s='xxxxxxxx') %}}{{% for i in range(90) %}}{{% set ns.s = {step} %}}{{% endfor %}}{{{{ ns.s|length }}}}"
        )
    };
    let fuel = [
        grow("ns.s ~ ns.s"),
        grow("ns.s + ns.s"),
        grow("ns.s * 100"),
        grow("ns.s|replace('x', 'xxxxxxxxxxxxxxxx')"),
        grow("ns.s.replace('x', 'xxxxxxxxxxxxxxxx')"),
        grow("range(1000)|join(ns.s)"),
        grow("ns.s.join(range(1000)|map('string')|list)"),
        grow("ns.s.ljust(10 ** 12)"),
        grow("'%1000000000d'|format(1)"),
        grow("[ns.s, ns.s]|tojson"),
        grow("[ns.s, ns.s]|string"),
        grow("ns.s.center(4000000000, ns.s)"),
        grow("'{0}{0}{0}{0}'.format(ns.s)"),
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}".into(),
        "{% for a in range(99999) %}{{ 'x' * 10000 }}{% endfor %}".into(),
        "{% set x %}{% for a in range(99999) %}{{ 'x' * 10000 }}{% endfor %}{% endset %}".into(),
        "{{ ('x' * 30000000).split('x')|length }}".into(),
        "{{ (' x' * 15000000).split()|length }}".into(),
        "{{ ('x ' * 15000000).rsplit()|length }}".into(),
        "{{ ('\\n' * 30000000).splitlines()|length }}".into(),
        "{{ ('\\n' * 30000000)|indent|length }}".into(),
        "{{ ('x' * 30000000)|list|length }}".into(),
        "{{ ('x' * 30000000)|tojson|tojson|length }}".into(),
        "{{ range(99999)|map('string')|map('replace', '1', 'x' * 100000)|list|length }}".into(),
    ];
    for source in &fuel {
        assert_says(render(source, &short()), &["little for each message", "goes on and on"]);
    }
    let values = "a value of more than 64 lists within each other";
    let items = "a value of more than 1048576 items";
    let doubled: String = (0..60).map(|_| "{% set x = [x, x] %}").collect();
    let deep = "[".repeat(70) + &"]".repeat(70);
    let other = [
        (format!("{{% set x = {deep} %}}"), values),
        (format!("{{{{ {deep} }}}}"), values),
        (format!("{{{{ {deep}|tojson }}}}"), values),
        (grow("[ns.s]"), values),
        (grow("{'a': ns.s}"), values),
        (grow("[ns]"), values),
        ("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns ~ ns }}".into(), values),
        ("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{{ a == b }}".into(), values),
        (format!("{doubled}{{{{ x ~ x }}}}"), items),
        (format!("{doubled}{{{{ x == x }}}}"), items),
        ("{{ range(10 ** 9) }}".into(), "range has too many elements"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".into(), "recursion limit"),
        (
            "{% macro f(x) %}{{ f([[[[x]]]]) ~ g(x) }}{% endmacro %}{% macro g(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"
                .into(),
            "recursion limit",
        ),
        ("{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}".into(), "recursion limit"),
        ("{{ ".to_owned() + &"(".repeat(100_000), "tags of at most 8192 bytes"),
        ("{{ ".to_owned() + &"[".repeat(8000), "recursion"),
        ("{% if 1 %}".repeat(20_000), "recursion"),
        ("{% if 0 %}".to_owned() + &"{% elif 0 %}".repeat(20_000) + "{% endif %}", ""),
        ("{{ ".to_owned() + &"-".repeat(8000) + "1 }}", ""),
        ("{{ ".to_owned() + &"not ".repeat(2000) + "1 }}", ""),
        ("{{ 1".to_owned() + &"|abs".repeat(2000) + " }}", ""),
        ("{{ 1".to_owned() + &"+1".repeat(4000) + " }}", ""),
        ("{{ 1".to_owned() + &" if 1 else 1".repeat(600) + " }}", ""),
        ("{{ x".to_owned() + &".x".repeat(4000) + " }}", "a template that runs"),
        ("{{ 1".to_owned() + &"**1".repeat(2700) + " }}", ""),
        ("{{ 1".to_owned() + &" and 1".repeat(1300) + " }}", ""),
        ("{{ 1".to_owned() + &"<1".repeat(4000) + " }}", ""),
    ];
    for (source, says) in &other {
        let new = ChatTemplate::new(source, &[]);
        let got = new.and_then(|template| template.render(&short(), None, false, &Map::new()));
        let shown = &source[..source.len().min(80)];
        match got {
            Ok(text) => assert!(says.is_empty() && text.len() < 100, "{shown}: {text}"),
            Err(e) => assert!(e.to_string().contains(says) && e.hint().is_some(), "{shown}: {e}"),
        }
    }
}

#[test]
fn a_long_conversation_has_what_it_needs() {
    let table = table();
    let long: Vec<Message> = (0..2000)
        .map(|n| say(if n % 2 == 0 { "user" } else { "assistant" }, &format!("{n}: {}", "many words ".repeat(200))))
        .collect();
    for name in ["smollm2", "llama2", "llama3", "mistral", "gemma", "qwen", "phi", "zephyr"] {
        let text = render(table["templates"][name].as_str().expect("a template"), &long).expect(name);
        assert!(text.len() > 4_000_000, "{name}");
    }
}
