//! Tokens back to text: the bytes of each token, and text released as it becomes complete.

use std::collections::HashMap;
use std::hash::BuildHasher;

use tokenizers::AddedToken;

use super::tokenizer::Tokenizer;

/// GPT-2's printable stand-in for a byte: itself where it is visible in Latin-1, else the next free code point from
/// U+0100 on.
pub(crate) fn byte_to_char(byte: u8) -> char {
    let visible = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if visible(byte) {
        return byte as char;
    }
    let hidden_before = (0..byte).filter(|&b| !visible(b)).count() as u32;
    char::from_u32(0x100 + hidden_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The bytes that each id stands for.
#[derive(Clone)]
pub(crate) struct TokenBytes {
    bytes: Vec<u8>,
    /// Token `i` is `bytes[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
}

impl TokenBytes {
    /// From pairs of id (below `vocab`) and bytes; ids that never come stand for nothing.
    pub fn new(vocab: u32, tokens: impl Iterator<Item = (u32, Vec<u8>)>) -> TokenBytes {
        let mut table = vec![Vec::new(); vocab as usize];
        tokens.for_each(|(id, bytes)| table[id as usize] = bytes);
        let mut starts = vec![0];
        starts.extend(table.iter().scan(0, |end, token| {
            *end += token.len() as u32;
            Some(*end)
        }));
        TokenBytes { bytes: table.concat(), starts }
    }

    /// For a byte-level vocabulary: added tokens stand for their text, the others for the bytes that they spell.
    pub fn byte_level<H: BuildHasher, A: BuildHasher>(
        vocab: u32,
        tokens: &HashMap<String, u32, H>,
        added: &HashMap<u32, AddedToken, A>,
    ) -> TokenBytes {
        let bytes: HashMap<char, u8> = (0..=255).map(|b| (byte_to_char(b), b)).collect();
        let spelled = |token: &str| token.chars().map(|c| bytes.get(&c).copied()).collect::<Option<Vec<u8>>>();
        let tokens = tokens.iter().map(|(token, &id)| match spelled(token) {
            Some(bytes) if !added.contains_key(&id) => (id, bytes),
            _ => (id, token.clone().into_bytes()),
        });
        TokenBytes::new(vocab, tokens)
    }

    /// The bytes of `id`; those of U+FFFD if it is outside the vocabulary.
    pub fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match (self.starts.get(id), self.starts.get(id + 1)) {
            (Some(&start), Some(&end)) => &self.bytes[start as usize..end as usize],
            _ => "\u{FFFD}".as_bytes(),
        }
    }
}

/// How many tokens before a new one can change its text, where tokens are not plain bytes: a guess on the safe side.
const CONTEXT: usize = 8;

/// Turns tokens into text one at a time, holding back bytes until they make a whole character. What it releases,
/// joined, is what [`Tokenizer::decode`] makes of all the tokens.
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Bytes not yet released.
    held: Vec<u8>,
    /// For tokenizers whose text depends on neighbours: the last tokens, and how much of their text is released.
    ids: Vec<u32>,
    released: usize,
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of a text.
    pub fn new(tokenizer: &'a Tokenizer) -> Decoder<'a> {
        Decoder { tokenizer, held: Vec::new(), ids: Vec::new(), released: 0 }
    }

    /// Takes one token and returns the text that is now complete; often empty.
    pub fn push(&mut self, id: u32) -> String {
        match self.tokenizer.token_bytes(id) {
            Some(bytes) => {
                self.held.extend_from_slice(bytes);
                self.release()
            }
            None => {
                self.ids.push(id);
                let text = self.tokenizer.decode(&self.ids);
                // A replacement character at the end may still become a letter.
                let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
                let new = self.take(&text, whole);
                if whole == text.len() && self.ids.len() > 2 * CONTEXT {
                    self.ids.drain(..self.ids.len() - CONTEXT);
                    self.released = self.tokenizer.decode(&self.ids).len();
                }
                new
            }
        }
    }

    /// Returns what is held back at the end; an incomplete character becomes U+FFFD. Another text may follow.
    pub fn finish(&mut self) -> String {
        let text = self.tokenizer.decode(&self.ids);
        let rest = self.take(&text, text.len()) + &String::from_utf8_lossy(&self.held);
        *self = Decoder::new(self.tokenizer);
        rest
    }

    fn take(&mut self, text: &str, end: usize) -> String {
        let new = text.get(self.released..end).unwrap_or("").to_owned();
        self.released += new.len();
        new
    }

    fn release(&mut self) -> String {
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let bad = chunk.invalid();
            // Invalid bytes at the very end may be the start of a character.
            let unfinished =
                done + bad.len() == self.held.len() && std::str::from_utf8(bad).is_err_and(|e| e.error_len().is_none());
            if bad.is_empty() || unfinished {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            done += bad.len();
        }
        self.held.drain(..done);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_are_gpt2s() {
        assert_eq!(byte_to_char(b'A'), 'A');
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
        let all: std::collections::HashSet<char> = (0..=255).map(byte_to_char).collect();
        let theirs: std::collections::HashSet<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(all, theirs);
    }

    #[test]
    fn characters_are_released_whole() {
        let tokenizer = Tokenizer::bytes();
        let mut decoder = Decoder::new(&tokenizer);
        let steps: Vec<String> = "a€\u{1F525}".bytes().map(|b| decoder.push(u32::from(b))).collect();
        assert_eq!(steps, ["a", "", "", "€", "", "", "", "\u{1F525}"]);
        assert_eq!(decoder.finish(), "");
    }

    #[test]
    fn broken_bytes_become_what_lossy_decoding_makes_of_them() {
        let tokenizer = Tokenizer::bytes();
        let cases: [&[u8]; 6] =
            [b"\xff", b"a\xe2\x82", b"\xe2\x82b", b"\xf0\x9f\x94", b"\xc3\xc3\xa9", b"\x80\x80ok\xc3"];
        for bytes in cases {
            let mut decoder = Decoder::new(&tokenizer);
            let mut text: String = bytes.iter().map(|&b| decoder.push(u32::from(b))).collect();
            text += &decoder.finish();
            assert_eq!(text, String::from_utf8_lossy(bytes), "{bytes:x?}");
        }
    }
}
