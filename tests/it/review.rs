//! Reviews: the page's server asked byte by byte and forged, the program killed on the way, models asked once and no more.

use super::serve::read;
use kiln::cpu::Simd;
use kiln::data::Tokenizer;
use kiln::data::chat::Message;
use kiln::device::Device;
use kiln::infer::{Engine, Limits};
use kiln::model::sample::SampleOptions;
use kiln::model::{Gpt, GptConfig, Size};
use kiln::params::Params;
use kiln::review::answers::Answers;
use kiln::review::server::{MAX_BODY, OPEN};
use kiln::review::{self, Answer, Item, Plan, Prompt, Question, Review, Server, Side};
use kiln::serve::{Door, Guard};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const TOKEN: &str = "open-sesame";

fn pairs(n: usize, gold: usize) -> Vec<Item> {
    let item = |i| Item {
        prompt: Prompt::Chat(vec![Message::new("user", &format!("<b>What is {i}?</b>"))]),
        reference: None,
        a: Answer::Text(format!("alpha {i}")),
        b: Some(Answer::Text(format!("beta {i}"))),
        gold: (i < gold).then_some(Side::B),
    };
    (0..n).map(item).collect()
}

fn plan() -> Plan {
    Plan { models: vec!["runs/secret-one".into(), "runs/secret-two".into()], seed: 3, ..Plan::default() }
}

/// The page's server, until it is dropped.
struct Running {
    address: SocketAddr,
    server: Arc<Server>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(dir: &Path, items: &[Item]) -> Running {
        review::keep(dir, &plan(), items).expect("kept");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let door = Door {
            guard: Guard::new(address, Some(TOKEN.into())),
            open: OPEN,
            max_body: MAX_BODY,
            connections: 16,
            patience: Duration::from_secs(20),
        };
        let server = Arc::new(Server::new(door, Review::open(dir).expect("a review")));
        let stop = Arc::new(AtomicBool::new(false));
        let (told, own) = (Arc::clone(&stop), Arc::clone(&server));
        let thread = std::thread::spawn(move || own.run(listener, || told.load(Ordering::SeqCst)).expect("it served"));
        Running { address, server, stop, thread: Some(thread) }
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = post(self.address, TOKEN, path, body);
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}")))
    }

    fn good(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let done = self.thread.take().expect("a thread").join();
        assert!(done.is_ok() || std::thread::panicking());
    }
}

/// The answer to bytes that are sent as they are.
fn raw(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    // It may have answered, and closed, before it has all.
    let _ = stream.write_all(request.as_bytes());
    read(stream)
}

