//! Telephone numbers: international ones by `+` and a country's code (ITU-T E.164), national ones by their form (North
//! America, Britain, France) or by a word before them.

use super::context::{Context, before};
use super::numbers::{Group, digits, plus, stands_alone};
use super::{Kind, Span};

/// Country codes (ITU-T E.164, list of assigned codes): those of one and two digits; three-digit ones begin with the rest.
const TWO: [u8; 43] = [
    20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61, 62,
    63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95,
];

/// The length of the country's code at the start of `d`.
fn code(d: &[u8]) -> Option<usize> {
    match d {
        [1 | 7, ..] => Some(1),
        [a, b, ..] if TWO.contains(&(a * 10 + b)) || (*a == 9 && *b == 8) => Some(2),
        [2, 1 | 2 | 3 | 4 | 5 | 6 | 9, _, ..] | [3, 5 | 7 | 8, _, ..] | [4, 2, _, ..] | [5, 0 | 9, _, ..] => Some(3),
        [6, 7..=9, _, ..] | [8, 0 | 5 | 7 | 8, _, ..] | [9, 6 | 7 | 9, _, ..] => Some(3),
        _ => None,
    }
}

/// The telephone number that begins with the first of these groups.
pub(super) fn find(text: &str, groups: &[Group]) -> Option<Span> {
    international(text, groups).or_else(|| north_american(text, groups)).or_else(|| national(text, groups))
}

/// How many groups belong together: up to `most` digits, one separator each (brackets count as part of one).
fn together(groups: &[Group], most: usize) -> usize {
    let mut total = groups[0].len();
    let single = |group: &Group| {
        !matches!(
            group.separator,
            [b' ', b' ', _] | [b'.', b' ', _] | [b'-', b'-', _] | [_, b' ', b' '] | [b'/', b'/', _]
        ) && group.separator != [b' ', b'-', b' ']
            && group.separator != [b' ', b'/', b' ']
    };
    1 + groups[1..]
        .iter()
        .take_while(|group| {
            total += group.len();
            total <= most && single(group)
        })
        .count()
}

/// `+49 30 123456`, `0049 30 123456`, `+1 (212) 555-0123`, `+44 (0)20 7946 0958`.
fn international(text: &str, groups: &[Group]) -> Option<Span> {
    let plus_at = plus(text, groups[0].start);
    let (start, skip) = match plus_at {
        Some(at) => (at, 0),
        None if text[groups[0].start..].starts_with("00") => (groups[0].start, 2),
        None => return None,
    };
    let mut d = digits(text, groups);
    d.truncate(20);
    let d = d.get(skip..)?;
    let length = code(d)?;
    // The code is not cut by a separator: +25 000 000 is a sum.
    if groups[0].len() < skip + length {
        return None;
    }
    let context = before(text, start);
    if context == Context::Thing || (plus_at.is_none() && groups.len() < 2 && context != Context::Phone) {
        return None;
    }
    let mut n = together(groups, skip + 16);
    // What does not fit is the next number's.
    loop {
        let digits: usize = groups[..n].iter().map(Group::len).sum::<usize>() - skip;
        let trunk = groups[..n].iter().any(|group| group.len() == 1 && group.separator.contains(&b'('));
        let fits = match d[0] {
            1 => digits == 11,
            7 => digits == 11,
            _ => (8..=15 + usize::from(trunk)).contains(&digits),
        };
        let end = groups[n - 1].end;
        if fits && stands_alone(text, groups[0].start, end) {
            // After a number with a comma as in +1,000,000 comes none of these separators.
            return Some(Span { kind: Kind::Phone, start, end });
        }
        n -= 1;
        if n == 0 {
            return None;
        }
    }
}

