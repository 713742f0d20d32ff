//! The `//@` directives, with which a kernel's unrolled tiles stay readable: PTX with directives in, plain PTX out.
//!
//! ```text
//! //@ param NAME = expr             a value that the caller may override
//! //@ let NAME = expr               a value
//! //@ for v in a..b step s  …  //@ end
//! //@ if expr  …  //@ else if expr  …  //@ else  …  //@ end
//! //@ macro name(x, y)  …  //@ end
//! //@ name(1, %r0)                  a call: what stands in the macro, with x and y replaced
//! //@ include name                  the macros of a file of the [`LIBRARY`]
//! ```
//!
//! `${expr}` is replaced anywhere in a line of PTX, but not in comments. Directives stand in comments, so that a file
//! without loops is PTX as it is. A macro's body sees the names of its caller and its own arguments; what it sets with
//! `let` ends with it, while `for` and `if` open no scope. An argument that is an expression is passed as its value, any
//! other (a register) as its text. `${@}` is a number that differs in every call: labels in a macro end in it.
//!
//! Every line of the result knows the line that it came from, through which calls, and which columns were replaced, so
//! that whoever finds a mistake in the result can point into the source. What a macro of the library made stands, for that
//! purpose, where the source calls it.

use super::expr::{Names, Value, eval};
use super::{Place, Problem};
use std::collections::HashMap;

/// Files of macros that kernels include, by name.
pub const LIBRARY: [(&str, &str); 7] = [
    ("columns", include_str!("../../../kernels/lib/columns.ptx")),
    ("each", include_str!("../../../kernels/lib/each.ptx")),
    ("math", include_str!("../../../kernels/lib/math.ptx")),
    ("philox", include_str!("../../../kernels/lib/philox.ptx")),
    ("rows", include_str!("../../../kernels/lib/rows.ptx")),
    ("sums", include_str!("../../../kernels/lib/sums.ptx")),
    ("vec", include_str!("../../../kernels/lib/vec.ptx")),
];

/// PTX without directives, and where its lines came from.
#[derive(Debug, Default)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The parameters of the source, in order, with the values that were used.
    pub params: Vec<(String, Value)>,
    lines: Vec<Line>,
    calls: Vec<Call>,
    /// Where included files begin among the numbers of source lines: they follow the source's own.
    included: Vec<(usize, &'static str)>,
}

/// Where a line of the result came from.
#[derive(Debug)]
struct Line {
    source: usize,
    /// The call that it was made by, an index + 1 into `calls`; 0 for none.
    call: usize,
    pieces: Vec<Piece>,
}

/// A stretch of a line: it begins at column `to` of the result and came from column `from` of the source.
#[derive(Debug)]
struct Piece {
    to: usize,
    from: usize,
    replaced: bool,
}

/// A macro call, or an `include`: its line, and the call within which it stands.
#[derive(Debug)]
struct Call {
    line: usize,
    outer: usize,
}

impl Expanded {
    /// Where line `line`, column `column` of the result (both from 1) stands in the source.
    pub fn place(&self, line: usize, column: usize) -> Place {
        let Some(from) = self.lines.get(line.wrapping_sub(1)) else { return Place { line, column, calls: Vec::new() } };
        let piece = from.pieces.iter().rev().find(|piece| piece.to <= column);
        let column = piece.map_or(column, |p| if p.replaced { p.from } else { p.from + (column - p.to) });
        let (line, calls) = self.outside(from.source, from.call);
        Place { line, column: if line == from.source { column } else { 1 }, calls }
    }

    /// The file of the library and its line that line `line` (from 1) of the result came from, if it did.
    pub fn library(&self, line: usize) -> Option<(&'static str, usize)> {
        self.file(self.lines.get(line.wrapping_sub(1))?.source)
    }

    fn file(&self, source: usize) -> Option<(&'static str, usize)> {
        let (start, name) = self.included.iter().rev().find(|(start, _)| source > *start)?;
        Some((name, source - start))
    }

    /// Source line `line`, made by `call`, or the line of the innermost call that is not in the library, and the lines of
    /// the calls around it.
    fn outside(&self, mut line: usize, mut call: usize) -> (usize, Vec<usize>) {
        let mut calls = Vec::new();
        while call > 0 {
            let Call { line: at, outer } = self.calls[call - 1];
            if self.file(line).is_some() {
                line = at;
            } else {
                calls.push(at);
            }
            call = outer;
        }
        (line, calls)
    }
}

