//! Who lives in the village, what is where, and the facts that never change: all drawn from the seed.

use super::Era;
use super::lexicon::{self as lex, FORMS, Kind};
use crate::rng::{Purpose, Rng};

/// A person, animal, place, thing or word of the village: an index into its table of entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity(pub(super) u16);

impl Entity {
    /// No entity: an undefined relation, or a word that the village does not know.
    pub const NONE: Entity = Entity(u16::MAX);
}

macro_rules! relations {
    ($($(#[$doc:meta])* $id:ident $name:literal $kind:ident,)*) => {
        /// A fixed relation, a partial function from entities to entities.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Relation { $($(#[$doc])* $id,)* }

        impl Relation {
            /// All of them.
            pub const ALL: &[Relation] = &[$(Relation::$id,)*];

            /// The name that templates use.
            pub fn name(self) -> &'static str {
                [$($name,)*][self as usize]
            }

            /// The relation of this name.
            pub fn named(name: &str) -> Option<Relation> {
                Relation::ALL.iter().copied().find(|relation| relation.name() == name)
            }

            /// The kind of its values.
            pub fn range(self) -> Kind {
                [$(Kind::$kind,)*][self as usize]
            }
        }
    };
}

relations! {
    /// A person's occupation.
    Job "job" Job,
    /// Where a person works.
    Work "work" Place,
    /// The place next to which a person lives.
    Home "home" Place,
    /// A person's own house.
    House "house" Place,
    /// A person's best friend, whose best friend that person is.
    Friend "friend" Person,
    /// The parent with whom a child lives.
    Parent "parent" Person,
    /// What a person is like.
    Trait "trait" Trait,
    /// A person's favourite food.
    Likes "likes" Food,
    /// The thing that a person owns.
    Thing "thing" Thing,
    /// The animal that a person keeps.
    Pet "pet" Animal,
    /// The owner of a thing or an animal.
    Owner "owner" Person,
    /// The colour of a thing.
    Colour "colour" Colour,
    /// The kind of an animal.
    Species "species" Species,
    /// Where an animal likes to sleep.
    Haunt "haunt" Place,
    /// Where a fixture is.
    Stands "stands" Place,
    /// The nearest place; of two places either both are nearest to each other or neither.
    Near "near" Place,
    /// The day of the market that is held at a place.
    Market "market" Day,
    /// Who makes a food.
    Maker "maker" Person,
    /// Who can mend a thing.
    Fixer "fixer" Person,
    /// What a person likes to do.
    Hobby "hobby" Hobby,
    /// What a person is afraid of.
    Fear "fear" Fear,
    /// The month of a person's birthday.
    Month "month" Month,
    /// What a person wants to do one day.
    Dream "dream" Dream,
}

/// A fixed fact: `subject` stands in `relation` to `object`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// Which relation.
    pub relation: Relation,
    /// Of whom.
    pub subject: Entity,
    /// Its value.
    pub object: Entity,
}

/// The entities, their words and their fixed facts.
pub(super) struct Village {
    text: String,
    words: Vec<[(u32, u32); FORMS]>,
    kinds: Vec<Kind>,
    female: Vec<bool>,
    held_out: Vec<bool>,
    facts: Vec<Entity>,
    by_kind: Vec<Vec<Entity>>,
    /// Where each thing is used.
    pub spots: Vec<Vec<Entity>>,
}

/// How many people have no occupation and live with a parent.
const CHILDREN: usize = 20;

/// How many of the adults, and as many of the children, are held out.
const HELD_OUT: usize = 4;

