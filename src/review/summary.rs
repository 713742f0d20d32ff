//! What all judgements say, in numbers and in words.
//!
//! An item counts once, for the model that more of its reviewers prefer: several who judge one pair are no independent draws. Gold items
//! test reviewers and count for nothing else. Of pairs whose texts are the same nobody is asked; they are ties.

use super::Plan;
use super::book::{Line, Said, Verdict, standing};
use super::item::{Item, Side};
use crate::measure::judgements::{ALPHA, any_time, cohen, fleiss, needed, sign_test, wilson};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The summary of a review.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// What is judged, the first and, where there are two, the second.
    pub models: Vec<String>,
    /// Items to judge, gold ones not counted.
    pub items: usize,
    /// Judgements that stand, gold ones not counted.
    pub judgements: usize,
    /// Of how many there are notes.
    pub notes: usize,
    /// Who judged.
    pub reviewers: Vec<Reviewer>,
    /// Where two are compared: how.
    pub pairs: Option<Pairs>,
    /// Where one is rated: how.
    pub ratings: Option<Ratings>,
    /// How far reviewers agree.
    pub agreement: Option<Agreement>,
    /// All of it in words.
    pub sentences: Vec<String>,
}

/// A reviewer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reviewer {
    /// Their name.
    pub name: String,
    /// Items judged, gold ones not counted.
    pub judged: usize,
    /// Gold items judged, and of these rightly.
    pub gold: usize,
    /// See above.
    pub gold_right: usize,
    /// Judgements for one of two answers, and of these for the one on the left.
    pub decided: usize,
    /// See above.
    pub left: usize,
}

/// Two models side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pairs {
    /// Items in which the first is preferred.
    pub a_wins: u64,
    /// Items in which the second is.
    pub b_wins: u64,
    /// Items in which neither is, those that are the same included.
    pub ties: u64,
    /// Items whose answers are the same, of which nobody is asked.
    pub same: u64,
    /// Judgements that both are bad.
    pub both_bad: u64,
    /// Which leads; none where neither does.
    pub leads: Option<Side>,
    /// In what share of the items in which one is preferred.
    pub share: f64,
    /// Wilson's 95 % interval of it.
    pub interval: [f64; 2],
    /// Of the exact two-sided sign test.
    pub p: f64,
    /// The same for whoever looks again and again ([`any_time`]).
    pub p_any_time: f64,
    /// Whether p < 0.05.
    pub verdict: bool,
    /// Without one: how many more decided items it takes at this share, about.
    pub more: Option<u64>,
}

impl Pairs {
    /// Of counts alone.
    fn new(a_wins: u64, b_wins: u64) -> Pairs {
        let (n, most) = (a_wins + b_wins, a_wins.max(b_wins));
        let share = if n == 0 { 0.5 } else { most as f64 / n as f64 };
        let p = sign_test(most, n);
        let leads = match a_wins.cmp(&b_wins) {
            std::cmp::Ordering::Greater => Some(Side::A),
            std::cmp::Ordering::Less => Some(Side::B),
            std::cmp::Ordering::Equal => None,
        };
        let verdict = p < ALPHA;
        let more = needed(share).filter(|_| !verdict).map(|all| all.saturating_sub(n).max(1));
        Pairs {
            a_wins,
            b_wins,
            ties: 0,
            same: 0,
            both_bad: 0,
            leads,
            share,
            interval: wilson(most, n),
            p,
            p_any_time: any_time(most, n),
            verdict,
            more,
        }
    }

    /// Of all items, by what stands.
    fn of(items: &[Item], said: &BTreeMap<(&str, usize), &Line>) -> Pairs {
        let mut balance: BTreeMap<usize, i64> = BTreeMap::new();
        let mut both_bad = 0;
        for ((_, item), line) in said {
            let Said::Verdict(verdict) = line.said else { continue };
            *balance.entry(*item).or_default() += match verdict {
                Verdict::A => 1,
                Verdict::B => -1,
                Verdict::Tie | Verdict::Bad => 0,
            };
            both_bad += u64::from(verdict == Verdict::Bad);
        }
        let count = |fits: fn(i64) -> bool| balance.values().filter(|&&n| fits(n)).count() as u64;
        let same = items.iter().filter(|item| item.is_same()).count() as u64;
        Pairs { ties: count(|n| n == 0) + same, same, both_bad, ..Pairs::new(count(|n| n > 0), count(|n| n < 0)) }
    }
}

/// One model's ratings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratings {
    /// How many gave 1, 2, 3, 4 and 5.
    pub counts: [u64; 5],
    /// Their mean.
    pub mean: f64,
}

/// How far reviewers agree beyond chance: 1 wholly, 0 not at all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Cohen's kappa of two reviewers (of ratings: with squared weights), or Fleiss' of more.
    pub kappa: f64,
    /// Whose it is: `Cohen` or `Fleiss`.
    pub of: &'static str,
    /// Items that all of them judged.
    pub items: usize,
}

