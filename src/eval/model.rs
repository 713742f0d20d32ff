//! Who is asked: a model here, or a server elsewhere.

use crate::error::{Error, Result};

/// How likely a text is after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// ln of its probability, in nats; 0 at most.
    pub nats: f64,
    /// ln of the probability of each of its tokens.
    pub each: Vec<f32>,
    /// Whether each of them is the likeliest one.
    pub greedy: bool,
}

impl Score {
    /// Of no tokens.
    pub const NONE: Score = Score { nats: 0.0, each: Vec::new(), greedy: true };

    /// Goes on with a token.
    pub fn push(&mut self, nats: f32, greedy: bool) {
        self.nats += f64::from(nats);
        self.each.push(nats);
        self.greedy &= greedy;
    }

    /// Goes on with more tokens.
    pub fn extend(&mut self, more: &Score) {
        self.nats += more.nats;
        self.each.extend(&more.each);
        self.greedy &= more.greedy;
    }
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Writing<'a> {
    /// Texts that end an answer, and are no part of it.
    pub stop: &'a [String],
    /// Its tokens at most.
    pub tokens: usize,
    /// 0: the likeliest tokens.
    pub temperature: f32,
    /// The same seed writes the same.
    pub seed: u64,
}

/// A model that answers.
pub trait Model {
    /// How it is called in tables.
    fn name(&self) -> &str;

    /// Tokens of a text that it wrote; `None` of who does not tell.
    fn tokens(&self, text: &str) -> Option<usize>;

    /// How likely the second text of each pair is after the first, which may be empty. `told(n)` hears how many are done.
    ///
    /// # Errors
    /// A text has no tokens; the server fails; a signal came.
    fn score(&mut self, pairs: &[(&str, &str)], told: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Score>>;

    /// How likely whole texts are, of any length: each token is read once, after as many of those before it as the context holds.
    ///
    /// # Errors
    /// As of [`score`](Model::score).
    fn read(&mut self, texts: &[&str], told: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Score>>;

    /// What each prompt goes on with.
    ///
    /// # Errors
    /// As of [`score`](Model::score).
    fn write(
        &mut self,
        prompts: &[&str],
        writing: &Writing,
        told: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<String>>;

    /// The vector of each word in the model's input embeddings: the mean of its tokens', as it stands behind a blank.
    ///
    /// # Errors
    /// The model shows none; a word has no tokens.
    fn vectors(&mut self, words: &[&str]) -> Result<Vec<Vec<f64>>> {
        let problem = format!("{} shows no embeddings, and {} words are to be looked up", self.name(), words.len());
        Err(Error::usage(problem, "ask a model on this machine; tasks of kind pairs ask any"))
    }
}
