//! The words of the village: names, places, things, and the forms in which templates use them.
//!
//! A row is one word with its forms, separated by `/` in the order of [`Kind::forms`]. Words avoid what would make a
//! template wrong: names that are also English words, and nouns whose first letter does not tell `a` from `an`.

/// What an entity is. It decides which templates can mention it, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Somebody who lives in the village.
    Person,
    /// A named animal that belongs to somebody.
    Animal,
    /// Somewhere to be, with its article: "the mill", "Nell's house".
    Place,
    /// A portable thing with one owner.
    Thing,
    /// Something to eat or drink.
    Food,
    /// An occupation; each has one holder.
    Job,
    /// A character trait.
    Trait,
    /// A colour.
    Colour,
    /// A kind of animal.
    Species,
    /// Something that never moves.
    Fixture,
    /// A day of the week.
    Day,
    /// A part of the day.
    Time,
}

/// The most forms that any kind has.
pub(super) const FORMS: usize = 8;

impl Kind {
    /// The names of the forms, as templates write them after a colon; the first is the plain one.
    pub(super) fn forms(self) -> &'static [&'static str] {
        match self {
            Kind::Person => &["", "s", "he", "him", "his", "child", "kid", "parent"],
            Kind::Animal => &["", "s", "he", "him", "his"],
            Kind::Place => &["", "at"],
            Kind::Thing => &["", "use", "used"],
            Kind::Food => &["", "some", "jar"],
            Kind::Job => &["", "do", "doing"],
            Kind::Fixture => &["", "hung"],
            Kind::Trait | Kind::Colour | Kind::Species | Kind::Day | Kind::Time => &[""],
        }
    }

    /// The kind of the entity that a role letter of the grammar stands for.
    pub(super) fn of_role(letter: u8) -> Option<Kind> {
        Some(match letter {
            b'a' | b'b' | b'c' => Kind::Person,
            b'x' => Kind::Animal,
            b'p' | b'q' => Kind::Place,
            b'o' => Kind::Thing,
            b'f' | b'g' => Kind::Food,
            b'u' => Kind::Fixture,
            b'd' => Kind::Day,
            b't' => Kind::Time,
            _ => return None,
        })
    }
}

/// Names for women and girls.
pub(super) const SHE: &[&str] = &[
    "Ada", "Nell", "Mira", "Rosa", "Edie", "Hanna", "Clara", "Lotta", "Maud", "Tilda", "Elsa", "Greta", "Anya", "Vera",
    "Nora", "Ida", "Bess", "Molly", "Petra", "Lena",
];

/// Names for men and boys.
pub(super) const HE: &[&str] = &[
    "Tom", "Hugo", "Otto", "Ben", "Finn", "Karl", "Ned", "Sam", "Theo", "Abel", "Emil", "Oskar", "Rolf", "Jonas",
    "Max", "Paul", "Hans", "Leo", "Simon", "Anton",
];

/// Pronouns and nouns of a female: he, him, his.
pub(super) const SHE_FORMS: [&str; 3] = ["she", "her", "her"];

/// Pronouns of a male.
pub(super) const HE_FORMS: [&str; 3] = ["he", "him", "his"];

/// Names for animals.
pub(super) const ANIMALS: &[&str] = &[
    "Biscuit", "Pepper", "Button", "Clover", "Patch", "Pip", "Bramble", "Dusty", "Tansy", "Barley", "Maple", "Nutmeg",
];

/// Kinds of animals.
pub(super) const SPECIES: &[&str] = &["dog", "cat", "goat", "pony", "duck", "hen", "goose", "donkey", "rabbit", "lamb"];

/// Occupation, its work as an infinitive and as a participle; its workplace, and where one is there.
pub(super) const JOBS: &[(&str, &str)] = &[
    ("baker/knead the dough/kneading the dough", "the bakery/at the bakery"),
    ("miller/fill the sacks/filling the sacks", "the mill/at the mill"),
    ("smith/keep the fire hot/keeping the fire hot", "the forge/at the forge"),
    ("carpenter/cut the wood/cutting the wood", "the workshop/in the workshop"),
    ("farmer/feed the cows/feeding the cows", "the farm/at the farm"),
    ("gardener/water the beans/watering the beans", "the garden/in the garden"),
    ("fisher/mend the nets/mending the nets", "the river/by the river"),
    ("beekeeper/look after the bees/looking after the bees", "the orchard/in the orchard"),
    ("teacher/sweep the floor/sweeping the floor", "the school/at the school"),
    ("innkeeper/wash the cups/washing the cups", "the inn/at the inn"),
    ("shopkeeper/count the coins/counting the coins", "the shop/in the shop"),
    ("shepherd/look for a lost sheep/looking for a lost sheep", "the hill/on the hill"),
];

