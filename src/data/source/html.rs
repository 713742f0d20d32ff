//! The text of an HTML page: without markup, scripts, styles, the head and navigation; blocks become lines.
//!
//! The tokenizer is html5gum's, which follows the HTML standard; there is no tree, so memory and time are linear in the
//! page, whatever it nests.

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};

/// Elements whose content is no text of the page.
const SKIPPED: [&str; 13] = [
    "head", "script", "style", "nav", "footer", "noscript", "template", "svg", "iframe", "object", "select", "button",
    "canvas",
];

/// Elements that stand on lines of their own.
const BLOCKS: [&str; 37] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "br",
    "caption",
    "center",
    "dd",
    "details",
    "dialog",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "html",
    "li",
    "main",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "tr",
    "ul",
];

/// Elements of a head; any other one ends a head that was not closed.
const IN_HEAD: [&str; 9] = ["title", "meta", "link", "script", "style", "base", "noscript", "template", "head"];

/// What begins the content of a page, and so ends navigation that was not closed.
const CONTENT: [&str; 4] = ["body", "main", "article", "h1"];

/// The text of the page `html`.
pub fn text(html: &str) -> String {
    let mut page = Page { out: String::with_capacity(html.len() / 4), ..Page::default() };
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<()> {
        match event {
            CallbackEvent::OpenStartTag { name } => page.start(name),
            CallbackEvent::EndTag { name } => page.end(name),
            CallbackEvent::String { value } => page.string(&String::from_utf8_lossy(value)),
            _ => {}
        }
        None
    });
    // Scripts and styles end at their own end tag only.
    emitter.naively_switch_states(true);
    for token in Tokenizer::new_with_emitter(html, emitter) {
        let Ok(()) = token;
    }
    page.out.truncate(page.out.trim_end().len());
    page.out
}

#[derive(Default)]
struct Page {
    out: String,
    /// The element whose content is passed over, and how many of its name are open.
    skipped: Option<(&'static str, u64)>,
    /// Open `pre` elements, in which blanks count.
    pre: u64,
    /// What stands between the text so far and the next.
    gap: Gap,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Blank,
    Tab,
    Line,
}

fn find<const N: usize>(names: &[&'static str; N], name: &[u8]) -> Option<&'static str> {
    names.iter().copied().find(|n| n.as_bytes() == name)
}

impl Page {
    fn start(&mut self, name: &[u8]) {
        if let Some((skipped, depth)) = &mut self.skipped {
            let ends = match *skipped {
                "head" => find(&IN_HEAD, name).is_none(),
                "nav" | "footer" => find(&CONTENT, name).is_some(),
                _ => false,
            };
            if !ends {
                *depth += u64::from(skipped.as_bytes() == name);
                return;
            }
            self.skipped = None;
        }
        self.skipped = find(&SKIPPED, name).map(|name| (name, 1));
        self.pre += u64::from(name == b"pre");
        self.boundary(name);
    }

    fn end(&mut self, name: &[u8]) {
        if let Some((skipped, depth)) = &mut self.skipped {
            if skipped.as_bytes() == name {
                *depth -= 1;
            }
            if *depth == 0 || name == b"body" || name == b"html" {
                self.skipped = None;
                self.gap = self.gap.max(Gap::Blank);
            }
            return;
        }
        if name == b"pre" {
            self.pre = self.pre.saturating_sub(1);
        }
        self.boundary(name);
    }

    fn boundary(&mut self, name: &[u8]) {
        if find(&BLOCKS, name).is_some() {
            self.gap = Gap::Line;
        } else if matches!(name, b"td" | b"th") {
            self.gap = self.gap.max(Gap::Tab);
        }
    }

    fn string(&mut self, text: &str) {
        if self.skipped.is_some() {
            return;
        }
        if self.pre > 0 {
            let text = text.strip_prefix('\n').filter(|_| self.gap == Gap::Line).unwrap_or(text);
            if !text.is_empty() {
                self.separate();
                self.out.push_str(text);
            }
            return;
        }
        let blank = |c: char| c.is_ascii_whitespace() || c == '\u{a0}';
        let mut words = text.split(blank).filter(|word| !word.is_empty()).peekable();
        if text.starts_with(blank) {
            self.gap = self.gap.max(Gap::Blank);
        }
        if words.peek().is_none() {
            return;
        }
        for word in words {
            self.separate();
            self.out.push_str(word);
            self.gap = Gap::Blank;
        }
        if !text.ends_with(blank) {
            self.gap = Gap::None;
        }
    }

    fn separate(&mut self) {
        match std::mem::take(&mut self.gap) {
            _ if self.out.is_empty() => {}
            Gap::None => {}
            Gap::Blank => self.out.push(' '),
            Gap::Tab => self.out.push('\t'),
            Gap::Line => self.out.push('\n'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn the_text_of_a_page_is_what_a_reader_reads() {
        let page = "<!doctype html><html><head><title>T</title><script>if (a < b) {}</script></head><body>\
            <nav><ul><li>Home</ul></nav><h1>The  <em>old</em>\n mill</h1><p>One &amp; two&nbsp;&eacute;<br>three\
            <p>four</p><table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table><style>p {}</style>\
            <pre>\n  x\n    y</pre><ul><li>i<li>j</ul><!-- not <p>this</p> --><footer>(c)</footer>end</body></html>";
        let lines = ["The old mill", "One & two é", "three", "four", "a\tb", "c", "  x\n    y", "i", "j", "end"];
        assert_eq!(text(page), lines.join("\n"));
        assert_eq!(text("plain < text > with &lt; signs"), "plain < text > with < signs");
        assert_eq!(text("a<b>b</b>c <i> d </i>e"), "abc d e");
        assert_eq!(text(""), "");
    }

    #[test]
    fn what_is_not_closed_does_not_swallow_the_page() {
        assert_eq!(text("<head><meta charset=x><p>one"), "one");
        assert_eq!(text("<head><title>t</title><body>one"), "one");
        assert_eq!(text("<nav><div>menu</div><main><p>one</main>"), "one");
        assert_eq!(text("<nav><nav>menu</nav>more</nav>one"), "one");
        assert_eq!(text("<script>document.write('<p>no</p>')</script>one"), "one");
        assert_eq!(text("<script>never closed"), "");
        assert_eq!(text("<svg><title>icon</title></svg></p></pre></nav>one"), "one");
    }

    #[test]
    fn a_page_that_nests_without_end_costs_linear_time() {
        let deep = "<div><nav>".repeat(200_000) + "x" + &"</b>".repeat(200_000);
        assert_eq!(text(&deep), "");
        assert_eq!(text(&"<pre>".repeat(300_000)), "");
        assert_eq!(text(&("<".repeat(300_000) + "&".repeat(300_000).as_str())).len(), 600_000);
    }
}
