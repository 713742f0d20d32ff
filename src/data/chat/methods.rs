//! Methods that templates call on texts, dictionaries and lists: Python's, by its documentation. Indices count characters.

use super::python::{Text, is_space};
use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

/// Calls `value.name(args)`.
///
/// # Errors
/// Python has no such method or takes other arguments; the method changes its object, which no template may.
pub fn call(state: &State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    // The engine pays for the value that it gets; this is for the arguments that are walked through.
    state.consume_fuel(args.iter().map(|arg| arg.len().unwrap_or(0) as u64 / 64).sum())?;
    match (value.as_str(), value.kind()) {
        (Some(text), _) => text_method(state, text, name, args),
        (None, ValueKind::Map) => dict_method(value, name, args),
        (None, ValueKind::Seq | ValueKind::Iterable) => list_method(state, value, name, args),
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn wrong(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

/// The value called `name` among named arguments, else the one by its place.
fn named(place: Option<Value>, more: &Kwargs, name: &str) -> Result<Option<Value>, Error> {
    let value = match place {
        Some(value) => Some(value),
        None => more.get::<Option<Value>>(name)?,
    };
    more.assert_all_used()?;
    Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
}

fn text_method(state: &State, text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let plain = |value: String| -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok(Value::from(value))
    };
    // All characters are so, and there is one.
    let all = |is: &dyn Fn(char) -> bool| -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok(Value::from(!text.is_empty() && text.chars().all(is)))
    };
    match name {
        "upper" => plain(text.to_uppercase()),
        "lower" | "casefold" => plain(text.to_lowercase()),
        "capitalize" => {
            let mut chars = text.chars();
            let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
            plain(first + &chars.as_str().to_lowercase())
        }
        "title" => plain(title(text)),
        "swapcase" => plain(
            text.chars()
                .flat_map(|c| {
                    if c.is_uppercase() { c.to_lowercase().collect::<Vec<_>>() } else { c.to_uppercase().collect() }
                })
                .collect(),
        ),
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<Value>,) = from_args(args)?;
            let chars = chars.filter(|chars| !chars.is_none());
            let set = match &chars {
                Some(chars) => Some(chars.as_str().ok_or_else(|| wrong(format!("{name} arg must be None or str")))?),
                None => None,
            };
            Ok(Value::from(strip(text, set, name != "rstrip", name != "lstrip")))
        }
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let rest = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "startswith" | "endswith" => {
            let (part, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let text = slice(text, start, end);
            let is = |part: &Value| match part.as_str() {
                Some(part) if name == "startswith" => Ok(text.starts_with(part)),
                Some(part) => Ok(text.ends_with(part)),
                None => Err(wrong(format!("{name} first arg must be str or a tuple of str, not {}", part.kind()))),
            };
            if part.is_tuple() {
                for part in part.try_iter()?.checked() {
                    if is(&part?)? {
                        return Ok(Value::from(true));
                    }
                }
                return Ok(Value::from(false));
            }
            is(part).map(Value::from)
        }
        "find" | "index" | "rfind" | "rindex" => {
            let (part, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let within = slice(text, start, end);
            let found = if name.starts_with('r') { within.rfind(part) } else { within.find(part) };
            let before = within.as_ptr() as usize - text.as_ptr() as usize;
            match found {
                Some(at) => Ok(Value::from(text[..before + at].chars().count())),
                None if name.ends_with("find") => Ok(Value::from(-1)),
                None => Err(wrong("substring not found")),
            }
        }
        "count" => {
            let (part, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            Ok(Value::from(slice(text, start, end).matches(part).count()))
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
            let found = text.matches(old).take(count).count();
            let mut out = Text::new(state);
            out.reserve((text.len() - found * old.len()).saturating_add(found.saturating_mul(new.len())))?;
            out.push(&text.replacen(old, new, count))?;
            Ok(Value::from(out.finish()))
        }
        "split" | "rsplit" => {
            let (by, most, more): (Option<Value>, Option<Value>, Kwargs) = from_args(args)?;
            let by = match by.filter(|by| !by.is_none()) {
                Some(by) => Some(by),
                None => more.get::<Option<Value>>("sep")?.filter(|by| !by.is_none() && !by.is_undefined()),
            };
            let most = named(most, &more, "maxsplit")?.map(i64::try_from).transpose()?.unwrap_or(-1);
            let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
            let parts = match &by {
                None => {
                    afford(state, text.split(is_space).filter(|word| !word.is_empty()).take(most + 1).count())?;
                    words(text, most, name == "rsplit")
                }
                Some(by) => {
                    let by = by.as_str().ok_or_else(|| wrong(format!("must be str or None, not {}", by.kind())))?;
                    if by.is_empty() {
                        return Err(wrong("empty separator"));
                    }
                    afford(state, text.matches(by).take(most).count())?;
                    if name == "split" {
                        text.splitn(most + 1, by).collect()
                    } else {
                        let mut parts: Vec<&str> = text.rsplitn(most + 1, by).collect();
                        parts.reverse();
                        parts
                    }
                }
            };
            Ok(list(parts))
        }
        "splitlines" => {
            let (keep, more): (Option<Value>, Kwargs) = from_args(args)?;
            let keep = named(keep, &more, "keepends")?.is_some_and(|keep| keep.is_true());
            lines(state, text, keep).map(list)
        }
        "partition" | "rpartition" => {
            let (by,): (&str,) = from_args(args)?;
            if by.is_empty() {
                return Err(wrong("empty separator"));
            }
            Ok(match if name == "partition" { text.split_once(by) } else { text.rsplit_once(by) } {
                Some((before, after)) => Value::from((before, by, after)),
                None if name == "partition" => Value::from((text, "", "")),
                None => Value::from(("", "", text)),
            })
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            let mut out = Text::new(state);
            for (n, item) in items.try_iter()?.checked().enumerate() {
                let item = item?;
                let Some(item) = item.as_str() else {
                    return Err(wrong(format!("sequence item {n}: expected str instance, {} found", item.kind())));
                };
                if n > 0 {
                    out.push(text)?;
                }
                out.push(item)?;
            }
            Ok(Value::from(out.finish()))
        }
        "ljust" | "rjust" | "center" | "zfill" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let missing = width.saturating_sub(text.chars().count());
            let (sign, digits) = text.split_at(usize::from(name == "zfill" && text.starts_with(['+', '-'])));
            let (before, after) = match name {
                "ljust" => (0, missing),
                "center" => (missing / 2 + (missing & width & 1), missing - missing / 2 - (missing & width & 1)),
                _ => (missing, 0),
            };
            let fill = if name == "zfill" { "0" } else { fill.unwrap_or(" ") };
            let mut out = Text::new(state);
            out.reserve(missing.saturating_mul(fill.len()).saturating_add(text.len()))?;
            out.push(&[sign, &fill.repeat(before), digits, &fill.repeat(after)].concat())?;
            Ok(Value::from(out.finish()))
        }
        "format" => format(state, text, args),
        "isspace" => all(&is_space),
        "isdigit" | "isdecimal" | "isnumeric" => all(&char::is_numeric),
        "isalpha" => all(&char::is_alphabetic),
        "isalnum" => all(&char::is_alphanumeric),
        "isascii" => plain(String::new()).map(|_| Value::from(text.is_ascii())),
        "islower" | "isupper" => {
            let () = from_args(args)?;
            let (lower, upper) = (text.chars().any(char::is_lowercase), text.chars().any(char::is_uppercase));
            Ok(Value::from(if name == "islower" { lower && !upper } else { upper && !lower }))
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn dict_method(dict: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let keys = || dict.try_iter().map(|keys| keys.checked().collect::<Result<Vec<Value>, Error>>());
    match name {
        "get" => {
            let (key, other): (&Value, Option<Value>) = from_args(args)?;
            let value = dict.as_object().and_then(|dict| dict.get_value(key));
            Ok(value.or(other).unwrap_or(Value::from(())))
        }
        "keys" => {
            let () = from_args(args)?;
            Ok(Value::from(keys()??))
        }
        "values" | "items" => {
            let () = from_args(args)?;
            let entry = |key: Value| {
                let value = dict.get_item(&key)?;
                Ok(if name == "items" { Value::from((key, value)) } else { value })
            };
            keys()??.into_iter().map(entry).collect::<Result<Vec<Value>, Error>>().map(Value::from)
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(dict.clone())
        }
        "clear" | "pop" | "popitem" | "setdefault" | "update" => Err(changes(name)),
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn list_method(state: &State, items: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "count" | "index" => {
            let (what,): (&Value,) = from_args(args)?;
            state.consume_fuel(items.len().unwrap_or(0) as u64)?;
            let same = items.try_iter()?.checked().map(|item| item.map(|item| item == *what));
            let same = same.collect::<Result<Vec<bool>, Error>>()?;
            if name == "count" {
                return Ok(Value::from(same.iter().filter(|same| **same).count()));
            }
            let at = same.iter().position(|same| *same);
            at.map(Value::from).ok_or_else(|| wrong("the value is not in the list"))
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(items.clone())
        }
        "append" | "clear" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort" => Err(changes(name)),
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn changes(name: &str) -> Error {
    wrong(format!("{name} changes its object, which templates may not"))
}

/// Pays for a list of so many texts before it is made.
fn afford(state: &State, parts: usize) -> Result<(), Error> {
    state.consume_fuel(parts as u64)
}

fn list(parts: Vec<&str>) -> Value {
    Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>())
}

/// `text` without the characters of `set`, or without white space, at its start and its end.
pub fn strip<'a>(text: &'a str, set: Option<&str>, start: bool, end: bool) -> &'a str {
    let off = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
    let text = if start { text.trim_start_matches(off) } else { text };
    if end { text.trim_end_matches(off) } else { text }
}

/// `text[start:end]`.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> &str {
    if start.is_none() && end.is_none() {
        return text;
    }
    let len = text.chars().count() as i64;
    let place = |at: i64| (if at < 0 { len + at } else { at }).clamp(0, len) as usize;
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(len)));
    &text[byte(start.min(end))..byte(end)]
}

/// Words between runs of white space, cut at most `most` times, from the left or from the right.
fn words(text: &str, most: usize, right: bool) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), strip(text, None, !right, right));
    while !rest.is_empty() {
        let cut = if words.len() == most {
            None
        } else if right {
            rest.rfind(is_space).map(|at| at + rest[at..].chars().next().map_or(0, char::len_utf8))
        } else {
            rest.find(is_space)
        };
        let Some(at) = cut else {
            words.push(rest);
            break;
        };
        let (before, after) = rest.split_at(at);
        words.push(if right { after } else { before });
        rest = if right { strip(before, None, false, true) } else { strip(after, None, true, false) };
    }
    if right {
        words.reverse();
    }
    words
}

