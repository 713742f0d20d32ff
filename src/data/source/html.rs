//! The text of an HTML page: without markup, scripts, styles, the head and navigation; blocks become lines.
//!
//! What is markup follows the HTML standard's tokenizer as far as text needs it: attributes in quotation marks, comments,
//! scripts that end at their own end tag only. There is no tree and no recursion, so memory and time are linear in the
//! page, whatever it nests.

use html_escape::decode_html_entities;
use memchr::{memchr, memmem};

/// Elements whose content is no text of the page.
const SKIPPED: [&str; 14] = [
    "head", "title", "script", "style", "nav", "footer", "noscript", "template", "svg", "iframe", "object", "select",
    "button", "canvas",
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

/// Elements whose content holds no tags; it ends at their own end tag.
const RAW: [&str; 8] = ["script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes"];

/// The text of the page `html`.
pub fn text(html: &str) -> String {
    let mut page = Page { out: String::with_capacity(html.len() / 4), ..Page::default() };
    let mut rest = html;
    while !rest.is_empty() {
        let at = memchr(b'<', rest.as_bytes()).unwrap_or(rest.len());
        if at > 0 {
            page.string(&decode_html_entities(&rest[..at]));
        }
        rest = page.markup(&rest[at..]);
    }
    page.out.truncate(page.out.trim_end().len());
    page.out
}

/// `rest` behind the first `end`; nothing where there is none.
fn behind<'a>(rest: &'a str, end: &str) -> &'a str {
    memmem::find(rest.as_bytes(), end.as_bytes()).map_or("", |at| &rest[at + end.len()..])
}

/// What follows a tag whose name is passed: its attributes end at a `>` outside of quotation marks.
fn behind_tag(rest: &str) -> &str {
    let bytes = rest.as_bytes();
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        at += 1;
        match b {
            b'>' => return &rest[at..],
            b'=' => {
                at += bytes[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
                if let Some(&quote @ (b'"' | b'\'')) = bytes.get(at) {
                    let Some(end) = memchr(quote, &bytes[at + 1..]) else { return "" };
                    at += end + 2;
                }
            }
            _ => {}
        }
    }
    ""
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

/// `rest` from the end tag of the element `name` on.
fn from_end_tag<'a>(rest: &'a str, name: &str) -> &'a str {
    let is_end = |at: &usize| {
        let tag = &rest.as_bytes()[at + 2..];
        let named = tag.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()));
        named && tag.get(name.len()).is_none_or(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'))
    };
    memmem::find_iter(rest.as_bytes(), "</").find(is_end).map_or("", |at| &rest[at..])
}

fn find<const N: usize>(names: &[&'static str; N], name: &[u8]) -> Option<&'static str> {
    names.iter().copied().find(|n| n.as_bytes() == name)
}

impl Page {
    /// Reads what begins with the `<` that `rest` begins with, if with any; what follows.
    fn markup<'a>(&mut self, rest: &'a str) -> &'a str {
        let Some(after) = rest.strip_prefix('<') else { return rest };
        if let Some(comment) = after.strip_prefix("!--") {
            // `<!-->` is a whole comment.
            return comment.strip_prefix('>').unwrap_or_else(|| behind(comment, "-->"));
        }
        if after.starts_with(['!', '?']) {
            return behind(after, ">");
        }
        let (ends, tag) = after.strip_prefix('/').map_or((false, after), |tag| (true, tag));
        if !tag.starts_with(|c: char| c.is_ascii_alphabetic()) {
            if ends {
                return behind(tag, ">");
            }
            self.string("<");
            return after;
        }
        let length = tag.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>').unwrap_or(tag.len());
        // No element's name is longer; of what is, the start will do.
        let name: Vec<u8> = tag.bytes().take(length.min(24)).map(|b| b.to_ascii_lowercase()).collect();
        let behind = behind_tag(&tag[length..]);
        if ends {
            self.end(&name);
            return behind;
        }
        self.start(&name);
        let Some(name) = find(&RAW, &name) else { return behind };
        let content = behind.len() - from_end_tag(behind, name).len();
        self.string(&decode_html_entities(&behind[..content]));
        &behind[content..]
    }

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
        assert_eq!(text("<STYLE>p { a: '</stylex>' }</Style >one"), "one");
        assert_eq!(text("one<!-- > two --><!-->three<!-- never closed"), "onethree");
        assert_eq!(text("<a title='>'>one</a href=\">\"><?php echo '>two"), "onetwo");
        assert_eq!(text("1 < 2, 3 <4 and </5> 6"), "1 < 2, 3 <4 and 6");
        assert_eq!(text("<textarea>a <b> c</textarea>d"), "a <b> cd");
        assert_eq!(text("<svg><title>icon</title></svg></p></pre></nav>one"), "one");
    }

    #[test]
    fn a_page_that_nests_without_end_costs_linear_time() {
        let deep = "<div><nav>".repeat(200_000) + "x" + &"</b>".repeat(200_000);
        assert_eq!(text(&deep), "");
        assert_eq!(text(&"<pre>".repeat(300_000)), "");
        assert_eq!(text(&("<p ".to_owned() + &"a=\"b\" ".repeat(300_000) + ">x")), "x");
        assert_eq!(text(&"<p a='".repeat(300_000)), "");
        assert_eq!(text(&("<".repeat(300_000) + "&".repeat(300_000).as_str())).len(), 600_000);
    }
}
