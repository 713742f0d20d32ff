//! Writing to a terminal: text that cannot steer it, numbers that can be read, a bar that appears only when needed.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use kiln::error::{AtPath, Result};

/// `text` with everything that could steer a terminal spelled out as an escape: control characters (C0 except line feed
/// and tab, DEL, C1) and marks that reorder text.
pub fn safe(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\r' => out.push_str("\\r"),
            c if steers(c) && c.is_ascii() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if steers(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// How a word stands out on a terminal.
#[derive(Clone, Copy, Debug)]
pub enum Ink {
    /// A heading.
    Bold,
    /// What matters less.
    Dim,
    /// All is well.
    Green,
    /// It is not.
    Red,
}

/// `text` in an ink, where standard output is a terminal and `NO_COLOR` is not set.
pub fn ink(text: &str, ink: Ink) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    let code = match ink {
        Ink::Bold => 1,
        Ink::Dim => 2,
        Ink::Green => 32,
        Ink::Red => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Writes `text` and a line break to standard output. A reader that has gone away, as `head`, is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).at("standard output"),
        _ => Ok(()),
    }
}

/// Says on standard error what is not as it should be.
pub fn warn(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr().lock(), "warning: {}", safe(text));
}

/// Says something on standard error that is no part of the result.
pub fn note(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// 1234567 as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A path as a shell reads it.
pub fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,=:@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", safe(&text).replace('\'', r"'\''")) }
}

/// A progress bar over bytes on standard error: drawn only on a terminal, and only for work of more than two seconds.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
}

impl Progress {
    /// A bar named `what` over `total` bytes.
    pub fn bytes(what: &'static str, total: u64) -> Progress {
        Progress::new(what, total, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left")
    }

    /// A bar named `what` over `total` things.
    pub fn count(what: &'static str, total: u64) -> Progress {
        Progress::new(what, total, "{msg} {wide_bar} {human_pos}/{human_len} {eta} left")
    }

    fn new(what: &'static str, total: u64, template: &str) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
        bar.set_message(what);
        Progress { bar, start: Instant::now() }
    }

    /// Moves the bar to `done`.
    pub fn set(&self, done: u64) {
        if self.bar.is_hidden() && std::io::stderr().is_terminal() && self.start.elapsed() > Duration::from_secs(2) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(done.min(self.bar.length().unwrap_or(done)));
    }

    /// Lets `write` write above the bar.
    pub fn above(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// The same, where it is known only now how much there is.
    pub fn set_of(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.set(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_passes() {
        assert_eq!(safe("plain text,\n\ttabs; é 火"), "plain text,\n\ttabs; é 火");
        assert_eq!(safe("\x1b[2J\x07\r\x7f"), "\\x1b[2J\\x07\\r\\x7f");
        assert_eq!(safe("\u{9b}31m"), "\\u{9b}31m"); // the one-character form of ESC [
        assert_eq!(safe("a\u{202e}b"), "a\\u{202e}b");
        for c in (0..=0x9f).filter_map(char::from_u32).filter(|c| !matches!(c, '\n' | '\t')) {
            assert!(!safe(&c.to_string()).chars().any(char::is_control), "{c:?}");
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
