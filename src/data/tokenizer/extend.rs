//! More tokens for a tokenizer that is there: those that its words lack most in other texts.
//!
//! Training goes on where it ended: words of the new text are what the merges make of them, and the pair of neighbours that
//! occurs most often becomes a token, again and again. New merges come after all others, so that a text has the ids that it had but where
//! several of them are one new one now (as in Sachidananda et al. 2021, "Efficient Domain Adaptation of Language Models via
//! Adaptive Tokenization", arXiv 2109.07460, whose new rows are means of their pieces' too).

use super::super::source::Document;
use super::super::vocab::{counted, sorted, spelled};
use super::train::{Learnt, learn};
use super::{Encode, Kind, MAX_VOCAB, Tokenizer};
use crate::error::{Error, Result};
use rayon::prelude::*;
use serde_json::{Value, json};

/// A tokenizer that learnt more tokens.
#[derive(Clone, Debug)]
pub struct Extended {
    /// It.
    pub tokenizer: Tokenizer,
    /// The id of the first new token; the others follow.
    pub first: usize,
    /// The ids that each new token was before.
    pub pieces: Vec<Vec<u32>>,
}

impl Tokenizer {
    /// The same with at most `n` more tokens, learnt from `documents`; fewer where no pair occurs twice. Calls `progress` with the bytes of text read
    /// so far.
    ///
    /// # Errors
    /// Its tokens are not byte-level BPE's of a known pattern of words; nothing is learnt; a document cannot be read.
    pub fn extended(
        &self,
        documents: impl Iterator<Item = Result<Document>>,
        n: usize,
        progress: &dyn Fn(u64),
    ) -> Result<Extended> {
        let Encode::Bpe(bpe) = &self.encode else {
            let what = if self.kind == Kind::Bpe { "a pattern of words that is not known" } else { "no such merges" };
            let problem =
                format!("{}: more tokens are learnt by byte-level BPE, and it has {what}", self.path.display());
            return Err(Error::usage(problem, "train on with the tokens that there are"));
        };
        let first = self.vocab_size();
        let most = (MAX_VOCAB as usize).saturating_sub(first);
        if n == 0 || n > most {
            return Err(Error::usage(
                format!("--new-tokens {n}: not 1 to {most}"),
                "a few hundred serve a narrow domain",
            ));
        }
        let words = counted(documents, bpe.pattern(), progress)?;
        let ids: Vec<(Vec<u32>, u64)> =
            sorted(&words).par_iter().map(|&(word, count)| (bpe.word_ids(word), count)).collect();
        let special = |id: u32| self.special.iter().any(|&(_, special)| special == id);
        let bytes = |id: u32| self.token_bytes(id).filter(|_| !special(id)).unwrap_or_default().to_vec();
        let tokens = (0..first as u32).map(bytes).collect();
        let Learnt { tokens, merges } = learn(ids.into_iter().map(|(ids, n)| (ids.into_iter(), n)), tokens, first + n);
        if tokens.len() == first {
            let problem = "no two tokens stand side by side twice in the text: there is nothing to learn from it";
            return Err(Error::usage(problem, "give more text with --text"));
        }
        let mut pieces: Vec<Vec<u32>> = Vec::new();
        let all = |id: u32, pieces: &[Vec<u32>]| match (id as usize).checked_sub(first) {
            Some(new) => pieces[new].clone(),
            None => vec![id],
        };
        for &[left, right] in &merges {
            // A merge can lead to a token that is there already.
            let joined = [&tokens[left as usize][..], &tokens[right as usize]].concat();
            if tokens.get(first + pieces.len()) == Some(&joined) {
                pieces.push([all(left, &pieces), all(right, &pieces)].concat());
            }
        }
        let tokenizer = Tokenizer::from_json(self.more(&tokens, first, &merges), &self.path)?.with(self.beside.clone());
        Ok(Extended { tokenizer, first, pieces })
    }

