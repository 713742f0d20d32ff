//! Personal data that belongs to nobody, in natural sentences, and what only looks like it.
//!
//! Every value is drawn: no address, number or key below is taken from anywhere, and where a kind has a checksum it holds
//! (Luhn's for cards, ISO 7064 MOD 97-10 for accounts). What only looks like it breaks the kind's rules, or is a number of
//! another kind in a sentence that says so.

use super::super::choice::Chooser;
use super::pattern::{fill, sections, sentence};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Kinds of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Personal {
    /// An e-mail address.
    Email,
    /// A telephone number, national or international.
    Phone,
    /// An IPv4 or IPv6 address of the public internet.
    Ip,
    /// An international bank account number with its checksum.
    Iban,
    /// A number of a credit card with its checksum.
    Card,
    /// A social security number of the United States.
    Ssn,
    /// A key, token or password.
    Secret,
}

impl Personal {
    /// All kinds.
    pub const ALL: [Personal; 7] = [
        Personal::Email,
        Personal::Phone,
        Personal::Ip,
        Personal::Iban,
        Personal::Card,
        Personal::Ssn,
        Personal::Secret,
    ];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        ["email", "phone", "ip", "iban", "card", "ssn", "secret"][self as usize]
    }
}

/// The sentences in which data stands, by kind.
pub(super) struct Sentences {
    real: Vec<Vec<&'static str>>,
    fake: Vec<Vec<&'static str>>,
}

impl Sentences {
    pub fn new() -> Sentences {
        let lines = |file| {
            let mut all = sections(file);
            let of =
                |kind: Personal| all.iter_mut().find(|(name, _)| *name == kind.name()).map(|(_, l)| l.split_off(0));
            Personal::ALL.map(of).map(|found| found.expect("a section for each kind")).into()
        };
        Sentences { real: lines(include_str!("contexts.txt")), fake: lines(include_str!("negatives.txt")) }
    }

    /// A sentence about `name` with data of a kind, and where the data lies in it.
    pub fn real(&self, c: &mut Chooser, kind: Personal, name: &str) -> (String, Range<usize>) {
        let line = c.one_of(&self.real[kind as usize]);
        sentence(line, name, |_, out| value(c, kind, name, out))
    }

    /// A sentence with what could be taken for data of a kind, and where that lies.
    pub fn fake(&self, c: &mut Chooser, kind: Personal, name: &str) -> (String, Range<usize>) {
        let line = c.one_of(&self.fake[kind as usize]);
        sentence(line, name, |part, out| {
            let start = out.len();
            match part {
                "{iban}" => iban(c, out),
                _ => fill(c, &part.replace("{a}", name), out),
            }
            let numbers: String = out[start..].chars().filter(char::is_ascii_digit).collect();
            let passes = match kind {
                Personal::Card => (12..=19).contains(&numbers.len()) && luhn(&numbers) == 0,
                Personal::Iban => part == "{iban}" || mod97(&out[start..]) == Some(1),
                _ => false,
            };
            if passes {
                // The last digit one higher: no checksum that it passed survives that.
                let at = out.rfind(|c: char| c.is_ascii_digit()).expect("a digit");
                let digit = (out.as_bytes()[at] - b'0' + 1) % 10;
                out.replace_range(at..=at, &digit.to_string());
            }
        })
    }

    #[cfg(test)]
    pub fn counts(&self) -> Vec<(usize, usize)> {
        self.real.iter().zip(&self.fake).map(|(real, fake)| (real.len(), fake.len())).collect()
    }
}

fn value(c: &mut Chooser, kind: Personal, name: &str, out: &mut String) {
    match kind {
        Personal::Email => email(c, name, out),
        Personal::Phone => {
            let pattern = c.one_of(PHONES);
            fill(c, pattern, out);
        }
        Personal::Ip => ip(c, out),
        Personal::Iban => iban(c, out),
        Personal::Card => card(c, out),
        Personal::Ssn => ssn(c, out),
        Personal::Secret => secret(c, out),
    }
}

const WORDS: &[&str] = &[
    "mill", "brook", "oak", "river", "stone", "field", "ferry", "lamp", "north", "willow", "market", "harbour",
    "copper", "meadow", "post", "bridge",
];
const ENDS: &[&str] = &["com", "org", "net", "de", "fr", "co.uk", "info", "eu", "nl", "io", "com.au", "museum"];

fn email(c: &mut Chooser, name: &str, out: &mut String) {
    let start = out.len();
    let first = name.to_ascii_lowercase();
    let (a, b) = (c.one_of(WORDS), c.one_of(WORDS));
    match c.even(8) {
        0 => out.push_str(&first),
        1 => *out += &format!("{first}.{a}"),
        2 => *out += &format!("{first}_{a}"),
        3 => *out += &format!("{}.{a}", &first[..1]),
        4 => fill(c, &format!("{first}$#"), out),
        5 => *out += &format!("{first}+{a}"),
        6 => fill(c, &format!("{a}-{first}.$###"), out),
        _ => *out += &format!("{a}{}", &first[..1]),
    }
    match c.even(4) {
        0 => *out += &format!("@{b}."),
        1 => *out += &format!("@{b}-{a}."),
        2 => *out += &format!("@mail.{b}."),
        _ => fill(c, &format!("@{b}$."), out),
    }
    out.push_str(c.one_of(ENDS));
    if c.even(8) == 0 {
        // As some people write it.
        out[start..].make_ascii_uppercase();
    }
}

