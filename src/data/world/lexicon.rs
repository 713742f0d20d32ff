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
    /// What somebody likes to do.
    Hobby,
    /// What somebody is afraid of.
    Fear,
    /// A month of the year.
    Month,
    /// What somebody wants to do one day.
    Dream,
}

/// The most forms that any kind has.
pub(super) const FORMS: usize = 8;

impl Kind {
    /// The last of them.
    pub(super) const LAST: Kind = Kind::Dream;

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
            Kind::Hobby | Kind::Dream => &["", "doing"],
            Kind::Trait | Kind::Colour | Kind::Species | Kind::Day | Kind::Time | Kind::Fear | Kind::Month => &[""],
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
    "Nora", "Ida", "Bess", "Molly", "Petra", "Lena", "Freya", "Agnes", "Marta", "Olga", "Sigrid", "Thea", "Birgit",
    "Dora", "Emma", "Julia",
];

/// Names for men and boys.
pub(super) const HE: &[&str] = &[
    "Tom", "Hugo", "Otto", "Ben", "Finn", "Karl", "Ned", "Sam", "Theo", "Abel", "Emil", "Oskar", "Rolf", "Jonas",
    "Max", "Paul", "Hans", "Leo", "Simon", "Anton", "Erik", "Felix", "Georg", "Henrik", "Ivan", "Jakob", "Lars",
    "Magnus", "Oliver", "Peter",
];

/// Pronouns and nouns of a female: he, him, his.
pub(super) const SHE_FORMS: [&str; 3] = ["she", "her", "her"];

/// Pronouns of a male.
pub(super) const HE_FORMS: [&str; 3] = ["he", "him", "his"];

/// Names for animals.
pub(super) const ANIMALS: &[&str] = &[
    "Biscuit", "Pepper", "Button", "Clover", "Patch", "Pip", "Bramble", "Dusty", "Tansy", "Barley", "Maple", "Nutmeg",
    "Juniper", "Sorrel", "Thistle", "Rusty", "Ginger", "Pebble", "Snowball", "Cinder", "Flint", "Mossy", "Toffee",
    "Whiskers",
];

/// Kinds of animals.
pub(super) const SPECIES: &[&str] = &[
    "dog", "cat", "goat", "pony", "duck", "hen", "goose", "donkey", "rabbit", "lamb", "pig", "calf", "mouse",
    "hedgehog", "raven", "parrot",
];

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
    ("potter/turn the wheel/turning the wheel", "the pottery/at the pottery"),
    ("weaver/work at the loom/working at the loom", "the barn/in the barn"),
    ("doctor/mix the medicine/mixing the medicine", "the hospital/at the hospital"),
    ("tailor/sew a coat/sewing a coat", "the sewing room/in the sewing room"),
    ("cobbler/mend the shoes/mending the shoes", "the shoe shop/in the shoe shop"),
    ("driver/feed the horses/feeding the horses", "the stable/at the stable"),
    ("sailor/wash the deck/washing the deck", "the harbour/at the harbour"),
    ("painter/clean the brushes/cleaning the brushes", "the studio/in the studio"),
    ("clockmaker/wind the clocks/winding the clocks", "the clock shop/in the clock shop"),
    ("librarian/sort the books/sorting the books", "the library/in the library"),
    ("messenger/sort the letters/sorting the letters", "the post office/at the post office"),
    ("mason/break the stones/breaking the stones", "the quarry/at the quarry"),
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
    "the lake/by the lake",
    "the field/in the field",
    "the crossroads/at the crossroads",
    "the beach/on the beach",
    "the cave/in the cave",
    "the old wall/at the old wall",
];

/// Workplaces without a roof.
pub(super) const OPEN_AIR: &[&str] =
    &["the garden", "the river", "the orchard", "the hill", "the harbour", "the quarry", "the airfield"];

/// Where a market can be held.
pub(super) const MARKETS: &[&str] = &["the square", "the meadow", "the church", "the crossroads"];

