//! The plots: each is a small plan of events on the state, told sentence by sentence.
//!
//! A choice is made as late as the text allows, and what cannot be seen in the text is not chosen at all.

use super::grammar::Rule;
use super::lexicon::{Kind, OPEN_AIR};
use super::state::Event;
use super::teller::Teller;
use super::village::{Entity, Relation as R};

/// A plot: its name, whether it suits a hero on a day, how likely it is then in each era, and how it goes.
type Plot = (&'static str, fn(&Teller, Entity, Entity) -> bool, [u32; 3], fn(&mut Teller, Entity));

const PLOTS: &[Plot] = &[
    ("lost thing", |t, a, _| t.get(R::Thing, a) != Entity::NONE, [4, 3, 1], lost_thing),
    ("lost pet", |t, a, _| t.get(R::Pet, a) != Entity::NONE, [4, 2, 1], lost_pet),
    ("errand", |_, _, _| true, [3, 1, 1], errand),
    ("birthday", |t, a, _| may_give(t, a), [3, 3, 6], birthday),
    ("broken", |t, a, _| may_mend(t, a), [4, 6, 1], broken),
    ("borrowed", |_, _, _| true, [3, 2, 2], borrowed),
    ("outing", |_, _, _| true, [3, 2, 8], outing),
    ("message", |_, _, _| true, [2, 1, 5], message),
    ("found", |_, _, _| true, [2, 1, 1], found),
    ("noise", |_, _, _| true, [2, 1, 6], noise),
    ("market", |t, _, d| t.get(R::Market, market_place(t)) == d, [8, 4, 2], market),
    ("letter", |_, _, _| true, [2, 3, 4], letter),
    ("journey", |t, _, _| station(t).is_some(), [0, 5, 0], journey),
];

/// The names of the plots: what stories are about.
pub(super) fn topics() -> impl Iterator<Item = &'static str> {
    PLOTS.iter().map(|plot| plot.0)
}

/// A whole story: an opening that presents the hero and the day, then a plot, whose name is returned.
pub(super) fn story(t: &mut Teller) -> &'static str {
    let scene = t.chance(1, 2);
    let day = |t: &mut Teller| {
        (t.any(Kind::Day, |_| true).expect("days"), t.any(Kind::Time, |_| true).expect("parts of the day"))
    };
    let (a, d);
    if scene {
        let (today, time) = day(t);
        d = today;
        t.say(Rule::Scene, &[d, time]);
        a = t.hero();
        t.say(Rule::About, &[a]);
        if t.chance(1, 3) {
            t.say(Rule::Habit, &[a]);
        }
    } else {
        a = t.hero();
        t.say(Rule::Once, &[a]);
        match t.choose(4, |i| [2, 1, 1, 0][i]) {
            Some(1) => t.say(Rule::About, &[a]),
            Some(2) => t.say(Rule::Habit, &[a]),
            _ => {}
        }
        let (today, time) = day(t);
        d = today;
        t.say(Rule::Day, &[a, d, time]);
    }
    place(t, a, t.get(R::House, a));
    let suits: u32 = PLOTS.iter().enumerate().map(|(i, plot)| u32::from(plot.1(t, a, d)) << i).sum();
    let era = t.era() as usize;
    let plot = t.choose(PLOTS.len(), |i| (suits >> i & 1) * PLOTS[i].2[era]).expect("some plots suit everybody");
    PLOTS[plot].3(t, a);
    PLOTS[plot].0
}

// ---- Small steps

fn place(t: &mut Teller, e: Entity, at: Entity) {
    t.state.apply(Event::At(e, at));
}

fn go(t: &mut Teller, a: Entity, to: Entity) {
    t.state.apply(Event::Goes(a, to));
    t.say(Rule::Go, &[a, to]);
}

fn go_together(t: &mut Teller, a: Entity, b: Entity, to: Entity) {
    t.state.apply(Event::Goes(a, to));
    t.state.apply(Event::Goes(b, to));
    t.say(Rule::Together, &[a, b, to]);
}

