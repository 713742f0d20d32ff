//! The engine that renders templates: minijinja, set up as `transformers` sets up Jinja, within bounds.
//!
//! A template is a program of whoever made the model. What bounds it:
//!
//! - **Fuel** ([`fuel`]): every instruction, every item and every 64 bytes that are made cost one, and what would cost more than
//!   is left is not made. So a text that doubles in a loop, nested loops and a long `|join` all end, within a second or two, and
//!   with about 150 MB at most for a conversation of usual length.
//! - **Depth**: an assigned value has at most [`MAX_DEPTH`] lists within each other and [`MAX_ITEMS`] items in all; calls of
//!   macros within each other are bounded by the engine; and all runs on a thread with a stack for what is left.
//! - **Time** ([`PATIENCE`]): a value which is not assigned but bound by `for`, `with` or a call may still hold itself twice,
//!   forty times over; comparing such values, or `~` of them, is one instruction. Nothing can stop that, so it is left alone on
//!   its thread and the caller gets an error.

use super::methods;
use super::python::{Json, MAX_DEPTH, Text};
use super::source::{ASSIGNED, SAID, Source};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Value, escape_formatter};
use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Items of an assigned value, those of its items included.
const MAX_ITEMS: usize = 1 << 20;

/// Bytes of a template. The largest in use have 30 KB.
pub const MAX_SOURCE: usize = 1 << 18;

/// Bytes of stack; of them only those that are used are taken.
const STACK: usize = 1 << 27;

/// How long a rendering may take: ten thousand times what one takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The variable that holds the two marks around what the assistant says.
pub const MARKS: &str = "kiln_marks";

/// What a template may use for a conversation of so many bytes.
pub fn fuel(bytes: usize) -> u64 {
    (1 << 20) + 4 * bytes as u64
}

/// What `raise_exception` was called with.
#[derive(Debug)]
pub struct Raised(pub String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// What became of work on a thread of its own.
pub enum Fate<T> {
    /// It was done.
    Done(T),
    /// It took longer than [`PATIENCE`].
    Late,
    /// There is no such thread, for this reason, or it died.
    Lost(String),
}

/// Does `work` on a thread with a large stack.
pub fn apart<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Fate<T> {
    let (give, take) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("template".into()).stack_size(STACK);
    // Nobody may wait any more.
    let started = thread.spawn(move || drop(give.send(work())));
    match started.map(|_| take.recv_timeout(patience)) {
        Ok(Ok(done)) => Fate::Done(done),
        Ok(Err(RecvTimeoutError::Timeout)) => Fate::Late,
        Ok(Err(RecvTimeoutError::Disconnected)) => Fate::Lost("the engine of templates failed".to_owned()),
        Err(e) => Fate::Lost(format!("no thread for a template: {e}")),
    }
}

/// An engine with these templates, by name.
///
/// # Errors
/// One of them is no Jinja.
pub fn environment(templates: &[(String, Source)]) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(write);
    env.set_unknown_method_callback(|state, value, name, args| methods::call(state, value, name, args));

    env.add_filter(SAID, said);
    env.add_filter(ASSIGNED, assigned);
    env.add_filter("tojson", to_json);
    env.add_filter("string", |state: &State, value: &Value| -> Result<Value, Error> {
        let mut text = Text::new(state);
        text.str(value)?;
        Ok(Value::from(text.finish()))
    });
    env.add_filter("trim", |state: &State, value: &Value, set: Option<&str>| -> Result<Value, Error> {
        let mut text = Text::new(state);
        text.str(value)?;
        Ok(Value::from(methods::strip(&text.finish(), set, true, true)))
    });
    env.add_filter("join", join);
    env.add_filter("indent", indent);
    env.add_filter("int", |value: &Value, other: Option<Value>| -> Value {
        let whole =
            |x: f64| x.is_finite().then(|| i128::try_from(Value::from(x.trunc())).ok()).flatten().map(Value::from);
        let number = match value.as_str().map(str::trim) {
            Some(text) => text.parse::<i128>().ok().map(Value::from).or_else(|| whole(text.parse().ok()?)),
            None if value.is_integer() => Some(value.clone()),
            None => f64::try_from(value.clone()).ok().and_then(whole),
        };
        number.or(other).unwrap_or(Value::from(0))
    });
    env.add_filter("float", |value: &Value, other: Option<Value>| -> Value {
        let number = match value.as_str().map(str::trim) {
            Some(text) => text.parse::<f64>().ok(),
            None => f64::try_from(value.clone()).ok(),
        };
        number.map(Value::from).or(other).unwrap_or(Value::from(0.0))
    });
    // What they write of a value is not bounded.
    env.remove_filter("pprint");
    env.remove_global("debug");

    env.add_test("sequence", |value: &Value| {
        let kinds = [ValueKind::String, ValueKind::Seq, ValueKind::Map, ValueKind::Undefined];
        kinds.contains(&value.kind()) || (value.kind() == ValueKind::Iterable && value.len().is_some())
    });
    env.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);

    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        let message = message.as_str().map_or_else(|| message.kind().to_string(), str::to_owned);
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    set_clock(&mut env, None);
    for (name, source) in templates {
        env.add_template_owned(name.clone(), source.text.clone())?;
    }
    Ok(env)
}

