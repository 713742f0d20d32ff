//! Errands in the village: what is asked, of whom and what, drawn so that there is a way that keeps all constraints.

use super::Split;
use super::plan;
use super::scene::{Item, Person, Place, Scene, Spot, coins};
use crate::data::world::{Entity, Kind, Relation, World};
use crate::rng::{Purpose, Rng};

// Streams of [`Purpose::World`], beside those of stories, pictures and melodies.
const CAST: u32 = 0xa9_0000;
const TASK: u32 = 0xa9_0001;

/// Places of the map.
const PLACES: usize = 10;
/// Things, and foods, that only tests ask for, beside those of held-out people.
const HELD_OUT: usize = 4;
/// What the planner needs: at least, mostly at most, at most.
const ACTS: [usize; 3] = [4, 10, 12];

/// Ways of stating an errand, `{x}` and `{y}` things, `{p}` and `{q}` people: those of training and validation, and those
/// of tests.
type Wordings = [&'static [&'static str]; 2];

const BRING: Wordings = [
    &["Bring the {x} to {p}.", "Find the {x} and give it to {p}.", "{p} needs the {x}. Bring it."],
    &["See that {p} gets the {x}.", "The {x} should end up with {p}."],
];
const BUY: Wordings = [
    &["Buy {x} for {p}.", "Get {x} at a stall and give it to {p}.", "{p} needs {x}. Buy it."],
    &["{p} would like {x} from a stall.", "Spend some coins on {x} and let {p} have it."],
];
const FETCH: Wordings = [
    &["Bring {p} the {x} that belongs to {p}.", "{p} lost the {x}. Bring it back.", "Fetch {p}'s own {x} for {p}."],
    &["Help {p}, whose {x} is gone.", "Return the {x} to its owner {p}."],
];
const TWO: Wordings = [
    &["Give the {x} to {p} and the {y} to {q}. You have both.", "You have the {x} for {p} and the {y} for {q}."],
    &["{p} waits for the {x}, {q} for the {y}. You carry them.", "In your bag are {p}'s new {x} and {q}'s new {y}."],
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    Bring,
    Buy,
    Fetch,
    Two,
}

impl Errand {
    const ALL: [Errand; 4] = [Errand::Bring, Errand::Buy, Errand::Fetch, Errand::Two];

    fn wordings(self) -> Wordings {
        match self {
            Errand::Bring => BRING,
            Errand::Buy => BUY,
            Errand::Fetch => FETCH,
            Errand::Two => TWO,
        }
    }
}

/// A name, and whether only tests ask for it.
#[derive(Debug)]
struct Name {
    name: String,
    held_out: bool,
}

/// What a village has for errands.
#[derive(Debug)]
pub struct Cast {
    people: Vec<Name>,
    /// With the number of the owner among the people.
    things: Vec<(Name, Option<usize>)>,
    foods: Vec<Name>,
    places: Vec<String>,
    /// Where one can go from each place.
    ways: Vec<Vec<usize>>,
}

impl Cast {
    /// That of the village of `seed`. Names are single words; the map has ten places, three ways from each.
    pub fn new(seed: u64) -> Cast {
        let world = World::new(seed);
        let mut rng = Rng::new(seed, Purpose::World, CAST, 0);
        let name = |e: Entity| world.name(e).trim_start_matches("the ").to_owned();
        let single = |kind: Kind| {
            let all = world.entities(kind).iter().copied();
            all.filter(|&e| !name(e).contains([' ', '\''])).collect::<Vec<_>>()
        };
        let people = single(Kind::Person);
        let mut places: Vec<String> = single(Kind::Place).into_iter().map(name).collect();
        shuffle(&mut places, &mut rng);
        places.truncate(PLACES);
        let mut ways: Vec<Vec<usize>> =
            (0..places.len()).map(|i| vec![(i + 1) % PLACES, (i + PLACES - 1) % PLACES]).collect();
        for i in (0..places.len()).step_by(2) {
            let other = (i + 3) % PLACES;
            ways[i].push(other);
            ways[other].push(i);
        }
        let mut things = single(Kind::Thing);
        shuffle(&mut things, &mut rng);
        let mut foods = single(Kind::Food);
        shuffle(&mut foods, &mut rng);
        let owner = |e| people.iter().position(|&p| world.fact(Relation::Owner, e) == Some(p));
        Cast {
            things: (0..)
                .zip(&things)
                .map(|(i, &e)| (Name { name: name(e), held_out: i < HELD_OUT || world.held_out(e) }, owner(e)))
                .collect(),
            foods: (0..).zip(&foods).map(|(i, &e)| Name { name: name(e), held_out: i < HELD_OUT }).collect(),
            people: people.iter().map(|&e| Name { name: name(e), held_out: world.held_out(e) }).collect(),
            places,
            ways,
        }
    }

