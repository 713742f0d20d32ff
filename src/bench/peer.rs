//! A rival program that does the same work, one repetition at a time.
//!
//! Two programs timed one after the other see two different machines. So the peer is started once and the two alternate:
//! it runs one repetition for each line that it reads and answers with one line of JSON, once its threads sleep. The
//! protocol is described in benches/peers/README.md.

use crate::error::{Error, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running peer.
pub struct Peer {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    shown: String,
    /// What it said of itself: `peer`, `case`, `threads`, `tokens`.
    pub about: Value,
    /// What it said of its last repetition.
    pub last: Value,
}

impl Peer {
    /// Starts `command` and waits until it is ready. `shown` is how messages call it.
    ///
    /// # Errors
    /// It cannot be started, or ends before it is ready.
    pub fn start(mut command: Command, shown: &str) -> Result<Peer> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|source| Error::io(command.get_program(), source))?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let from = BufReader::new(from.expect("its output is a pipe"));
        let mut peer = Peer { child, to, from, shown: shown.to_owned(), about: Value::Null, last: Value::Null };
        peer.about = peer.line()?;
        Ok(peer)
    }

    /// Its name for itself.
    pub fn name(&self) -> &str {
        self.about["peer"].as_str().unwrap_or("peer")
    }

    /// Tells it what to do from now on; it warms up meanwhile. Gives the reason where it cannot do that.
    pub fn prepare(&mut self, spec: &Value) -> Result<Option<String>> {
        let answer = self.ask(&format!("{spec}\n"))?;
        Ok(answer["skip"].as_str().map(str::to_owned))
    }

    /// Lets it do one repetition: the seconds of the whole or main part.
    pub fn once(&mut self) -> Result<f64> {
        self.last = self.ask("\n")?;
        self.seconds("seconds")
    }

    fn ask(&mut self, line: &str) -> Result<Value> {
        // Where it has gone, reading its answer says so.
        let _ = self.to.as_mut().expect("its input is open").write_all(line.as_bytes());
        self.line()
    }

    /// A time of its last repetition.
    pub fn seconds(&self, key: &str) -> Result<f64> {
        self.last[key].as_f64().ok_or_else(|| self.failed(format!("answered {}, without {key}", self.last)))
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(n) if n > 0 => serde_json::from_str(&line).map_err(|_| self.failed(format!("wrote {line:?}, not JSON"))),
            _ => Err(self.failed("ended; its reason stands above".to_owned())),
        }
    }

    fn failed(&self, what: String) -> Error {
        Error::failed(format!("the peer {what}: {}", self.shown), "run it by hand; see benches/peers/README.md")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Closing its input ends it.
        self.to = None;
        let _ = self.child.wait();
    }
}
