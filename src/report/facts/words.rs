//! Numbers as people read them.

use chrono::{DateTime, Utc};
use std::path::Path;
use std::time::SystemTime;

/// 1234567 as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes.
pub fn size(bytes: f64) -> String {
    let units = [(2f64.powi(30), "GiB"), (2f64.powi(20), "MiB"), (2f64.powi(10), "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes / unit),
        None => format!("{bytes:.0} B"),
    }
}

/// Seconds.
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.1} min", s / 60.0),
        s if s < 48.0 * 3600.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// A number with the digits that matter.
pub fn number(x: f64) -> String {
    match x.abs() {
        _ if x.is_nan() => "no number".to_owned(),
        a if !a.is_finite() => "infinite".to_owned(),
        0.0 => "0".to_owned(),
        a if a >= 1e15 => format!("{x:.2e}"),
        a if a >= 1000.0 => {
            let whole = count(a.round() as u64);
            if x < 0.0 { format!("−{whole}") } else { whole }
        }
        a if a >= 100.0 => format!("{x:.1}"),
        a if a >= 0.01 => format!("{x:.3}"),
        a if a >= 1e-4 => format!("{x:.5}"),
        _ => format!("{x:.1e}"),
    }
}

/// A number and its standard error.
pub fn measured(x: f64, error: Option<f64>) -> String {
    match error.filter(|error| error.is_finite()) {
        // With as many digits as the number has.
        Some(error) if error >= 5e-4 && x.abs() < 100.0 => format!("{} ± {error:.3}", number(x)),
        Some(error) => format!("{} ± {}", number(x), number(error)),
        None => number(x),
    }
}

/// A day, in UTC.
pub fn day(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).format("%-d %B %Y").to_string()
}

/// A path as a shell reads it.
pub fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,=:@".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The first few of some names.
pub fn list<T: AsRef<str>>(names: &[T], most: usize) -> String {
    let shown: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(most);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_what_matters() {
        let all = [0.0, 1234567.0, -2500.0, 123.45, 12.345, 0.0512, 0.00123, 4e-7, f64::NAN, f64::INFINITY];
        let want =
            ["0", "1,234,567", "−2,500", "123.5", "12.345", "0.051", "0.00123", "4.0e-7", "no number", "infinite"];
        assert_eq!(all.map(number), want);
        assert_eq!([0.5, 90.0, 5400.0, 1e6].map(span), ["0.5 s", "1.5 min", "1.5 h", "11.6 days"]);
        assert_eq!([12.0, 2048.0, 3.5 * 2f64.powi(20)].map(size), ["12 B", "2.0 KiB", "3.5 MiB"]);
        assert_eq!(measured(0.5, Some(0.0213)), "0.500 ± 0.021");
    }

    #[test]
    fn paths_are_words_of_a_shell() {
        assert_eq!(shell(Path::new("runs/a")), "runs/a");
        assert_eq!(shell(Path::new("it's a; rm")), r"'it'\''s a; rm'");
        assert_eq!(list(&["a", "b", "c"], 2), "a, b and 1 more");
    }
}