/// `a` says something to `b` by `rule`.
fn tell(t: &mut Teller, a: Entity, b: Entity, rule: Rule, args: &[Entity]) {
    t.state.apply(Event::Tells(a, b));
    t.say(rule, args);
}

fn give(t: &mut Teller, a: Entity, what: Entity, to: Entity, rule: Rule, args: &[Entity]) {
    t.state.apply(Event::Gives(a, what, to));
    t.say(rule, args);
}

/// `a`, alone or with a `friend`, goes to see `b`, at work or at home, and meets `b` there.
fn call_on(t: &mut Teller, a: Entity, friend: Option<Entity>, b: Entity) {
    let work = t.get(R::Work, b);
    let at_work = work != Entity::NONE && t.chance(3, 4);
    let at = if at_work { work } else { t.get(R::House, b) };
    place(t, b, at);
    match friend {
        Some(friend) => go_together(t, a, friend, at),
        None if at_work => go(t, a, at),
        None => {
            t.state.apply(Event::Goes(a, at));
            t.say(Rule::CallOn, &[a, b]);
        }
    }
    t.say(if at_work { Rule::AtWork } else { Rule::AtHome }, &[b]);
    aside(t, b);
}

/// Now and then a sentence about somebody who is met.
fn aside(t: &mut Teller, b: Entity) {
    match t.choose(5, |i| [4, 1, 1, 0, 0][i]) {
        Some(1) => t.say(Rule::About, &[b]),
        Some(2) => t.say(Rule::Habit, &[b]),
        _ => {}
    }
}

/// Now and then a sentence about `p`, or about something that stands somewhere in the village.
fn look_around(t: &mut Teller, p: Entity) {
    match t.choose(4, |i| [2, 1, 1, 0][i]) {
        Some(1) => t.say(Rule::Nearby, &[p]),
        Some(2) => {
            let u = fixture(t);
            t.say(Rule::Around, &[u]);
        }
        _ => {}
    }
}

/// Something that stands in the village and that the story has not mentioned yet.
fn fixture(t: &mut Teller) -> Entity {
    let mut new = 0u64;
    for (i, &u) in t.world.village.all(Kind::Fixture).iter().enumerate() {
        new |= u64::from(!t.stated(R::Stands, u)) << i;
    }
    let all = t.world.village.all(Kind::Fixture);
    all[t.choose(all.len(), |i| (new >> i & 1) as u32).expect("more fixtures than a story mentions")]
}

fn end(t: &mut Teller, a: Entity) {
    if t.chance(1, 3) {
        t.state.apply(Event::Goes(a, t.get(R::House, a)));
        t.say(Rule::GoHome, &[a]);
    }
    t.say(Rule::End, &[a]);
}

/// Somebody who lives in none of these people's houses.
fn somebody(t: &mut Teller, apart_from: &[Entity], ok: impl Fn(&Teller, Entity) -> bool) -> Option<Entity> {
    let mut fits = 0u64;
    for &c in t.world.village.all(Kind::Person) {
        let near = apart_from.iter().any(|&a| t.get(R::House, a) == t.get(R::House, c));
        fits |= u64::from(!near && ok(t, c)) << c.0;
    }
    t.any(Kind::Person, |c| fits >> c.0 & 1 == 1)
}

/// A public place or a workplace, other than those given.
fn somewhere(t: &mut Teller, apart_from: &[Entity]) -> Entity {
    let v = &t.world.village;
    t.any(Kind::Place, |p| v.get(R::Near, p) != Entity::NONE && !apart_from.contains(&p)).expect("enough places")
}

fn market_place(t: &Teller) -> Entity {
    let places = t.world.village.all(Kind::Place);
    *places.iter().find(|&&p| t.get(R::Market, p) != Entity::NONE).expect("a market place")
}

