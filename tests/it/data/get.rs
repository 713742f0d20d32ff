//! `kiln data get` through the program, from a server on this machine: resumed, refused, damaged.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A server that breaks its first `broken` answers off in the middle, and counts its answers.
struct Server {
    address: String,
    answers: Arc<AtomicUsize>,
    content: Arc<Vec<u8>>,
}

impl Server {
    fn start(broken: usize) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://127.0.0.1:{}/", listener.local_addr().expect("an address").port());
        let content: Arc<Vec<u8>> = Arc::new((0..200_000u32).flat_map(u32::to_le_bytes).collect());
        let answers = Arc::new(AtomicUsize::new(0));
        let (bytes, count) = (content.clone(), answers.clone());
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let n = count.fetch_add(1, Relaxed);
                // Who asks may go away.
                let _ = answer(stream, &bytes, n < broken);
            }
        });
        Server { address, answers, content }
    }

    fn sha256(&self) -> String {
        Sha256::digest(&*self.content).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// A table with one set of this server's.
    fn table(&self, dir: &Path, name: &str, sum: Option<&str>) {
        let sum = sum.map_or(String::new(), |sum| format!(", sha256 = \"{sum}\""));
        let text = format!(
            "[[set]]\nname = \"numbers\"\nabout = \"numbers\"\nlicence = \"MIT\"\nterms = \"https://example.org/terms\"\n\
             page = \"https://example.org\"\nbytes = 800000\nbase = \"{}\"\nfiles = [{{ name = \"{name}\"{sum} }}]\n",
            self.address
        );
        std::fs::write(dir.join("table.toml"), text).expect("written");
    }
}

fn answer(mut stream: TcpStream, content: &[u8], broken: bool) -> std::io::Result<()> {
    let (mut path, mut from) = (String::new(), 0);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap_or("").to_owned();
        }
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap_or(0);
        }
        if line.is_empty() {
            break;
        }
    }
    match path.as_str() {
        "/away.bin" => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n")
        }
        "/numbers.bin" if from <= content.len() => {
            let rest = &content[from..];
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let range = format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len());
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n", rest.len())?;
            write!(stream, "{}Connection: close\r\n\r\n", if from > 0 { &range } else { "" })?;
            stream.write_all(if broken { &rest[..rest.len() / 3] } else { rest })
        }
        _ => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    }?;
    stream.flush()?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // So that what was sent arrives before the connection is reset.
    stream.read(&mut [0; 64]).map(drop)
}

fn kiln(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    // Proxies are for other machines.
    command.env("no_proxy", "127.0.0.1").current_dir(dir).stdin(Stdio::null());
    command.args(["data", "get"]).args(args).output().expect("it starts")
}

const NUMBERS: [&str; 6] = ["numbers", "--table", "table.toml", "--out", "out", "--accept-licence"];

#[track_caller]
fn fails(output: &Output, code: i32, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    says.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in: {text}"));
    assert!(!text.contains("panicked"), "{text}");
}

fn names(dir: &Path) -> Vec<String> {
    let entries: Vec<_> =
        std::fs::read_dir(dir.join("out")).map(|entries| entries.flatten().collect()).unwrap_or_default();
    let mut names: Vec<String> = entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_set_arrives_whole_though_the_connection_breaks_and_a_second_call_fetches_nothing() {
    let (dir, server) = (TempDir::new().unwrap(), Server::start(3));
    server.table(dir.path(), "numbers.bin", None);
    let output = kiln(dir.path(), &NUMBERS);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(dir.path().join("out/numbers.bin")).unwrap(), *server.content);
    assert_eq!(server.answers.load(Relaxed), 4);
    assert!(String::from_utf8_lossy(&output.stderr).contains("licence: MIT, https://example.org/terms"));
    let sums = std::fs::read_to_string(dir.path().join("out/SHA256SUMS")).unwrap();
    assert_eq!(sums, format!("{}  numbers.bin\n", server.sha256()));
    assert!(kiln(dir.path(), &NUMBERS).status.success());
    assert_eq!((server.answers.load(Relaxed), names(dir.path()).len()), (4, 2));
}