/// Categories of what is said: of pairs 4, of ratings 5.
fn category(said: Said) -> usize {
    match said {
        Said::Verdict(verdict) => verdict as usize,
        Said::Rating(rating) => usize::from(rating) - 1,
        Said::Undone(_) => unreachable!("what is undone does not stand"),
    }
}

fn agreement(said: &BTreeMap<(&str, usize), &Line>, reviewers: &[&str], rated: bool) -> Option<Agreement> {
    let categories = if rated { 5 } else { 4 };
    let items: BTreeSet<usize> = said.keys().map(|(_, item)| *item).collect();
    let all = |item: &usize| -> Option<Vec<usize>> {
        reviewers.iter().map(|reviewer| said.get(&(*reviewer, *item)).map(|line| category(line.said))).collect()
    };
    let rows: Vec<Vec<usize>> = items.iter().filter_map(all).collect();
    let (kappa, of) = match reviewers.len() {
        0 | 1 => return None,
        2 => {
            let mut table = vec![vec![0; categories]; categories];
            rows.iter().for_each(|row| table[row[0]][row[1]] += 1);
            (cohen(&table, rated)?, "Cohen")
        }
        _ => {
            let count = |row: &Vec<usize>| {
                let mut counts = vec![0; categories];
                row.iter().for_each(|&category| counts[category] += 1);
                counts
            };
            let table: Vec<Vec<u64>> = rows.iter().map(count).collect();
            (fleiss(&table)?, "Fleiss")
        }
    };
    Some(Agreement { kappa, of, items: rows.len() })
}

impl Summary {
    /// Of a review's items and what was said of them.
    pub fn new(plan: &Plan, items: &[Item], lines: &[Line]) -> Summary {
        let all = standing(lines);
        let names: BTreeSet<&str> = all.keys().map(|(name, _)| *name).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let reviewer = |name: &&str| {
            let mut r = Reviewer { name: (*name).into(), judged: 0, gold: 0, gold_right: 0, decided: 0, left: 0 };
            for ((_, item), line) in all.iter().filter(|((own, _), _)| own == name) {
                let chosen = match line.said {
                    Said::Verdict(Verdict::A) => Some(Side::A),
                    Said::Verdict(Verdict::B) => Some(Side::B),
                    _ => None,
                };
                match items[*item].gold {
                    Some(gold) => {
                        r.gold += 1;
                        r.gold_right += usize::from(chosen == Some(gold));
                    }
                    None => r.judged += 1,
                }
                r.decided += usize::from(chosen.is_some());
                r.left += usize::from(chosen.is_some() && chosen == line.left);
            }
            r
        };
        let reviewers: Vec<Reviewer> = names.iter().map(reviewer).collect();
        let mut said = all;
        said.retain(|(_, item), _| items[*item].gold.is_none());
        let rated = items.iter().all(|item| item.b.is_none());
        let ratings = rated.then(|| {
            let mut counts = [0; 5];
            said.values().for_each(|line| counts[category(line.said)] += 1);
            let sum: u64 = counts.iter().zip(1..).map(|(count, rating)| count * rating).sum();
            Ratings { counts, mean: sum as f64 / (said.len().max(1)) as f64 }
        });
        let mut summary = Summary {
            models: plan.models.clone(),
            items: items.iter().filter(|item| item.gold.is_none()).count(),
            judgements: said.len(),
            notes: said.values().filter(|line| !line.note.is_empty()).count(),
            reviewers,
            pairs: (!rated).then(|| Pairs::of(items, &said)),
            ratings,
            agreement: agreement(&said, &names, rated),
            sentences: Vec::new(),
        };
        summary.sentences = summary.words();
        summary
    }

    /// The name of a model.
    fn name(&self, side: Side) -> String {
        let letter = if side == Side::A { "A" } else { "B" };
        match self.models.get(side as usize).filter(|name| *name != letter) {
            Some(name) => format!("{letter} ({name})"),
            None => letter.into(),
        }
    }