/// The second part of a plot with thanks and perhaps a reward: `c` has got something from `a`.
fn thanks(t: &mut Teller, a: Entity, c: Entity, f: Entity) {
    tell(t, c, a, Rule::Thanks, &[a, c, f]);
}

// ---- The plots

fn lost_thing(t: &mut Teller, a: Entity) {
    let (o, b) = (t.get(R::Thing, a), t.get(R::Friend, a));
    t.say(Rule::Thing, &[o]);
    t.say(Rule::MissThing, &[a, o]);
    call_on(t, a, None, b);
    tell(t, a, b, Rule::AskThing, &[a, b, o]);
    let here = t.state.at(a);
    if t.chance(1, 2) {
        let p = somewhere(t, &[here]);
        place(t, o, p);
        tell(t, b, a, Rule::SawThing, &[b, o, p]);
        go(t, a, p);
        look_around(t, p);
        t.state.apply(Event::Takes(a, o));
        t.say(Rule::FindThing, &[a, o]);
        t.say(Rule::UseThing, &[a, o]);
        end(t, a);
    } else {
        let p = somewhere(t, &[here, t.get(R::Work, a)]);
        place(t, o, p);
        tell(t, b, a, Rule::GuessThing, &[a, b, p]);
        go_together(t, a, b, p);
        look_around(t, p);
        t.state.apply(Event::Takes(a, o));
        t.say(Rule::FindThing, &[a, o]);
        t.say(Rule::UseBoth, &[a, b, o]);
        t.say(Rule::EndBoth, &[a, b]);
    }
}

fn lost_pet(t: &mut Teller, a: Entity) {
    let x = t.get(R::Pet, a);
    let haunt = t.get(R::Haunt, x);
    place(t, x, haunt);
    t.say(Rule::Pet, &[x]);
    t.say(Rule::MissPet, &[a, x]);
    let mut p = somewhere(t, &[haunt]);
    go(t, a, p);
    t.say(Rule::LookPet, &[a, x, p]);
    if t.chance(1, 2) {
        p = somewhere(t, &[haunt, p]);
        go(t, a, p);
        t.say(Rule::LookPet, &[a, x, p]);
    }
    if t.chance(2, 3) {
        let b = somebody(t, &[a], |_, _| true).expect("neighbours");
        place(t, b, p);
        tell(t, a, b, Rule::AskPet, &[a, b, x]);
    }
    t.say(Rule::Haunt, &[a, x]);
    go(t, a, haunt);
    t.state.apply(Event::Takes(a, x));
    t.say(Rule::FindPet, &[a, x]);
    t.state.apply(Event::Goes(a, t.get(R::House, a)));
    t.say(Rule::HomePet, &[a, x]);
    t.say(Rule::End, &[a]);
}

fn errand(t: &mut Teller, a: Entity) {
    let b = somebody(t, &[], |t, b| b != a && makes_food(t, b)).expect("makers of food");
    let work = t.get(R::Work, b);
    place(t, b, work);
    t.state.apply(Event::Goes(a, work));
    t.say(Rule::Helping, &[a, b]);
    let f = food_of(t, b);
    let c = somebody(t, &[a, b], |_, _| true).expect("neighbours");
    tell(t, b, a, Rule::AskErrand, &[a, b, c, f]);
    t.state.apply(Event::Has(b, f));
    give(t, b, f, a, Rule::TakeFood, &[a, f]);
    match t.choose(3, |i| [1, 2, 2][i]) {
        Some(1) => t.say(Rule::Trouble, &[a, f]),
        Some(2) => {
            let x = animal_of_another(t, a);
            t.say(Rule::Sniff, &[a, x, f]);
            t.say(Rule::Shoo, &[a, x]);
        }
        _ => {}
    }
    call_on(t, a, None, c);
    give(t, a, f, c, Rule::GiveFood, &[a, c, f]);
    thanks(t, a, c, f);
    if t.chance(1, 2) {
        reward(t, a, c, f);
    }
    t.state.apply(Event::Goes(a, work));
    tell(t, a, b, Rule::Report, &[a, b, c]);
    end(t, a);
}