/// Numbers as people write them: North America, then the world.
const PHONES: &[&str] = &[
    "(&##) &##-####",
    "&##-&##-####",
    "&##.&##.####",
    "+1 &## &## ####",
    "+1-&##-&##-####",
    "1 (&##) &##-####",
    "+1&##&######",
    "+44 20 7### ####",
    "+44 (0)16$ ### ####",
    "020 7### ####",
    "07$## ######",
    "+49 30 $#######",
    "0049 89 $######",
    "030/$######",
    "+33 $ ## ## ## ##",
    "0$ ## ## ## ##",
    "+34 9## ## ## ##",
    "+39 06 $### ####",
    "+31 6 $#######",
    "+47 $# ## ## ##",
    "+46 8-$## ## ##",
    "+48 $## ### ###",
    "+81-3-$###-####",
    "+86 13# #### ####",
    "+91 9#### #####",
    "+61 4## ### ###",
    "+55 11 9####-####",
    "+41 44 $## ## ##",
];

/// First numbers of IPv4 networks of the public internet.
const NETWORKS: &[&str] = &["23", "45", "62", "78", "81", "91", "104", "133", "145", "178", "185", "193", "203", "212"];

fn ip(c: &mut Chooser, out: &mut String) {
    match c.even(4) {
        0 => fill(c, "2a0%:%%%:%%%%:%%%%:%%%%:%%%%:%%%%:%%%%", out),
        1 => fill(c, "2a0%:$%%%:$%%::$%%", out),
        _ => {
            out.push_str(c.one_of(NETWORKS));
            for _ in 0..3 {
                *out += &format!(".{}", 1 + c.even(254));
            }
        }
    }
}

/// Country and the form of the account behind the two check digits.
const ACCOUNTS: &[(&str, &str)] = &[
    ("DE", "##################"),
    ("GB", "^^^^##############"),
    ("FR", "####################$##"),
    ("ES", "####################"),
    ("IT", "^######################"),
    ("NL", "^^^^##########"),
    ("CH", "#################"),
    ("AT", "################"),
    ("BE", "############"),
    ("NO", "###########"),
    ("SE", "####################"),
    ("PL", "########################"),
    ("PT", "#####################"),
    ("DK", "##############"),
    ("FI", "##############"),
    ("IE", "^^^^##############"),
];

fn iban(c: &mut Chooser, out: &mut String) {
    let (country, form) = c.one_of(ACCOUNTS);
    let mut account = String::new();
    fill(c, form, &mut account);
    let rest = mod97(&format!("{country}00{account}")).expect("letters and digits");
    let whole = format!("{country}{:02}{account}", 98 - rest);
    if c.even(2) == 0 {
        out.push_str(&whole);
    } else {
        groups(&whole, &[4; 9], " ", out);
    }
}

/// The number of an account modulo 97, its first four characters moved to the end and letters read as 10 to 35: 1 where it
/// is valid. `None` where there is anything but letters, digits and spaces.
fn mod97(account: &str) -> Option<u32> {
    let account: String = account.split(' ').collect();
    let (head, tail) = account.split_at_checked(4)?;
    tail.chars().chain(head.chars()).try_fold(0, |rest, c| {
        let value = c.to_digit(36)?;
        Some((rest * if value < 10 { 10 } else { 100 } + value) % 97)
    })
}

/// Beginnings of card numbers and how their digits are grouped.
const CARDS: &[(&str, &[usize])] = &[
    ("4###########", &[4, 4, 4, 4]),
    ("51##########", &[4, 4, 4, 4]),
    ("53##########", &[4, 4, 4, 4]),
    ("2223########", &[4, 4, 4, 4]),
    ("6011########", &[4, 4, 4, 4]),
    ("3530########", &[4, 4, 4, 4]),
    ("34#########", &[4, 6, 5]),
    ("37#########", &[4, 6, 5]),
    ("36########", &[4, 6, 4]),
];

fn card(c: &mut Chooser, out: &mut String) {
    let (begin, lengths) = c.one_of(CARDS);
    let mut digits = String::new();
    fill(c, begin, &mut digits);
    fill(c, "###", &mut digits);
    let check = (10 - luhn(&format!("{digits}0"))) % 10;
    digits.push_str(&check.to_string());
    match c.even(3) {
        0 => out.push_str(&digits),
        1 => groups(&digits, lengths, " ", out),
        _ => groups(&digits, lengths, "-", out),
    }
}

/// Luhn's sum of a number modulo 10: 0 where it is valid.
fn luhn(digits: &str) -> u32 {
    let value = |(i, b): (usize, u8)| {
        let d = u32::from(b - b'0');
        if i % 2 == 0 { d } else { d * 2 % 10 + d * 2 / 10 }
    };
    digits.bytes().rev().enumerate().map(value).sum::<u32>() % 10
}

