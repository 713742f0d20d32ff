//! GPT-2's vocabulary, carried along: its 50,000 merges as pairs of ids of two bytes, 200 KB, out of which all else follows.
//!
//! The vocabulary is OpenAI's, published under the MIT licence with GPT-2; the text of merges made from ours has the SHA-256 of
//! the file `vocab.bpe` that was published (a test checks it).

use serde_json::json;

use super::super::detok::byte_to_char;
use super::END_OF_TEXT;

/// Left and right id of each merge, little-endian, in order of rank; merge `i` makes the id `256 + i`.
static MERGES: &[u8] = include_bytes!("../../../data/gpt2.merges");

/// The spelling of each id, and both halves of each merge.
fn tokens() -> (Vec<String>, Vec<[String; 2]>) {
    let mut alphabet: Vec<char> = (0..=255).map(byte_to_char).collect();
    alphabet.sort_unstable();
    let mut tokens: Vec<String> = alphabet.into_iter().map(String::from).collect();
    let mut merges = Vec::new();
    for pair in MERGES.chunks_exact(4) {
        let half = |at: usize| tokens[usize::from(u16::from_le_bytes([pair[at], pair[at + 1]]))].clone();
        let halves = [half(0), half(2)];
        tokens.push(halves.concat());
        merges.push(halves);
    }
    (tokens, merges)
}

/// The `tokenizer.json` of GPT-2.
pub(super) fn json() -> String {
    let (tokens, merges) = tokens();
    let end = tokens.len();
    let vocab: serde_json::Map<_, _> =
        tokens.into_iter().chain([END_OF_TEXT.to_owned()]).zip((0..).map(serde_json::Value::from)).collect();
    let bytes = |prefix: bool, trim: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": trim, "use_regex": true});
    let special = json!({"id": end, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    let file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [special],
        "normalizer": null, "pre_tokenizer": bytes(false, true), "post_processor": bytes(true, false),
        "decoder": bytes(true, true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges}});
    file.to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_merges_are_those_that_were_published() {
        let (tokens, merges) = tokens();
        assert_eq!(tokens.len(), 50_256);
        let lines: String = merges.iter().map(|[left, right]| format!("{left} {right}\n")).collect();
        let digest = Sha256::digest(format!("#version: 0.2\n{lines}"));
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5");
    }
}
