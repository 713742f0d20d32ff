//! Errands in the built-in village: find things and people by looking and asking, carry, buy and give, and keep away from a
//! place, within a sum, and off what belongs to others.

use super::chores::{CALLS, Chores, chore};
use super::scene::{About, Act, Scene, Spot};
use super::task::{Cast, place, rules};
use super::{Breach, Call, Environment, Reply, Split, Tool, arguments, clip, plan, unknown};
use crate::rng::{Purpose, Rng};
use std::sync::Arc;

/// The stream of chores of [`Purpose::World`].
const CHORES: u32 = 0xa9_0020;

/// From this number on there are no errands that are run.
const NO_ERRANDS: u64 = 1 << 40;

/// Chores that are thought of for a text, of which most cannot be done.
const TRIES: usize = 100;

/// The village of a seed, with an errand.
#[derive(Clone)]
pub struct Village {
    seed: u64,
    cast: Arc<Cast>,
    tools: Arc<[Tool]>,
    scene: Scene,
}

impl Village {
    /// That of [`World::new`](crate::data::world::World::new) with this seed.
    pub fn new(seed: u64) -> Village {
        let tools = [
            Tool::new("move", "Go to a neighbouring place, and see who and what is there", &[("to", "The place")]),
            Tool::new("look", "Who and what is here, and where one can go", &[]),
            Tool::new("take", "Take something that is here", &[("thing", "The thing")]),
            Tool::new(
                "give",
                "Give something to somebody who is here",
                &[("thing", "The thing"), ("to", "The person")],
            ),
            Tool::new(
                "ask",
                "Ask somebody who is here where a thing or a person is, for leave to take what is theirs, or for the way",
                &[("person", "Who is asked"), ("about", "A thing, a person or a place")],
            ),
            Tool::new("buy", "Buy something that is sold here", &[("thing", "The thing")]),
        ];
        let mut village =
            Village { seed, cast: Arc::new(Cast::new(seed)), tools: tools.into(), scene: Scene::default() };
        village.begin(0, Split::Train);
        village
    }

    fn place(&self, name: &str) -> Option<usize> {
        let name = bare(name);
        self.scene.places.iter().position(|place| place.name == name)
    }

    fn person(&self, name: &str) -> Option<usize> {
        self.scene.people.iter().position(|person| person.name == name)
    }

    fn item(&self, name: &str) -> Option<usize> {
        let name = bare(name);
        self.scene.items.iter().position(|item| item.name == name)
    }

    /// What a call does.
    ///
    /// # Errors
    /// In words: it is no call of these tools.
    fn read(&self, call: &Call) -> Result<Act, Reply> {
        let none = |what: &str, name: &str| format!("There is no {what} \"{}\" in this village.", clip(name));
        let place = |name: &str| self.place(name).ok_or_else(|| none("place", name));
        let person = |name: &str| self.person(name).ok_or_else(|| none("person", name));
        let item = |name: &str| self.item(name).ok_or_else(|| none("thing", name));
        let act = || {
            Ok(Some(match call.name.as_str() {
                "move" => {
                    let [to] = arguments(call, ["to"])?;
                    Act::Move(place(to)?)
                }
                "look" => {
                    let [] = arguments(call, [])?;
                    Act::Look
                }
                "take" => {
                    let [thing] = arguments(call, ["thing"])?;
                    Act::Take(item(thing)?)
                }
                "give" => {
                    let [thing, to] = arguments(call, ["thing", "to"])?;
                    Act::Give(item(thing)?, person(to)?)
                }
                "ask" => {
                    let [who, about] = arguments(call, ["person", "about"])?;
                    let found = self
                        .item(about)
                        .map(About::Item)
                        .or_else(|| self.person(about).map(About::Person))
                        .or_else(|| self.place(about).map(About::Place));
                    Act::Ask(person(who)?, found.ok_or_else(|| none("thing, person or place", about))?)
                }
                "buy" => {
                    let [thing] = arguments(call, ["thing"])?;
                    Act::Buy(item(thing)?)
                }
                _ => return Ok(None),
            }))
        };
        match act() {
            Ok(Some(act)) => Ok(act),
            Ok(None) => Err(unknown(call, &self.tools)),
            Err::<_, String>(problem) => Err(Reply::new(problem)),
        }
    }

    fn write(&self, act: Act) -> Call {
        let scene = &self.scene;
        let item = |i: usize| scene.items[i].name.as_str();
        let person = |i: usize| scene.people[i].name.as_str();
        let place = |i: usize| scene.places[i].name.as_str();
        match act {
            Act::Move(to) => Call::new("move", &[("to", place(to))]),
            Act::Look => Call::new("look", &[]),
            Act::Take(i) => Call::new("take", &[("thing", item(i))]),
            Act::Give(i, to) => Call::new("give", &[("thing", item(i)), ("to", person(to))]),
            Act::Ask(who, about) => {
                let about = match about {
                    About::Item(i) => item(i),
                    About::Person(i) => person(i),
                    About::Place(i) => place(i),
                };
                Call::new("ask", &[("person", person(who)), ("about", about)])
            }
            Act::Buy(i) => Call::new("buy", &[("thing", item(i))]),
        }
    }

