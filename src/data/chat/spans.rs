//! Which bytes of a conversation's text are the assistant's.

use super::{Chat, Inner};
use crate::error::{Error, Result};
use std::ops::Range;

impl Inner {
    /// The text of `chat` with the assistant's parts of it, in order.
    pub(super) fn spans(&self, chat: &Chat) -> Result<(String, Vec<Range<usize>>)> {
        let whole = self.render(chat, false, None)?;
        if self.marked.iter().any(|(name, marked)| name == self.name(chat) && *marked) {
            let spans = self.marked_spans(chat, &whole)?;
            return Ok((whole, spans));
        }
        let mut spans: Vec<Range<usize>> = Vec::new();
        for n in (0..chat.messages.len()).filter(|&n| chat.messages[n]["role"] == "assistant") {
            let start = self.turn_start(chat, n, &whole);
            let end = start.and_then(|start| self.turn_end(chat, n, &whole, start));
            let span = start.zip(end).map(|(start, end)| start..end);
            let apart =
                |span: &Range<usize>| span.start <= span.end && spans.last().is_none_or(|last| last.end <= span.start);
            spans.push(span.filter(apart).ok_or_else(|| self.untold(n))?);
        }
        Ok((whole, spans))
    }

    /// What lies in `{% generation %}` blocks, which are rendered with marks around them. (`transformers` says the same but for
    /// blocks in macros, whose places it counts from the start of the macro's text.)
    fn marked_spans(&self, chat: &Chat, whole: &str) -> Result<Vec<Range<usize>>> {
        // Two characters that are in no text here; without them the comparison fails.
        let mut free = ('\u{e000}'..='\u{f8ff}').filter(|c| !whole.contains(*c));
        let (start, end) = (free.next().unwrap_or('\u{e000}'), free.next().unwrap_or('\u{e001}'));
        let text = self.render(chat, false, Some(&[start, end].iter().collect::<String>()))?;
        let (mut spans, mut open, mut plain) = (Vec::new(), None, String::with_capacity(whole.len()));
        for c in text.chars() {
            if c == start {
                open = Some(plain.len());
            } else if c == end {
                spans.extend(open.take().map(|from| from..plain.len()));
            } else {
                plain.push(c);
            }
        }
        if plain != whole {
            let found = "one that changes what lies in its {% generation %} blocks afterwards";
            return Err(self.untellable(found));
        }
        Ok(spans)
    }

    /// Messages before `count` as a text, where the whole starts with that.
    fn part(&self, chat: &Chat, count: usize, prompt: bool, whole: &str) -> Option<String> {
        self.first(chat, count, prompt).filter(|text| whole.starts_with(text))
    }

    fn first(&self, chat: &Chat, count: usize, prompt: bool) -> Option<String> {
        if count == 0 && !prompt {
            return Some(String::new());
        }
        let chat = Chat { messages: chat.messages[..count].to_vec(), ..chat.clone() };
        self.render(&chat, prompt, None).ok()
    }

    /// Where the model takes over for message `n`: behind the prompt that the messages before it make. A prompt may open a thought
    /// that the whole has not; then it is behind what both have, up to a line's end or a special token.
    fn turn_start(&self, chat: &Chat, n: usize, whole: &str) -> Option<usize> {
        if let Some(prompt) = self.part(chat, n, true, whole) {
            return Some(prompt.len());
        }
        let (before, prompt) = (self.part(chat, n, false, whole)?.len(), self.first(chat, n, true).unwrap_or_default());
        let same = prompt.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b).count();
        let cut = |at: &usize| {
            let head = whole.get(..*at).unwrap_or_default();
            head.ends_with('\n') || self.special.iter().any(|token| !token.is_empty() && head.ends_with(token.as_str()))
        };
        Some((before..=same.max(before)).rev().find(|at| *at == before || cut(at)).unwrap_or(before))
    }

    /// Where message `n` ends: where the text of the messages up to it does, without white space behind a special token. Where
    /// the whole is not so, behind the first token that ends a turn, which the message itself must not have.
    fn turn_end(&self, chat: &Chat, n: usize, whole: &str, start: usize) -> Option<usize> {
        if let Some(text) = self.part(chat, n + 1, false, whole) {
            let trimmed = text.trim_end();
            let token = self.special.iter().any(|token| !token.is_empty() && trimmed.ends_with(token.as_str()));
            return Some(if token && trimmed.len() >= start { trimmed.len() } else { text.len() });
        }
        let own = chat.messages[n].to_string();
        let ends = self.ends.iter().filter(|token| !token.is_empty());
        let ends = ends.filter_map(|token| Some((whole[start..].find(token.as_str())? + start + token.len(), token)));
        ends.min().filter(|(_, token)| !own.contains(token.as_str())).map(|(end, _)| end)
    }

    fn untold(&self, n: usize) -> Error {
        self.untellable(&format!("one that writes message {} in another way when messages follow it", n + 1))
    }

    fn untellable(&self, found: &str) -> Error {
        let hint = "put {% generation %} and {% endgeneration %} around what the assistant says in the template";
        self.error(None, "a template that tells what the assistant says", found, hint)
    }
}