#[test]
fn nothing_is_fetched_before_the_licence_is_accepted() {
    let (dir, server) = (TempDir::new().unwrap(), Server::start(0));
    server.table(dir.path(), "numbers.bin", None);
    fails(&kiln(dir.path(), &NUMBERS[..5]), 2, &["licence", "MIT", "https://example.org/terms", "--accept-licence"]);
    assert_eq!((server.answers.load(Relaxed), names(dir.path()).len()), (0, 0));
}

#[test]
fn what_cannot_be_had_or_is_wrong_is_named_with_the_place_to_put_it() {
    let (dir, server) = (TempDir::new().unwrap(), Server::start(0));
    server.table(dir.path(), "absent.bin", None);
    fails(&kiln(dir.path(), &NUMBERS), 1, &["absent.bin cannot be fetched", "404", "put it at out/absent.bin"]);
    assert!(names(dir.path()).is_empty());
    server.table(dir.path(), "numbers.bin", Some(&"0".repeat(64)));
    fails(&kiln(dir.path(), &NUMBERS), 1, &["numbers.bin: content", &server.sha256()]);
    assert!(names(dir.path()).is_empty());
    server.table(dir.path(), "away.bin", None);
    fails(&kiln(dir.path(), &NUMBERS), 1, &["away.bin cannot be fetched"]);
    assert!(names(dir.path()).is_empty());

    // A server that is not there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = Server { address: format!("http://127.0.0.1:{port}/"), ..server };
    gone.table(dir.path(), "numbers.bin", None);
    fails(&kiln(dir.path(), &NUMBERS), 1, &["cannot be fetched", "where there is no network", "out/numbers.bin"]);
    assert!(names(dir.path()).is_empty());

    fails(&kiln(dir.path(), &["no-such-set", "--accept-licence"]), 2, &["no-such-set", "tinystories"]);
    fails(&kiln(dir.path(), &[]), 2, &["NAME"]);
    std::fs::write(dir.path().join("bad.toml"), "[[set]]\n").unwrap();
    fails(&kiln(dir.path(), &["x", "--table", "bad.toml"]), 1, &["bad.toml"]);
    let list = kiln(dir.path(), &["--list"]);
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.status.success() && text.contains("cifar-10") && text.contains("CDLA-Sharing-1.0"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_machine_without_curl_is_told_what_to_do() {
    let (dir, server) = (TempDir::new().unwrap(), Server::start(0));
    server.table(dir.path(), "numbers.bin", None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.env("PATH", "/nowhere").current_dir(dir.path()).stdin(Stdio::null());
    let output = command.args(["data", "get"]).args(NUMBERS).output().unwrap();
    fails(&output, 1, &["curl is not on this machine", "out/numbers.bin"]);
    assert!(names(dir.path()).is_empty());
}

/// A file system that is full: what was fetched stays as a part, and nothing bears the file's name.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_files_stops_it_and_a_second_call_goes_on() {
    let (dir, server) = (TempDir::new().unwrap(), Server::start(0));
    server.table(dir.path(), "numbers.bin", None);
    let script =
        format!("trap '' XFSZ; ulimit -f 300; exec {} data get {}", env!("CARGO_BIN_EXE_kiln"), NUMBERS.join(" "));
    let mut command = Command::new("bash");
    command.args(["-c", &script]).env("no_proxy", "127.0.0.1").current_dir(dir.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    fails(&output, 1, &["numbers.bin.part"]);
    assert_eq!(names(dir.path()), ["numbers.bin.part"]);
    let output = kiln(dir.path(), &NUMBERS);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(dir.path().join("out/numbers.bin")).unwrap(), *server.content);
}