/// Expands `source`. Each of `overrides` must name a `param` of it.
///
/// # Errors
/// A directive that is not understood, an expression that has no value, an override of something that is no parameter.
pub fn expand(source: &str, overrides: &Names) -> Result<Expanded, Problem> {
    let lines: Vec<&str> = source.lines().collect();
    let own = lines.len();
    let mut expander = Expander {
        lines,
        overrides,
        names: Names::new(),
        macros: HashMap::new(),
        call: 0,
        depth: 0,
        turns: 0,
        out: Expanded::default(),
    };
    expander.block(0, own)?;
    let known: Vec<&str> = expander.out.params.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(name) = overrides.keys().find(|name| !known.contains(&name.as_str())) {
        let hint = if known.is_empty() { "it has none".to_owned() } else { format!("it has: {}", known.join(", ")) };
        return Err(Problem::at(0, 0, format!("the kernel has no parameter `{name}`")).hint(hint));
    }
    Ok(expander.out)
}

/// The most lines of a result: a loop over a wrong bound ends here, not in the machine's memory.
const MAX_LINES: usize = 1 << 20;
/// The most calls within each other, and half as many directives as may be.
const MAX_DEPTH: usize = 64;

#[derive(Clone)]
struct Macro {
    args: Vec<String>,
    /// The lines of its body.
    body: std::ops::Range<usize>,
}

struct Expander<'a> {
    /// Those of the source, then those of included files.
    lines: Vec<&'a str>,
    overrides: &'a Names,
    names: Names,
    macros: HashMap<String, Macro>,
    /// The call being expanded, as in [`Line::call`].
    call: usize,
    /// Directives within each other, and turns of loops and calls so far.
    depth: usize,
    turns: usize,
    out: Expanded,
}

/// A directive: its first word, the rest, and the column at which the rest begins.
struct Directive<'a> {
    word: &'a str,
    rest: &'a str,
    column: usize,
}

fn directive(line: &str) -> Option<Directive<'_>> {
    let text = line.trim_start().strip_prefix("//@")?;
    // A comment after a directive is a comment.
    let text = text.split("//").next().unwrap_or("").trim();
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let rest = text[end..].trim_start();
    // Both are parts of the same line.
    let column = rest.as_ptr() as usize - line.as_ptr() as usize + 1;
    Some(Directive { word: &text[..end], rest, column })
}

impl<'a> Expander<'a> {
    /// Gives a problem its line and, inside of a macro, the lines of the calls.
    fn on(&self, line: usize, mut problem: Problem) -> Problem {
        if problem.line == 0 {
            if let Some((file, at)) = self.out.file(line + 1) {
                problem = problem.within(file, at);
            }
            (problem.line, problem.calls) = self.out.outside(line + 1, self.call);
        }
        problem
    }

