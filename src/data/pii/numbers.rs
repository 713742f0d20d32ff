//! Runs of digits: cards, IBANs, social security numbers; telephones and addresses are tried on the same runs.

use super::context::{Context, before, says};
use super::{Kind, Kinds, Span, begins, ends, net, phone, places, run};

/// Digits that stand together, and what separates them from the ones before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub start: usize,
    pub end: usize,
    /// Up to three separating characters, with all kinds of blanks as `' '` and of dashes as `'-'`; 0: none.
    pub separator: [u8; 3],
}

impl Group {
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether it stands behind one blank.
    pub fn after_blank(&self) -> bool {
        self.separator == [b' ', 0, 0]
    }
}

/// Groups of one run that are looked at together. No number has as many.
const GROUPS: usize = 24;

/// The digits of groups.
pub(super) fn digits(text: &str, groups: &[Group]) -> Vec<u8> {
    groups.iter().flat_map(|group| text.as_bytes()[group.start..group.end].iter().map(|b| b - b'0')).collect()
}

/// What stands between two groups of digits at `at`: blanks, dashes, dots, slashes, brackets.
fn separator(text: &str, mut at: usize) -> ([u8; 3], usize) {
    let mut found = [0; 3];
    for slot in &mut found {
        *slot = match text[at..].chars().next() {
            Some(' ' | '\u{a0}' | '\u{202f}' | '\u{2009}') => b' ',
            Some('-' | '\u{2010}' | '\u{2011}' | '\u{2012}' | '\u{2013}') => b'-',
            Some(c @ ('.' | '/' | '(' | ')')) => c as u8,
            _ => break,
        };
        at += text[at..].chars().next().map_or(0, char::len_utf8);
    }
    (found, at)
}

/// The groups of digits from `at` on.
fn groups(text: &str, at: usize) -> Vec<Group> {
    let bytes = text.as_bytes();
    let mut groups = Vec::new();
    let (mut start, mut between) = (at, [0; 3]);
    while groups.len() < GROUPS {
        let end = run(bytes, start, usize::MAX, |b| b.is_ascii_digit());
        groups.push(Group { start, end, separator: between });
        let (found, next) = separator(text, end);
        if next == end || !bytes.get(next).is_some_and(u8::is_ascii_digit) {
            break;
        }
        (start, between) = (next, found);
    }
    groups
}

/// Looks at the run of numbers that begins with the digit at `at`; where to go on.
pub(super) fn find(text: &str, at: usize, kinds: &Kinds, spans: &mut Vec<Span>) -> usize {
    let bytes = text.as_bytes();
    if kinds.has(Kind::Iban)
        && let Some(span) = iban(text, at)
    {
        spans.push(span);
        return span.end;
    }
    // The digits of a word: a hash, a name, a product.
    let first = run(bytes, at, usize::MAX, |b| b.is_ascii_digit());
    if !begins(bytes, at) {
        return first;
    }
    if kinds.has(Kind::Ip) && bytes.get(first) == Some(&b'.') {
        let (span, end) = net::ipv4(text, at);
        if let Some(span) = span {
            spans.push(span);
            return end;
        }
    }
    let all = groups(text, at);
    let mut from = 0;
    let mut found = false;
    while from < all.len() {
        let rest = &all[from..];
        // A number begins a run, or behind a blank or a bracket in it.
        let starts = from == 0 || rest[0].separator.contains(&b' ') || rest[0].separator.contains(&b'(');
        let span = if starts { number(text, rest, kinds) } else { None };
        match span {
            Some(span) => {
                spans.push(span);
                found = true;
                from += rest.iter().take_while(|group| group.start < span.end).count();
            }
            None => from += 1,
        }
    }
    if !found
        && kinds.has(Kind::Address)
        && let Some(span) = places::address(text, at, first)
    {
        spans.push(span);
        return span.end;
    }
    // A run that was cut is taken up again at its last group.
    if all.len() == GROUPS && !found { all[GROUPS - 1].start.max(at + 1) } else { all[all.len() - 1].end }
}