    fn words(&self) -> Vec<String> {
        let mut all = Vec::new();
        match (&self.pairs, &self.ratings) {
            _ if self.judgements == 0 => all.push(format!("Nothing is judged yet, of {} items.", self.items)),
            (Some(pairs), _) => self.words_of_pairs(pairs, &mut all),
            (_, Some(Ratings { counts, mean })) => {
                let counts: Vec<String> = counts.iter().zip(1..).map(|(n, rating)| format!("{rating}: {n}")).collect();
                let (n, name) = (self.judgements, self.name(Side::A));
                all.push(format!("{name} is rated {mean:.2} of 5 in {n} judgements ({}).", counts.join(", ")));
            }
            _ => {}
        }
        if let Some(Agreement { kappa, of, items }) = self.agreement {
            let (n, plural) = (self.reviewers.len(), if items == 1 { "" } else { "s" });
            all.push(format!(
                "{n} reviewers agree on {items} item{plural} with {of}' kappa {kappa:.2}: 1 is wholly, 0 as by chance."
            ));
        }
        for Reviewer { name, gold, gold_right, decided, left, .. } in &self.reviewers {
            if *gold > 0 {
                all.push(format!("{name} is right on {gold_right} of {gold} gold items."));
            }
            let p = sign_test(*left as u64, *decided as u64);
            if p < 0.01 {
                all.push(format!("{name} chose the left one in {left} of {decided}: a habit, it seems (p = {p:.4})."));
            }
        }
        all
    }

    fn words_of_pairs(&self, pairs: &Pairs, all: &mut Vec<String>) {
        let n = pairs.a_wins + pairs.b_wins;
        let rest = match (pairs.ties, pairs.same) {
            (0, _) => String::new(),
            (ties, 0) => format!("; {ties} besides are ties"),
            (ties, same) => format!("; {ties} besides are ties, {same} of them word for word the same"),
        };
        let Some(leads) = pairs.leads else {
            let each = pairs.a_wins;
            all.push(format!(
                "Each is preferred in {each} of {n} pairs in which one is better{rest}: no difference so far."
            ));
            return;
        };
        let Pairs { p, share, interval: [low, high], .. } = *pairs;
        let (name, wins) = (self.name(leads), pairs.a_wins.max(pairs.b_wins));
        let per_cent = |x: f64| (100.0 * x).round();
        all.push(format!(
            "{name} is preferred in {wins} of {n} pairs in which one is better{rest}: {} % (95 % interval {} to {} %), p = {}.",
            per_cent(share),
            per_cent(low),
            per_cent(high),
            short(p)
        ));
        all.push(match (pairs.verdict, pairs.more) {
            (true, _) if pairs.p_any_time < ALPHA => {
                format!("That is a verdict, however often one looked on the way (p at any time = {}).", short(pairs.p_any_time))
            }
            (true, _) => format!(
                "That is a verdict for who looks once; who stops at the first one should go on until p at any time, {} now, is below {ALPHA}.",
                short(pairs.p_any_time)
            ),
            (false, Some(more)) if more <= 10_000 => {
                format!("Not yet a verdict: if it stays so, about {more} more pairs in which one is better are needed.")
            }
            _ => "Not yet a verdict, and if it stays so, more than 10,000 more pairs would be needed.".into(),
        });
    }
}

/// A p with two digits that say something.
fn short(p: f64) -> String {
    if p < 1e-4 {
        format!("{p:.0e}")
    } else if p < 0.1 {
        format!("{p:.4}")
    } else {
        format!("{p:.2}")
    }
}

/// How many more pairs a verdict takes, by the judgements of `lines`: 0 where it is there; `None` where nobody can say.
pub(super) fn more(items: &[Item], lines: &[Line]) -> Option<u64> {
    let mut said = standing(lines);
    said.retain(|(_, item), _| items[*item].gold.is_none());
    let pairs = Pairs::of(items, &said);
    if pairs.verdict { Some(0) } else { pairs.more }
}

#[cfg(test)]
mod tests {
    use super::super::item::{Answer, Prompt};
    use super::*;

    fn item(i: usize, two: bool, gold: Option<Side>) -> Item {
        let answer = |side: &str| Answer::Text(format!("{side}{i}"));
        let b = two.then(|| answer("b"));
        Item { prompt: Prompt::Text(format!("p{i}")), reference: None, a: answer("a"), b, gold }
    }

    fn line(items: &[Item], reviewer: &str, item: usize, said: Said) -> Line {
        let left = items[item].b.as_ref().map(|_| Side::A);
        Line {
            time: String::new(),
            reviewer: reviewer.into(),
            item,
            id: items[item].id(),
            left,
            said,
            note: String::new(),
        }
    }

    fn plan() -> Plan {
        Plan { models: vec!["old".into(), "new".into()], ..Plan::default() }
    }

    fn verdicts(items: &[Item], reviewer: &str, word: &str) -> Vec<Line> {
        let verdict = |c| match c {
            'a' => Verdict::A,
            'b' => Verdict::B,
            't' => Verdict::Tie,
            _ => Verdict::Bad,
        };
        word.chars().enumerate().map(|(i, c)| line(items, reviewer, i, Said::Verdict(verdict(c)))).collect()
    }