fn post(address: SocketAddr, token: &str, path: &str, body: &Value) -> (u16, String) {
    let body = body.to_string();
    let length = body.len();
    raw(
        address,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

#[test]
fn over_sixty_forged_requests_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let running = Running::start(dir.path(), &pairs(3, 0));
    let own = running.address.to_string();
    let port = running.address.port();
    let good = json!({"reviewer": "anna", "item": 0, "choice": "left", "note": ""});
    let request = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        text + "\r\n" + body
    };
    let (host, json_type) = (("Host", own.as_str()), ("Content-Type", "application/json"));
    let bearer = format!("Bearer {TOKEN}");
    let key = ("Authorization", bearer.as_str());
    let usual = [host, key, json_type];
    let body = good.to_string();
    let mut forged: Vec<(&[u16], String)> = Vec::new();

    // Names under which a page elsewhere may reach this machine.
    let hosts = [
        "evil.example".into(),
        format!("evil.example:{port}"),
        "127.0.0.1".into(),
        format!("127.0.0.1:{}", port ^ 1),
        format!("localhost.evil.example:{port}"),
        format!("127.0.0.1.nip.io:{port}"),
        format!("0.0.0.0:{port}"),
        format!("127.0.0.2:{port}"),
        format!("2130706433:{port}"),
        format!("{own}@evil.example"),
        String::new(),
    ];
    forged.extend(hosts.iter().map(|h| (&[403][..], request("POST", "/judge", &[("Host", h), key, json_type], &body))));
    forged.push((&[400, 403], request("POST", "/judge", &[key, json_type], &body)));
    forged.push((&[400, 403], request("POST", "/judge", &[host, ("Host", "evil.example"), key, json_type], &body)));
    forged.push((&[403], request("GET", "/", &[("Host", "evil.example")], "")));
    // Pages elsewhere.
    let origins = [
        "http://evil.example".into(),
        "null".into(),
        format!("https://{own}"),
        format!("http://127.0.0.1:{}", port ^ 1),
        format!("http://localhost.evil.example:{port}"),
        format!("http://{own}.evil.example"),
        format!("http://{own}/"),
        "file://".into(),
    ];
    for origin in &origins {
        forged.push((&[403], request("POST", "/judge", &[host, key, json_type, ("Origin", origin)], &body)));
    }
    for site in ["cross-site", "same-site"] {
        forged.push((&[403], request("POST", "/judge", &[host, key, json_type, ("Sec-Fetch-Site", site)], &body)));
    }
    let evil = ("Origin", "http://evil.example");
    forged.push((&[403], request("OPTIONS", "/judge", &[host, evil, ("Access-Control-Request-Method", "POST")], "")));
    // Who does not know the token.
    let tokens =
        ["", "Bearer", "Bearer x", "Bearer OPEN-SESAME", "Basic open-sesame", "open-sesame", "Bearer open-sesam"];
    for token in tokens.iter().chain(&["Bearer open-sesame2", "Bearer open-sesame open-sesame", "Bearer, open-sesame"])
    {
        forged.push((&[401], request("POST", "/judge", &[host, ("Authorization", token), json_type], &body)));
    }
    for path in
        ["/judge", "/item", "/undo", "/picture", "/judge?token=open-sesame", "/judge?Authorization=Bearer+open-sesame"]
    {
        forged.push((&[401], request("POST", path, &[host, json_type, ("Cookie", "token=open-sesame")], &body)));
    }
    // What a form can send.
    let types = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
    ];
    for kind in types.iter().chain(&["application/jsonx", "application/x-ndjson", ""]) {
        forged.push((&[415], request("POST", "/judge", &[host, key, ("Content-Type", kind)], &body)));
    }
    forged.push((&[415], request("POST", "/judge", &[host, key], &body)));
    // Other methods and paths.
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        forged.push((&[405], request(method, "/judge", &usual, &body)));
    }
    forged.push((&[405], request("POST", "/", &usual, &body)));
    let paths = [
        "/judge/",
        "//judge",
        "/../judge",
        "/%2e%2e/judge",
        "/judge%00",
        "/JUDGE",
        "/judgements.jsonl",
        "/../../etc/passwd",
    ];
    for path in paths.iter().chain(&["/picture/../judge", "/item/0", "/review.json", "/..%2f..%2fetc%2fpasswd"]) {
        forged.push((&[404], request("POST", path, &usual, &body)));
        forged.push((&[404], request("GET", path, &usual, "")));
    }
    // Bodies.
    let large = json!({"reviewer": "anna", "item": 0, "choice": "left", "note": "x".repeat(MAX_BODY)}).to_string();
    forged.push((&[413], request("POST", "/judge", &usual, &large)));
    for broken in
        ["", "{", "[]", "null", "7", "\"text\"", "{\"reviewer\": \"anna\u{0}\"}", "reviewer=anna&item=0&choice=left"]
    {
        forged.push((&[400], request("POST", "/judge", &usual, broken)));
    }
    let with = |key: &str, value: Value| {
        let mut said = good.clone();
        said[key] = value;
        said.to_string()
    };
    let wrong = [
        with("reviewer", json!(null)),
        with("reviewer", json!(1)),
        with("reviewer", json!("")),
        with("reviewer", json!("a\nb")),
        with("reviewer", json!("x".repeat(41))),
        with("item", json!(null)),
        with("item", json!(-1)),
        with("item", json!(3)),
        with("item", json!(0.5)),
        with("item", json!("0")),
        with("item", json!(1e30)),
        with("choice", json!(null)),
        with("choice", json!("a")),
        with("choice", json!("LEFT")),
        with("choice", json!(0)),
        with("choice", json!(3)),
        with("choice", json!(["left"])),
        with("note", json!(7)),
        with("note", json!("x".repeat(4001))),
    ];
    forged.extend(wrong.iter().map(|said| (&[400][..], request("POST", "/judge", &usual, said))));
    for said in [json!({"reviewer": "anna", "item": 9, "place": 0}), json!({"reviewer": "anna", "item": 0, "place": 0})]
    {
        // Of texts there are no pictures.
        forged.push((&[404], request("POST", "/picture", &usual, &said.to_string())));
    }
    forged.push((
        &[400],
        request("POST", "/picture", &usual, "{\"reviewer\": \"anna\", \"item\": \"../x\", \"place\": 0}"),
    ));

    assert!(forged.len() >= 60, "{}", forged.len());
    for (wanted, request) in &forged {
        let (status, answer) = raw(running.address, request);
        assert!(wanted.contains(&status), "{status}, wanted {wanted:?}, for\n{request:.300}\n{answer:.300}");
        assert!(!answer.contains(TOKEN) && !answer.contains("secret"), "{answer}");
    }
    assert_eq!(std::fs::read(dir.path().join("judgements.jsonl")).expect("a file"), b"");
    assert!(!dir.path().join("preferences.jsonl").exists());
    // The same, not forged, is taken.
    assert_eq!(running.good("/judge", &good)["done"], 1);
}

