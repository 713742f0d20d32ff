//! Secrets: by the marks that their issuers give them (`AKIA…`, `ghp_…`), and what is assigned to a name that says so.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::net::credentials;
use super::{Kind, Kinds, Span, begins, run, run_back};

/// What a secret with a mark looks like behind it.
enum Form {
    /// So many characters of a set, at least and at most.
    Token(fn(u8) -> bool, usize, usize),
    /// A block of a key in PEM's format.
    Pem,
    /// Three parts in base64url.
    Jwt,
    /// `(at)` in an e-mail address.
    At,
}

const fn upper(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}

const fn alnum(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

const fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

const fn url(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

const fn path(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'/'
}

const fn dotted(b: u8) -> bool {
    url(b) || b == b'.'
}

/// Marks, after their issuers' documentation and GitHub's and gitleaks' lists of secrets.
const MARKS: [(&str, Form); 41] = [
    ("AKIA", Form::Token(upper, 16, 16)),
    ("ASIA", Form::Token(upper, 16, 16)),
    ("ghp_", Form::Token(alnum, 36, 255)),
    ("gho_", Form::Token(alnum, 36, 255)),
    ("ghu_", Form::Token(alnum, 36, 255)),
    ("ghs_", Form::Token(alnum, 36, 255)),
    ("ghr_", Form::Token(alnum, 36, 255)),
    ("github_pat_", Form::Token(word, 22, 255)),
    ("glpat-", Form::Token(url, 20, 64)),
    ("xoxb-", Form::Token(url, 10, 250)),
    ("xoxp-", Form::Token(url, 10, 250)),
    ("xoxa-", Form::Token(url, 10, 250)),
    ("xoxr-", Form::Token(url, 10, 250)),
    ("xoxs-", Form::Token(url, 10, 250)),
    ("xapp-", Form::Token(url, 10, 250)),
    ("hooks.slack.com/services/", Form::Token(path, 20, 120)),
    ("sk_live_", Form::Token(alnum, 16, 255)),
    ("sk_test_", Form::Token(alnum, 16, 255)),
    ("rk_live_", Form::Token(alnum, 16, 255)),
    ("rk_test_", Form::Token(alnum, 16, 255)),
    ("whsec_", Form::Token(alnum, 24, 255)),
    ("AIza", Form::Token(url, 35, 35)),
    ("ya29.", Form::Token(url, 20, 255)),
    ("GOCSPX-", Form::Token(url, 28, 28)),
    ("sk-ant-", Form::Token(url, 20, 255)),
    ("sk-proj-", Form::Token(url, 20, 255)),
    ("sk-", Form::Token(alnum, 32, 255)),
    ("npm_", Form::Token(alnum, 36, 36)),
    ("pypi-AgE", Form::Token(url, 50, 500)),
    ("hf_", Form::Token(alnum, 34, 40)),
    ("AGE-SECRET-KEY-1", Form::Token(upper, 58, 58)),
    ("dop_v1_", Form::Token(alnum, 64, 64)),
    ("SG.", Form::Token(dotted, 60, 75)),
    ("shpat_", Form::Token(alnum, 32, 32)),
    ("EAACEdEose0cBA", Form::Token(alnum, 20, 255)),
    ("eyJ", Form::Jwt),
    ("-----BEGIN ", Form::Pem),
    ("(at)", Form::At),
    ("[at]", Form::At),
    (" (at) ", Form::At),
    (" [at] ", Form::At),
];

static MARKED: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .match_kind(aho_corasick::MatchKind::LeftmostLongest)
        .build(MARKS.iter().map(|(mark, _)| mark))
        .expect("a few short patterns")
});

/// Finds what has a mark: secrets, and e-mail addresses that are spelled with `(at)`.
pub(super) fn marked(text: &str, kinds: &Kinds, spans: &mut Vec<Span>) {
    if !kinds.has(Kind::Secret) && !kinds.has(Kind::Email) {
        return;
    }
    let bytes = text.as_bytes();
    let mut done = 0;
    for found in MARKED.find_iter(text) {
        let (start, after) = (found.start(), found.end());
        if start < done {
            continue;
        }
        let form = &MARKS[found.pattern()].1;
        let span = match form {
            Form::At => spelled(text, start, after).filter(|_| kinds.has(Kind::Email)),
            _ if !kinds.has(Kind::Secret) => None,
            Form::Token(of, least, most) => {
                let end = run(bytes, after, most + 1, of);
                let fits = (*least..=*most).contains(&(end - after)) && !repeats(&bytes[after..end]);
                // The mark's last character may be one of the set, as may the one before it.
                (fits && begins(bytes, start)).then_some(end).map(|end| secret(start, end))
            }
            Form::Jwt => jwt(text, start),
            Form::Pem => pem(text, start),
        };
        if let Some(span) = span {
            done = span.end;
            spans.push(span);
        }
    }
}