/// A thing, its use as an infinitive and in the past; who can mend it ("" where nobody can); where it is used.
pub(super) const THINGS: &[(&str, &str, &[&str])] = &[
    ("kite/fly the kite/flew the kite", "carpenter", &["the meadow", "the hill", "the beach"]),
    ("ball/play with the ball/played with the ball", "", &["the meadow", "the square", "the garden"]),
    ("drum/play the drum/played the drum", "carpenter", &["the square", "the hill", "the tower"]),
    ("flute/play the flute/played the flute", "carpenter", &["the bridge", "the meadow", "the orchard"]),
    ("boat/sail the boat/sailed the boat", "carpenter", &["the pond", "the river", "the lake"]),
    ("lantern/light the lantern/lit the lantern", "smith", &["the wood", "the tower", "the cave"]),
    ("bucket/fill the bucket/filled the bucket", "smith", &["the well", "the pond", "the river"]),
    ("spade/dig with the spade/dug with the spade", "smith", &["the garden", "the field", "the beach"]),
    ("rope/jump with the rope/jumped with the rope", "", &["the square", "the meadow", "the old wall"]),
    ("book/read the book/read the book", "", &["the orchard", "the meadow", "the bridge"]),
    ("cart/pull the cart/pulled the cart", "carpenter", &["the farm", "the meadow", "the square"]),
    ("umbrella/open the umbrella/opened the umbrella", "smith", &["the bridge", "the square", "the lake"]),
    ("fiddle/play the fiddle/played the fiddle", "carpenter", &["the crossroads", "the square", "the old wall"]),
    ("basket/fill the basket/filled the basket", "weaver", &["the wood", "the orchard", "the field"]),
    (
        "telescope/look through the telescope/looked through the telescope",
        "clockmaker",
        &["the tower", "the hill", "the beach"],
    ),
    ("sledge/ride on the sledge/rode on the sledge", "carpenter", &["the hill", "the field", "the meadow"]),
    ("net/cast the net/cast the net", "fisher", &["the pond", "the lake", "the beach"]),
    ("whistle/blow the whistle/blew the whistle", "smith", &["the cave", "the tower", "the crossroads"]),
    ("wheelbarrow/push the wheelbarrow/pushed the wheelbarrow", "smith", &["the garden", "the farm", "the quarry"]),
    ("puppet/play with the puppet/played with the puppet", "tailor", &["the church", "the square", "the old wall"]),
];

/// Colours of things.
pub(super) const COLOURS: &[&str] =
    &["red", "blue", "green", "yellow", "white", "orange", "brown", "black", "purple", "grey", "pink", "silver"];

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
    ("pancakes/a plate of pancakes/plate", "innkeeper"),
    ("gingerbread/a piece of gingerbread/gingerbread", "baker"),
    ("oatcakes/a plate of oatcakes/plate", "miller"),
    ("pears/a bag of pears/bag", "beekeeper"),
    ("beans/a bowl of beans/bowl", "gardener"),
    ("mushrooms/a basket of mushrooms/basket", "shepherd"),
];

/// Traits of people.
pub(super) const TRAITS: &[&str] = &[
    "kind", "brave", "shy", "clever", "curious", "careful", "cheerful", "patient", "gentle", "proud", "stubborn",
    "quiet", "funny", "wise", "polite", "strong", "friendly", "sleepy",
];

/// What people like to do, as an infinitive and as a participle.
pub(super) const HOBBIES: &[&str] = &[
    "sing old songs/singing old songs",
    "paint pictures/painting pictures",
    "climb trees/climbing trees",
    "collect stones/collecting stones",
    "tell riddles/telling riddles",
    "watch the birds/watching the birds",
    "dance/dancing",
    "play chess/playing chess",
    "write letters/writing letters",
    "carve little figures/carving little figures",
    "knit socks/knitting socks",
    "count the stars/counting the stars",
    "grow roses/growing roses",
    "swim/swimming",
];

