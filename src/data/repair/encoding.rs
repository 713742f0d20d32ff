//! What bytes mean: UTF-8, UTF-16 by its byte-order mark, or a legacy encoding by its statistics.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::Encoding;

/// Text, and what it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The text, without a byte-order mark.
    pub text: Cow<'a, str>,
    /// The encoding, where it was not plain UTF-8; its name as in the Encoding Standard.
    pub encoding: Option<&'static str>,
    /// Sequences of bytes that mean nothing in it; each is a U+FFFD in the text.
    pub damaged: u64,
}

/// The detector looks at no more than this.
const LOOK: usize = 1 << 16;

/// Decodes `bytes`. `stated` is the encoding that they, or what they came with, name for themselves; it counts where they
/// are not Unicode.
pub fn decode<'a>(bytes: &'a [u8], stated: Option<&str>) -> Decoded<'a> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return with(encoding, &bytes[mark..]);
    }
    let Err(error) = std::str::from_utf8(bytes) else { return with(encoding_rs::UTF_8, bytes) };
    // Some damage in UTF-8, or another encoding? In others, bytes rarely look like a character of UTF-8.
    let (mut whole, mut broken) = (0u64, 0u64);
    for chunk in bytes.utf8_chunks() {
        whole += chunk.valid().chars().filter(|c| !c.is_ascii()).count() as u64;
        broken += u64::from(!chunk.invalid().is_empty());
    }
    if 2 * whole > broken {
        return with(encoding_rs::UTF_8, bytes);
    }
    let stated = stated.and_then(|label| Encoding::for_label(label.trim().as_bytes()));
    let guess = || {
        let from = error.valid_up_to().saturating_sub(LOOK / 8);
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        detector.feed(&bytes[from..bytes.len().min(from + LOOK)], true);
        detector.guess(None, Utf8Detection::Deny)
    };
    with(stated.filter(|&e| e != encoding_rs::UTF_8).unwrap_or_else(guess), bytes)
}

fn with<'a>(encoding: &'static Encoding, bytes: &'a [u8]) -> Decoded<'a> {
    let (text, lossy) = encoding.decode_without_bom_handling(bytes);
    let damaged = if lossy { text.matches('\u{fffd}').count() as u64 } else { 0 };
    let plain = encoding == encoding_rs::UTF_8 && damaged == 0;
    Decoded { text, encoding: (!plain).then_some(encoding.name()), damaged }
}