    fn block(&mut self, start: usize, end: usize) -> Result<(), Problem> {
        self.turns += 1;
        if self.turns > MAX_LINES {
            return Err(Problem::at(0, 0, format!("more than {MAX_LINES} turns of loops and calls")));
        }
        self.depth += 1;
        if self.depth > 2 * MAX_DEPTH {
            return Err(Problem::at(0, 0, format!("more than {} directives within each other", 2 * MAX_DEPTH)));
        }
        let mut at = start;
        while at < end {
            at = self.line(at).map_err(|problem| self.on(at, problem))?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Expands what begins at line `at`; returns the line to go on with.
    fn line(&mut self, at: usize) -> Result<usize, Problem> {
        let line = self.lines[at];
        let Some(d) = directive(line) else {
            let (text, pieces) = self.replace(line)?;
            if self.out.lines.len() >= MAX_LINES {
                return Err(Problem::at(0, 0, format!("the kernel expands to more than {MAX_LINES} lines")));
            }
            self.out.text.push_str(&text);
            self.out.text.push('\n');
            self.out.lines.push(Line { source: at + 1, call: self.call, pieces });
            return Ok(at + 1);
        };
        match d.word {
            "param" | "let" => {
                let (name, value) = self.assignment(&d)?;
                if d.word == "param" {
                    let value = self.overrides.get(&name).cloned().unwrap_or(value);
                    self.out.params.push((name.clone(), value.clone()));
                    self.names.insert(name, value);
                } else {
                    self.names.insert(name, value);
                }
                Ok(at + 1)
            }
            "for" => {
                let end = self.end(at)?;
                let (name, from, to, step) = self.range(&d)?;
                let before = self.names.get(name).cloned();
                let mut i = from;
                while i < to {
                    self.names.insert(name.to_owned(), Value::Int(i));
                    self.block(at + 1, end)?;
                    i += step;
                }
                match before {
                    Some(value) => self.names.insert(name.to_owned(), value),
                    None => self.names.remove(name),
                };
                Ok(end + 1)
            }
            "if" => {
                let end = self.end(at)?;
                let mut branch = at;
                let mut condition = Some((d.rest, d.column));
                loop {
                    let next = self.branch(branch, end);
                    let holds = match condition {
                        Some((text, column)) => {
                            eval(text, column, &self.names).map_err(|problem| self.on(branch, problem))?.truth()
                        }
                        None => true,
                    };
                    if holds {
                        self.block(branch + 1, next)?;
                        return Ok(end + 1);
                    }
                    if next == end {
                        return Ok(end + 1);
                    }
                    branch = next;
                    let other = directive(self.lines[next]).expect("branch() finds directives");
                    condition = other.rest.strip_prefix("if ").map(|text| (text, other.column + 3));
                }
            }
            "macro" => {
                let end = self.end(at)?;
                let signature =
                    d.rest.split_once('(').and_then(|(name, args)| Some((name.trim(), args.strip_suffix(')')?)));
                let Some((name, args)) = signature else {
                    return Err(Problem::at(0, d.column, "expected `macro name(a, b)`"));
                };
                let args = args.split(',').map(str::trim).filter(|arg| !arg.is_empty()).map(str::to_owned).collect();
                self.macros.insert(name.to_owned(), Macro { args, body: at + 1..end });
                Ok(end + 1)
            }
            "include" => {
                let Some((name, text)) = LIBRARY.iter().find(|(name, _)| *name == d.rest) else {
                    let known: Vec<&str> = LIBRARY.iter().map(|(name, _)| *name).collect();
                    let problem = Problem::at(0, d.column, format!("there is no file `{}` to include", d.rest));
                    return Err(problem.hint(format!("there are: {}", known.join(", "))));
                };
                let start = self.lines.len();
                self.out.included.push((start, name));
                self.lines.extend(text.lines());
                // As a call, so that what stands outside of macros has a place in the source too.
                self.out.calls.push(Call { line: at + 1, outer: self.call });
                let caller = std::mem::replace(&mut self.call, self.out.calls.len());
                self.block(start, self.lines.len())?;
                self.call = caller;
                Ok(at + 1)
            }
            "end" | "else" => Err(Problem::at(0, d.column, format!("`//@ {}` closes nothing", d.word))),
            _ => {
                self.call(at, &d)?;
                Ok(at + 1)
            }
        }
    }

    fn assignment(&self, d: &Directive<'_>) -> Result<(String, Value), Problem> {
        let parts = d.rest.split_once('=').map(|(name, value)| (name.trim(), value));
        let named = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let Some((name, value)) = parts.filter(|(name, _)| named(name)) else {
            return Err(Problem::at(0, d.column, format!("expected `{} NAME = value`", d.word)));
        };
        let column = d.column + (d.rest.len() - value.len());
        Ok((name.to_owned(), eval(value, column, &self.names)?))
    }

    /// `v in a..b` or `v in a..b step s`.
    fn range<'t>(&self, d: &Directive<'t>) -> Result<(&'t str, i64, i64, i64), Problem> {
        let form = || Problem::at(0, d.column, "expected `for v in a..b` or `for v in a..b step s`");
        let (name, range) = d.rest.split_once(" in ").ok_or_else(form)?;
        let (from, to) = range.split_once("..").ok_or_else(form)?;
        let (to, step) = to.split_once(" step ").unwrap_or((to, "1"));
        let number = |text: &str| {
            let column = d.rest.find(text).map_or(d.column, |at| d.column + at);
            match eval(text, column, &self.names)? {
                Value::Int(i) => Ok(i),
                Value::Text(t) => Err(Problem::at(0, column, format!("a range wants numbers, not \"{t}\""))),
            }
        };
        let (from, to, step) = (number(from)?, number(to)?, number(step)?);
        if step <= 0 {
            return Err(Problem::at(0, d.column, format!("the step is {step}; it must be positive")));
        }
        Ok((name.trim(), from, to, step))
    }

    /// The lines that follow `at`, each with how deep it stands below the directive at `at` and the word of its directive.
    fn nested(&self, at: usize) -> impl Iterator<Item = (usize, i32, &'a str)> + '_ {
        let lines = &self.lines;
        let mut depth = 0;
        (at + 1..lines.len()).filter_map(move |i| {
            let word = directive(lines[i])?.word;
            let here = depth;
            match word {
                "for" | "if" | "macro" => depth += 1,
                "end" => depth -= 1,
                _ => {}
            }
            Some((i, here, word))
        })
    }

    /// The `end` of the directive at line `at`.
    fn end(&self, at: usize) -> Result<usize, Problem> {
        let found = self.nested(at).find(|(_, depth, word)| *depth == 0 && *word == "end");
        found.map(|(i, ..)| i).ok_or_else(|| Problem::at(0, 0, "this has no `//@ end`"))
    }

    /// The next `else` of the `if` or `else` at line `at`, or its `end`.
    fn branch(&self, at: usize, end: usize) -> usize {
        self.nested(at).find(|(_, depth, word)| *depth == 0 && *word == "else").map_or(end, |(i, ..)| i.min(end))
    }

    fn call(&mut self, at: usize, d: &Directive<'_>) -> Result<(), Problem> {
        let known = |macros: &HashMap<String, Macro>| {
            let mut names: Vec<&str> = macros.keys().map(String::as_str).collect();
            names.sort_unstable();
            format!(
                "directives are param, let, for, if, else, macro, include, end; macros defined above: {}",
                names.join(", ")
            )
        };
        let Some(args) = d.rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) else {
            return Err(Problem::at(0, 0, format!("unknown directive `{}`", d.word)).hint(known(&self.macros)));
        };
        let Some(called) = self.macros.get(d.word).cloned() else {
            return Err(Problem::at(0, 0, format!("unknown macro `{}`", d.word)).hint(known(&self.macros)));
        };
        let (args, _) = self.replace(args)?;
        let args: Vec<&str> = split_args(&args);
        if args.len() != called.args.len() {
            let message = format!("`{}` takes {} arguments, {} are given", d.word, called.args.len(), args.len());
            return Err(Problem::at(0, d.column, message));
        }
        let mut depth = 1;
        let mut outer = self.call;
        while outer > 0 {
            depth += 1;
            outer = self.out.calls[outer - 1].outer;
        }
        if depth > MAX_DEPTH {
            return Err(Problem::at(0, 0, format!("`{}` calls itself without an end", d.word)));
        }
        let mut names = self.names.clone();
        for (name, text) in called.args.iter().zip(args) {
            names.insert(name.clone(), eval(text, 0, &self.names).unwrap_or_else(|_| Value::from(text)));
        }
        self.out.calls.push(Call { line: at + 1, outer: self.call });
        let call = self.out.calls.len();
        names.insert("@".to_owned(), Value::Int(call as i64));
        let caller = (std::mem::replace(&mut self.names, names), std::mem::replace(&mut self.call, call));
        self.block(called.body.start, called.body.end)?;
        (self.names, self.call) = caller;
        Ok(())
    }

    /// `line` with every `${…}` replaced, but for those in a comment.
    fn replace(&self, line: &str) -> Result<(String, Vec<Piece>), Problem> {
        let mut out = String::new();
        let mut pieces = Vec::new();
        let mut at = 0;
        let code = line.find("//").unwrap_or(line.len());
        while let Some(open) = line[at..code].find("${").map(|i| at + i) {
            let Some(close) = line[open..].find('}').map(|i| open + i) else {
                return Err(Problem::at(0, open + 1, "`${` has no `}`"));
            };
            out.push_str(&line[at..open]);
            let value = eval(&line[open + 2..close], open + 3, &self.names)?;
            pieces.push(Piece { to: out.len() + 1, from: open + 1, replaced: true });
            out.push_str(&value.to_string());
            at = close + 1;
            pieces.push(Piece { to: out.len() + 1, from: at + 1, replaced: false });
        }
        out.push_str(&line[at..]);
        Ok((out, pieces))
    }
}

/// Splits at the commas outside of brackets.
fn split_args(text: &str) -> Vec<&str> {
    let mut args = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                args.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() || !args.is_empty() {
        args.push(text[start..].trim());
    }
    args
}
