//! PTX as kiln reads it: text to a program, nothing is run.
//!
//! A kernel's source goes through [`expand`] (the `//@` directives), [`lex`] and [`parse`] and comes out as a [`Module`]:
//! entries with typed parameters, registers, and instructions whose [`Code`] says what they do. Which instructions there
//! are, with which modifiers and operands, stands in one table, [`table`]. Every mistake is reported at the line and column
//! of the source as it was written, before expansion.

pub mod code;
pub mod expand;
pub mod expr;
pub mod inst;
pub mod lex;
pub mod parse;
pub mod syntax;
pub mod table;
pub mod types;

pub use code::Code;
pub use expr::{Names, Value};
pub use parse::{Base, Entry, Guard, Inst, Module, Operand, Param, Register, Special};
pub use types::{RegType, Type};

use crate::error::Error;
use expand::Expanded;
use std::fmt;

/// A kernel file: its name, its text as written, and the text that the assembler gets.
#[derive(Debug, Default)]
pub struct Source {
    /// What messages call it, as `gemm.ptx`.
    pub name: String,
    /// The text with its directives.
    pub text: String,
    /// The text without.
    pub expanded: Expanded,
}

/// A place in a source: line and column from 1, and the lines of the macro calls that led there, innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// The calls.
    pub calls: Vec<usize>,
}

/// What is wrong with a kernel's text, and where: line 0 stands for the whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// The lines of the macro calls that led there, innermost first.
    pub calls: Vec<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl Problem {
    /// A problem at a place.
    pub fn at(line: usize, column: usize, message: impl Into<String>) -> Problem {
        Problem { line, column, message: message.into(), ..Problem::default() }
    }

    /// The same problem, which lies in line `line` of a file of the library.
    fn within(self, file: &str, line: usize) -> Problem {
        Problem { message: format!("{} (lib/{file}.ptx:{line})", self.message), ..self }
    }

    /// The same problem with advice.
    pub fn hint(self, hint: impl Into<String>) -> Problem {
        Problem { hint: hint.into(), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => {}
            (line, 0) => write!(f, "{line}: ")?,
            (line, column) => write!(f, "{line}:{column}: ")?,
        }
        f.write_str(&self.message)?;
        if !self.calls.is_empty() {
            let calls: Vec<String> = self.calls.iter().map(usize::to_string).collect();
            write!(f, " (in the macro called in line {})", calls.join(", called in line "))?;
        }
        Ok(())
    }
}

impl Source {
    /// Expands the kernel `text`, with `overrides` for its parameters.
    ///
    /// # Errors
    /// [`Error::Device`] where a directive is wrong, with the file, line and column.
    pub fn new(name: &str, text: &str, overrides: &Names) -> Result<Source, Error> {
        let mut source = Source { name: name.to_owned(), text: text.to_owned(), expanded: Expanded::default() };
        match expand::expand(text, overrides) {
            Ok(expanded) => source.expanded = expanded,
            Err(problem) => return Err(source.error(&problem)),
        }
        Ok(source)
    }

    /// Line `line` (from 1) as it was written, without the blanks around it.
    pub fn line(&self, line: usize) -> &str {
        self.text.lines().nth(line.wrapping_sub(1)).unwrap_or("").trim()
    }

    /// A problem in this source as an error that quotes its line.
    pub fn error(&self, problem: &Problem) -> Error {
        let colon = if problem.line == 0 { ": " } else { ":" };
        let mut message = format!("{}{colon}{problem}", self.name);
        if problem.line > 0 {
            message.push_str(&format!("\n  {}", self.line(problem.line)));
        }
        Error::device(message, &problem.hint)
    }
}

impl Module {
    /// Expands and parses the kernel `text`, called `name` in messages.
    ///
    /// # Errors
    /// [`Error::Device`] at the first mistake in a directive or in the PTX, with its line and column in `text`.
    pub fn new(name: &str, text: &str, overrides: &Names) -> Result<Module, Error> {
        let source = Source::new(name, text, overrides)?;
        match parse::parse(&source.expanded.text) {
            Ok(module) => Ok(Module { source, ..module }),
            Err(problem) => {
                let place = source.expanded.place(problem.line, problem.column);
                let problem = match source.expanded.library(problem.line) {
                    Some((file, line)) => problem.within(file, line),
                    None => problem,
                };
                let problem = Problem { line: place.line, column: place.column, calls: place.calls, ..problem };
                Err(source.error(&problem))
            }
        }
    }

    /// The entry called `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}