/// The first number of the groups, if they begin with one.
fn number(text: &str, groups: &[Group], kinds: &Kinds) -> Option<Span> {
    type Check = fn(&str, &[Group]) -> Option<Span>;
    let checks: [(Kind, Check); 3] = [(Kind::Card, card), (Kind::Ssn, ssn), (Kind::Phone, phone::find)];
    checks.iter().filter(|(kind, _)| kinds.has(*kind)).find_map(|(_, check)| check(text, groups))
}

/// Whether a number can stand at bytes `start` to `end`: it is no part of a longer one, of a decimal, a path, a word.
pub(super) fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let bytes = text.as_bytes();
    let digit_at = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let before_ok = match start.checked_sub(1).map(|at| bytes[at]) {
        Some(b'.' | b',' | b'-' | b'/' | b':') => start >= 2 && begins(bytes, start - 1) && bytes[start - 2] != b')',
        Some(b'\\' | b'%' | b'$' | b'#' | b'@' | b'&') => false,
        _ => begins(bytes, start),
    };
    let after_ok = match bytes.get(end) {
        Some(b'.' | b',' | b'-' | b'/' | b':') => !digit_at(end + 1) && (bytes[end] != b'-' || ends(bytes, end + 1)),
        Some(b'%' | b'@' | b'=') => false,
        _ => ends(bytes, end),
    };
    before_ok && after_ok
}

/// Luhn's check: doubled from the right, every second digit; sums of digits; a multiple of ten.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let doubled = |(n, &d): (usize, &u8)| match (n % 2, u32::from(d) * 2) {
        (0, _) => u32::from(d),
        (_, two) => two / 10 + two % 10,
    };
    digits.iter().rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

/// Whether an issuer gives out numbers that begin so, of this length (ISO/IEC 7812).
fn issued(digits: &[u8]) -> bool {
    let prefix = |n: usize| digits.iter().take(n).fold(0u32, |value, &d| value * 10 + u32::from(d));
    let (one, two, three, four) = (prefix(1), prefix(2), prefix(3), prefix(4));
    match digits.len() {
        13 => one == 4,
        14 => (300..=305).contains(&three) || matches!(two, 36 | 38 | 39),
        15 => matches!(two, 34 | 37),
        16 => {
            one == 4
                || (51..=55).contains(&two)
                || (2221..=2720).contains(&four)
                || four == 6011
                || (644..=649).contains(&three)
                || matches!(two, 65 | 62)
                || (3528..=3589).contains(&four)
                || matches!(four, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763)
        }
        17..=19 => one == 4 && digits.len() == 19 || two == 62 || matches!(four, 6304 | 6759 | 6761..=6763),
        _ => false,
    }
}

/// A card: 13 to 19 digits together, or in the groups that are printed on cards.
fn card(text: &str, groups: &[Group]) -> Option<Span> {
    let lengths: Vec<usize> = groups.iter().take(5).map(Group::len).collect();
    let even = |n: usize| {
        let first = groups[1].separator;
        let single = first[1] == 0 && (first[0] == b' ' || first[0] == b'-' || first[0] == b'.');
        single && groups[1..n].iter().all(|group| group.separator == first)
    };
    let n = match lengths[..] {
        [13..=19, ..] => 1,
        [4, 4, 4, 4, 3, ..] if even(5) && issued(&digits(text, &groups[..5])) => 5,
        [4, 4, 4, 4, ..] if even(4) => 4,
        [4, 6, 4 | 5, ..] if even(3) => 3,
        [8, 8, ..] if even(2) => 2,
        _ => return None,
    };
    let (start, end) = (groups[0].start, groups[n - 1].end);
    let number = digits(text, &groups[..n]);
    let context = before(text, start);
    // Barcodes of 13 digits begin with 4 too, and one in ten passes Luhn's check.
    let likely = number.len() > 13 || context == Context::Card;
    let same = number.windows(2).all(|pair| pair[0] == pair[1]);
    let is = issued(&number) && luhn(&number) && likely && !same;
    let alone = stands_alone(text, start, end) && !decimal(text, start, end);
    let thing = context == Context::Thing && !says(text, start, Context::Card);
    (is && alone && !thing).then_some(Span { kind: Kind::Card, start, end })
}