impl Village {
    pub fn new(seed: u64, era: Era) -> Village {
        let mut rng = Rng::new(seed, Purpose::World, 0, 0);
        let mut v = Village {
            text: String::new(),
            words: Vec::new(),
            kinds: Vec::new(),
            female: Vec::new(),
            held_out: Vec::new(),
            facts: Vec::new(),
            by_kind: vec![Vec::new(); Kind::LAST as usize + 1],
            spots: Vec::new(),
        };
        // People and animals come first: their indices, below 64, are also bits of the masks for pronouns.
        let grown = lex::JOBS.len();
        let (mut she, mut he) = (shuffled(&mut rng, lex::SHE), shuffled(&mut rng, lex::HE));
        let women: Vec<bool> = (0..grown + CHILDREN).map(|i| i % 2 == 0).collect();
        let people: Vec<Entity> = shuffled(&mut rng, &women)
            .into_iter()
            .enumerate()
            .map(|(i, female)| {
                let name = if female { she.pop() } else { he.pop() }.expect("more names than people");
                v.being(Kind::Person, name, female, i < grown)
            })
            .collect();
        let (adults, children) = people.split_at(grown);
        let animals: Vec<Entity> = shuffled(&mut rng, lex::ANIMALS)[..lex::SPECIES.len()]
            .iter()
            .map(|name| v.being(Kind::Animal, name, rng.below(2) == 0, true))
            .collect();
        let works: Vec<Entity> = lex::JOBS.iter().map(|(_, place)| v.word(Kind::Place, place)).collect();
        let open: Vec<Entity> = lex::PLACES.iter().map(|place| v.word(Kind::Place, place)).collect();
        let places = [&works[..], &open[..]].concat();
        let jobs: Vec<Entity> = lex::JOBS.iter().map(|(job, _)| v.word(Kind::Job, job)).collect();
        let foods: Vec<Entity> = lex::FOODS.iter().map(|(food, _)| v.word(Kind::Food, food)).collect();
        let things: Vec<Entity> = lex::THINGS.iter().map(|(thing, ..)| v.word(Kind::Thing, thing)).collect();
        let mut words = |kind, list: &[&str]| list.iter().map(|w| v.word(kind, w)).collect::<Vec<_>>();
        let traits = words(Kind::Trait, lex::TRAITS);
        let colours = words(Kind::Colour, lex::COLOURS);
        let species = words(Kind::Species, lex::SPECIES);
        let fixtures = words(Kind::Fixture, lex::FIXTURES);
        let days = words(Kind::Day, lex::DAYS);
        words(Kind::Time, lex::TIMES);
        let mind = [
            (Relation::Trait, traits),
            (Relation::Likes, foods.clone()),
            (Relation::Hobby, words(Kind::Hobby, lex::HOBBIES)),
            (Relation::Fear, words(Kind::Fear, lex::FEARS)),
            (Relation::Month, words(Kind::Month, lex::MONTHS)),
            (Relation::Dream, words(Kind::Dream, lex::DREAMS)),
        ];
        for &a in adults {
            let name = v.text(a, 0).to_owned();
            let house = v.word(Kind::Place, &format!("{name}'s house/at {name}'s house"));
            v.set(Relation::House, a, house);
            v.set(Relation::Home, a, pick(&mut rng, &open));
        }
        for (i, (&a, &job)) in adults.iter().zip(&jobs).enumerate() {
            v.set(Relation::Job, a, job);
            v.set(Relation::Work, a, works[i]);
        }
        // Siblings are ten apart, friends are neighbours in the list: nobody's best friend is a sibling.
        let parents = &shuffled(&mut rng, adults)[..10];
        for (i, &c) in children.iter().enumerate() {
            let parent = parents[i % parents.len()];
            v.set(Relation::Parent, c, parent);
            for shared in [Relation::House, Relation::Home] {
                v.set(shared, c, v.get(shared, parent));
            }
        }
        let friends = shuffled(&mut rng, adults);
        for (relation, list) in [
            (Relation::Friend, &friends[..]),
            (Relation::Friend, children),
            (Relation::Near, &shuffled(&mut rng, &places)),
        ] {
            for pair in list.chunks_exact(2) {
                v.set(relation, pair[0], pair[1]);
                v.set(relation, pair[1], pair[0]);
            }
        }
        for &a in &people {
            for (relation, values) in &mind {
                v.set(*relation, a, pick(&mut rng, values));
            }
        }
        for (&o, &a) in things.iter().zip(&shuffled(&mut rng, &people)) {
            v.set(Relation::Owner, o, a);
            v.set(Relation::Thing, a, o);
            v.set(Relation::Colour, o, pick(&mut rng, &colours));
        }
        for ((&x, &a), &s) in animals.iter().zip(&shuffled(&mut rng, &people)).zip(&shuffled(&mut rng, &species)) {
            v.set(Relation::Owner, x, a);
            v.set(Relation::Pet, a, x);
            v.set(Relation::Species, x, s);
            v.set(Relation::Haunt, x, pick(&mut rng, &places));
        }
        for (&u, &p) in fixtures.iter().zip(&shuffled(&mut rng, &open)) {
            v.set(Relation::Stands, u, p);
        }
        let markets: Vec<Entity> = open.iter().copied().filter(|&p| lex::MARKETS.contains(&v.text(p, 0))).collect();
        v.set(Relation::Market, pick(&mut rng, &markets), pick(&mut rng, &days));
        let holder =
            |v: &Village, job: &str| adults.iter().copied().find(|&a| v.text(v.get(Relation::Job, a), 0) == job);
        for (&f, (_, job)) in foods.iter().zip(lex::FOODS) {
            v.set(Relation::Maker, f, holder(&v, job).expect("every food has a maker"));
        }
        for (&o, (_, job, spots)) in things.iter().zip(lex::THINGS) {
            v.set(Relation::Fixer, o, holder(&v, job).unwrap_or(Entity::NONE));
            v.spots.push(places.iter().copied().filter(|&p| spots.contains(&v.text(p, 0))).collect());
        }
        for group in [adults, children] {
            for &a in &shuffled(&mut rng, group)[..HELD_OUT] {
                v.held_out[a.0 as usize] = true;
            }
        }
        for (i, &owner) in v.facts.iter().skip(Relation::Owner as usize).step_by(Relation::ALL.len()).enumerate() {
            v.held_out[i] |= owner != Entity::NONE && v.held_out[owner.0 as usize];
        }
        if era == Era::Two {
            v.grow(&mut Rng::new(seed, Purpose::World, 8, 0), &mind, grown);
        }
        v
    }

