//! What may be wrong with a run, and how it is said.

use serde::Serialize;
use std::fmt;

/// What may be wrong, causes before what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The learning rate is too high.
    LrTooHigh,
    /// The learning rate is too low.
    LrTooLow,
    /// The run starts with its full learning rate, and its loss rose.
    NoWarmup,
    /// Much of the data is there more than once.
    DuplicatedData,
    /// What is held out is another text than what is trained on.
    DataOrder,
    /// Next to nothing of the examples is trained on, or all of it.
    BadMask,
    /// A step's gradient is mostly noise.
    SmallBatch,
    /// The loss falls on what is trained on and rises on what is held out.
    Overfitting,
    /// The loss does not move.
    Stuck,
    /// The loss jumps up again and again.
    Spikes,
    /// Logits are so large that softmax is certain.
    ExplodingLogits,
    /// Attention looks at single tokens.
    AttentionCollapse,
    /// Many hidden units are 0 for every token.
    DeadUnits,
    /// Many hidden units are far out on the straight arm of their nonlinearity for every token.
    SaturatedUnits,
    /// What a generator makes is all alike.
    ModeCollapse,
    /// A discriminator tells all apart, so that its generator learns nothing.
    DiscriminatorWins,
    /// Preferred answers lose more probability than they are kept apart from others by.
    PreferredLost,
    /// Answers are cut off before they end.
    Truncated,
    /// All answers to a prompt are worth the same.
    GroupsAlike,
    /// A model that learns from rewards always answers the same.
    EntropyCollapse,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = Kind::EntropyCollapse as usize + 1;

    /// The name that programs read, which stays.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LrTooHigh => "lr_too_high",
            Kind::LrTooLow => "lr_too_low",
            Kind::NoWarmup => "no_warmup",
            Kind::DuplicatedData => "duplicated_data",
            Kind::DataOrder => "data_order",
            Kind::BadMask => "bad_mask",
            Kind::SmallBatch => "small_batch",
            Kind::Overfitting => "overfitting",
            Kind::Stuck => "stuck",
            Kind::Spikes => "spikes",
            Kind::ExplodingLogits => "exploding_logits",
            Kind::AttentionCollapse => "attention_collapse",
            Kind::DeadUnits => "dead_units",
            Kind::SaturatedUnits => "saturated_units",
            Kind::ModeCollapse => "mode_collapse",
            Kind::DiscriminatorWins => "discriminator_wins",
            Kind::PreferredLost => "preferred_lost",
            Kind::Truncated => "truncated",
            Kind::GroupsAlike => "groups_alike",
            Kind::EntropyCollapse => "entropy_collapse",
        }
    }
}

/// A number that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Number {
    /// What it is, as "loss now".
    pub name: &'static str,
    /// How much.
    pub value: f64,
}

/// A key of the recipe and what to try there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Knob {
    /// The key, as `optim.lr`.
    pub key: &'static str,
    /// A value in TOML; words in angle brackets where only the user knows.
    pub value: String,
}

/// Something that is wrong with a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The same in words, with what it does.
    pub what: String,
    /// What it was seen by.
    pub evidence: Vec<Number>,
    /// What to change.
    pub knob: Knob,
    /// How bad it is, on the scale of its rule; see [`WORSE`].
    #[serde(skip)]
    pub severity: f64,
}

/// A live warning is given again where it has become so many times as bad.
pub const WORSE: f64 = 3.0;

impl Finding {
    /// A finding with the numbers that it was seen by, the most telling first.
    pub fn new(kind: Kind, what: impl Into<String>, evidence: &[(&'static str, f64)], knob: Knob) -> Finding {
        let evidence = evidence.iter().map(|&(name, value)| Number { name, value }).collect();
        Finding { kind, what: what.into(), evidence, knob, severity: 1.0 }
    }

    /// The same with a severity.
    pub fn severe(self, severity: f64) -> Finding {
        Finding { severity, ..self }
    }

    /// Its numbers in a line.
    pub fn numbers(&self) -> String {
        self.evidence.iter().map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// In a line, as a run warns of it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Knob { key, value } = &self.knob;
        write!(f, "{} ({}): try {key} = {value}", self.what, self.numbers())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.name, short(self.value))
    }
}

/// A number with about three digits that count.
pub fn short(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        a if (100.0..1e6).contains(&a) => format!("{x:.0}"),
        a if (1e-3..100.0).contains(&a) => {
            let digits = (2 - a.log10().floor() as i32).max(0) as usize;
            let text = format!("{x:.digits$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        _ => format!("{x:.1e}"),
    }
}

/// Which findings a run has told of, and how bad they were then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told([f64; Kind::COUNT]);

impl Told {
    /// Whether to tell of a finding of this kind and severity: the first time, and where it became much worse.
    pub fn is_news(&mut self, kind: Kind, severity: f64) -> bool {
        let told = &mut self.0[kind as usize];
        let news = *told == 0.0 || severity >= WORSE * *told;
        if news {
            *told = severity.max(f64::MIN_POSITIVE);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_told_once_and_again_when_it_is_much_worse() {
        let mut told = Told::default();
        let mut tell = |severity| told.is_news(Kind::Spikes, severity);
        assert_eq!([1.0, 1.0, 2.9, 3.0, 3.0, 8.9, 9.0].map(&mut tell), [true, false, false, true, false, false, true]);
        assert!(told.is_news(Kind::Stuck, 1.0));
    }

    #[test]
    fn numbers_are_short_and_names_are_those_of_json() {
        let text = [0.0, 4.0e-6, 0.00412, 0.25, 6.931, 10.0, 123.4, 2e6].map(short);
        assert_eq!(text, ["0", "4.0e-6", "0.00412", "0.25", "6.93", "10", "123", "2.0e6"]);
        for kind in [Kind::LrTooHigh, Kind::DataOrder, Kind::DiscriminatorWins] {
            assert_eq!(serde_json::json!(kind), kind.name());
        }
    }
}
