//! What is searched: one axis a key of the recipe.

use crate::error::{Error, Result};
use crate::settings::{positive, require};
use serde::Deserialize;
use toml::{Table, Value};

/// A value for each axis, in their order.
pub type Setting = Vec<Value>;

/// The values that a key may have.
#[derive(Clone, Debug, PartialEq)]
pub enum Domain {
    /// Numbers from one to another.
    Float {
        /// The least.
        from: f64,
        /// The largest.
        to: f64,
        /// Whether equal factors, and not equal differences, are equally far.
        log: bool,
    },
    /// Whole numbers from one to another.
    Int {
        /// The least.
        from: i64,
        /// The largest.
        to: i64,
        /// As of numbers.
        log: bool,
    },
    /// One of several, none nearer to another than to the rest.
    Choice(Vec<Value>),
}

/// A key and its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The key, as `optim.lr`.
    pub key: String,
    /// Its values.
    pub domain: Domain,
    /// How many of them a grid has.
    points: Option<usize>,
}

/// A range as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: Value,
    to: Value,
    #[serde(default)]
    log: bool,
    points: Option<usize>,
}

/// The axes in the order of their keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// At least one.
    pub axes: Vec<Axis>,
}

/// The keys of a recipe in a section of a sweep, sorted, where `optim.lr` may be quoted or not.
///
/// # Errors
/// A key without a section.
pub fn dotted(section: &str, table: &Table) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for (name, value) in table {
        match value {
            _ if name.contains('.') => all.push((name.clone(), value.clone())),
            Value::Table(keys) => all.extend(keys.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone()))),
            _ => {
                let key = format!("{section}.{name}");
                return Err(Error::config(key, "a key of a recipe has a section", "write it as optim.lr = …"));
            }
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    match all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => {
            Err(Error::config(format!("{section}.{}", pair[0].0), "it is there twice", "leave one of them out"))
        }
        None => Ok(all),
    }
}

/// Four significant digits, so that what is tried can be read and typed.
fn short(x: f64) -> f64 {
    format!("{x:.3e}").parse().expect("a number")
}

impl Domain {
    /// The value at `u`, from 0 to 1, of the way from the first to the last.
    fn at(&self, u: f64) -> Value {
        let between = |[from, to]: [f64; 2], log: bool| match log {
            true => from * libm::pow(to / from, u),
            false => from + (to - from) * u,
        };
        match *self {
            Domain::Float { from, to, log } => Value::Float(short(between([from, to], log)).clamp(from, to)),
            // Each whole number has an equal share, or one that is equal in logarithms.
            Domain::Int { from, to, log } => {
                let x = between([from as f64, to as f64 + 1.0], log);
                Value::Integer((x.floor() as i64).clamp(from, to))
            }
            Domain::Choice(ref values) => {
                let i = (u * values.len() as f64) as usize;
                values[i.min(values.len() - 1)].clone()
            }
        }
    }

    /// Where a value lies, from 0 to 1: of a choice, the middle of its share.
    pub fn place(&self, value: &Value) -> f64 {
        let number = |x: &Value| x.as_float().or(x.as_integer().map(|i| i as f64)).unwrap_or(f64::NAN);
        let between = |x: f64, [from, to]: [f64; 2], log: bool| match log {
            _ if from == to => 0.5,
            true => libm::log(x / from) / libm::log(to / from),
            false => (x - from) / (to - from),
        };
        match *self {
            Domain::Float { from, to, log } => between(number(value), [from, to], log),
            Domain::Int { from, to, log } => {
                let ends = [from as f64, to as f64 + 1.0];
                let [low, high] = [0.0, 1.0].map(|one| between(number(value) + one, ends, log));
                0.5 * (low + high)
            }
            Domain::Choice(ref values) => {
                let i = values.iter().position(|known| known == value).unwrap_or(0);
                (i as f64 + 0.5) / values.len() as f64
            }
        }
        .clamp(0.0, 1.0)
    }

    /// How many values there are that are no neighbours; 0: they lie on a line.
    pub fn choices(&self) -> usize {
        match self {
            Domain::Choice(values) => values.len(),
            _ => 0,
        }
    }
}