    /// Errand number `task` of a split: what is asked, and how things stand.
    pub fn task(&self, seed: u64, task: u64, split: Split) -> (String, Scene) {
        let mut rng = Rng::new(seed, Purpose::World, TASK + split as u32, task);
        let errand = Errand::ALL[rng.below(4) as usize];
        // In every second errand the shortest way breaks a constraint.
        let tempts = rng.below(2) == 0;
        let long = rng.below(4) == 0;
        loop {
            let Some(scene) = self.draw(errand, split, &mut rng) else { continue };
            let most = if long { ACTS[2] } else { ACTS[1] };
            let Some(acts) = plan::run(&scene, true, most).filter(|acts| acts.len() >= ACTS[0]) else { continue };
            if tempted(&scene, acts.len()) != Some(tempts) {
                continue;
            }
            let goal = state(errand, &scene, split, &mut rng);
            if within(split, &format!("{errand:?}{scene:?}")) {
                return (goal, scene);
            }
        }
    }

    /// Whether an entity takes part in a split's tasks, and whether it can be what a task is about.
    fn fits(name: &Name, split: Split, about: bool) -> bool {
        if about || !split.held_out() { name.held_out == split.held_out() } else { true }
    }

    /// How things could stand.
    fn draw(&self, errand: Errand, split: Split, rng: &mut Rng) -> Option<Scene> {
        let mut people = some(self.people.len(), rng, |i| Cast::fits(&self.people[i], split, true));
        let mut things = some(self.things.len(), rng, |i| Cast::fits(&self.things[i].0, split, true));
        let food = some(self.foods.len(), rng, |i| Cast::fits(&self.foods[i], split, true));
        // Who and what the errand is about comes first, the others behind.
        people.truncate(2);
        things.truncate(if errand == Errand::Two { 2 } else { 1 });
        let thing = *things.first()?;
        let owner = self.things[thing].1;
        if errand == Errand::Fetch {
            people = vec![owner?];
        } else if errand == Errand::Bring && rng.below(2) == 0 {
            people.truncate(1);
            people.extend(owner.filter(|owner| *owner != people[0]));
        }
        if errand == Errand::Buy {
            things.clear();
        }
        let count = 4 + rng.below(3) as usize;
        for i in some(self.people.len(), rng, |i| Cast::fits(&self.people[i], split, false)) {
            // The owner of what is brought is there only where that was drawn.
            let out = people.contains(&i) || (errand != Errand::Buy && owner == Some(i));
            if people.len() < count && !out {
                people.push(i);
            }
        }
        let count = things.len() + 2 + rng.below(2) as usize;
        for i in some(self.things.len(), rng, |i| Cast::fits(&self.things[i].0, split, false)) {
            if things.len() < count && !things.contains(&i) {
                things.push(i);
            }
        }
        let mut scene = self.map();
        let anywhere = |rng: &mut Rng, scene: &Scene| rng.below(scene.places.len() as u32) as usize;
        scene.here = anywhere(rng, &scene);
        for (n, &i) in people.iter().enumerate() {
            // Somebody is where it begins.
            let at = if n + 1 == people.len() { scene.here } else { anywhere(rng, &scene) };
            scene.people.push(Person { name: self.people[i].name.clone(), at, known: false });
        }
        if errand == Errand::Fetch && rng.below(2) == 0 {
            scene.people[0].at = scene.here;
        }
        for &i in &things {
            let (name, owner) = &self.things[i];
            let owner = owner.and_then(|owner| people.iter().position(|&i| i == owner));
            let at = Spot::At(anywhere(rng, &scene));
            let (name, offers) = (name.name.clone(), Vec::new());
            scene.items.push(Item { name, owner, offers, at, leave: false, known: false });
        }
        let sold = food.iter().take(1 + rng.below(2) as usize);
        let first = scene.items.len();
        for &i in sold {
            let offers = vec![(anywhere(rng, &scene), 1 + rng.below(5))];
            let (name, at) = (self.foods[i].name.clone(), Spot::Sold);
            scene.items.push(Item { name, owner: None, offers, at, leave: false, known: false });
        }
        scene.cap = 2 + rng.below(7);
        match errand {
            Errand::Bring | Errand::Fetch => scene.goals = vec![(0, 0)],
            Errand::Buy => {
                scene.goals = vec![(first, 0)];
                let (place, price) = scene.items[first].offers[0];
                scene.cap = price + rng.below(3);
                let other = (anywhere(rng, &scene), scene.cap + 1 + rng.below(3));
                if other.0 != place && rng.below(3) > 0 {
                    // Which one is named first tells nothing.
                    let at = rng.below(2) as usize;
                    scene.items[first].offers.insert(at, other);
                }
            }
            Errand::Two => {
                scene.goals = vec![(0, 0), (1, 1)];
                for item in &mut scene.items[..2] {
                    (item.at, item.owner, item.known) = (Spot::Bag, None, true);
                }
            }
        }
        scene.purse = scene.cap + 3 + rng.below(4);
        scene.forbidden = anywhere(rng, &scene);
        // Of whom it is said where they are.
        scene.people[0].known = errand != Errand::Fetch && rng.below(2) == 0;
        (scene.forbidden != scene.here).then_some(scene)
    }

