//! The planner of the village: what to do next, from what was seen and heard so far.

use super::scene::{About, Act, Scene, Spot};

/// What is done next; `keep`: no constraint is broken. It knows the map, but not where people and things are before it has
/// looked or asked, so that what it does can be learnt from what it is told. `None`: all is done, or nothing helps.
pub fn next(scene: &Scene, keep: bool) -> Option<Act> {
    Planner::new(scene, keep).next()
}

/// All that is done from here to the end; `None`: it does not get there within `most` acts.
pub fn run(scene: &Scene, keep: bool, most: usize) -> Option<Vec<Act>> {
    let mut scene = scene.clone();
    let mut acts = Vec::new();
    while !scene.done() {
        let act = next(&scene, keep).filter(|_| acts.len() < most)?;
        scene.apply(act).ok()?;
        acts.push(act);
    }
    Some(acts)
}

/// What is done next to learn where something or somebody is, breaking no constraint.
pub fn find(scene: &Scene, about: About) -> Option<Act> {
    Planner::new(scene, true).find(about)
}

/// What is done next to have a thing, breaking no constraint.
pub fn get(scene: &Scene, item: usize) -> Option<Act> {
    let planner = Planner::new(scene, true);
    if planner.found(item) { planner.fetch(item) } else { planner.find(About::Item(item)) }
}

struct Planner<'a> {
    scene: &'a Scene,
    avoid: Option<usize>,
    keep: bool,
}

impl<'a> Planner<'a> {
    fn new(scene: &'a Scene, keep: bool) -> Planner<'a> {
        Planner { scene, avoid: keep.then_some(scene.forbidden), keep }
    }

    fn next(&self) -> Option<Act> {
        let scene = self.scene;
        let &(i, to) = scene.goals.iter().find(|&&(i, to)| scene.items[i].at != Spot::With(to))?;
        let person = &scene.people[to];
        if !self.found(i) {
            return self.find(About::Item(i));
        }
        if !person.known {
            return self.find(About::Person(to));
        }
        if scene.items[i].at == Spot::Bag { self.at(person.at, Act::Give(i, to)) } else { self.fetch(i) }
    }

    /// Whether it is known where a thing is to be had.
    fn found(&self, i: usize) -> bool {
        let item = &self.scene.items[i];
        match item.at {
            Spot::Bag | Spot::With(_) => true,
            Spot::At(_) => item.known,
            Spot::Sold => item.known || self.offer(i).is_some(),
        }
    }

    /// Takes or buys a thing of which that is known, or goes there, or to its owner.
    fn fetch(&self, i: usize) -> Option<Act> {
        let scene = self.scene;
        let item = &scene.items[i];
        match item.at {
            Spot::Sold => self.at(self.offer(i)?, Act::Buy(i)),
            Spot::At(place) => match item.owner.filter(|_| self.keep && !item.leave) {
                Some(owner) if !scene.people[owner].known => self.find(About::Person(owner)),
                Some(owner) => self.at(scene.people[owner].at, Act::Ask(owner, About::Item(i))),
                None => self.at(place, Act::Take(i)),
            },
            Spot::Bag | Spot::With(_) => None,
        }
    }

    /// The best place that is known to sell a thing: the cheapest that the cap allows, or just the nearest.
    fn offer(&self, i: usize) -> Option<usize> {
        let scene = self.scene;
        let item = &scene.items[i];
        let left = if self.keep { scene.cap.saturating_sub(scene.spent).min(scene.purse) } else { scene.purse };
        item.offers
            .iter()
            .filter(|&&(place, price)| price <= left && (item.known || scene.places[place].looked))
            .filter_map(|&(place, price)| Some((place, price, self.distance(place)?)))
            .min_by_key(|&(_, price, distance)| if self.keep { (price as usize, distance) } else { (distance, 0) })
            .map(|(place, ..)| place)
    }

    /// Steps to a place that can be reached.
    fn distance(&self, place: usize) -> Option<usize> {
        let path = self.scene.path(place, self.avoid);
        (place == self.scene.here || !path.is_empty()).then_some(path.len())
    }

    /// Does something at a place, or takes a step towards it.
    fn at(&self, place: usize, act: Act) -> Option<Act> {
        if place == self.scene.here { Some(act) } else { self.walk(place) }
    }

    fn walk(&self, to: usize) -> Option<Act> {
        self.scene.path(to, self.avoid).first().map(|&step| Act::Move(step))
    }

    /// Asks, or goes to where somebody can be asked.
    fn find(&self, about: About) -> Option<Act> {
        let scene = self.scene;
        let owner = match about {
            About::Item(i) => scene.items[i].owner,
            _ => None,
        };
        let known = |who: &usize| scene.people[*who].known;
        let here = |who: &usize| scene.people[*who].at == scene.here;
        let all = || owner.into_iter().chain(0..scene.people.len()).filter(known);
        if let Some(who) = all().find(here) {
            return Some(Act::Ask(who, about));
        }
        if !scene.places[scene.here].looked {
            return Some(Act::Look);
        }
        let nearest = |places: &mut dyn Iterator<Item = usize>| {
            places.filter_map(|place| Some((self.distance(place)?, place))).min().map(|(_, place)| place)
        };
        let person = nearest(&mut all().map(|who| scene.people[who].at));
        let place = || nearest(&mut (0..scene.places.len()).filter(|&place| !scene.places[place].looked));
        person.or_else(place).and_then(|place| self.walk(place))
    }
}
