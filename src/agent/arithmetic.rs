//! Arithmetic in a text: `+ - * /`, parentheses, decimal numbers.

/// Bytes of an expression.
const MOST: usize = 256;
/// Parentheses and signs within each other.
const DEPTH: usize = 32;
/// The largest number: below it whole numbers are exact.
const LARGEST: f64 = 1e15;

/// The value of an expression.
///
/// # Errors
/// In words: what is wrong with it.
pub fn value(text: &str) -> Result<f64, String> {
    if text.len() > MOST {
        return Err(format!("An expression has at most {MOST} characters."));
    }
    let mut reader = Reader { text: text.as_bytes(), at: 0, depth: 0 };
    let value = reader.sum()?;
    match reader.peek() {
        None => Ok(value),
        Some(byte) => Err(stray(byte)),
    }
}

/// A number as it is written: up to six decimals, without zeros behind.
pub fn number(x: f64) -> String {
    let rounded = (x * 1e6).round() / 1e6;
    let rounded = if rounded.is_finite() { rounded } else { x };
    // No −0.
    format!("{}", rounded + 0.0)
}

fn stray(byte: u8) -> String {
    match byte {
        b'!'..=b'~' => format!("I cannot calculate with '{}': use numbers, + - * / and parentheses.", char::from(byte)),
        _ => "I can only calculate with numbers, + - * / and parentheses.".to_owned(),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// sum = product (("+" | "-") product)*
    fn sum(&mut self) -> Result<f64, String> {
        let mut value = self.product()?;
        while let Some(sign @ (b'+' | b'-')) = self.peek() {
            self.at += 1;
            let other = self.product()?;
            value = sane(if sign == b'+' { value + other } else { value - other })?;
        }
        Ok(value)
    }

    /// product = factor (("*" | "/") factor)*
    fn product(&mut self) -> Result<f64, String> {
        let mut value = self.factor()?;
        while let Some(sign @ (b'*' | b'/')) = self.peek() {
            self.at += 1;
            let other = self.factor()?;
            if sign == b'/' && other == 0.0 {
                return Err("One cannot divide by zero.".to_owned());
            }
            value = sane(if sign == b'*' { value * other } else { value / other })?;
        }
        Ok(value)
    }

    /// factor = number | "-" factor | "(" sum ")"
    fn factor(&mut self) -> Result<f64, String> {
        match self.peek() {
            Some(b'-') => self.deeper(|reader| Ok(-reader.factor()?)),
            Some(b'(') => self.deeper(|reader| {
                let value = reader.sum()?;
                match reader.peek() {
                    Some(b')') => reader.at += 1,
                    Some(byte) => return Err(stray(byte)),
                    None => return Err("A parenthesis is not closed.".to_owned()),
                }
                Ok(value)
            }),
            Some(b'0'..=b'9' | b'.') => self.digits(),
            Some(byte) => Err(stray(byte)),
            None => Err("A number is missing.".to_owned()),
        }
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Result<f64, String>) -> Result<f64, String> {
        if self.depth == DEPTH {
            return Err(format!("An expression is nested at most {DEPTH} deep."));
        }
        self.at += 1;
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn digits(&mut self) -> Result<f64, String> {
        let start = self.at;
        while matches!(self.text.get(self.at), Some(b'0'..=b'9' | b'.')) {
            self.at += 1;
        }
        let text = str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        sane(text.parse().map_err(|_| "That is no number: write 12 or 0.5.".to_owned())?)
    }
}

fn sane(x: f64) -> Result<f64, String> {
    if x.abs() <= LARGEST { Ok(x) } else { Err("The numbers become too large.".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_have_their_values() {
        let cases = [
            ("1 + 2 * 3", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("10 - 4 - 3", 3.0),
            ("12 / 4 / 3", 1.0),
            ("-2 * -(3 - 5)", -4.0),
            ("0.1+.2", 0.1 + 0.2),
            ("--2", 2.0),
            ("  7 ", 7.0),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text), Ok(expected), "{text}");
        }
        assert_eq!(
            [0.1 + 0.2, 7.0, -0.0, 1.0 / 3.0, 1e15].map(number),
            ["0.3", "7", "0", "0.333333", "1000000000000000"]
        );
    }

    #[test]
    fn what_cannot_be_calculated_is_said() {
        let deep = ["(".repeat(200), "-".repeat(200), format!("{}1{}", "(".repeat(33), ")".repeat(33))];
        let cases = [
            ("1/0", "divide by zero"),
            ("1 / (2 - 2)", "divide by zero"),
            ("9999999999 * 9999999999", "too large"),
            ("9^9^9^9", "'^'"),
            ("2 ** 3", "'*'"),
            ("1 2", "'2'"),
            ("1e999", "'e'"),
            ("", "missing"),
            ("(1", "not closed"),
            ("(1 2)", "'2'"),
            ("1)", "')'"),
            ("1.2.3", "no number"),
            ("٣", "only calculate"),
            ("1\n+ 1", "only calculate"),
        ];
        for (text, expected) in cases.into_iter().chain(deep.iter().map(|text| (text.as_str(), "32 deep"))) {
            let error = value(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(value(&"1+".repeat(200)).unwrap_err().contains("256 characters"));
        assert!(value(&"9".repeat(250)).unwrap_err().contains("too large"));
    }
}
