//! A template's text, made one that the engine takes.
//!
//! Three things are rewritten, tag by tag. `{% generation %}`, which `transformers` adds to Jinja to mark what the assistant
//! says, becomes a filter block. What `{% set %}` assigns goes through a filter that refuses values which no conversation needs:
//! hundreds of lists within each other, a namespace within itself. And line ends become `\n`, as Jinja's are. Lines keep their
//! numbers.

/// The filter around what the assistant says.
pub const SAID: &str = "kiln_said";
/// The filter of what is assigned.
pub const ASSIGNED: &str = "kiln_assigned";

/// Bytes of a tag beside the texts in it. An expression of many thousand operators would be as deep a tree.
pub const MAX_TAG: usize = 1 << 13;

/// A template as the engine takes it.
pub struct Source {
    /// Its text.
    pub text: String,
    /// Whether `{% generation %}` marks what the assistant says.
    pub marked: bool,
}

impl Source {
    /// Rewrites `template`.
    ///
    /// # Errors
    /// A tag is longer than [`MAX_TAG`]; the error is its line.
    pub fn new(template: &str) -> Result<Source, usize> {
        let template = template.replace("\r\n", "\n").replace('\r', "\n");
        let (mut text, mut marked, mut rest) = (String::with_capacity(template.len() + 64), false, template.as_str());
        let opens = |rest: &str| {
            let second = |at: usize| rest.as_bytes().get(at + 1).copied().unwrap_or_default();
            rest.match_indices('{').map(|(at, _)| at).find(|&at| matches!(second(at), b'%' | b'{' | b'#'))
        };
        while let Some(at) = opens(rest) {
            let (before, tag) = rest.split_at(at);
            text.push_str(before);
            let (end, bytes) = match tag.as_bytes()[1] {
                b'#' => (tag.find("#}").map(|at| at + 2), 0),
                b'{' => tag_end(tag, "}}"),
                _ => tag_end(tag, "%}"),
            };
            if bytes > MAX_TAG {
                return Err(1 + text.matches('\n').count());
            }
            // What does not end is for the engine to complain about.
            let Some(end) = end else {
                text.push_str(tag);
                return Ok(Source { text, marked });
            };
            let (tag, after) = tag.split_at(end);
            rest = after;
            if !tag.starts_with("{%") {
                text.push_str(tag);
                continue;
            }
            let tag = Tag::new(tag);
            match tag.word() {
                "generation" => {
                    marked = true;
                    text.push_str(&tag.with(&format!(" filter {SAID} %}}{{% with ")));
                }
                "endgeneration" => text.push_str(&tag.with(" endwith %}{% endfilter ")),
                "set" => text.push_str(&tag.assignment().unwrap_or_else(|| tag.whole.to_owned())),
                "raw" => {
                    text.push_str(tag.whole);
                    let end = raw_end(rest).unwrap_or(rest.len());
                    text.push_str(&rest[..end]);
                    rest = &rest[end..];
                }
                _ => text.push_str(tag.whole),
            }
        }
        text.push_str(rest);
        Ok(Source { text, marked })
    }
}

/// `{%- inside +%}`.
struct Tag<'a> {
    whole: &'a str,
    open: &'a str,
    inside: &'a str,
    close: &'a str,
}

impl<'a> Tag<'a> {
    fn new(whole: &'a str) -> Tag<'a> {
        let bytes = whole.as_bytes();
        let open = 2 + usize::from(bytes.len() > 4 && matches!(bytes[2], b'-' | b'+'));
        let last = bytes.len() - 2;
        let close = last - usize::from(last > open && matches!(bytes[last - 1], b'-' | b'+'));
        Tag { whole, open: &whole[..open], inside: &whole[open..close], close: &whole[close..] }
    }

    /// What the tag is, as `set`.
    fn word(&self) -> &'a str {
        let inside = self.inside.trim_start();
        &inside[..inside.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inside.len())]
    }

    /// The tag with something else inside, on as many lines.
    fn with(&self, inside: &str) -> String {
        let lines = "\n".repeat(self.inside.matches('\n').count());
        [self.open, inside, &lines, self.close].concat()
    }

    /// `set target = value` with the value through the filter; nothing where a block is assigned.
    fn assignment(&self) -> Option<String> {
        let (target, value) = self.inside.split_once('=').filter(|(_, value)| !value.trim().is_empty())?;
        let member = if target.contains('.') { "(true)" } else { "" };
        Some([self.open, target, "=(", value, ")|", ASSIGNED, member, " ", self.close].concat())
    }
}

/// Where the tag that `text` starts with ends: behind `end`, outside of quotes and brackets; and how many of its bytes are outside
/// of quotes.
fn tag_end(text: &str, end: &str) -> (Option<usize>, usize) {
    let (mut depth, mut quote, mut escaped, mut bytes) = (0usize, None, false, 0);
    for (at, c) in text.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if depth == 0 && text[at..].starts_with(end) => return (Some(at + end.len()), bytes),
            None => match c {
                '\'' | '"' => quote = Some(c),
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
        bytes += usize::from(quote.is_none());
    }
    (None, bytes)
}

/// Where `{% endraw %}` starts.
fn raw_end(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        let start = from + at;
        let inside = text[start + 2..].trim_start_matches(['-', '+']).trim_start();
        if inside.starts_with("endraw") {
            return Some(start);
        }
        from = start + 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_rewritten_and_nothing_else() {
        let same = [
            "plain } text %} {",
            "{{ {'a': {'b': 1}}['a'] }}{# {% generation %} {{ #}",
            "{% raw %}{% set x = 1 %}{% generation %}{% endraw %}",
            "{% if x == '{% generation %}' %}{% endif %}",
            "{% set x %}a = b{% endset %}",
            "{{ 'unfinished",
            "{% set x = ",
            "{% set x = %}",
        ];
        let new = |text: &str| Source::new(text).unwrap();
        same.iter().for_each(|text| assert_eq!(new(text).text, *text));
        let set = new("{%- set ns.a, b = x == 1, '%}' -%}\r\nc");
        assert_eq!(set.text, "{%- set ns.a, b =( x == 1, '%}' )|kiln_assigned(true) -%}\nc");
        let said = new("{%- generation\n-%}a{% endgeneration %}");
        assert_eq!(said.text, "{%- filter kiln_said %}{% with \n-%}a{% endwith %}{% endfilter %}");
        assert!(said.marked && !set.marked);
        let long = |text: &str| Source::new(&format!("\n{{{{ {text} }}}}")).map(drop);
        assert_eq!((long(&"'x' ".repeat(5000)), long(&format!("'{}'", "x".repeat(9000)))), (Err(2), Ok(())));
    }
}