    /// Years pass: new words in the place of old ones, and about half of the people and animals are others.
    fn grow(&mut self, rng: &mut Rng, mind: &[(Relation, Vec<Entity>)], grown: usize) {
        let mut new_work = Vec::new();
        for (old, new) in lex::LATER {
            let e = self.find(old).expect("an old word");
            self.rename(e, new);
            new_work.push(e);
        }
        let (mut she, mut he) = (shuffled(rng, lex::SHE_LATER), shuffled(rng, lex::HE_LATER));
        let mut names = shuffled(rng, lex::ANIMALS_LATER);
        for a in self.all(Kind::Person).to_vec() {
            let stays = !new_work.contains(&self.get(Relation::Job, a)) && rng.below(2) == 0;
            let names = if self.female(a) { &mut she } else { &mut he };
            let Some(name) = names.pop().filter(|_| !stays) else { continue };
            self.rename(a, &being(name, self.female(a), (a.0 as usize) < grown));
            if (a.0 as usize) < grown {
                self.rename(self.get(Relation::House, a), &format!("{name}'s house/at {name}'s house"));
            }
            for (relation, values) in mind {
                self.set(*relation, a, pick(rng, values));
            }
        }
        for x in self.all(Kind::Animal).to_vec() {
            if rng.below(2) == 0
                && let Some(name) = names.pop()
            {
                self.rename(x, &being(name, self.female(x), true));
            }
        }
    }

    fn rename(&mut self, e: Entity, forms: &str) {
        self.words[e.0 as usize] = self.store(forms);
    }

    fn store(&mut self, forms: &str) -> [(u32, u32); FORMS] {
        let mut spans = [(0, 0); FORMS];
        for (span, form) in spans.iter_mut().zip(forms.split('/')) {
            *span = (self.text.len() as u32, (self.text.len() + form.len()) as u32);
            self.text.push_str(form);
        }
        spans
    }

    /// The entity with this plain form.
    pub fn find(&self, name: &str) -> Option<Entity> {
        (0..self.words.len() as u16).map(Entity).find(|&e| self.text(e, 0) == name)
    }

    /// Whether it is one of the held-out people, or belongs to one.
    #[inline]
    pub fn held_out(&self, e: Entity) -> bool {
        self.held_out[e.0 as usize]
    }

    fn being(&mut self, kind: Kind, name: &str, female: bool, grown: bool) -> Entity {
        let e = self.word(kind, &being(name, female, grown));
        self.female[e.0 as usize] = female;
        e
    }

    fn word(&mut self, kind: Kind, forms: &str) -> Entity {
        let e = Entity(self.words.len() as u16);
        let spans = self.store(forms);
        self.words.push(spans);
        self.kinds.push(kind);
        self.female.push(false);
        self.held_out.push(false);
        self.facts.extend([Entity::NONE; Relation::ALL.len()]);
        self.by_kind[kind as usize].push(e);
        e
    }

    fn set(&mut self, relation: Relation, subject: Entity, object: Entity) {
        self.facts[subject.0 as usize * Relation::ALL.len() + relation as usize] = object;
    }

    /// The value of `relation` at `subject`; `NONE` where it is undefined.
    #[inline]
    pub fn get(&self, relation: Relation, subject: Entity) -> Entity {
        self.facts[subject.0 as usize * Relation::ALL.len() + relation as usize]
    }

    /// The form of `e` with this index in [`Kind::forms`].
    #[inline]
    pub fn text(&self, e: Entity, form: u8) -> &str {
        let (start, end) = self.words[e.0 as usize][form as usize];
        &self.text[start as usize..end as usize]
    }

    pub fn kind(&self, e: Entity) -> Kind {
        self.kinds[e.0 as usize]
    }

    #[inline]
    pub fn female(&self, e: Entity) -> bool {
        self.female[e.0 as usize]
    }

    /// All entities of a kind, in order.
    pub fn all(&self, kind: Kind) -> &[Entity] {
        &self.by_kind[kind as usize]
    }

    /// How many entities there are.
    pub fn len(&self) -> usize {
        self.words.len()
    }
}

/// The forms of a person or an animal.
fn being(name: &str, female: bool, grown: bool) -> String {
    let [he, him, his] = if female { lex::SHE_FORMS } else { lex::HE_FORMS };
    let (child, kid, parent) = match (female, grown) {
        (true, true) => ("woman", "daughter", "mother"),
        (true, false) => ("girl", "daughter", "mother"),
        (false, true) => ("man", "son", "father"),
        (false, false) => ("boy", "son", "father"),
    };
    format!("{name}/{name}'s/{he}/{him}/{his}/{child}/{kid}/{parent}")
}

fn pick(rng: &mut Rng, from: &[Entity]) -> Entity {
    from[rng.below(from.len() as u32) as usize]
}

/// A random permutation (Fisher-Yates).
fn shuffled<T: Copy>(rng: &mut Rng, from: &[T]) -> Vec<T> {
    let mut list = from.to_vec();
    for i in (1..list.len()).rev() {
        list.swap(i, rng.below(i as u32 + 1) as usize);
    }
    list
}
