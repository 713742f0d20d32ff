//! Templates as data: the syntax of `grammar.txt` and its compiled form.
//!
//! ```text
//! Rule a p !                     a rule, the letters of its roles, and `!` where what it states is a fixed fact
//!   3 {a~} [went|ran] to {p}.    an alternative with weight 3 (1 when absent); `[x|y]` chooses inside a line
//!   + …                         one that is not told of held-out people, and `*` one that is held out itself
//! ```
//!
//! | written    | stands for                                                                      |
//! |------------|---------------------------------------------------------------------------------|
//! | `{a}`      | the plain form of role `a`; `{a:his}` another form (see [`Kind::forms`])         |
//! | `{a.home}` | the value of a fixed relation; `{a.job:doing}` in another form                  |
//! | `{a~}`     | the name, or he/she where that is clear; so too `{a~him}`, `{a~his}`            |
//! | `<Who b>`  | another rule, its roles filled by these                                         |
//! | `a(n) `    | `a` or `an`, as the next word asks                                              |
//!
//! A letter gives its role's kind ([`Kind::of_role`]). An alternative that needs an undefined relation cannot be chosen,
//! nor, in a fact rule, one that would state a fact again. Sentence starts are capitalised when written.

use super::lexicon::Kind;
use super::village::Relation;
use std::ops::Range;

macro_rules! rules {
    ($($id:ident)*) => {
        /// The rules that have a name in `grammar.txt`.
        #[allow(dead_code)] // Some are only called by other rules.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub(super) enum Rule { $($id,)* }

        const NAMES: &[&str] = &[$(stringify!($id),)*];
    };
}

rules! {
    Scene Once About Habit Day Who Spot Go Together GoHome CallOn AtWork AtHome Nearby Around End EndBoth
    Made Mender
    Thing MissThing AskThing SawThing GuessThing FindThing UseThing UseBoth
    Pet MissPet LookPet AskPet Haunt FindPet HomePet
    Helping AskErrand TakeFood Trouble Sniff Shoo GiveFood Thanks Reward Report
    Birthday Favourite AskFood Price HandOver Surprise
    Broken AskFix Fix NeedHelp Pay
    Wish AskBorrow Lend Play Forget Remember ReturnThing
    Plan Fun Rain Shelter Story Dry
    Message Absent Tell Meeting
    FoundThing Quarrel Whose Bring
    Noise Stuck Free BringPet EndNight
    Market Swap Crowd
    Letter Invite Showed
    Train Ride Town Back
}

/// How many rules have a name.
pub(super) const RULES: usize = NAMES.len();

/// The most roles of a rule.
pub(super) const ROLES: usize = 4;

/// A mention of an entity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub role: u8,
    pub relation: Option<Relation>,
    /// The kind of what is mentioned: the role or the relation's value.
    pub kind: Kind,
    pub form: u8,
    /// Name or pronoun, whichever is clear; `form` is the pronoun's.
    pub auto: bool,
}

/// One step of writing a sentence.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// A literal; `caps` when a new sentence begins after it.
    Text {
        start: u32,
        end: u32,
        caps: bool,
    },
    /// `a(n) `.
    Article,
    Slot(Slot),
    /// A rule by index; its roles are these of the caller.
    Call {
        rule: u16,
        roles: [u8; ROLES],
    },
}

/// Who is told an alternative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Of everybody, everywhere.
    #[default]
    Common,
    /// Of held-out people only in the split that is about them.
    Reserved,
    /// Only in the split of held-out paraphrases.
    HeldOut,
}

#[derive(Debug)]
pub(super) struct Alternative {
    pub weight: u32,
    pub form: Form,
    pub ops: Range<u32>,
    /// The fixed relations that it uses: (role, relation).
    pub needs: Vec<(u8, Relation)>,
}

#[derive(Debug, Default)]
pub(super) struct Alternatives {
    pub list: Vec<Alternative>,
    pub total: u32,
    /// What it states is a fixed fact.
    pub fact: bool,
    /// Some alternative has needs, or is not for everybody.
    pub guarded: bool,
    pub roles: Vec<u8>,
}

/// The compiled templates. Named rules come first, in the order of [`Rule`]; brackets follow as rules without a name.
pub(super) struct Grammar {
    pub rules: Vec<Alternatives>,
    ops: Vec<Op>,
    text: String,
}

