//! Lines and paragraphs of a text, as the rules count them.
//!
//! A paragraph is a block of lines between empty ones. A line is a line of the file, which in text from the web is a
//! paragraph of its own; but where a text is wrapped by hand, as novels of Project Gutenberg and mail are, its lines say
//! nothing, and a block counts as one line.

use std::ops::Range;

/// Bytes of a line that was wrapped.
const WRAPPED: Range<usize> = 45..101;

/// Where the lines and paragraphs of a text are, without white space around them, in order; none is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The lines.
    pub lines: Vec<Range<usize>>,
    /// The paragraphs.
    pub paragraphs: Vec<Range<usize>>,
}

impl Layout {
    /// The layout of `text`.
    pub fn of(text: &str) -> Layout {
        let mut layout = Layout::default();
        let mut at = 0;
        let mut block: Option<Range<usize>> = None;
        let (mut inner, mut wrapped, mut ended) = (0, 0, 0);
        for line in text.split_inclusive('\n') {
            let trimmed = line.trim();
            let start = at + (line.len() - line.trim_start().len());
            at += line.len();
            if trimmed.is_empty() {
                layout.paragraphs.extend(block.take());
                continue;
            }
            let range = start..start + trimmed.len();
            match &mut block {
                Some(block) => {
                    // The line before is followed by another one.
                    let before = &text[layout.lines.last().cloned().unwrap_or_default()];
                    inner += 1;
                    wrapped += usize::from(WRAPPED.contains(&before.len()));
                    ended += usize::from(before.ends_with(['.', '!', '?', '"', '”']));
                    block.end = range.end;
                }
                None => block = Some(range.clone()),
            }
            layout.lines.push(range);
        }
        layout.paragraphs.extend(block);
        if inner >= 3 && wrapped * 10 >= inner * 7 && ended * 2 < inner {
            layout.lines.clone_from(&layout.paragraphs);
        }
        layout
    }

    /// What is compared between documents: paragraphs where there are several, else lines.
    pub fn blocks(&self) -> &[Range<usize>] {
        if self.paragraphs.len() > 1 { &self.paragraphs } else { &self.lines }
    }
}

/// `text` without these ranges, which are in order, and without the white space before each; trimmed.
pub fn without(text: &str, gone: impl IntoIterator<Item = Range<usize>>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for range in gone {
        out.push_str(text[at..range.start].trim_end());
        at = range.end;
    }
    out.push_str(&text[at..]);
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<'a>(text: &'a str, ranges: &[Range<usize>]) -> Vec<&'a str> {
        ranges.iter().map(|range| &text[range.clone()]).collect()
    }

    #[test]
    fn lines_and_blocks_are_found() {
        let text = "Title\n\n  A first line. \nA second.\n \t\n\nThe end";
        let layout = Layout::of(text);
        assert_eq!(shown(text, &layout.lines), ["Title", "A first line.", "A second.", "The end"]);
        assert_eq!(shown(text, &layout.paragraphs), ["Title", "A first line. \nA second.", "The end"]);
        assert_eq!(Layout::of(" \n\n"), Layout::default());
    }

    #[test]
    fn text_that_was_wrapped_by_hand_has_its_blocks_for_lines() {
        let wrapped = "It was a bright cold day in April and the clocks were\n\
            striking thirteen while the man with his chin on his\n\
            breast in an effort to escape the vile wind slipped in\n\
            through the glass doors. He was not alone there.\n\nShort one.\n";
        assert_eq!(Layout::of(wrapped).lines.len(), 2);
        let list = "one\ntwo\nthree\nfour\nfive\n";
        assert_eq!(Layout::of(list).lines.len(), 5);
        let sentences = "This whole line is a paragraph of its own, as on the web.\n".repeat(6);
        assert_eq!(Layout::of(&sentences).lines.len(), 6);
    }

    #[test]
    fn what_is_taken_out_leaves_no_hole() {
        let text = "one\n\ntwo\n\nthree\n";
        let layout = Layout::of(text);
        let take = |which: &[usize]| without(text, which.iter().map(|&i| layout.lines[i].clone()));
        assert_eq!(take(&[1]), "one\n\nthree");
        assert_eq!(take(&[0]), "two\n\nthree");
        assert_eq!(take(&[2]), "one\n\ntwo");
        assert_eq!(take(&[0, 1, 2]), "");
        assert_eq!(take(&[]), text.trim());
    }
}