    #[test]
    fn fourteen_of_twenty_are_not_yet_a_verdict() {
        let items: Vec<Item> = (0..23).map(|i| item(i, true, None)).collect();
        let summary = Summary::new(&plan(), &items, &verdicts(&items, "anna", "bbbbbbbbbbbbbbaaaaaattx"));
        let pairs = summary.pairs.as_ref().expect("pairs");
        assert_eq!((pairs.a_wins, pairs.b_wins, pairs.ties, pairs.both_bad), (6, 14, 3, 1));
        assert_eq!((pairs.leads, pairs.verdict, pairs.more), (Some(Side::B), false, Some(30)));
        assert!((pairs.p - 0.115318).abs() < 1e-6, "{}", pairs.p);
        assert_eq!(
            summary.sentences,
            [
                "B (new) is preferred in 14 of 20 pairs in which one is better; 3 besides are ties: 70 % (95 % interval 48 to \
                 85 %), p = 0.12.",
                "Not yet a verdict: if it stays so, about 30 more pairs in which one is better are needed."
            ]
        );
    }

    #[test]
    fn a_verdict_says_whom_it_holds_for() {
        let items: Vec<Item> = (0..30).map(|i| item(i, true, None)).collect();
        let of = |word: &str| Summary::new(&plan(), &items, &verdicts(&items, "anna", word)).sentences[1].clone();
        assert!(of("aaaaaa").starts_with("That is a verdict for who looks once"), "{}", of("aaaaaa"));
        assert!(of("aaaaaaaaaaaa").starts_with("That is a verdict, however often"), "{}", of("aaaaaaaaaaaa"));
        let even = Summary::new(&plan(), &items, &verdicts(&items, "anna", "ab"));
        assert!(even.sentences[0].contains("no difference so far"), "{:?}", even.sentences);
        assert!(Summary::new(&plan(), &items, &[]).sentences[0].starts_with("Nothing is judged yet"));
    }

    #[test]
    fn gold_items_test_the_reviewer_and_count_for_nothing_else() {
        let gold = |i| (i % 2 == 0).then_some(Side::B);
        let items: Vec<Item> = (0..8).map(|i| item(i, true, gold(i))).collect();
        let summary = Summary::new(&plan(), &items, &verdicts(&items, "anna", "babababt"));
        let pairs = summary.pairs.as_ref().expect("pairs");
        assert_eq!((pairs.a_wins, pairs.b_wins, pairs.ties), (3, 0, 1));
        assert_eq!((summary.items, summary.judgements), (4, 4));
        let anna = &summary.reviewers[0];
        assert_eq!((anna.judged, anna.gold, anna.gold_right), (4, 4, 4));
        assert!(summary.sentences.contains(&"anna is right on 4 of 4 gold items.".into()), "{:?}", summary.sentences);
    }

    #[test]
    fn an_item_counts_once_and_reviewers_are_compared() {
        let items: Vec<Item> = (0..4).map(|i| item(i, true, None)).collect();
        let of = |words: &[(&str, &str)]| {
            let lines: Vec<Line> = words.iter().flat_map(|(who, word)| verdicts(&items, who, word)).collect();
            Summary::new(&plan(), &items, &lines)
        };
        let three = of(&[("a", "abab"), ("b", "abbb"), ("c", "abta")]);
        let pairs = three.pairs.as_ref().expect("pairs");
        assert_eq!((pairs.a_wins, pairs.b_wins, pairs.ties), (1, 2, 1));
        let agreement = three.agreement.as_ref().expect("agreement");
        assert_eq!((agreement.of, agreement.items), ("Fleiss", 4));
        let two = of(&[("a", "abab"), ("b", "abb")]);
        let agreement = two.agreement.expect("agreement");
        // Of 3 items 2 agree; by chance 4/9: (2/3 − 4/9) / (1 − 4/9).
        assert_eq!((agreement.of, agreement.items), ("Cohen", 3));
        assert!((agreement.kappa - 0.4).abs() < 1e-12, "{}", agreement.kappa);
        assert_eq!(of(&[("a", "abab")]).agreement, None);
    }

    #[test]
    fn ratings_have_a_mean() {
        let items: Vec<Item> = (0..3).map(|i| item(i, false, None)).collect();
        let lines: Vec<Line> =
            [5, 4, 1].into_iter().enumerate().map(|(i, r)| line(&items, "anna", i, Said::Rating(r))).collect();
        let summary = Summary::new(&plan(), &items, &lines);
        let ratings = summary.ratings.expect("ratings");
        assert_eq!((ratings.counts, summary.pairs), ([1, 0, 0, 1, 1], None));
        assert!((ratings.mean - 10.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn who_always_chooses_the_left_is_told_of() {
        let items: Vec<Item> = (0..9).map(|i| item(i, true, None)).collect();
        let summary = Summary::new(&plan(), &items, &verdicts(&items, "anna", "aaaaaaaaa"));
        assert!(summary.sentences.iter().any(|s| s.contains("the left one in 9 of 9")), "{:?}", summary.sentences);
    }
}
