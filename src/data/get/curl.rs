//! Fetching by the program `curl`, which every system has or can have: it knows proxies and certificates, and kiln needs
//! no TLS of its own.

use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};

use super::{Failure, Fetch};
use crate::error::Result;

/// The program `curl`.
#[derive(Clone, Debug)]
pub struct Curl {
    /// Its name or path.
    pub program: String,
}

impl Default for Curl {
    fn default() -> Curl {
        Curl { program: "curl".to_owned() }
    }
}

/// Exit codes of `curl` after which another try may bring more: partial file, time-out, no answer, errors of TLS and of
/// the connection.
const BROKEN_OFF: [i32; 7] = [18, 28, 52, 55, 56, 92, 95];

impl Fetch for Curl {
    fn fetch(&self, url: &str, from: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<(), Failure> {
        let mut command = Command::new(&self.program);
        // An address of this machine, which is for tests and mirrors, needs no encryption; nothing leads away from https.
        let protocols = if url.starts_with("https://") { "=https" } else { "=http" };
        command.args(["--fail", "--location", "--silent", "--show-error", "--max-redirs", "10"]);
        command.args(["--proto", protocols, "--proto-redir", protocols]);
        command.args(["--connect-timeout", "20", "--speed-limit", "1", "--speed-time", "60"]);
        if from > 0 {
            command.args(["--continue-at", &from.to_string()]);
        }
        command.args(["--output", "-", "--url", url]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound => Failure::Refused(format!("the program {} is not on this machine", self.program)),
            _ => Failure::Refused(format!("starting {}: {e}", self.program)),
        })?;
        let mut stdout = child.stdout.take().expect("it was piped");
        let mut buffer = vec![0; 1 << 18];
        let result = loop {
            match stdout.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    if let Err(error) = sink(&buffer[..n]) {
                        break Err(error);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break Ok(()),
            }
        };
        drop(stdout);
        if let Err(error) = result {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error.into());
        }
        let output = child.wait_with_output().map_err(|e| Failure::BrokenOff(e.to_string()))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect::<String>();
        match output.status.code() {
            Some(0) => Ok(()),
            // No ranges; or 416, which a range beyond the end gives.
            Some(33 | 36) => Err(Failure::NoRanges),
            Some(22) if from > 0 && said.contains("416") => Err(Failure::NoRanges),
            Some(code) if BROKEN_OFF.contains(&code) => Err(Failure::BrokenOff(said)),
            Some(_) => Err(Failure::Refused(said)),
            None => Err(Failure::BrokenOff("curl was stopped by a signal".to_owned())),
        }
    }
}
