//! Tokens to text, up to a stop string.

use crate::data::Tokenizer;
use crate::data::detok::Decoder;

/// Text as it becomes complete: whole characters, and nothing that may turn out to be a stop string.
pub struct TextStream<'a> {
    decoder: Decoder<'a>,
    stop: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// A stream that ends before the first of the strings `stop`; empty ones count for nothing.
    pub fn new(tokenizer: &'a Tokenizer, mut stop: Vec<String>) -> TextStream<'a> {
        stop.retain(|stop| !stop.is_empty());
        TextStream { decoder: Decoder::new(tokenizer), stop, held: String::new(), stopped: false }
    }

    /// Whether a stop string has come: no more is to be pushed.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes a token; returns the text that is certain now, often none.
    pub fn push(&mut self, id: u32) -> String {
        let text = self.decoder.push(id);
        self.take(&text)
    }

    /// What was held back, after the last token.
    pub fn finish(mut self) -> String {
        let rest = self.decoder.finish();
        let text = self.take(&rest);
        if self.stopped { text } else { text + &self.held }
    }

    fn take(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(end) = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(end);
            return std::mem::take(&mut self.held);
        }
        let begun = |at: &usize| self.stop.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let longest = self.stop.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let sure = self.held.char_indices().map(|(at, _)| at).filter(|at| *at >= from).find(begun);
        let sure = sure.unwrap_or(self.held.len());
        self.held.drain(..sure).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of each byte, and in the end; whether it stopped.
    fn stream(text: &str, stop: &[&str]) -> (Vec<String>, String, bool) {
        let tokenizer = Tokenizer::bytes();
        let mut stream = TextStream::new(&tokenizer, stop.iter().map(|s| (*s).to_owned()).collect());
        let mut pieces = Vec::new();
        for byte in text.bytes() {
            pieces.push(stream.push(u32::from(byte)));
            if stream.stopped() {
                break;
            }
        }
        let stopped = stream.stopped();
        (pieces, stream.finish(), stopped)
    }

    #[test]
    fn text_comes_at_once_where_nothing_can_stop_it() {
        let (pieces, rest, stopped) = stream("né", &[""]);
        assert_eq!((pieces, rest.as_str(), stopped), (["n", "", "é"].map(String::from).to_vec(), "", false));
    }

    #[test]
    fn a_stop_string_is_never_shown_nor_what_follows() {
        for stop in [&["END"][..], &["ENDE", "END", "ND"], &["xyz", "END"]] {
            let (pieces, rest, stopped) = stream("the EEND is END", stop);
            assert_eq!((pieces.concat() + &rest, stopped), ("the E".into(), true), "{stop:?}");
        }
    }

    #[test]
    fn what_only_looked_like_one_is_shown_as_soon_as_it_is_clear() {
        let (pieces, rest, stopped) = stream("aENaEN", &["END"]);
        assert_eq!(pieces, ["a", "", "", "ENa", "", ""]);
        assert_eq!((rest.as_str(), stopped), ("EN", false));
        // The beginning of one within the beginning of one.
        let (pieces, rest, stopped) = stream("ababac", &["abac"]);
        assert_eq!((pieces.concat() + &rest, stopped), ("ab".into(), true));
        let (pieces, ..) = stream("éé€", &["é€€"]);
        assert_eq!(pieces.concat(), "é");
    }
}