/// Makes `strftime_now` tell this time, or that of the clock.
pub fn set_clock(env: &mut Environment<'static>, now: Option<chrono::NaiveDateTime>) {
    env.add_function("strftime_now", move |state: &State, format: &str| -> Result<Value, Error> {
        let now = now.unwrap_or_else(|| chrono::Local::now().naive_local());
        let mut text = Text::new(state);
        text.push(&date(now, format)?)?;
        Ok(Value::from(text.finish()))
    });
}

/// Renders a template of `env` with these variables and this much [`fuel`].
pub fn render(env: &Environment<'static>, name: &str, variables: Value, fuel: u64) -> Result<String, Error> {
    let mut env = env.clone();
    env.set_fuel(Some(fuel));
    env.get_template(name)?.render(variables)
}

/// Writes what `{{ }}` prints.
fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if *state.auto_escape() != AutoEscape::None {
        return escape_formatter(out, state, value);
    }
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => {
            let mut text = Text::new(state);
            text.str(value)?;
            out.write_str(&text.finish())
        }
    };
    written.map_err(Error::from)
}

/// Puts the marks around what the assistant says, where there are any.
fn said(state: &State, text: &str) -> Value {
    match state.lookup(MARKS).as_ref().and_then(Value::as_str).map(|marks| marks.split_at(marks.len() / 2)) {
        Some((start, end)) => Value::from([start, text, end].concat()),
        None => Value::from(text),
    }
}

/// Lets a value that is assigned, or assigned to a member of a namespace, pass, with what is only a way to get items made a list.
fn assigned(state: &State, value: &Value, member: Option<bool>) -> Result<Value, Error> {
    let mut items = 0;
    if member.is_some() && is_namespace(value) {
        return Err(nested());
    }
    check(value, 0, &mut items)?;
    state.consume_fuel(items as u64 / 16)?;
    match value.kind() {
        ValueKind::Iterable if !value.is_tuple() => {
            value.try_iter()?.checked().collect::<Result<Vec<Value>, Error>>().map(Value::from)
        }
        _ => Ok(value.clone()),
    }
}

fn nested() -> Error {
    let problem = format!("a value of more than {MAX_DEPTH} lists within each other, or with a namespace in it");
    Error::new(ErrorKind::InvalidOperation, problem)
}

/// Whether members can be assigned to `value`, itself among them.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

fn check(value: &Value, depth: usize, items: &mut usize) -> Result<(), Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        return Ok(());
    }
    if depth > MAX_DEPTH || (depth > 0 && is_namespace(value)) {
        return Err(nested());
    }
    for item in value.try_iter()?.checked() {
        let item = item?;
        *items += 1;
        if *items > MAX_ITEMS {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("a value of more than {MAX_ITEMS} items")));
        }
        if value.kind() == ValueKind::Map {
            check(&value.get_item(&item)?, depth + 1, items)?;
        }
        check(&item, depth + 1, items)?;
    }
    Ok(())
}