fn reward(t: &mut Teller, a: Entity, c: Entity, not: Entity) {
    let g = t.any(Kind::Food, |g| g != not).expect("foods");
    t.state.apply(Event::Has(c, g));
    give(t, c, g, a, Rule::Reward, &[a, c, g]);
}

fn makes_food(t: &Teller, b: Entity) -> bool {
    t.world.village.all(Kind::Food).iter().any(|&f| t.get(R::Maker, f) == b)
}

fn food_of(t: &mut Teller, b: Entity) -> Entity {
    let v = &t.world.village;
    t.any(Kind::Food, |f| v.get(R::Maker, f) == b).expect("a maker of food")
}

fn animal_of_another(t: &mut Teller, a: Entity) -> Entity {
    let v = &t.world.village;
    t.any(Kind::Animal, |x| v.get(R::Owner, x) != a).expect("animals")
}

/// Perhaps a sentence about who makes a food.
fn made(t: &mut Teller, f: Entity) {
    if t.chance(1, 2) {
        t.say(Rule::Made, &[f]);
    }
}

/// Whether the favourite food of the hero's friend is made by a third person.
fn may_give(t: &Teller, a: Entity) -> bool {
    let c = t.get(R::Friend, a);
    let maker = t.get(R::Maker, t.get(R::Likes, c));
    maker != a && maker != c && t.get(R::House, maker) != t.get(R::House, c)
}

fn birthday(t: &mut Teller, a: Entity) {
    let c = t.get(R::Friend, a);
    let f = t.get(R::Likes, c);
    let b = t.get(R::Maker, f);
    t.say(Rule::Birthday, &[a, c]);
    t.say(Rule::Favourite, &[c]);
    made(t, f);
    let work = t.get(R::Work, b);
    place(t, b, work);
    go(t, a, work);
    t.say(Rule::AtWork, &[b]);
    tell(t, a, b, Rule::AskFood, &[a, b, c, f]);
    tell(t, b, a, Rule::Price, &[a, b, c]);
    t.state.apply(Event::Has(b, f));
    give(t, b, f, a, Rule::HandOver, &[a, b, f]);
    call_on(t, a, None, c);
    give(t, a, f, c, Rule::Surprise, &[a, c, f]);
    thanks(t, a, c, f);
    t.say(Rule::EndBoth, &[a, c]);
}

fn may_mend(t: &Teller, a: Entity) -> bool {
    let o = t.get(R::Thing, a);
    let fixer = if o == Entity::NONE { o } else { t.get(R::Fixer, o) };
    fixer != Entity::NONE && fixer != a
}

fn broken(t: &mut Teller, a: Entity) {
    let o = t.get(R::Thing, a);
    let b = t.get(R::Fixer, o);
    t.state.apply(Event::Has(a, o));
    t.say(Rule::Thing, &[o]);
    t.say(Rule::Broken, &[a, o]);
    if t.chance(1, 2) {
        t.say(Rule::Mender, &[o]);
    }
    let work = t.get(R::Work, b);
    place(t, b, work);
    go(t, a, work);
    t.say(Rule::AtWork, &[b]);
    give(t, a, o, b, Rule::AskFix, &[a, b, o]);
    if t.chance(1, 2) {
        tell(t, b, a, Rule::NeedHelp, &[a, b, o]);
    }
    give(t, b, o, a, Rule::Fix, &[a, b, o]);
    let g = t.any(Kind::Food, |_| true).expect("foods");
    tell(t, a, b, Rule::Pay, &[a, b, g]);
    t.say(Rule::UseThing, &[a, o]);
    end(t, a);
}