/// `(212) 555-0123`, `212-555-0123`, `212.555.0123`, `1-212-555-0123`: area and exchange begin with 2 to 9.
fn north_american(text: &str, groups: &[Group]) -> Option<Span> {
    let skip = usize::from(groups[0].len() == 1 && text.as_bytes()[groups[0].start] == b'1');
    let rest = groups.get(skip..)?;
    let [area, exchange, line, ..] = rest else { return bare(text, groups) };
    if [area.len(), exchange.len(), line.len()] != [3, 3, 4] {
        return bare(text, groups);
    }
    let bytes = text.as_bytes();
    if bytes[area.start] < b'2' || bytes[exchange.start] < b'2' {
        return None;
    }
    let mut start = groups[0].start;
    let bracket = text[..area.start].ends_with('(');
    let (first, second) = (exchange.separator, line.separator);
    let closed = first[0] == b')' && matches!(first[1..], [0, 0] | [b' ' | b'-', 0]);
    let even = first == second && first[1] == 0 && matches!(first[0], b'-' | b'.' | b' ' | b'/');
    let usual = even || (first == [b'/', 0, 0] && second == [b'-', 0, 0]);
    if !(bracket && closed && second[1] == 0 || usual && !bracket) {
        return None;
    }
    if bracket && skip == 0 {
        start -= 1;
    }
    let context = before(text, start);
    // Three numbers with blanks between them are any numbers.
    let plain = first == [b' ', 0, 0] && !bracket && skip == 0;
    if matches!(context, Context::Thing | Context::Version | Context::Card) || (plain && context != Context::Phone) {
        return None;
    }
    stands_alone(text, start, line.end).then_some(Span { kind: Kind::Phone, start, end: line.end })
}

/// Ten digits, or seven as `555-0123`, where a word says that they are a telephone's.
fn bare(text: &str, groups: &[Group]) -> Option<Span> {
    let bytes = text.as_bytes();
    let (start, mut end) = (groups[0].start, groups[0].end);
    let fits = match groups {
        [one, ..] if one.len() == 10 => {
            (b'2'..=b'9').contains(&bytes[start]) && (b'2'..=b'9').contains(&bytes[start + 3])
        }
        [one, ..] if one.len() == 11 => bytes[start] == b'1',
        [a, b, ..] if a.len() == 3 && b.len() == 4 && matches!(b.separator, [b'-' | b'.', 0, 0]) => {
            end = b.end;
            bytes[start] >= b'2'
        }
        _ => false,
    };
    (fits && before(text, start) == Context::Phone && stands_alone(text, start, end)).then_some(Span {
        kind: Kind::Phone,
        start,
        end,
    })
}

/// Numbers that begin with 0: `020 7946 0958` and `07700 900123` (Britain), `01 23 45 67 89` (France) and `030/1234567`
/// (Germany) by their form; where a word says so, any of 6 to 13 digits.
fn national(text: &str, groups: &[Group]) -> Option<Span> {
    let bytes = text.as_bytes();
    if bytes[groups[0].start] != b'0' {
        return None;
    }
    let bracket = text[..groups[0].start].ends_with('(') && groups.get(1).is_some_and(|g| g.separator[0] == b')');
    let start = groups[0].start - usize::from(bracket);
    let context = before(text, start);
    if matches!(context, Context::Thing | Context::Version | Context::Card) {
        return None;
    }
    let span = |n: usize| {
        let end = groups[n - 1].end;
        stands_alone(text, start, end).then_some(Span { kind: Kind::Phone, start, end })
    };
    let lengths: Vec<usize> = groups.iter().take(5).map(Group::len).collect();
    let blanks = |n: usize| groups[1..n].iter().all(|g| g.after_blank() || (bracket && g.separator == [b')', b' ', 0]));
    let even = |n: usize| {
        let first = groups[1].separator;
        first[1] == 0 && matches!(first[0], b' ' | b'.' | b'-') && groups[1..n].iter().all(|g| g.separator == first)
    };
    let second = bytes.get(groups[0].start + 1).copied().unwrap_or(0);
    let typical = match lengths[..] {
        [2, 2, 2, 2, 2] if even(5) && second != b'0' => 5,
        [3, 4, 4, ..] if blanks(3) && second == b'2' => 3,
        [4, 3, 4, ..] if blanks(3) && second != b'0' => 3,
        [5, 3, 3, ..] if blanks(3) && matches!(second, b'1' | b'7') => 3,
        [5, 6, ..] if blanks(2) && matches!(second, b'1' | b'7') => 2,
        [3..=5, 5..=8, ..] if groups[1].separator == [b'/', 0, 0] && second != b'0' => 2,
        _ => 0,
    };
    if typical > 0 {
        return span(typical);
    }
    if context != Context::Phone {
        return None;
    }
    let mut n = together(groups, 13);
    while n > 0 {
        let digits: usize = groups[..n].iter().map(Group::len).sum();
        if (6..=13).contains(&digits)
            && let Some(span) = span(n)
        {
            return Some(span);
        }
        n -= 1;
    }
    None
}