    /// The `tokenizer.json` with the tokens from number `first` on, and more merges.
    fn more(&self, tokens: &[Vec<u8>], first: usize, merges: &[[u32; 2]]) -> String {
        let mut file: Value = serde_json::from_str(&self.json).expect("it was read");
        let added = file["added_tokens"].clone();
        let spelled = |id: u32| spelled(&tokens[id as usize]);
        // The crate numbers added tokens anew, from the end of the model's own, unless they are among these.
        for token in added.as_array().into_iter().flatten() {
            if let Some(content) = token["content"].as_str() {
                file["model"]["vocab"][content] = token["id"].clone();
            }
        }
        let model = &mut file["model"];
        for id in first as u32..tokens.len() as u32 {
            model["vocab"][spelled(id)] = id.into();
        }
        let known = model["merges"].as_array_mut().expect("a BPE has merges");
        // Files of today have two strings, older ones a blank between them.
        let apart = known.first().is_none_or(Value::is_array);
        known.extend(merges.iter().map(|&[left, right]| match [spelled(left), spelled(right)] {
            both if apart => json!(both),
            both => both.join(" ").into(),
        }));
        serde_json::to_string_pretty(&file).expect("plain data") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(texts: &[&str]) -> Vec<Document> {
        texts.iter().map(|text| Document { text: (*text).to_owned(), ..Document::default() }).collect()
    }

    fn trained(texts: &[&str], vocab: usize) -> Tokenizer {
        Tokenizer::train_bpe(documents(texts).into_iter().map(Ok), vocab, &|_| {}).unwrap()
    }

    const GENERAL: &str = "the man and the woman went to the sea and sat on the sand then they ran to the man";
    const DOMAIN: &str = "the phosphatase and the kinase; the kinase and a phosphatase: phosphatase kinase";

    #[test]
    fn a_text_has_its_ids_but_where_several_are_one_new_one_now() {
        let base = trained(&[GENERAL], 270);
        let found = base.extended(documents(&[DOMAIN]).into_iter().map(Ok), 12, &|_| {}).unwrap();
        let Extended { tokenizer, first, pieces } = &found;
        assert_eq!((*first, pieces.len(), tokenizer.vocab_size()), (base.vocab_size(), 12, base.vocab_size() + 12));
        for text in [DOMAIN, GENERAL, "kinases, the ph", "", "the kinase<|endoftext|>"] {
            let (before, after) = (base.encode(text).unwrap(), tokenizer.encode(text).unwrap());
            let apart = after.iter().flat_map(|&id| match (id as usize).checked_sub(*first) {
                Some(new) => pieces[new].clone(),
                None => vec![id],
            });
            assert_eq!(apart.collect::<Vec<_>>(), before, "{text:?}");
            assert_eq!(tokenizer.decode(&after), text);
        }
        let lengths = |tokenizer: &Tokenizer| tokenizer.encode(DOMAIN).unwrap().len();
        assert!(2 * lengths(tokenizer) < lengths(&base), "{} of {}", lengths(tokenizer), lengths(&base));
        // What is special stays so, under its id.
        assert_eq!(tokenizer.special(), base.special());
        assert_eq!(tokenizer.eot(), base.eot());
    }

    #[test]
    fn gpt2_learns_on_and_what_cannot_is_told_so() {
        let base = Tokenizer::gpt2();
        let text = "the transcriptomes of zebrafish and the transcriptomes of medaka";
        let extended = |tokenizer: &Tokenizer, n, text| {
            tokenizer.extended(documents(&[text]).into_iter().map(Ok), n, &|_| {}).map(|found| found.tokenizer)
        };
        let wider = extended(&base, 300, text).unwrap();
        assert!(base.encode(" transcriptomes").unwrap().len() > 1);
        assert_eq!(wider.encode(" transcriptomes").unwrap(), [wider.vocab_size() as u32 - 1]);
        for (tokenizer, n, text, part) in [
            (&Tokenizer::bytes(), 3, text, "more tokens are learnt by byte-level BPE"),
            (&base, 0, text, "--new-tokens 0: not 1 to"),
            (&base, 3, "no", "no two tokens stand side by side twice"),
        ] {
            let error = extended(tokenizer, n, text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