fn borrowed(t: &mut Teller, a: Entity) {
    let b = somebody(t, &[a], |t, b| t.get(R::Thing, b) != Entity::NONE).expect("owners");
    let o = t.get(R::Thing, b);
    t.state.apply(Event::Has(b, o));
    t.say(Rule::Wish, &[a, o]);
    t.say(Rule::Thing, &[o]);
    call_on(t, a, None, b);
    let home = t.state.at(b);
    tell(t, a, b, Rule::AskBorrow, &[a, b, o]);
    give(t, b, o, a, Rule::Lend, &[a, b, o]);
    let spots = &t.world.village.spots[t.world.village.all(Kind::Thing).iter().position(|&e| e == o).expect("a thing")];
    let p = t.any(Kind::Place, |p| spots.contains(&p) && p != home).expect("a place to use it");
    go(t, a, p);
    look_around(t, p);
    t.say(Rule::Play, &[a, o]);
    if t.chance(1, 2) {
        t.state.apply(Event::Puts(a, o));
        t.say(Rule::Forget, &[a, o]);
        t.say(Rule::Remember, &[a, o]);
        t.state.apply(Event::Takes(a, o));
    }
    t.state.apply(Event::Goes(a, home));
    give(t, a, o, b, Rule::ReturnThing, &[a, b, o]);
    if t.chance(1, 2) { end(t, a) } else { t.say(Rule::EndBoth, &[a, b]) }
}

/// Two friends set out; returns the friend and the place.
fn set_out(t: &mut Teller, a: Entity) -> (Entity, Entity) {
    let b = t.get(R::Friend, a);
    call_on(t, a, None, b);
    let here = t.state.at(a);
    let p = somewhere(t, &[here]);
    tell(t, a, b, Rule::Plan, &[a, b, p]);
    go_together(t, a, b, p);
    look_around(t, p);
    (b, p)
}

fn outing(t: &mut Teller, a: Entity) {
    let (b, p) = set_out(t, a);
    t.say(Rule::Fun, &[a, b]);
    if t.chance(1, 3) {
        t.say(Rule::Fun, &[a, b]);
        t.say(Rule::EndBoth, &[a, b]);
        return;
    }
    t.say(Rule::Rain, &[a, b]);
    let not = [Entity::NONE, p, t.get(R::Work, b)];
    let dry = |t: &Teller, c| {
        let work = t.get(R::Work, c);
        !not.contains(&work) && !OPEN_AIR.contains(&t.world.name(work))
    };
    let c = somebody(t, &[a, b], dry).expect("workers");
    let work = t.get(R::Work, c);
    place(t, c, work);
    go_together(t, a, b, work);
    t.say(Rule::Shelter, &[c]);
    if t.chance(2, 3) {
        let u = fixture(t);
        tell(t, c, a, Rule::Story, &[c, u]);
    }
    t.say(Rule::Dry, &[a, b, c]);
    if t.chance(1, 2) {
        t.say(Rule::EndBoth, &[a, b]);
    }
}

fn message(t: &mut Teller, a: Entity) {
    let b = somebody(t, &[a], |_, _| true).expect("neighbours");
    call_on(t, a, None, b);
    let c = somebody(t, &[a, b], |_, _| true).expect("neighbours");
    let p = somewhere(t, &[t.state.at(b), t.get(R::Work, c)]);
    tell(t, b, a, Rule::Message, &[a, b, c, p]);
    let work = t.get(R::Work, c);
    let house = t.get(R::House, c);
    if work != Entity::NONE && t.chance(1, 2) {
        place(t, c, house);
        go(t, a, work);
        t.say(Rule::Absent, &[a, c]);
        t.state.apply(Event::Goes(a, house));
        t.say(Rule::CallOn, &[a, c]);
        t.say(Rule::AtHome, &[c]);
    } else {
        call_on(t, a, None, c);
    }
    tell(t, a, c, Rule::Tell, &[a, b, c, p]);
    for e in [b, c] {
        t.state.apply(Event::Goes(e, p));
    }
    t.say(Rule::Meeting, &[b, c, p]);
    if t.chance(1, 2) {
        end(t, a);
    }
}