    /// The map, the same in each errand: who has read of the village can know the way.
    fn map(&self) -> Scene {
        let place =
            |(name, ways): (&String, &Vec<usize>)| Place { name: name.clone(), ways: ways.clone(), looked: false };
        Scene { places: self.places.iter().zip(&self.ways).map(place).collect(), ..Scene::default() }
    }
}

/// Whether whoever minds no constraint breaks one, and is sooner done for it; `None`: one is broken in vain.
fn tempted(scene: &Scene, acts: usize) -> Option<bool> {
    let free = plan::run(scene, false, ACTS[2])?;
    let mut scene = scene.clone();
    let mut broken = false;
    for &act in &free {
        broken |= scene.judge(act).is_some();
        scene.apply(act).ok()?;
    }
    if broken { (free.len() < acts).then_some(true) } else { Some(false) }
}

/// What is asked.
fn state(errand: Errand, scene: &Scene, split: Split, rng: &mut Rng) -> String {
    let wordings = errand.wordings()[usize::from(split.other_words())];
    let mut text = wordings[rng.below(wordings.len() as u32) as usize].to_owned();
    let marks = [("{x}", "{p}"), ("{y}", "{q}")];
    for ((x, p), &(item, person)) in marks.into_iter().zip(&scene.goals) {
        text = text.replace(x, &scene.items[item].name).replace(p, &scene.people[person].name);
    }
    text + &rules(scene, rng)
}

/// Where one is.
pub(super) fn place(scene: &Scene) -> String {
    format!(" You are at the {}.", scene.places[scene.here].name)
}

/// What is told beside what is to be done: where one is, and those of whom it is known, and the constraints.
pub(super) fn rules(scene: &Scene, rng: &mut Rng) -> String {
    let mut text = place(scene);
    for person in scene.people.iter().filter(|person| person.known) {
        text += &format!(" {} is at the {}.", person.name, scene.places[person.at].name);
    }
    let forbidden = &scene.places[scene.forbidden].name;
    let (cap, purse) = (coins(scene.cap), scene.purse);
    let no = ["Do not go to the", "Stay away from the"][rng.below(2) as usize];
    let most = ["Spend at most", "Do not spend more than"][rng.below(2) as usize];
    text + &format!(" {no} {forbidden}. {most} {cap} of your {purse}. Ask owners before you take their things.")
}

/// All numbers below `n` that fit, in any order.
fn some(n: usize, rng: &mut Rng, fits: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut all: Vec<usize> = (0..n).filter(|&i| fits(i)).collect();
    shuffle(&mut all, rng);
    all
}

/// A random permutation (Fisher-Yates).
pub(super) fn shuffle<T>(list: &mut [T], rng: &mut Rng) {
    for i in (1..list.len()).rev() {
        list.swap(i, rng.below(i as u32 + 1) as usize);
    }
}

/// Whether a task, by all that makes it, may be of a split: a tenth of what could be asked is validation's, the rest training's.
pub(super) fn within(split: Split, mark: &str) -> bool {
    // FNV-1a, the same on every machine.
    let step = |h: u64, byte: u8| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = mark.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    split.held_out() || hash.is_multiple_of(10) == (split == Split::Val)
}
