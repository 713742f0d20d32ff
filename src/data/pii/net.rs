//! Addresses of the net: e-mail, IPv4, IPv6.

use std::net::Ipv6Addr;

use super::context::{Context, before};
use super::{Kind, Span, begins, ends, run, run_back};

/// Endings of file names and code that follow an `@` (`icon@2x.png`) and are no top-level domain.
const NO_DOMAINS: [&str; 28] = [
    "png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "mjs", "json", "xml", "txt", "pdf", "html", "htm",
    "exe", "dll", "jar", "bak", "tmp", "log", "conf", "cfg", "yml", "yaml", "lock", "toml",
];

/// The e-mail address around the `@` at `at`, after RFC 5322 as far as people use it.
pub(super) fn email(text: &str, at: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    let local = |b: u8| b.is_ascii_alphanumeric() || b >= 0x80 || b"._%+-'!#$&*/?^{|}~`".contains(&b);
    let mut start = run_back(bytes, at, 64, local);
    // Quotation marks and the like are no part of it, nor is punctuation of other scripts.
    while start < at && !(bytes[start].is_ascii_alphanumeric() || bytes[start] == b'_' || bytes[start] >= 0x80) {
        start += 1;
    }
    if let Some((from, _)) =
        text.get(start..at)?.char_indices().rev().find(|(_, c)| !c.is_ascii() && !c.is_alphanumeric())
    {
        start += from + text[start + from..].chars().next()?.len_utf8();
    }
    let name = &text[start..at];
    if name.is_empty() || name.ends_with('.') || name.contains("..") || name.contains("//") {
        return None;
    }
    let label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b >= 0x80;
    let mut end = at + 1;
    let mut labels: Vec<&str> = Vec::new();
    loop {
        let stop = run(bytes, end, 256, label);
        let Some(part) = text.get(end..stop) else { break };
        let part = part.find(|c: char| !c.is_alphanumeric() && c != '-').map_or(part, |cut| &part[..cut]);
        if part.is_empty() || part.starts_with('-') || labels.len() > 8 || part.len() > 63 {
            break;
        }
        labels.push(part);
        end += part.len();
        if end != stop || bytes.get(end) != Some(&b'.') || bytes.get(end + 1).is_none_or(|&b| !label(b)) {
            break;
        }
        end += 1;
    }
    if bytes.get(end.wrapping_sub(1)) == Some(&b'.') {
        end -= 1;
    }
    // A last label that is no domain may be the next sentence's: "ann@example.org.Then".
    let top = labels.last()?;
    if top.ends_with('-') {
        end -= 1;
    }
    let top = top.trim_end_matches('-').to_ascii_lowercase();
    let letters = top.chars().all(char::is_alphabetic) || top.starts_with("xn--");
    if labels.len() < 2 || !letters || top.chars().count() < 2 || top.len() > 24 || NO_DOMAINS.contains(&top.as_str()) {
        return None;
    }
    let numeric = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    if labels[..labels.len() - 1].iter().take(2).filter(|part| numeric(part)).count() == 2 {
        return None; // name@1.0.beta is a package
    }
    // `git@host:path`, `ssh://user@host`, `@user@server`, `user@host:/path` are no addresses to write to.
    let after = bytes.get(end).copied();
    let scheme = text[..start].ends_with("//") || (text[..start].ends_with(':') && credentials(text, start).is_some());
    let remote = after == Some(b':') && bytes.get(end + 1).is_some_and(|&b| b == b'/' || b == b'~' || (name == "git"));
    if scheme || remote || text[..start].ends_with('@') || after == Some(b'@') {
        return None;
    }
    let heads = text.get(start.saturating_sub(16)..start).unwrap_or("");
    if heads.contains("Message-I") || heads.contains("References: <") {
        return None;
    }
    Some(Span { kind: Kind::Email, start, end })
}

/// Where the user's name begins of `scheme://user:` before `password`, which begins at `start`.
pub(super) fn credentials(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let user = run_back(bytes, start.checked_sub(1)?, 64, |b| b.is_ascii_graphic() && !b"/:@".contains(&b));
    text[..user].ends_with("://").then_some(user)
}

/// The IPv4 address that begins with the digit at `at`; also where what looks like one ends, that it is not read again.
pub(super) fn ipv4(text: &str, at: usize) -> (Option<Span>, usize) {
    let bytes = text.as_bytes();
    let (mut end, mut octets) = (at, Vec::new());
    loop {
        let stop = run(bytes, end, 4, |b| b.is_ascii_digit());
        if stop == end || stop - end > 3 {
            return (None, stop.max(at + 1));
        }
        octets.push(&text[end..stop]);
        end = stop;
        let more = bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        if !more || octets.len() == 5 {
            break;
        }
        end += 1;
    }
    if octets.len() != 4 {
        return (None, end);
    }
    let values: Option<Vec<u8>> =
        octets.iter().map(|o| (o.len() == 1 || !o.starts_with('0')).then(|| o.parse().ok()).flatten()).collect();
    let Some(octets) = values else { return (None, end) };
    let address = u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]);
    // Nobody's own: this machine, none, masks.
    let mask = address.leading_ones() + address.trailing_zeros() == 32 && octets[0] == 255;
    if octets[0] == 127 || octets[0] == 0 || mask || !ends(bytes, end) || bytes.get(end) == Some(&b'-') {
        return (None, end);
    }
    let before_it = text[..at].chars().next_back();
    let slash = before_it == Some('/') && !text[..at].ends_with("//");
    let inside = before_it.is_some_and(|c| c.is_alphanumeric() || "._-".contains(c));
    if inside || slash || matches!(before(text, at), Context::Version | Context::Thing) {
        return (None, end);
    }
    (Some(Span { kind: Kind::Ip, start: at, end }), end)
}

/// The IPv6 address around the colon at `at`, where that is its first.
pub(super) fn ipv6(text: &str, at: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    let start = run_back(bytes, at, 5, |b| b.is_ascii_hexdigit());
    if at - start > 4 || !begins(bytes, start) || (start > 0 && b":.".contains(&bytes[start - 1])) {
        return None;
    }
    let mut end = run(bytes, at, 64, |b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
    while end > start && (bytes[end - 1] == b'.' || (bytes[end - 1] == b':' && !text[..end].ends_with("::"))) {
        end -= 1;
    }
    let found = &text[start..end];
    let address: Ipv6Addr = found.parse().ok()?;
    if !ends(bytes, end) || address.is_loopback() || address.is_unspecified() {
        return None;
    }
    let groups: Vec<&str> = found.split(':').filter(|group| !group.is_empty()).collect();
    // `abc::def` is a path in a program, `00:1b:44:…` a hardware address, `1:2:…` a ratio.
    let digits = found.bytes().any(|b| b.is_ascii_digit());
    let long = groups.iter().any(|group| group.len() > 2);
    let typical = groups.len() >= 4 || groups[0].len() >= 3 && groups[0].bytes().any(|b| b.is_ascii_digit());
    let known =
        ["fe80", "fd", "fc", "ff0", "2001", "::ffff:"].iter().any(|p| found.to_ascii_lowercase().starts_with(p));
    (digits && long && (typical || known)).then_some(Span { kind: Kind::Ip, start, end })
}