fn found(t: &mut Teller, a: Entity) {
    let (b, p) = set_out(t, a);
    let c = somebody(t, &[a, b], |t, c| t.get(R::Thing, c) != Entity::NONE).expect("owners");
    let o = t.get(R::Thing, c);
    place(t, o, p);
    t.state.apply(Event::Takes(a, o));
    t.say(Rule::FoundThing, &[a, b, o]);
    if t.chance(2, 3) {
        tell(t, b, a, Rule::Quarrel, &[a, b]);
    }
    t.say(Rule::Whose, &[o]);
    call_on(t, a, Some(b), c);
    give(t, a, o, c, Rule::Bring, &[a, c, o]);
    if t.chance(1, 2) {
        reward(t, a, c, Entity::NONE);
    }
    t.say(Rule::EndBoth, &[a, b]);
}

fn noise(t: &mut Teller, a: Entity) {
    let p = somewhere(t, &[]);
    t.say(Rule::Noise, &[a, p]);
    go(t, a, p);
    let x = animal_of_another(t, a);
    let c = t.get(R::Owner, x);
    place(t, x, p);
    t.say(Rule::Stuck, &[x]);
    t.state.apply(Event::Takes(a, x));
    t.say(Rule::Free, &[a, x]);
    let house = t.get(R::House, c);
    if house != t.get(R::House, a) {
        place(t, c, house);
        t.state.apply(Event::Goes(a, house));
        t.say(Rule::CallOn, &[a, c]);
        t.say(Rule::AtHome, &[c]);
        give(t, a, x, c, Rule::BringPet, &[a, c, x]);
    }
    t.say(Rule::EndNight, &[a]);
}

fn market(t: &mut Teller, a: Entity) {
    let p = market_place(t);
    t.say(Rule::Market, &[p]);
    go(t, a, p);
    look_around(t, p);
    t.say(Rule::Crowd, &[a, p]);
    let b = somebody(t, &[a], makes_food).expect("makers of food");
    place(t, b, p);
    let g = food_of(t, b);
    let f = t.any(Kind::Food, |f| f != g).expect("foods");
    made(t, g);
    t.state.apply(Event::Has(a, f));
    t.state.apply(Event::Has(b, g));
    t.state.apply(Event::Gives(a, f, b));
    give(t, b, g, a, Rule::Swap, &[a, b, f, g]);
    let c = t.get(R::Friend, a);
    if c != b && t.chance(1, 2) {
        call_on(t, a, None, c);
        give(t, a, g, c, Rule::GiveFood, &[a, c, g]);
        thanks(t, a, c, g);
        t.say(Rule::EndBoth, &[a, c]);
    } else {
        end(t, a);
    }
}

fn letter(t: &mut Teller, a: Entity) {
    let b = somebody(t, &[a], |_, _| true).expect("neighbours");
    t.say(Rule::Letter, &[a, b]);
    aside(t, b);
    let p = somewhere(t, &[]);
    t.say(Rule::Invite, &[a, b, p]);
    place(t, b, p);
    go(t, a, p);
    look_around(t, p);
    tell(t, b, a, Rule::Showed, &[a, b]);
    if t.chance(1, 2) {
        t.say(Rule::Fun, &[a, b]);
    }
    t.say(Rule::EndBoth, &[a, b]);
}

/// Where trains stop, in the second era.
fn station(t: &Teller) -> Option<Entity> {
    t.world.village.all(Kind::Place).iter().copied().find(|&p| t.world.name(p) == "the station")
}

fn journey(t: &mut Teller, a: Entity) {
    let p = station(t).expect("a station");
    let b = t.get(R::Friend, a);
    call_on(t, a, None, b);
    if t.state.at(a) != p {
        go_together(t, a, b, p);
    }
    t.say(Rule::Train, &[a, b, p]);
    t.say(Rule::Ride, &[a, b]);
    t.say(Rule::Town, &[a, b]);
    if t.chance(1, 2) {
        t.say(Rule::Town, &[a, b]);
    }
    t.say(Rule::Back, &[a, b]);
    t.say(Rule::EndBoth, &[a, b]);
}