/// What people are afraid of.
pub(super) const FEARS: &[&str] = &[
    "thunder",
    "the dark",
    "spiders",
    "deep water",
    "high places",
    "ghosts",
    "bats",
    "loud noises",
    "snakes",
    "strangers",
    "wasps",
    "owls",
];

/// What people want to do one day, as an infinitive and as a participle.
pub(super) const DREAMS: &[&str] = &[
    "see the sea/seeing the sea",
    "sail around the world/sailing around the world",
    "write a book/writing a book",
    "climb a mountain/climbing a mountain",
    "own a horse/owning a horse",
    "fly in a balloon/flying in a balloon",
    "find a treasure/finding a treasure",
    "win a race/winning a race",
    "build a tall house/building a tall house",
    "live on an island/living on an island",
    "meet a king/meeting a king",
    "learn ten languages/learning ten languages",
];

/// Things that never move, and the verb for where they are.
pub(super) const FIXTURES: &[&str] = &[
    "bell/hung",
    "oak/grew",
    "bench/stood",
    "clock/hung",
    "statue/stood",
    "lamp/hung",
    "apple tree/grew",
    "signpost/stood",
    "swing/hung",
];

/// Days of the week, in order.
pub(super) const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Months of the year, in order.
pub(super) const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Parts of the day at which stories begin.
pub(super) const TIMES: &[&str] = &["morning", "afternoon"];

/// Names for women and girls who come in the second era.
pub(super) const SHE_LATER: &[&str] = &[
    "Alice", "Carmen", "Diana", "Esther", "Helga", "Irene", "Judith", "Katya", "Linda", "Monika", "Nadia", "Renata",
    "Susan", "Wilma",
];

/// Names for men and boys who come in the second era.
pub(super) const HE_LATER: &[&str] = &[
    "Adam", "Boris", "Cyril", "Daniel", "Edgar", "Fred", "Gustav", "Harold", "Igor", "Kurt", "Louis", "Norman",
    "Ralph", "Victor",
];

/// Names for animals that come in the second era.
pub(super) const ANIMALS_LATER: &[&str] = &["Sparky", "Rocket", "Ziggy", "Bingo", "Domino", "Jazzy", "Comet", "Noodle"];

/// What the second era has in place of what: the plain form of the old word, and the new word. Facts stay with the word's
/// place in the village.
pub(super) const LATER: &[(&str, &str)] = &[
    ("driver", "mechanic/oil the engines/oiling the engines"),
    ("the stable", "the garage/at the garage"),
    ("weaver", "photographer/hang up the pictures/hanging up the pictures"),
    ("the barn", "the photo shop/in the photo shop"),
    ("messenger", "pilot/check the wings/checking the wings"),
    ("the post office", "the airfield/at the airfield"),
    ("sailor", "conductor/check the tickets/checking the tickets"),
    ("the harbour", "the station/at the station"),
    ("clockmaker", "engineer/test the radios/testing the radios"),
    ("the clock shop", "the power house/in the power house"),
    ("the well", "the playground/on the playground"),
    ("the tower", "the cinema/at the cinema"),
    ("the cave", "the tunnel/in the tunnel"),
    ("cart", "bicycle/ride the bicycle/rode the bicycle"),
    ("basket", "camera/take pictures with the camera/took pictures with the camera"),
    ("telescope", "radio/listen to the radio/listened to the radio"),
    ("sledge", "scooter/ride the scooter/rode the scooter"),
    ("porridge", "cornflakes/a box of cornflakes/box"),
    ("nuts", "chocolate/a bar of chocolate/bar"),
    ("jam", "ice cream/a tub of ice cream/tub"),
    ("soup", "noodles/a plate of noodles/plate"),
    ("donkey", "hamster"),
    ("goose", "budgie"),
    ("raven", "tortoise"),
    ("knit socks", "play football/playing football"),
    ("carve little figures", "listen to jazz/listening to jazz"),
    ("meet a king", "drive a fast car/driving a fast car"),
    ("own a horse", "talk on the radio/talking on the radio"),
];
