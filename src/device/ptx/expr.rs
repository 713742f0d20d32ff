//! The expressions of `//@` directives: integers and texts, with C's operators and precedence.

use super::Problem;
use std::collections::HashMap;
use std::fmt;

/// The value of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An integer; truth is 1 or 0.
    Int(i64),
    /// A text.
    Text(String),
}

impl Value {
    /// The value that `text` means where it comes from a command line: an integer if it reads as one.
    pub fn parse(text: &str) -> Value {
        text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Int)
    }

    /// Whether a condition holds: neither 0 nor the empty text.
    pub fn truth(&self) -> bool {
        match self {
            Value::Int(i) => *i != 0,
            Value::Text(t) => !t.is_empty(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(i) => i.fmt(f),
            Value::Text(t) => t.fmt(f),
        }
    }
}

impl From<i64> for Value {
    fn from(i: i64) -> Value {
        Value::Int(i)
    }
}

impl From<&str> for Value {
    fn from(t: &str) -> Value {
        Value::Text(t.to_owned())
    }
}

/// The names that an expression may use.
pub type Names = HashMap<String, Value>;

/// Evaluates `text`, which begins at `column` (counted from 1) of its line.
///
/// # Errors
/// What is wrong, and at which column; the line is the caller's to fill in.
pub fn eval(text: &str, column: usize, names: &Names) -> Result<Value, Problem> {
    let mut parser = Parser { text, column, at: 0, names, depth: 0 };
    let value = parser.binary(0)?;
    match parser.peek() {
        "" => Ok(value),
        rest => Err(parser.problem(format!("`{rest}` does not belong to the expression `{}`", text.trim()))),
    }
}

struct Parser<'a> {
    text: &'a str,
    column: usize,
    at: usize,
    names: &'a Names,
    /// Parentheses and signs that are open.
    depth: usize,
}

/// The most of them.
const MAX_DEPTH: usize = 100;

/// Operators by rising precedence.
const LEVELS: [&[&str]; 10] = [
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl<'a> Parser<'a> {
    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::at(0, self.column + self.at, message)
    }

    /// The next token: a name, a number, a quoted text, an operator; empty at the end.
    fn peek(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let Some(first) = rest.chars().next() else { return "" };
        let len = if first == '"' {
            rest[1..].find('"').map_or(rest.len(), |end| end + 2)
        } else if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else {
            let pair = rest.get(..2).is_some_and(|two| LEVELS.iter().any(|level| level.contains(&two)));
            if pair { 2 } else { first.len_utf8() }
        };
        &rest[..len]
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.peek() == token;
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), Problem> {
        if self.take(token) {
            return Ok(());
        }
        let found = self.peek();
        let found = if found.is_empty() { "the end of the expression".to_owned() } else { format!("`{found}`") };
        Err(self.problem(format!("expected `{token}`, found {found}")))
    }

    fn binary(&mut self, level: usize) -> Result<Value, Problem> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let token = self.peek();
            if !operators.contains(&token) {
                return Ok(left);
            }
            let at = self.at;
            self.at += token.len();
            let right = self.binary(level + 1)?;
            left = apply(token, &left, &right).map_err(|message| Problem::at(0, self.column + at, message))?;
        }
    }

    fn unary(&mut self) -> Result<Value, Problem> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.problem("the expression is nested too deep"));
        }
        let value = self.signed();
        self.depth -= 1;
        value
    }

    fn signed(&mut self) -> Result<Value, Problem> {
        for operator in ["-", "!"] {
            let start = self.at;
            if self.take(operator) {
                return match (operator, self.unary()?) {
                    ("-", Value::Int(i)) => Ok(Value::Int(i.wrapping_neg())),
                    ("-", Value::Text(t)) => {
                        Err(Problem::at(0, self.column + start, format!("`-` wants a number, not the text \"{t}\"")))
                    }
                    (_, value) => Ok(Value::Int(i64::from(!value.truth()))),
                };
            }
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Value, Problem> {
        let token = self.peek();
        let problem = |message: String| Err(self.problem(message));
        let Some(first) = token.chars().next() else { return problem("an expression is missing here".into()) };
        if first == '"' {
            let Some(text) = token[1..].strip_suffix('"') else {
                return problem("the text has no closing `\"`".into());
            };
            self.at += token.len();
            return Ok(Value::Text(text.to_owned()));
        }
        if first == '(' {
            self.at += 1;
            let value = self.binary(0)?;
            self.expect(")")?;
            return Ok(value);
        }
        if first.is_ascii_digit() {
            let number = match token.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16),
                None => token.parse(),
            };
            let Ok(number) = number else { return problem(format!("`{token}` is not a number")) };
            self.at += token.len();
            return Ok(Value::Int(number));
        }
        if !first.is_alphabetic() && first != '_' && first != '@' {
            return problem(format!("expected a number, a name or a text, found `{token}`"));
        }
        if let "min" | "max" = token {
            return self.function(token);
        }
        let Some(value) = self.names.get(token) else {
            let mut known: Vec<&str> = self.names.keys().map(String::as_str).filter(|name| *name != "@").collect();
            known.sort_unstable();
            let message = match token {
                "@" => "`${@}` has a value inside of a macro only".to_owned(),
                _ => format!("unknown name `{token}`"),
            };
            let hint = format!("known here: {}; a text is written \"{token}\"", known.join(", "));
            return Err(self.problem(message).hint(hint));
        };
        self.at += token.len();
        Ok(value.clone())
    }

    /// `min(a, b)` or `max(a, b)`.
    fn function(&mut self, name: &str) -> Result<Value, Problem> {
        self.at += name.len();
        let start = self.at;
        self.expect("(")?;
        let a = self.binary(0)?;
        self.expect(",")?;
        let b = self.binary(0)?;
        self.expect(")")?;
        match (a, b) {
            (Value::Int(a), Value::Int(b)) => Ok(Value::Int(if name == "min" { a.min(b) } else { a.max(b) })),
            _ => Err(Problem::at(0, self.column + start, format!("`{name}` wants two numbers"))),
        }
    }
}