impl Axis {
    fn parse(key: String, value: Value) -> Result<Axis> {
        let name = format!("space.{key}");
        let wrong = |problem: String| {
            let hint = "write { from = 1e-4, to = 1e-1, log = true }, or [\"adamw\", \"muon\"]";
            Err(Error::config(&name, problem, hint))
        };
        let (domain, points) = match value {
            Value::Array(values) if values.is_empty() => return wrong("there is no value to try".into()),
            Value::Array(values) => (Domain::Choice(values), None),
            Value::Table(table) => {
                let Range { from, to, log, points } = match Value::Table(table).try_into() {
                    Ok(range) => range,
                    Err(e) => return wrong(e.to_string().trim().to_owned()),
                };
                let domain = match (&from, &to) {
                    (Value::Integer(from), Value::Integer(to)) => Domain::Int { from: *from, to: *to, log },
                    _ => {
                        let number = |x: &Value| x.as_float().or(x.as_integer().map(|i| i as f64));
                        let Some((from, to)) = number(&from).zip(number(&to)) else {
                            return wrong("from and to are no numbers".into());
                        };
                        require(from.is_finite() && to.is_finite(), &name, to, "finite numbers")?;
                        Domain::Float { from, to, log }
                    }
                };
                (domain, points)
            }
            other => return wrong(format!("expected a range or a list, found {other}")),
        };
        let axis = Axis { key, domain, points };
        match axis.domain {
            Domain::Float { from, to, log } => {
                require(from < to, &name, format!("{from} to {to}"), "the smaller number first")?;
                if log {
                    positive(&format!("{name}.from"), from)?;
                }
            }
            Domain::Int { from, to, log } => {
                require(from < to, &name, format!("{from} to {to}"), "the smaller number first")?;
                require(to - from < 1 << 40, &name, to, "a range of less than 2^40")?;
                if log {
                    positive(&format!("{name}.from"), from as f64)?;
                }
            }
            Domain::Choice(_) => {}
        }
        if let Some(points) = axis.points {
            require((2..=10_000).contains(&points), &format!("{name}.points"), points, "2 to 10000")?;
        }
        Ok(axis)
    }

    /// The values of a grid.
    fn grid(&self) -> Result<Vec<Value>> {
        let spaced = |points: usize, value: &dyn Fn(f64) -> Value| {
            let mut all: Vec<Value> = (0..points).map(|i| value(i as f64 / (points - 1) as f64)).collect();
            all.dedup();
            all
        };
        match (&self.domain, self.points) {
            (Domain::Choice(values), _) => Ok(values.clone()),
            (&Domain::Int { from, to, log }, Some(points)) => {
                // Between whole numbers, ends included.
                let [low, high] = [from as f64, to as f64];
                let number = |u| if log { low * libm::pow(high / low, u) } else { low + (high - low) * u };
                Ok(spaced(points, &|u| Value::Integer(number(u).round() as i64)))
            }
            (&Domain::Int { from, to, .. }, None) if to - from < 100 => Ok((from..=to).map(Value::Integer).collect()),
            (domain, Some(points)) => Ok(spaced(points, &|u| domain.at(u))),
            _ => {
                let key = format!("space.{}.points", self.key);
                Err(Error::config(key, "a grid needs to know how many values there are", "add points = 5"))
            }
        }
    }
}

impl Space {
    /// The axes that a table says.
    ///
    /// # Errors
    /// There is none; a range is empty or no range.
    pub fn parse(table: &Table) -> Result<Space> {
        let axes = dotted("space", table)?
            .into_iter()
            .map(|(key, value)| Axis::parse(key, value))
            .collect::<Result<Vec<_>>>()?;
        if axes.is_empty() {
            let hint = "add, below [space], optim.lr = { from = 1e-4, to = 1e-1, log = true }";
            return Err(Error::config("space", "nothing is searched", hint));
        }
        Ok(Space { axes })
    }

    /// The setting at `place(i)`, from 0 to 1, of each axis i.
    pub fn at(&self, mut place: impl FnMut(usize) -> f64) -> Setting {
        self.axes.iter().enumerate().map(|(i, axis)| axis.domain.at(place(i))).collect()
    }

    /// Where a setting lies.
    pub fn place(&self, setting: &Setting) -> Vec<f64> {
        self.axes.iter().zip(setting).map(|(axis, value)| axis.domain.place(value)).collect()
    }