/// Whether digits have a decimal point on either side.
fn decimal(text: &str, start: usize, end: usize) -> bool {
    let after = text[end..].strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    after || text[..start].ends_with('.')
}

/// A social security number: area, group, serial, none of them zero. 123-45-6789, or with blanks where no word says that it is
/// something else; other forms only where one says so.
fn ssn(text: &str, groups: &[Group]) -> Option<Span> {
    let lengths: Vec<usize> = groups.iter().take(3).map(Group::len).collect();
    let start = groups[0].start;
    let sure = || says(text, start, Context::Ssn);
    let n = match lengths[..] {
        [3, 2, 4] => {
            let by = |c: u8| groups[1..3].iter().all(|group| group.separator == [c, 0, 0]);
            let whole = groups.len() == 3 && groups[0].separator == [0; 3];
            let blank = || whole && by(b' ') && matches!(before(text, start), Context::None | Context::Card);
            if !by(b'-') && !blank() && !((by(b' ') || by(b'.')) && sure()) {
                return None;
            }
            3
        }
        [9, ..] if sure() => 1,
        _ => return None,
    };
    let end = groups[n - 1].end;
    let d = digits(text, &groups[..n]);
    let value = |from: usize, to: usize| d[from..to].iter().fold(0u32, |value, &d| value * 10 + u32::from(d));
    let (area, group, serial) = (value(0, 3), value(3, 5), value(5, 9));
    let given_out = area != 0 && area != 666 && area < 900 && group != 0 && serial != 0;
    let thing = matches!(before(text, start), Context::Thing | Context::Version) && !sure();
    (given_out && !thing && stands_alone(text, start, end)).then_some(Span { kind: Kind::Ssn, start, end })
}

/// Lengths of the IBANs of each country (SWIFT's IBAN registry).
const IBANS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 \
    ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 \
    LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 \
    RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30";

/// The IBAN whose two check digits begin at `at`: two letters, two digits, as many more as its country has, and the whole
/// as a number, with its first four characters last and letters as 10 to 35, is 1 mod 97.
fn iban(text: &str, at: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    let start = at.checked_sub(2)?;
    let country = text.get(start..at)?.to_ascii_uppercase();
    if !country.bytes().all(|b| b.is_ascii_uppercase()) || !begins(bytes, start) {
        return None;
    }
    let length = IBANS.split_ascii_whitespace().find_map(|entry| entry.strip_prefix(&country))?.parse().ok()?;
    let (mut characters, mut end) = (Vec::with_capacity(length), start);
    while characters.len() < length {
        let b = *bytes.get(end)?;
        if b.is_ascii_alphanumeric() {
            characters.push(b.to_ascii_uppercase());
            end += 1;
            continue;
        }
        // One blank or dash between groups.
        let (found, next) = separator(text, end);
        let single = found[1] == 0 && matches!(found[0], b' ' | b'-');
        if characters.is_empty() || !single {
            return None;
        }
        end = next;
    }
    let mut remainder = 0u32;
    for &b in characters[4..].iter().chain(&characters[..4]) {
        remainder = match b {
            b'0'..=b'9' => remainder * 10 + u32::from(b - b'0'),
            _ => remainder * 100 + u32::from(b - b'A') + 10,
        } % 97;
    }
    let checks = characters[2..4].iter().all(u8::is_ascii_digit);
    (checks && remainder == 1 && ends(bytes, end)).then_some(Span { kind: Kind::Iban, start, end })
}

/// Where a plus sign stands that belongs to the number at `at`.
pub(super) fn plus(text: &str, at: usize) -> Option<usize> {
    let start = text[..at].strip_suffix('+')?.len();
    let before = text[..start].chars().next_back();
    (!before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '+' | ')'))).then_some(start)
}