fn apply(operator: &str, left: &Value, right: &Value) -> Result<Value, String> {
    let truth = |b: bool| Ok(Value::Int(i64::from(b)));
    match operator {
        "==" => return truth(left == right),
        "!=" => return truth(left != right),
        "&&" => return truth(left.truth() && right.truth()),
        "||" => return truth(left.truth() || right.truth()),
        _ => {}
    }
    let (Value::Int(a), Value::Int(b)) = (left, right) else {
        return Err(format!("`{operator}` wants two numbers, not `{left}` and `{right}`"));
    };
    let (a, b) = (*a, *b);
    let shift = || u32::try_from(b).ok().filter(|b| *b < 64).ok_or_else(|| format!("a shift by {b} is not in 0..64"));
    let value = match operator {
        "|" => Some(a | b),
        "^" => Some(a ^ b),
        "&" => Some(a & b),
        "<<" => Some(a << shift()?),
        ">>" => Some(a >> shift()?),
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "/" | "%" if b == 0 => return Err(format!("`{a} {operator} 0`: division by zero")),
        "/" => a.checked_div(b),
        "%" => a.checked_rem(b),
        "<=" => return truth(a <= b),
        ">=" => return truth(a >= b),
        "<" => return truth(a < b),
        _ => return truth(a > b),
    };
    value.map(Value::Int).ok_or_else(|| format!("`{a} {operator} {b}` does not fit 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        [("N".to_owned(), Value::Int(6)), ("TY".to_owned(), Value::from("bf16"))].into()
    }

    #[test]
    fn operators_have_the_values_and_the_precedence_of_c() {
        for (text, value) in [
            ("1 + 2*3 - 4", 3),
            ("(1 + 2)*3 << 1", 18),
            ("-7/2", -3),
            ("-7 % 3", -1),
            ("1 | 6 & 3 ^ 8", 1 | ((6 & 3) ^ 8)),
            ("1 << 2 + 1", 8),
            ("N*2 == 12 && N != 5", 1),
            ("N < 3 || N >= 7", 0),
            ("!(N > 3)", 0),
            ("min(N, 4) + max(N, 0x10)", 20),
            ("TY == \"bf16\"", 1),
            ("TY != \"f16\" && 1", 1),
        ] {
            assert_eq!(eval(text, 1, &names()).unwrap(), Value::Int(value), "{text}");
        }
        assert_eq!(eval("TY", 1, &names()).unwrap(), Value::from("bf16"));
    }

    #[test]
    fn a_wrong_expression_says_what_is_wrong_and_where() {
        for (text, column, message) in [
            ("N + M", 14, "unknown name `M`"),
            ("N +", 13, "an expression is missing here"),
            ("(N", 12, "expected `)`, found the end of the expression"),
            ("N 3", 12, "`3` does not belong to the expression `N 3`"),
            ("N / (N-6)", 12, "`6 / 0`: division by zero"),
            ("TY + 1", 13, "`+` wants two numbers, not `bf16` and `1`"),
            ("-TY", 10, "`-` wants a number, not the text \"bf16\""),
            ("1 << 64", 12, "a shift by 64 is not in 0..64"),
            ("\"x", 10, "the text has no closing `\"`"),
            ("9223372036854775807 + 1", 30, "`9223372036854775807 + 1` does not fit 64 bits"),
            ("12x", 10, "`12x` is not a number"),
            ("#", 10, "expected a number, a name or a text, found `#`"),
            (&"(".repeat(100_000), 110, "the expression is nested too deep"),
            (&"-".repeat(100_000), 110, "the expression is nested too deep"),
        ] {
            let problem = eval(text, 10, &names()).unwrap_err();
            assert_eq!((problem.column, problem.message.as_str()), (column, message), "{text}");
        }
    }
}