impl Grammar {
    /// Compiles `grammar.txt`.
    ///
    /// # Panics
    /// On a mistake in that file, which is a part of this program and which every test compiles.
    pub fn new() -> Grammar {
        let source = include_str!("grammar.txt");
        let mut g = Grammar { rules: Vec::new(), ops: Vec::new(), text: String::new() };
        g.rules.resize_with(RULES, Alternatives::default);
        let headers = || source.lines().filter(|l| !l.is_empty() && !l.starts_with([' ', '#']));
        for header in headers() {
            let mut words = header.split(' ');
            let rule = &mut g.rules[id(words.next().unwrap_or_default())];
            assert!(rule.roles.is_empty(), "two rules: {header}");
            for word in words {
                match word.as_bytes() {
                    b"!" => rule.fact = true,
                    &[letter] if Kind::of_role(letter).is_some() => rule.roles.push(letter),
                    _ => panic!("not a role: {header}"),
                }
            }
            assert!(rule.roles.len() <= ROLES, "too many roles: {header}");
        }
        let mut current = 0;
        for line in source.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            match line.strip_prefix("  ") {
                None => current = id(line.split(' ').next().unwrap_or_default()),
                Some(template) => {
                    let mut rest = template;
                    g.alternative(current, current, &mut rest);
                    assert!(rest.is_empty(), "unbalanced brackets: {line}");
                }
            }
        }
        for (name, rule) in NAMES.iter().zip(&g.rules) {
            assert!((1..=128).contains(&rule.list.len()), "{name}: {} alternatives", rule.list.len());
        }
        g
    }

    pub fn ops(&self, alternative: &Alternative) -> &[Op] {
        &self.ops[alternative.ops.start as usize..alternative.ops.end as usize]
    }

    #[inline]
    pub fn literal(&self, start: u32, end: u32) -> &str {
        &self.text[start as usize..end as usize]
    }

    /// Reads one alternative, up to an unmatched `|` or `]` or the end, and adds it to `rule`, whose roles are those of
    /// the named rule `named`.
    fn alternative(&mut self, rule: usize, named: usize, rest: &mut &str) {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let weight = if digits == 0 { 1 } else { rest[..digits].parse().expect("a weight") };
        *rest = rest[digits..].strip_prefix(' ').filter(|_| digits > 0).unwrap_or(rest);
        let form = match rest.get(..2) {
            Some("+ ") => Form::Reserved,
            Some("* ") => Form::HeldOut,
            _ => Form::Common,
        };
        *rest = &rest[if form == Form::Common { 0 } else { 2 }..];
        let (mut ops, mut needs) = (Vec::new(), Vec::new());
        while let Some(c) = rest.chars().next() {
            match c {
                '|' | ']' => break,
                '{' => {
                    let slot = self.slot(named, take(rest, '{', '}'));
                    needs.extend(slot.relation.map(|r| (slot.role, r)).filter(|need| !needs.contains(need)));
                    ops.push(Op::Slot(slot));
                }
                '<' => {
                    let mut words = take(rest, '<', '>').split(' ');
                    let callee = id(words.next().unwrap_or_default());
                    let mut roles = [0; ROLES];
                    for (i, word) in words.enumerate() {
                        assert_eq!(
                            Kind::of_role(word.as_bytes()[0]),
                            Kind::of_role(self.rules[callee].roles[i]),
                            "{}: {word} has the wrong kind",
                            NAMES[callee]
                        );
                        roles[i] = self.role(named, word.as_bytes()[0]);
                    }
                    ops.push(Op::Call { rule: callee as u16, roles });
                }
                '[' => {
                    let bracket = self.rules.len();
                    self.rules.push(Alternatives { fact: self.rules[named].fact, ..Alternatives::default() });
                    while !rest.starts_with(']') {
                        *rest = rest.get(1..).unwrap_or_else(|| panic!("{}: a bracket is open", NAMES[named]));
                        self.alternative(bracket, named, rest);
                    }
                    *rest = &rest[1..];
                    ops.push(Op::Call { rule: bracket as u16, roles: std::array::from_fn(|i| i as u8) });
                }
                _ if rest.starts_with("a(n) ") => {
                    *rest = &rest[5..];
                    ops.push(Op::Article);
                }
                _ => {
                    let end = rest.find(['|', ']', '{', '<', '[']).unwrap_or(rest.len());
                    let end = rest[..end].find("a(n) ").unwrap_or(end);
                    let text = &rest[..end];
                    let opens =
                        text.strip_suffix('"').is_some_and(|t| t.is_empty() && ops.is_empty() || t.ends_with(' '));
                    let caps = opens || [". ", ".\" "].iter().any(|mark| text.ends_with(mark));
                    let start = self.text.len() as u32;
                    self.text.push_str(text);
                    ops.push(Op::Text { start, end: self.text.len() as u32, caps });
                    *rest = &rest[end..];
                }
            }
        }
        let start = self.ops.len() as u32;
        self.ops.extend(ops);
        let rule = &mut self.rules[rule];
        rule.total += weight;
        rule.guarded |= !needs.is_empty() || form != Form::Common;
        rule.list.push(Alternative { weight, form, ops: start..self.ops.len() as u32, needs });
    }

    fn role(&self, rule: usize, letter: u8) -> u8 {
        let found = self.rules[rule].roles.iter().position(|&r| r == letter);
        found.unwrap_or_else(|| panic!("{}: no role {}", NAMES[rule], letter as char)) as u8
    }

    /// `a`, `a:form`, `a.relation`, `a.relation:form`, `a~`, `a~form`.
    fn slot(&self, rule: usize, text: &str) -> Slot {
        let auto = text.contains('~');
        let (path, form) = text.split_once([':', '~']).unwrap_or((text, ""));
        let form = if auto && form.is_empty() { "he" } else { form };
        let (letter, relation) = path.split_once('.').map_or((path, None), |(l, r)| (l, Some(r)));
        let relation =
            relation.map(|name| Relation::named(name).unwrap_or_else(|| panic!("{}: no relation {name}", NAMES[rule])));
        let letter = letter.as_bytes()[0];
        let kind = relation.map(Relation::range).or(Kind::of_role(letter)).expect("a role");
        let form = kind.forms().iter().position(|&f| f == form);
        let form = form.unwrap_or_else(|| panic!("{}: no such form: {text}", NAMES[rule])) as u8;
        Slot { role: self.role(rule, letter), relation, kind, form, auto }
    }
}

/// Whether the article before this word is *an*.
pub(super) fn takes_an(word: &str) -> bool {
    word.starts_with(['a', 'e', 'i', 'o', 'u'])
}

fn id(name: &str) -> usize {
    NAMES.iter().position(|&n| n == name).unwrap_or_else(|| panic!("no rule {name}"))
}

/// Cuts `open…close` off the front of `rest` and returns its inside.
fn take<'a>(rest: &mut &'a str, open: char, close: char) -> &'a str {
    let (inside, after) = rest[open.len_utf8()..].split_once(close).expect("a closing bracket");
    *rest = after;
    inside
}