    /// All settings of the grid, the last axis first.
    ///
    /// # Errors
    /// An axis does not say how many values it has; there are more than 100,000 settings.
    pub fn grid(&self) -> Result<Vec<Setting>> {
        let mut all: Vec<Setting> = vec![Vec::new()];
        for axis in &self.axes {
            let values = axis.grid()?;
            let size = all.len().saturating_mul(values.len());
            require(size <= 100_000, "space", format!("a grid of {size} settings"), "fewer points")?;
            all = all
                .iter()
                .flat_map(|start| values.iter().map(|value| [&start[..], std::slice::from_ref(value)].concat()))
                .collect();
        }
        Ok(all)
    }

    /// A setting as overrides of a recipe.
    pub fn overrides(&self, setting: &Setting) -> Vec<String> {
        self.axes.iter().zip(setting).map(|(axis, value)| format!("{}={value}", axis.key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(text: &str) -> Result<Space> {
        Space::parse(&text.parse().expect("TOML"))
    }

    #[test]
    fn every_place_has_a_value_and_every_value_its_place() {
        let space = space(
            "optim.lr = { from = 1e-4, to = 1e-1, log = true }\nmodel.layers = { from = 2, to = 6 }\n\
             model.d = { from = 16, to = 256, log = true }\n\"optim.kind\" = [\"adamw\", \"muon\"]",
        )
        .unwrap();
        assert_eq!(
            space.axes.iter().map(|axis| &*axis.key).collect::<Vec<_>>(),
            ["model.d", "model.layers", "optim.kind", "optim.lr"]
        );
        for i in 0..=100 {
            let setting = space.at(|_| i as f64 / 100.0);
            assert_eq!(space.at(|axis| space.place(&setting)[axis]), setting);
        }
        assert_eq!(
            space.overrides(&space.at(|_| 0.0)),
            ["model.d=16", "model.layers=2", "optim.kind=\"adamw\"", "optim.lr=0.0001"]
        );
        // Each of five depths has a fifth of the line.
        let layers = &space.axes[1].domain;
        let counts = (0..1000).fold([0; 5], |mut counts, i| {
            counts[layers.at((i as f64 + 0.5) / 1000.0).as_integer().unwrap() as usize - 2] += 1;
            counts
        });
        assert_eq!(counts, [200; 5]);
        // A factor is as far everywhere.
        let lr = &space.axes[3].domain;
        let third = lr.place(&Value::Float(1e-3));
        assert!((third - 1.0 / 3.0).abs() < 1e-12, "{third}");
    }

    #[test]
    fn a_grid_has_all_settings_once() {
        let grid =
            space("a.x = { from = 1e-3, to = 1e-1, log = true, points = 3 }\na.y = [1, 2]").unwrap().grid().unwrap();
        let shown: Vec<String> = grid.iter().map(|s| format!("{} {}", s[0], s[1])).collect();
        assert_eq!(shown, ["0.001 1", "0.001 2", "0.01 1", "0.01 2", "0.1 1", "0.1 2"]);
        let ints = space("a.x = { from = 1, to = 64, log = true, points = 4 }").unwrap().grid().unwrap();
        assert_eq!(ints.concat(), [1, 4, 16, 64].map(Value::Integer));
    }

    #[test]
    fn what_is_no_range_is_refused_by_name() {
        for (text, key) in [
            ("", "space"),
            ("lr = 3", "space.lr"),
            ("optim.lr = 3", "space.optim.lr"),
            ("optim.lr = []", "space.optim.lr"),
            ("optim.lr = { from = 3, to = 1 }", "space.optim.lr"),
            ("optim.lr = { from = 0.0, to = 1.0, log = true }", "space.optim.lr.from"),
            ("optim.lr = { from = 1.0 }", "space.optim.lr"),
            ("optim.lr = { from = 1.0, to = 2.0, logs = true }", "space.optim.lr"),
            ("optim.lr = { from = 1.0, to = inf }", "space.optim.lr"),
            ("optim.lr = { from = 1.0, to = 2.0, points = 1 }", "space.optim.lr.points"),
        ] {
            match space(text) {
                Err(Error::Config { key: found, .. }) => assert_eq!(found, key, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(space("optim.lr = { from = 1.0, to = 2.0 }").unwrap().grid().is_err());
    }
}
