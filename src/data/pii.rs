//! Personal data in text.

/// What is looked for.
pub const KINDS: [&str; 7] = ["email", "phone", "ip", "iban", "card", "ssn", "secret"];

/// Some of [`KINDS`].
#[derive(Clone, Debug)]
pub struct Kinds(pub Vec<&'static str>);

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// One of [`KINDS`].
    pub kind: &'static str,
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// The findings in `text`, in order.
pub fn find(text: &str, kinds: &Kinds) -> Vec<Span> {
    if !kinds.0.contains(&"email") {
        return Vec::new();
    }
    let part = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    let mut spans = Vec::new();
    for (at, _) in text.match_indices('@') {
        let start = text[..at].trim_end_matches(part).len();
        let end = at + 1 + (text[at + 1..].len() - text[at + 1..].trim_start_matches(part).len());
        let end = text[..end].trim_end_matches('.').len();
        if start < at && text[at..end].contains('.') {
            spans.push(Span { kind: "email", start, end });
        }
    }
    spans
}