fn groups(text: &str, lengths: &[usize], between: &str, out: &mut String) {
    let mut rest = text;
    for &length in lengths {
        let (group, after) = rest.split_at(length.min(rest.len()));
        out.push_str(group);
        rest = after;
        if rest.is_empty() {
            break;
        }
        out.push_str(between);
    }
}

fn ssn(c: &mut Chooser, out: &mut String) {
    // Areas 001 to 899 without 666, groups and serial numbers above zero.
    let area = 1 + c.even(898);
    let area = if area >= 666 { area + 1 } else { area };
    let between = [" ", "-", "-", "-"][c.even(4)];
    *out += &format!("{area:03}{between}{:02}{between}", 1 + c.even(99));
    fill(c, "$###", out);
}

/// The forms of keys and tokens; `*` is a letter or a digit.
const SECRETS: &[&str] = &[
    "AKIA????????????????",
    "ghp_************************************",
    "github_pat_**********************_***********************************************************",
    "xoxb-$##########-$##########-************************",
    "sk_live_************************",
    "AIza***********************************",
    "glpat-********************",
    "npm_************************************",
    "hf_**********************************",
    "eyJhbGciOiJIUzI1NiJ9.eyJ*****************************.*******************************************",
    "SG.**********************.*******************************************",
    "sk-proj-****************************************",
    "AGE-SECRET-KEY-1??????????????????????????????????????????????????????????",
    "dop_v1_%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%",
];

const MIXED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const CAPITALS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ234567";

fn secret(c: &mut Chooser, out: &mut String) {
    let form = c.one_of(SECRETS);
    for mark in form.chars() {
        match mark {
            '*' => out.push(char::from(c.one_of(MIXED))),
            '?' => out.push(char::from(c.one_of(CAPITALS))),
            '#' | '$' | '%' => fill(c, &mark.to_string(), out),
            _ => out.push(mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    #[test]
    fn the_checksums_are_the_published_ones() {
        // ISO 13616's and the issuers' examples.
        for good in ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "CH9300762011623852957"] {
            assert_eq!(mod97(good), Some(1), "{good}");
        }
        assert_ne!(mod97("GB82 WEST 1234 5698 7654 33"), Some(1));
        assert_eq!(mod97("GB8!"), None);
        for good in ["4111111111111111", "378282246310005", "30569309025904", "79927398713"] {
            assert_eq!(luhn(good), 0, "{good}");
        }
        assert_ne!(luhn("4111111111111112"), 0);
    }

    /// Whether it has the form of an e-mail address.
    fn address(text: &str) -> bool {
        let Some((local, domain)) = text.split_once('@') else { return false };
        let labels: Vec<&str> = domain.split('.').collect();
        let plain = |part: &str, more: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let last = labels[labels.len() - 1];
        plain(local, "._+-")
            && labels.len() > 1
            && labels.iter().all(|label| plain(label, "-"))
            && last.chars().all(|c| c.is_ascii_alphabetic())
    }

    #[test]
    fn what_is_planted_follows_the_rules_of_its_kind_and_what_looks_like_it_breaks_them() {
        let sentences = Sentences::new();
        for (real, fake) in sentences.counts() {
            assert!(real >= 8 && fake >= 20, "{real} contexts, {fake} that only look like it");
        }
        let mut c = Chooser::new();
        for n in 0..5_000 {
            c.draw(Rng::new(1, Purpose::Test, 0, n));
            for kind in Personal::ALL {
                let (text, span) = sentences.real(&mut c, kind, "Nell");
                let data = &text[span];
                let digits: String = data.chars().filter(char::is_ascii_digit).collect();
                let good = match kind {
                    Personal::Email => address(data),
                    Personal::Phone => (9..=13).contains(&digits.len()),
                    Personal::Ip => data.parse::<std::net::IpAddr>().is_ok(),
                    Personal::Iban => mod97(data) == Some(1),
                    Personal::Card => luhn(&digits) == 0 && (14..=16).contains(&digits.len()),
                    Personal::Ssn => digits.len() == 9 && !digits.starts_with('9') && !digits.starts_with("666"),
                    Personal::Secret => data.len() >= 20 && !data.contains(' '),
                };
                assert!(good, "{kind:?}: {data} in {text}");
                let (text, span) = sentences.fake(&mut c, kind, "Nell");
                let data = &text[span];
                let digits: String = data.chars().filter(char::is_ascii_digit).collect();
                let bad = match kind {
                    // But for the one kind that only its ending tells.
                    Personal::Email => !address(data) || data.ends_with("@2x.png"),
                    Personal::Ip => data.parse::<std::net::IpAddr>().is_err(),
                    Personal::Iban => mod97(data) != Some(1),
                    Personal::Card => !(12..=19).contains(&digits.len()) || luhn(&digits) != 0,
                    _ => true,
                };
                assert!(bad, "{kind:?}: {data} in {text}");
                assert!(text.len() < 250 && !text.contains(['{', '}']) || data.contains("${"), "{text}");
            }
        }
    }
}
