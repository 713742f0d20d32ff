//! From raw text to batches of tokens.