/// Places where nobody in particular works.
pub(super) const PLACES: &[&str] = &[
    "the square/in the square",
    "the well/by the well",
    "the bridge/on the bridge",
    "the pond/by the pond",
    "the meadow/in the meadow",
    "the wood/in the wood",
    "the church/at the church",
    "the tower/at the tower",
];

/// Workplaces without a roof.
pub(super) const OPEN_AIR: &[&str] = &["the garden", "the river", "the orchard", "the hill"];

/// Where a market can be held.
pub(super) const MARKETS: &[&str] = &["the square", "the meadow", "the church"];

/// A thing, its use as an infinitive and in the past; who can mend it ("" where nobody can); where it is used.
pub(super) const THINGS: &[(&str, &str, &[&str])] = &[
    ("kite/fly the kite/flew the kite", "carpenter", &["the meadow", "the hill"]),
    ("ball/play with the ball/played with the ball", "", &["the meadow", "the square", "the garden"]),
    ("drum/play the drum/played the drum", "carpenter", &["the square", "the hill", "the tower"]),
    ("flute/play the flute/played the flute", "carpenter", &["the bridge", "the meadow", "the orchard"]),
    ("boat/sail the boat/sailed the boat", "carpenter", &["the pond", "the river"]),
    ("lantern/light the lantern/lit the lantern", "smith", &["the wood", "the tower", "the bridge"]),
    ("bucket/fill the bucket/filled the bucket", "smith", &["the well", "the pond", "the river"]),
    ("spade/dig with the spade/dug with the spade", "smith", &["the garden", "the meadow", "the orchard"]),
    ("rope/jump with the rope/jumped with the rope", "", &["the square", "the meadow"]),
    ("book/read the book/read the book", "", &["the orchard", "the meadow", "the bridge"]),
    ("cart/pull the cart/pulled the cart", "carpenter", &["the farm", "the meadow", "the square"]),
    ("umbrella/open the umbrella/opened the umbrella", "smith", &["the bridge", "the square"]),
];

/// Colours of things.
pub(super) const COLOURS: &[&str] = &["red", "blue", "green", "yellow", "white", "orange", "brown", "black"];

/// Food, a portion of it, the portion in one word; the job of whoever makes it.
pub(super) const FOODS: &[(&str, &str)] = &[
    ("bread/a loaf of bread/loaf", "baker"),
    ("plum cake/a plum cake/cake", "baker"),
    ("porridge/a bowl of porridge/bowl", "miller"),
    ("eggs/a basket of eggs/basket", "farmer"),
    ("milk/a jug of milk/jug", "farmer"),
    ("carrots/a sack of carrots/sack", "gardener"),
    ("fish/a big fish/fish", "fisher"),
    ("honey/a jar of honey/jar", "beekeeper"),
    ("apples/a basket of apples/basket", "beekeeper"),
    ("soup/a pot of soup/pot", "innkeeper"),
    ("berry pie/a berry pie/pie", "innkeeper"),
    ("nuts/a bag of nuts/bag", "shopkeeper"),
    ("jam/a jar of jam/jar", "shopkeeper"),
    ("cheese/a piece of cheese/cheese", "shepherd"),
];

/// Traits of people.
pub(super) const TRAITS: &[&str] =
    &["kind", "brave", "shy", "clever", "curious", "careful", "cheerful", "patient", "gentle", "proud"];

/// Things that never move, and the verb for where they are.
pub(super) const FIXTURES: &[&str] = &["bell/hung", "oak/grew", "bench/stood", "clock/hung", "statue/stood"];

/// Days of the week, in order.
pub(super) const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Parts of the day at which stories begin.
pub(super) const TIMES: &[&str] = &["morning", "afternoon"];