#[test]
fn the_page_is_one_file_that_may_load_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let running = Running::start(dir.path(), &pairs(1, 0));
    let page = || {
        let mut stream = TcpStream::connect(running.address).expect("a connection");
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", running.address);
        stream.write_all(request.as_bytes()).expect("it takes the request");
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("an answer");
        all
    };
    let all = page();
    let (head, body) = all.split_once("\r\n\r\n").expect("a head");
    let head = head.to_lowercase();
    let nonce = head.split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    for policy in ["default-src 'none'", "connect-src 'self'", "trusted-types 'none'", "frame-ancestors 'none'"] {
        assert!(head.contains(policy), "{head}");
    }
    assert_eq!(body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!page().contains(nonce), "the nonce is an old one");
    // Nothing from elsewhere, nothing that reads text as HTML, no handlers and styles that the policy would refuse.
    for bad in [
        "http:",
        "https:",
        "src=",
        "innerHTML",
        "insertAdjacent",
        "document.write",
        " onclick=\"",
        " style=\"",
        "secret",
    ] {
        assert!(!body.contains(bad), "{bad}");
    }
}

/// All that the page is told, over a whole review: the keys are these, and no word tells whose answer is whose.
#[test]
fn the_page_is_never_told_whose_answer_is_whose() {
    let dir = tempfile::tempdir().expect("a folder");
    let running = Running::start(dir.path(), &pairs(40, 8));
    let mut lefts = Vec::new();
    for reviewer in ["anna", "bo"] {
        let mut view = running.good("/item", &json!({"reviewer": reviewer}));
        let mut left = String::new();
        while !view["item"].is_null() {
            let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&view), ["rating", "done", "total", "more", "item"]);
            assert_eq!(keys(&view["item"]), ["number", "prompt", "reference", "answers"]);
            let answers = view["item"]["answers"].as_array().expect("answers");
            assert!(answers.iter().all(|answer| keys(answer) == ["text"]));
            assert!(!view.to_string().contains("secret"), "{view}");
            left.push(answers[0]["text"].as_str().expect("a text").chars().next().expect("a letter"));
            let said = json!({"reviewer": reviewer, "item": view["item"]["number"], "choice": "left"});
            view = running.good("/judge", &said);
        }
        assert_eq!((&view["done"], &view["total"]), (&json!(40), &json!(40)));
        lefts.push(left);
    }
    for left in &lefts {
        assert!((10..=30).contains(&left.matches('a').count()), "{left}");
    }
    assert_ne!(lefts[0], lefts[1]);
    // Who always says left has no preference, and is no better than a coin on gold.
    let summary = running.server.summary();
    assert!(summary.pairs.is_some_and(|pairs| pairs.p > 0.001));
    assert!(summary.reviewers.iter().all(|r| r.gold == 8 && r.judged == 32 && r.left == 40), "{:?}", summary.reviewers);
}

