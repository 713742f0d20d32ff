//! An errand in the village as it stands: who and what is where, what one may do, and what was seen and heard.

use std::collections::VecDeque;
use std::fmt::Write;

/// Where a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// At a place.
    At(usize),
    /// With whoever runs the errand.
    Bag,
    /// With a person.
    With(usize),
    /// At the stalls that sell it.
    Sold,
}

/// Something that can be carried.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name, one word.
    pub name: String,
    /// Its owner, if that is one of the people.
    pub owner: Option<usize>,
    /// The places that sell it, and for how many coins.
    pub offers: Vec<(usize, u32)>,
    /// Where it is.
    pub at: Spot,
    /// Whether its owner was asked.
    pub leave: bool,
    /// Whether it is known where it is.
    pub known: bool,
}

/// Somebody, always at the same place.
#[derive(Clone, Debug)]
pub struct Person {
    /// The name, one word.
    pub name: String,
    /// The place.
    pub at: usize,
    /// Whether it is known where that is.
    pub known: bool,
}

/// Somewhere to be.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name, one word: "mill".
    pub name: String,
    /// Where one can go from there.
    pub ways: Vec<usize>,
    /// Whether one has looked around.
    pub looked: bool,
}

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Where a thing is, and whether its owner lends it.
    Item(usize),
    /// Where somebody is.
    Person(usize),
    /// The way to a place.
    Place(usize),
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Go to a neighbouring place.
    Move(usize),
    /// Look around.
    Look,
    /// Take a thing.
    Take(usize),
    /// Give a thing to somebody.
    Give(usize, usize),
    /// Ask somebody.
    Ask(usize, About),
    /// Buy a thing.
    Buy(usize),
}

/// The constraints, by the names that breaches bear.
pub const FORBIDDEN: &str = "forbidden place";
/// More spent than may be.
pub const CAP: &str = "spending cap";
/// Something taken whose owner was not asked.
pub const ASK: &str = "ask first";

/// An errand.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Where one can be.
    pub places: Vec<Place>,
    /// Who is there.
    pub people: Vec<Person>,
    /// What can be carried.
    pub items: Vec<Item>,
    /// Which thing has to come to whom.
    pub goals: Vec<(usize, usize)>,
    /// Where one must not go.
    pub forbidden: usize,
    /// How many coins may be spent.
    pub cap: u32,
    /// Where one is.
    pub here: usize,
    /// Coins left.
    pub purse: u32,
    /// Coins spent.
    pub spent: u32,
}

impl Scene {
    /// Whether everything came to whom it had to.
    pub fn done(&self) -> bool {
        !self.goals.is_empty() && self.goals.iter().all(|&(item, to)| self.items[item].at == Spot::With(to))
    }

    /// The price of a thing where one is.
    pub fn price(&self, item: usize) -> Option<u32> {
        let offer = self.items[item].offers.iter().find(|(place, _)| *place == self.here);
        offer.filter(|_| self.items[item].at == Spot::Sold).map(|&(_, price)| price)
    }