/// `json.dumps`, with the arguments that `transformers` gives the filter.
fn to_json(
    state: &State,
    value: &Value,
    ascii: Option<Value>,
    indent: Option<Value>,
    more: Kwargs,
) -> Result<Value, Error> {
    let ascii = ascii.or(more.get("ensure_ascii")?).is_some_and(|ascii| ascii.is_true());
    let indent =
        indent.or(more.get::<Option<Value>>("indent")?).filter(|indent| !indent.is_none() && !indent.is_undefined());
    let separators = more.get::<Option<Value>>("separators")?.filter(|both| !both.is_none() && !both.is_undefined());
    let sort_keys = more.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    more.assert_all_used()?;
    let indent = match indent {
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(spaces) => Some(" ".repeat(i64::try_from(spaces)?.clamp(0, 64) as usize)),
        None => None,
    };
    let (item, key) = match separators {
        Some(both) => {
            let text = |n: usize| -> Result<String, Error> {
                let text = both.get_item_by_index(n)?;
                let wrong = || Error::new(ErrorKind::InvalidOperation, "separators are two texts");
                text.as_str().map(str::to_owned).ok_or_else(wrong)
            };
            (text(0)?, text(1)?)
        }
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let mut text = Text::new(state);
    text.json(value, &Json { ascii, indent, item, key, sort_keys })?;
    let text = text.finish();
    state.consume_fuel(text.len() as u64 / 16)?;
    Ok(Value::from(text))
}

/// `|join`: any values, with a text between them, or one of their attributes.
fn join(
    state: &State,
    items: &Value,
    by: Option<&Value>,
    attribute: Option<&Value>,
    more: Kwargs,
) -> Result<Value, Error> {
    let by = by.cloned().or(more.get::<Option<Value>>("d")?);
    let attribute = attribute.cloned().or(more.get::<Option<Value>>("attribute")?);
    more.assert_all_used()?;
    let mut text = Text::new(state);
    for (n, item) in items.try_iter()?.checked().enumerate() {
        state.consume_fuel(1)?;
        let mut item = item?;
        for part in attribute.iter().filter_map(|path| path.as_str()).flat_map(|path| path.split('.')) {
            item = match part.parse::<usize>() {
                Ok(place) => item.get_item_by_index(place)?,
                Err(_) => item.get_attr(part)?,
            };
        }
        if let Some(by) = by.as_ref().filter(|_| n > 0) {
            text.str(by)?;
        }
        text.str(&item)?;
    }
    Ok(Value::from(text.finish()))
}

/// `|indent`: all lines but the first are set in, by spaces or by a text.
fn indent(state: &State, value: &Value, by: Option<Value>, first: Option<bool>, more: Kwargs) -> Result<Value, Error> {
    let by = by.or(more.get::<Option<Value>>("width")?).unwrap_or(Value::from(4));
    let first = first.or(more.get("first")?).unwrap_or(false);
    let blank = more.get::<Option<bool>>("blank")?.unwrap_or(false);
    more.assert_all_used()?;
    let by = match by.as_str() {
        Some(by) => by.to_owned(),
        None => " ".repeat(i64::try_from(by)?.clamp(0, 1024) as usize),
    };
    let (mut whole, mut text) = (Text::new(state), Text::new(state));
    whole.str(value)?;
    whole.push("\n")?;
    for (n, line) in methods::lines(state, &whole.finish(), false)?.into_iter().enumerate() {
        if n > 0 {
            text.push("\n")?;
        }
        if if n == 0 { first } else { blank || !line.is_empty() } {
            text.push(&by)?;
        }
        text.push(line)?;
    }
    Ok(Value::from(text.finish()))
}

/// `strftime`.
fn date(now: chrono::NaiveDateTime, format: &str) -> Result<String, Error> {
    use chrono::format::{Item, StrftimeItems};
    let unknown = || Error::new(ErrorKind::InvalidOperation, "a format of dates that is not known");
    let items: Vec<Item> = StrftimeItems::new(format).take(256).collect();
    if items.contains(&Item::Error) || items.len() == 256 {
        return Err(unknown());
    }
    let mut text = String::new();
    // A zone is what it could lack.
    let written = fmt::Write::write_fmt(&mut text, format_args!("{}", now.format_with_items(items.iter())));
    written.map_err(|_| unknown())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_takes_too_long_or_dies_is_told_of() {
        assert!(matches!(apart(PATIENCE, || 1), Fate::Done(1)));
        let (tell, told) = mpsc::channel::<()>();
        // It ends when nobody waits any more.
        assert!(matches!(apart(Duration::from_millis(20), move || told.recv()), Fate::Late));
        drop(tell);
        let Fate::<()>::Lost(why) = apart(PATIENCE, || panic!("as it should")) else { panic!("it died") };
        assert_eq!(why, "the engine of templates failed");
    }
}