/// Lines as `str.splitlines` cuts them, with what ends them or without.
pub fn lines<'a>(state: &State, text: &'a str, keep: bool) -> Result<Vec<&'a str>, Error> {
    afford(state, text.matches(ends_line).count())?;
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(ends_line) {
        let end = rest[at..].chars().next().map_or(0, char::len_utf8);
        let end = if rest[at..].starts_with("\r\n") { 2 } else { end };
        lines.push(&rest[..if keep { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    Ok(lines)
}

/// Whether a character ends a line, as Python sees it.
fn ends_line(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// `str.title`: a letter after what has no case is large, all others are small.
fn title(text: &str) -> String {
    let (mut out, mut inside) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// `str.format` with `{}`, `{0}` and `{name}`; formats after a colon, and members, are refused.
fn format(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (named, places) = match args.split_last() {
        Some((last, places)) if last.is_kwargs() => (Some(last), places),
        _ => (None, args),
    };
    let (mut out, mut rest, mut next) = (Text::new(state), text, 0);
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&rest[..at])?;
        let (brace, after) = rest[at..].split_at(1);
        if after.starts_with(brace) {
            out.push(brace)?;
            rest = &after[1..];
            continue;
        }
        let (field, after) =
            after.split_once('}').filter(|_| brace == "{").ok_or_else(|| wrong("single brace in a format"))?;
        let value = if field.is_empty() {
            next += 1;
            places.get(next - 1).cloned()
        } else if let Ok(place) = field.parse::<usize>() {
            places.get(place).cloned()
        } else {
            named.and_then(|named| named.get_attr(field).ok()).filter(|value| !value.is_undefined())
        };
        let value = value.ok_or_else(|| wrong(format!("str.format: nothing for {{{field}}}")))?;
        out.str(&value)?;
        rest = after;
    }
    out.push(rest)?;
    Ok(Value::from(out.finish()))
}