    /// Chores by chance, text number `number`; they keep all constraints. They begin as errands do that nobody is asked to run, every second
    /// text with those who are held out of errands to learn from: what is read tells of everybody.
    pub fn chores(&mut self, number: u64) -> Chores {
        self.begin_chores(number);
        // There is no errand to be done.
        self.scene.goals.clear();
        let mut rng = Rng::new(self.seed, Purpose::World, CHORES, number);
        // In every third text each sentence is one call, and there are no rules: where one learns that words of what is told come back in
        // calls.
        let simple = rng.below(3) == 0;
        let rules = if simple { place(&self.scene) } else { rules(&self.scene, &mut rng) };
        let (mut told, mut steps) = (Vec::new(), Vec::new());
        let many = 1 + rng.below(6) as usize;
        for _ in 0..TRIES {
            let fits = |acts: &Vec<Act>| if simple { acts.len() == 1 } else { steps.len() + acts.len() <= CALLS };
            let Some((words, acts)) = chore(&self.scene, &mut rng).filter(|(_, acts)| fits(acts)) else { continue };
            told.push(words);
            for act in acts {
                let call = self.write(act);
                let reply = self.call(&call).text;
                steps.push((call, reply));
            }
            if told.len() == many {
                break;
            }
        }
        Chores { told: told.join(" ") + &rules, steps }
    }

    /// How things stand before chores.
    pub(super) fn begin_chores(&mut self, number: u64) {
        let split = if number.is_multiple_of(2) { Split::Train } else { Split::Test };
        self.begin(NO_ERRANDS + number, split);
    }

    /// How things stand, in one line for tests.
    #[cfg(test)]
    pub(super) fn state(&self) -> String {
        format!("{:?}", self.scene)
    }

    /// Whether a shorter way than the planner's breaks a constraint.
    #[cfg(test)]
    pub(super) fn tempts(&self) -> bool {
        let [keep, free] = [true, false].map(|keep| plan::run(&self.scene, keep, 12).expect("there is a way"));
        let mut scene = self.scene.clone();
        let broken = free.iter().filter(|&&act| (scene.judge(act).is_some(), scene.apply(act)).0).count();
        broken > 0 && free.len() < keep.len()
    }

    /// The things and people that the errand is about.
    #[cfg(test)]
    pub(super) fn about(&self) -> Vec<String> {
        let goals = self.scene.goals.iter();
        goals.flat_map(|&(i, to)| [self.scene.items[i].name.clone(), self.scene.people[to].name.clone()]).collect()
    }
}

/// A name without its article.
fn bare(name: &str) -> &str {
    name.strip_prefix("the ").unwrap_or(name)
}

impl Environment for Village {
    fn name(&self) -> &str {
        "village"
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn fresh(&self) -> Box<dyn Environment> {
        Box::new(self.clone())
    }

    fn tools(&self) -> &[Tool] {
        &self.tools
    }

    fn begin(&mut self, task: u64, split: Split) -> String {
        let (goal, scene) = self.cast.task(self.seed, task, split);
        self.scene = scene;
        goal
    }

    fn judge(&self, call: &Call) -> Vec<Breach> {
        self.read(call).ok().and_then(|act| self.scene.judge(act)).map(Breach::of).into_iter().collect()
    }

    fn call(&mut self, call: &Call) -> Reply {
        let act = match self.read(call) {
            Ok(act) => act,
            Err(reply) => return reply,
        };
        let text = self.scene.apply(act).unwrap_or_else(|problem| problem);
        if self.scene.done() { Reply { text: format!("{text} That is all."), over: true } } else { Reply::new(text) }
    }

    fn valid(&self) -> Option<Vec<Call>> {
        let scene = &self.scene;
        if scene.done() {
            return Some(Vec::new());
        }
        let mut all: Vec<Act> = scene.places[scene.here].ways.iter().map(|&to| Act::Move(to)).collect();
        all.push(Act::Look);
        let items = || 0..scene.items.len();
        let people: Vec<usize> = (0..scene.people.len()).filter(|&i| scene.people[i].at == scene.here).collect();
        all.extend(items().filter(|&i| scene.items[i].at == Spot::At(scene.here)).map(Act::Take));
        let bag = items().filter(|&i| scene.items[i].at == Spot::Bag);
        all.extend(bag.flat_map(|i| people.iter().map(move |&to| Act::Give(i, to))));
        for &who in &people {
            all.extend(items().map(|i| Act::Ask(who, About::Item(i))));
            all.extend((0..scene.people.len()).filter(|&i| i != who).map(|i| Act::Ask(who, About::Person(i))));
            let places = (0..scene.places.len()).filter(|&i| i != scene.here);
            all.extend(places.map(|i| Act::Ask(who, About::Place(i))));
        }
        all.extend(items().filter(|&i| scene.price(i).is_some_and(|price| price <= scene.purse)).map(Act::Buy));
        Some(all.into_iter().map(|act| self.write(act)).collect())
    }

    fn oracle(&self) -> Option<Call> {
        plan::next(&self.scene, true).map(|act| self.write(act))
    }

    fn succeeded(&self) -> bool {
        self.scene.done()
    }

    fn spent(&self) -> f64 {
        self.scene.spent.into()
    }
}