#[test]
fn pictures_come_without_what_their_files_say_beside() {
    let dir = tempfile::tempdir().expect("a folder");
    let part = |name: &[u8], data: &[u8]| [&(data.len() as u32).to_be_bytes()[..], name, data, &[0; 4]].concat();
    let file = |name: &str| {
        let path = dir.path().join(name);
        let words = part(b"tEXt", b"Software\0secret-one");
        let parts = [b"\x89PNG\r\n\x1a\n".to_vec(), part(b"IHDR", &[1; 13]), words, part(b"IEND", b"")];
        std::fs::write(&path, parts.concat()).expect("written");
        Answer::Picture { picture: path }
    };
    let item = Item {
        prompt: Prompt::Text(String::new()),
        reference: None,
        a: file("secret-a.png"),
        b: Some(file("secret-b.png")),
        gold: None,
    };
    let running = Running::start(dir.path(), &[item]);
    let view = running.good("/item", &json!({"reviewer": "anna"}));
    assert_eq!(view["item"]["answers"], json!([{"picture": true}, {"picture": true}]));
    assert_eq!(view["item"]["prompt"], json!([]));
    let body = json!({"reviewer": "anna", "item": 0, "place": 1}).to_string();
    let mut stream = TcpStream::connect(running.address).expect("a connection");
    let request = format!(
        "POST /picture HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        running.address,
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it takes the request");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an answer");
    let text = String::from_utf8_lossy(&all);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("image/png") && text.contains("IHDR"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    std::fs::remove_file(dir.path().join("secret-a.png")).expect("it goes");
    std::fs::remove_file(dir.path().join("secret-b.png")).expect("it goes");
    let (status, answer) = running.post("/picture", &json!({"reviewer": "anna", "item": 0, "place": 0}));
    assert!(status == 500 && !answer.to_string().contains("secret"), "{answer}");
}

fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).args(args).env("KILN_TOKEN", TOKEN).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// The program with a page, and where that is.
fn page(dir: &Path, args: &[&str]) -> (Child, SocketAddr) {
    let mut child = program(dir, args).stderr(Stdio::null()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let url = said["url"].as_str().expect("an address");
    (child, url.trim_start_matches("http://").trim_end_matches('/').parse().expect("an address"))
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What is said to be saved is there after `kill -9`, and the next start goes on behind it.
#[test]
fn a_killed_program_loses_nothing_that_it_called_saved() {
    let dir = tempfile::tempdir().expect("a folder");
    let pair = |i| json!({"prompt": format!("p{i}"), "a": format!("alpha {i}"), "b": format!("beta {i}")}).to_string();
    let text: String = (0..12).map(|i| pair(i) + "\n").collect();
    std::fs::write(dir.path().join("pairs.jsonl"), text).expect("written");
    let args = ["review", "--answers", "pairs.jsonl", "--out", "r", "--port", "0", "--json"];
    let mut done = 0;
    for round in 0..3 {
        let (mut child, address) = page(dir.path(), &args);
        let ask = |path: &str, said: Value| -> Value {
            let (status, text) = post(address, TOKEN, path, &said);
            assert_eq!(status, 200, "{text}");
            serde_json::from_str(&text).expect("JSON")
        };
        let mut view = ask("/item", json!({"reviewer": "anna"}));
        assert_eq!(view["done"], done, "round {round}");
        for _ in 0..4 {
            // Anna prefers the second model; which side that is, its words tell her.
            let first = view["item"]["answers"][0]["text"].as_str().expect("a text");
            let choice = if first.starts_with("beta") { "left" } else { "right" };
            let said = json!({"reviewer": "anna", "item": view["item"]["number"], "choice": choice, "note": "n"});
            view = ask("/judge", said);
            done += 1;
        }
        // SIGKILL.
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        let lines = json_lines(&dir.path().join("r/judgements.jsonl"));
        assert_eq!(lines.len(), done, "round {round}");
        assert!(lines.iter().all(|line| line["verdict"] == "b" && line["reviewer"] == "anna" && line["note"] == "n"));
        let pairs = json_lines(&dir.path().join("r/preferences.jsonl"));
        // The last of them may be one behind: it is made anew at the next start.
        assert!(
            pairs.len() + 1 >= done
                && pairs.iter().all(|pair| pair["chosen"].as_str().is_some_and(|t| t.starts_with("beta")))
        );
    }
    let output = program(dir.path(), &["review", "r", "--json"]).output().expect("it runs");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&summary["pairs"]["b_wins"], &summary["pairs"]["verdict"]), (&json!(12), &json!(true)));
    assert_eq!(summary["pairs"]["leads"], "b");
    let output = program(dir.path(), &[&args[..], &["--seed", "9"]].concat()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let wrong = program(dir.path(), &["review", "--summary", "--out", "none"]).output().expect("it runs");
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn models_are_asked_once_and_what_they_said_is_judged_in_the_terminal() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = |args: &[&str], input: &str| {
        let mut child =
            program(dir.path(), args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        // Who needs no input may be gone.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let tiny = "[run]\nname = \"a\"\n[model]\nlayers = 1\nheads = 2\nd = 16\n[data]\nbytes = 20000\ntokenizer = \"byte\"\n\
                [train]\ncontext = 64\nbatch = 2\nsteps = 2\nsample_every = 0\n[optim]\nwarmup = 1\n";
    std::fs::write(dir.path().join("tiny.toml"), tiny).expect("written");
    std::fs::write(dir.path().join("prompts.txt"), "Once\nOne day\n").expect("written");
    let (code, _, err) = run(&["train", "tiny.toml", "--threads", "1"], "");
    assert_eq!(code, Some(0), "{err}");
    // A model against itself, with the same seed.
    let prompts = ["--prompts", "prompts.txt", "--tokens", "12", "--threads", "1", "--terminal", "--reviewer", "anna"];
    let (code, _, err) = run(&[&["review", "runs/a", "runs/a"], &prompts[..]].concat(), "");
    assert!(code == Some(1) && err.contains("nothing to judge"), "{err}");
    let long = "x".repeat(100);
    std::fs::write(dir.path().join("long.txt"), long).expect("written");
    let (code, _, err) = run(&["review", "runs/a", "--prompts", "long.txt", "--out", "long", "--terminal"], "");
    assert!(code == Some(2) && err.contains("prompt 1: 100 tokens, but the model's context is 64"), "{err}");
    assert!(!dir.path().join("long").exists());

    let rate = [&["review", "runs/a", "--each", "2", "--out", "r"], &prompts[..]].concat();
    let (code, out, err) = run(&rate, "5 fine\n9\n1\nu\n2\n\nq\n");
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("9 is none of the keys") && err.contains("runs/a answers 4 times"), "{err}");
    assert!(out.contains("rated 3.50 of 5 in 2 judgements"), "{out}");
    let answers = dir.path().join("r/answers.jsonl");
    let (kept, stamp) = (std::fs::read(&answers).expect("a file"), std::fs::metadata(&answers).expect("a file"));
    // Now without the model's help.
    std::fs::rename(dir.path().join("runs/a/checkpoints"), dir.path().join("elsewhere")).expect("renamed");
    let (code, out, err) = run(&["review", "r", "--terminal", "--reviewer", "anna"], "3\n4\n");
    assert!(code == Some(0) && out.contains("in 4 judgements"), "{out}{err}");
    std::fs::rename(dir.path().join("elsewhere"), dir.path().join("runs/a/checkpoints")).expect("renamed");
    let (_, _, err) = run(&rate, "");
    assert!(!err.contains("answers 4 times"), "{err}");
    assert_eq!(std::fs::read(&answers).expect("a file"), kept);
    assert_eq!(std::fs::metadata(&answers).expect("a file").modified().ok(), stamp.modified().ok());
    let lines = json_lines(&dir.path().join("r/judgements.jsonl"));
    let said: Vec<&Value> =
        lines.iter().map(|line| if line["undone"] == true { &line["undone"] } else { &line["rating"] }).collect();
    assert_eq!(said, [&json!(5), &json!(1), &json!(true), &json!(2), &json!(3), &json!(4)]);
    // Both answers to a prompt are rated, and differently: a pair of each prompt, the better one chosen.
    let (items, pairs) =
        (json_lines(&dir.path().join("r/items.jsonl")), json_lines(&dir.path().join("r/preferences.jsonl")));
    let rating = |text: &Value| [5, 2, 3, 4][items.iter().position(|item| item["a"] == *text).expect("an item")];
    assert_eq!(pairs.len(), 2);
    assert!(pairs.iter().all(|pair| rating(&pair["chosen"]) > rating(&pair["rejected"])), "{pairs:?}");
}

#[test]
fn a_model_that_was_interrupted_is_asked_for_the_rest_only() {
    let device = Device::cpu_with(Simd::detect().expect("a level"), 1);
    let (gpt, decls) = Gpt::new(GptConfig::llama(Size { vocab: 256, context: 64, layers: 1, heads: 2, d: 16 }));
    let params = Params::new(&device, &decls, 5);
    let limits = Limits { lanes: 4, waiting: 64, cache: 1 << 24 };
    let engine = Engine::start(gpt, params, &device, Tokenizer::bytes(), limits);
    let dir = tempfile::tempdir().expect("a folder");
    let question = |i| Question { prompt: Prompt::Text(format!("prompt {i}")), reference: None };
    let questions: Vec<Question> = (0..6).map(question).collect();
    let options = SampleOptions { seed: 4, ..SampleOptions::greedy(10) };
    let options = SampleOptions { temperature: 1.0, ..options };
    let plan = plan();
    let ask = |told: &mut dyn FnMut(usize, usize)| {
        let mut answers = Answers::open(dir.path(), &plan).expect("answers");
        assert!(answers.lack(Side::A, 6));
        answers.ask(Side::A, &questions, 1, &engine, None, &options, told).expect("answers");
        assert!(!answers.lack(Side::A, 6) && answers.lack(Side::B, 6));
        answers.take(Side::A, 6)
    };
    let whole = ask(&mut |_, _| {});
    let path = dir.path().join("answers.jsonl");
    let text = std::fs::read_to_string(&path).expect("a file");
    // Killed in the middle of the third line.
    let cut = text.match_indices('\n').nth(1).expect("lines").0 + 8;
    std::fs::write(&path, &text[..cut]).expect("written");
    let mut first = None;
    assert_eq!(ask(&mut |done, _| _ = first.get_or_insert(done)), whole);
    assert_eq!(first, Some(2));
    let chat = [Question { prompt: Prompt::Chat(vec![Message::new("user", "Hi")]), reference: None }];
    let mut answers = Answers::open(dir.path(), &plan).expect("answers");
    let wrong = answers.ask(Side::B, &chat, 1, &engine, None, &options, &mut |_, _| {}).expect_err("no template");
    assert!(wrong.to_string().contains("prompt 1: it is a conversation"), "{wrong}");
}