fn secret(start: usize, end: usize) -> Span {
    Span { kind: Kind::Secret, start, end }
}

/// Whether a token is a placeholder: `xxxxxxxx`.
fn repeats(token: &[u8]) -> bool {
    token.windows(2).filter(|pair| pair[0] == pair[1]).count() * 2 > token.len()
}

/// RFC 7519: a header and a payload, JSON in base64url, so both begin with `eyJ`; and a signature.
fn jwt(text: &str, start: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    let mut end = start;
    for part in 0..3 {
        let stop = run(bytes, end, 8 << 10, url);
        let last = part == 2;
        if stop - end < 10
            || (part == 1 && !text[end..].starts_with("eyJ"))
            || (!last && bytes.get(stop) != Some(&b'.'))
        {
            return None;
        }
        end = stop + usize::from(!last);
    }
    begins(bytes, start).then(|| secret(start, end))
}

/// RFC 7468: from `-----BEGIN … PRIVATE KEY-----` to its end, or as far as base64 goes.
fn pem(text: &str, start: usize) -> Option<Span> {
    let label = text[start + "-----BEGIN ".len()..].split("-----").next()?;
    let plausible =
        label.len() < 64 && label.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ');
    if !plausible || !label.contains("PRIVATE KEY") {
        return None;
    }
    let body = start + "-----BEGIN ".len() + label.len() + "-----".len();
    // Keys are a few kilobytes.
    let in_block = |b: u8| b.is_ascii_alphanumeric() || b"+/=\r\n \t:,-\\".contains(&b);
    let stop = run(text.as_bytes(), body, 16 << 10, in_block);
    let closing = format!("-----END {label}-----");
    let end = text[body..stop].find(&closing).map(|at| body + at + closing.len());
    let end = end.unwrap_or_else(|| text[..stop].trim_end().len());
    (end > body + 16).then(|| secret(start, end))
}

/// `ann.lee (at) example (dot) org`.
fn spelled(text: &str, start: usize, after: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    let name = run_back(bytes, start, 64, |b| b.is_ascii_alphanumeric() || b"._%+-".contains(&b));
    let (mut end, mut dots) = (run(bytes, after, 64, |b| b.is_ascii_alphanumeric() || b == b'-'), 0);
    if name == start || end == after {
        return None;
    }
    loop {
        let rest = &text[end..];
        let dot = ["(dot)", "[dot]", " (dot) ", " [dot] ", "."].into_iter().find(|dot| rest.starts_with(dot));
        let Some(dot) = dot else { break };
        let stop = run(bytes, end + dot.len(), 64, |b| b.is_ascii_alphanumeric() || b == b'-');
        if stop == end + dot.len() {
            break;
        }
        (end, dots) = (stop, dots + 1);
    }
    let top = run_back(bytes, end, 24, |b| b.is_ascii_alphabetic());
    (dots > 0 && end - top >= 2).then_some(Span { kind: Kind::Email, start: name, end })
}

/// Names that a secret is assigned to, without `_` and `-`; the first may also hold words that a person chose.
const PASSWORDS: [&str; 6] = ["password", "passwd", "passphrase", "pwd", "passwort", "pass"];
const KEYS: [&str; 16] = [
    "apikey",
    "secret",
    "secretkey",
    "accesskey",
    "accesstoken",
    "authtoken",
    "token",
    "clientsecret",
    "privatekey",
    "encryptionkey",
    "signingkey",
    "secretaccesskey",
    "bearertoken",
    "credentials",
    "refreshtoken",
    "key",
];