    /// The constraints that an act would break if it can be done.
    pub fn judge(&self, act: Act) -> Option<&'static str> {
        match act {
            Act::Move(to) if to == self.forbidden && self.places[self.here].ways.contains(&to) => Some(FORBIDDEN),
            Act::Take(i) => {
                let item = &self.items[i];
                (item.at == Spot::At(self.here) && item.owner.is_some() && !item.leave).then_some(ASK)
            }
            Act::Buy(i) => {
                let price = self.price(i).filter(|&price| price <= self.purse)?;
                (self.spent + price > self.cap).then_some(CAP)
            }
            _ => None,
        }
    }

    /// Does something; what one sees or hears.
    ///
    /// # Errors
    /// In words: it cannot be done. Nothing has changed then.
    pub fn apply(&mut self, act: Act) -> Result<String, String> {
        match act {
            Act::Move(to) if to == self.here => Err(format!("You are at the {} already.", self.places[to].name)),
            Act::Move(to) if !self.places[self.here].ways.contains(&to) => {
                Err(format!("There is no way from here to the {}.{}", self.places[to].name, self.ways()))
            }
            Act::Move(to) => {
                self.here = to;
                Ok(self.look())
            }
            Act::Look => Ok(self.look()),
            Act::Take(i) => {
                let item = &mut self.items[i];
                match item.at {
                    Spot::At(place) if place == self.here => {
                        (item.at, item.known) = (Spot::Bag, true);
                        Ok(format!("You have the {}.", item.name))
                    }
                    Spot::Bag => Err(format!("You have the {} already.", item.name)),
                    Spot::Sold if item.offers.iter().any(|(place, _)| *place == self.here) => {
                        Err(format!("One has to pay for the {}.", item.name))
                    }
                    _ => Err(format!("No {} to take here.", item.name)),
                }
            }
            Act::Buy(i) => {
                let (price, purse) = (self.price(i), self.purse);
                let item = &mut self.items[i];
                let Some(price) = price else { return Err(format!("No {} for sale here.", item.name)) };
                if price > purse {
                    return Err(format!("{} for the {}: you have only {}.", coins(price), item.name, coins(purse)));
                }
                (item.at, item.known) = (Spot::Bag, true);
                self.purse -= price;
                self.spent += price;
                Ok(format!("You paid {} and have the {}.", coins(price), item.name))
            }
            Act::Give(i, to) => {
                let (item, person) = (&mut self.items[i], &self.people[to]);
                if item.at != Spot::Bag {
                    return Err(format!("You do not have the {}.", item.name));
                }
                if person.at != self.here {
                    return Err(format!("{} is not here.", person.name));
                }
                item.at = Spot::With(to);
                Ok(format!("{} has the {} now.", person.name, item.name))
            }
            Act::Ask(who, _) if self.people[who].at != self.here => {
                Err(format!("{} is not here.", self.people[who].name))
            }
            Act::Ask(who, about) => {
                let said = self.say(who, about);
                self.people[who].known = true;
                Ok(format!("{}: {said}", self.people[who].name))
            }
        }
    }

    fn ways(&self) -> String {
        let names: Vec<&str> = self.places[self.here].ways.iter().map(|&to| self.places[to].name.as_str()).collect();
        format!(" Ways: {}.", names.join(", "))
    }

    fn look(&mut self) -> String {
        let here = self.here;
        self.places[here].looked = true;
        let mut seen = Vec::new();
        for person in self.people.iter_mut().filter(|person| person.at == here) {
            person.known = true;
            seen.push(person.name.clone());
        }
        for item in self.items.iter_mut().filter(|item| item.at == Spot::At(here)) {
            item.known = true;
            seen.push(match item.owner {
                Some(owner) => format!("{}'s {}", self.people[owner].name, item.name),
                None => item.name.clone(),
            });
        }
        let mut text = format!("You are at the {}.", self.places[here].name);
        if !seen.is_empty() {
            let _ = write!(text, " Here: {}.", seen.join(", "));
        }
        let sold: Vec<String> = (0..self.items.len())
            .filter_map(|i| Some(format!("{} {}", self.items[i].name, coins(self.price(i)?))))
            .collect();
        if !sold.is_empty() {
            let _ = write!(text, " Sold: {}.", sold.join(", "));
        }
        text + &self.ways()
    }

    /// What somebody who is here answers.
    fn say(&mut self, who: usize, about: About) -> String {
        match about {
            About::Person(person) if person == who => "I am here.".to_owned(),
            About::Person(person) => {
                let person = &mut self.people[person];
                person.known = true;
                format!("{} is at the {}.", person.name, self.places[person.at].name)
            }
            About::Place(to) if to == self.here => "You are there.".to_owned(),
            About::Place(to) => {
                let names: Vec<String> =
                    self.path(to, None).iter().map(|&at| format!("the {}", self.places[at].name)).collect();
                format!("Go to {}.", names.join(", then "))
            }
            About::Item(i) => {
                let item = &mut self.items[i];
                item.known = true;
                let own = item.owner == Some(who);
                item.leave |= own;
                let name = match item.owner {
                    Some(_) if own => format!("my {}", item.name),
                    Some(owner) => format!("{}'s {}", self.people[owner].name, item.name),
                    None => format!("the {}", item.name),
                };
                let leave = if own { " You may take it." } else { "" };
                match item.at {
                    Spot::At(place) => format!("{name} {} at the {}.{leave}", is(&item.name), self.places[place].name),
                    Spot::Bag => format!("you have {name}.{leave}"),
                    Spot::With(person) if person == who => format!("I have {name}."),
                    Spot::With(person) => format!("{} has {name}.", self.people[person].name),
                    Spot::Sold => {
                        let offers: Vec<String> = item
                            .offers
                            .iter()
                            .map(|&(place, price)| format!("at the {} for {}", self.places[place].name, coins(price)))
                            .collect();
                        format!("{name} {} sold {}.", is(&item.name), offers.join(" and "))
                    }
                }
            }
        }
    }

    /// The places on the shortest way to another one, with that one and not around `avoid`; empty where there is no way.
    pub fn path(&self, to: usize, avoid: Option<usize>) -> Vec<usize> {
        // From the goal, so that each place knows where to go next.
        let mut next = vec![usize::MAX; self.places.len()];
        let mut queue = VecDeque::from([to]);
        next[to] = to;
        while let Some(at) = queue.pop_front() {
            for &from in &self.places[at].ways {
                if next[from] == usize::MAX && (Some(from) != avoid || from == self.here) {
                    next[from] = at;
                    queue.push_back(from);
                }
            }
        }
        let mut path = Vec::new();
        let mut at = self.here;
        while at != to && next[at] != usize::MAX && path.len() < self.places.len() {
            at = next[at];
            path.push(at);
        }
        if Some(to) == avoid && to != self.here { Vec::new() } else { path }
    }
}

/// "is", or "are": eggs are many.
pub fn is(name: &str) -> &'static str {
    if name.ends_with('s') { "are" } else { "is" }
}

/// `1 coin`, `2 coins`.
pub fn coins(n: u32) -> String {
    if n == 1 { "1 coin".to_owned() } else { format!("{n} coins") }
}
