//! Cuts a stream at a delimiter, with a limit on what lies between two.

use std::io::{self, BufRead};

/// What lies before a delimiter, or before the end of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// It is in the buffer, with its delimiter.
    Whole,
    /// It is longer than the limit and was passed over.
    TooLong,
    /// There is nothing more.
    End,
}

/// Reads up to and including `delimiter` into `buffer`, which is emptied first, and counts what it reads.
///
/// The delimiter's last byte should be rare in the stream: the reader stops at each.
pub(super) struct Splitter {
    pub delimiter: &'static [u8],
    pub limit: usize,
    /// Where the next piece starts: byte offset and line number from 1.
    pub offset: u64,
    pub line: u64,
}

impl Splitter {
    pub fn new(delimiter: &'static [u8], limit: usize) -> Splitter {
        Splitter { delimiter, limit, offset: 0, line: 1 }
    }

    pub fn next(&mut self, source: &mut dyn BufRead, buffer: &mut Vec<u8>) -> io::Result<Piece> {
        buffer.clear();
        let last = *self.delimiter.last().expect("a delimiter has bytes");
        let (mut total, mut too_long) = (0u64, false);
        loop {
            let bytes = match source.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                break;
            }
            let n = memchr::memchr(last, bytes).map_or(bytes.len(), |at| at + 1);
            self.line += memchr::memchr_iter(b'\n', &bytes[..n]).count() as u64;
            buffer.extend_from_slice(&bytes[..n]);
            source.consume(n);
            total += n as u64;
            if buffer.ends_with(self.delimiter) {
                break;
            }
            if buffer.len() > self.limit + self.delimiter.len() {
                too_long = true;
                // Enough to know the delimiter by.
                buffer.drain(..buffer.len() - self.delimiter.len() + 1);
                buffer.shrink_to(1 << 20);
            }
        }
        self.offset += total;
        let delimiter = if buffer.ends_with(self.delimiter) { self.delimiter.len() } else { 0 };
        too_long |= total > (self.limit + delimiter) as u64;
        Ok(match total {
            0 => Piece::End,
            _ if too_long => Piece::TooLong,
            _ => Piece::Whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// The pieces of `text` as (offset of the end, line after it, text or `None` where too long), read in bits of `capacity`.
    fn pieces(text: &str, delimiter: &'static [u8], limit: usize, capacity: usize) -> Vec<(u64, u64, Option<String>)> {
        let mut splitter = Splitter::new(delimiter, limit);
        let mut source = BufReader::with_capacity(capacity, text.as_bytes());
        let (mut buffer, mut all) = (Vec::new(), Vec::new());
        loop {
            let text = match splitter.next(&mut source, &mut buffer).unwrap() {
                Piece::End => return all,
                Piece::Whole => Some(String::from_utf8(buffer.clone()).unwrap()),
                Piece::TooLong => None,
            };
            all.push((splitter.offset, splitter.line, text));
        }
    }

    #[test]
    fn what_is_too_long_is_passed_over_and_the_next_is_found() {
        for capacity in [1, 2, 3, 7, 100] {
            let some = |text: &str| Some(text.to_owned());
            let all = pieces("ab\nabcdefghijk\n\nabcd", b"\n", 4, capacity);
            assert_eq!(all, [(3, 2, some("ab\n")), (15, 3, None), (16, 4, some("\n")), (20, 4, some("abcd"))]);
            let all = pieces("a>b<|>\n12345678901<|><|>x", b"<|>", 6, capacity);
            assert_eq!(all, [(6, 1, some("a>b<|>")), (21, 2, None), (24, 2, some("<|>")), (25, 2, some("x"))]);
            assert_eq!(pieces("12345\n12345", b"\n", 4, capacity), [(6, 2, None), (11, 2, None)]);
            assert_eq!(pieces("1234\n1234", b"\n", 4, capacity).len(), 2);
            assert!(pieces("1234\n1234", b"\n", 4, capacity).iter().all(|(_, _, text)| text.is_some()));
        }
    }
}