/// The secret that `:` or `=` at `at` assigns: `api_key = "…"`, `password: …`, `Authorization: Bearer …`,
/// `scheme://user:password@host`.
pub(super) fn assigned(text: &str, at: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    if bytes[at] == b':' && credentials(text, at + 1).is_some() {
        let end = run(bytes, at + 1, 256, |b| b.is_ascii_graphic() && !b"/@\"'<>".contains(&b));
        return (end > at + 1 && bytes.get(end) == Some(&b'@') && !placeholder(&text[at + 1..end]))
            .then(|| secret(at + 1, end));
    }
    let name_end = run_back_end(bytes, at);
    let name_start =
        run_back(bytes, name_end, 40, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.');
    let written = text[name_start..name_end].rsplit('.').next().unwrap_or("");
    let name = written.to_ascii_lowercase().replace(['_', '-'], "");
    // A compass is no pass and a monkey no key: short names are words of their own.
    let is = |known: &&str| name.ends_with(*known) && (known.len() > 4 || own_word(written, known.len()));
    let bearer = name == "authorization" || name == "proxyauthorization";
    let password = PASSWORDS.iter().any(&is);
    let key = KEYS.iter().any(is) && !name.contains("public");
    if !(bearer || password || key) {
        return None;
    }
    // `:=`, `==`, `=>`, blanks, a quotation mark.
    let mut start = run(bytes, at + 1, 4, |b| b == b'=' || b == b'>');
    start = run(bytes, start, 8, |b| b == b' ' || b == b'\t');
    if bearer {
        start += ["Bearer ", "bearer ", "Basic ", "token "]
            .iter()
            .find_map(|s| text[start..].starts_with(s).then_some(s.len()))?;
    }
    let quote = bytes.get(start).copied().filter(|b| b"\"'`".contains(b));
    start += usize::from(quote.is_some());
    let in_value = |b: u8| b.is_ascii_graphic() && !b"\"'`<>,;(){}[]".contains(&b);
    let mut end = run(bytes, start, 512, in_value);
    if quote.is_none() {
        while end > start && b".:!?".contains(&bytes[end - 1]) {
            end -= 1;
        }
    }
    // What goes on is code: a call, an index, a path of names.
    if quote.is_none() && bytes.get(end).is_some_and(|b| b"([{<".contains(b)) {
        return None;
    }
    let value = &text[start..end];
    let (least, bits) = if password {
        (6, 0.0)
    } else if name == "key" {
        (20, 3.5)
    } else {
        (16, 3.0)
    };
    let is = value.len() >= least && mixed(value) >= 2 && entropy(value) >= bits && !placeholder(value);
    is.then(|| secret(start, end))
}

/// Whether the last `n` letters of a name are a word of it: `db_pass`, `dbPass`, `pass`.
fn own_word(name: &str, n: usize) -> bool {
    let Some(start) = name.len().checked_sub(n) else { return false };
    let before = name[..start].bytes().next_back();
    let capital = name.as_bytes()[start].is_ascii_uppercase();
    before.is_none_or(|b| !b.is_ascii_alphabetic() || (capital && b.is_ascii_lowercase()))
}

/// Where the name before `at` ends: before blanks and a closing quotation mark.
fn run_back_end(bytes: &[u8], at: usize) -> usize {
    let end = run_back(bytes, at, 4, |b| b == b' ' || b == b'\t');
    run_back(bytes, end, 1, |b| b"\"'`".contains(&b))
}

/// How many of small letters, capitals, digits and signs are in a value.
fn mixed(value: &str) -> usize {
    let has = |is: fn(&u8) -> bool| usize::from(value.bytes().any(|b| is(&b)));
    has(u8::is_ascii_lowercase)
        + has(u8::is_ascii_uppercase)
        + 2 * has(u8::is_ascii_digit)
        + has(|b| b"!@#$%^&*+=?~|".contains(b))
}

/// Bits a character, by the value's own frequencies.
fn entropy(value: &str) -> f64 {
    let mut counts = [0u32; 128];
    value.bytes().for_each(|b| counts[usize::from(b & 127)] += 1);
    let n = value.len() as f64;
    counts.iter().filter(|&&c| c > 0).map(|&c| -f64::from(c) / n * (f64::from(c) / n).log2()).sum()
}

/// Whether a value stands for one: `${TOKEN}`, `<password>`, `your_key_here`, `****`, `changeme`, `os.environ`.
fn placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let bytes = value.as_bytes();
    value.is_empty()
        || value.starts_with(['$', '%', '<', '{', '/', '.'])
        || bytes.windows(3).any(|w| w == b"***" || w == b"...")
        || [
            "xxx",
            "your",
            "example",
            "placeholder",
            "changeme",
            "change_me",
            "password",
            "redacted",
            "environ",
            "getenv",
        ]
        .iter()
        .any(|word| lower.contains(word))
        || matches!(lower.as_str(), "none" | "null" | "true" | "false" | "undefined")
        || lower.starts_with("http")
        || repeats(bytes)
}
