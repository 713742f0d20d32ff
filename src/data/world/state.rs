//! Who and what is where while a story is told.

use super::village::Entity;

/// Something that is so, or that happens, in a story. Replaying the list tells where everything is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody or something is at a place when it first appears.
    At(Entity, Entity),
    /// Somebody has a thing when it first appears.
    Has(Entity, Entity),
    /// Somebody goes to a place, with all that they carry.
    Goes(Entity, Entity),
    /// Somebody takes a thing, or an animal, from where both are.
    Takes(Entity, Entity),
    /// Somebody puts down a thing where they are.
    Puts(Entity, Entity),
    /// Somebody gives a thing to somebody who is there.
    Gives(Entity, Entity, Entity),
    /// Somebody says something to somebody who is there.
    Tells(Entity, Entity),
}

/// Where everything is: for a person or something lying about a place, for something carried a person.
#[derive(Default)]
pub(super) struct State {
    at: Vec<Entity>,
    events: Vec<Event>,
}

impl State {
    /// Forgets everything; there are `entities` entities.
    pub fn reset(&mut self, entities: usize) {
        self.at.clear();
        self.at.resize(entities, Entity::NONE);
        self.events.clear();
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Where `e` is; `NONE` before it has appeared.
    pub fn at(&self, e: Entity) -> Entity {
        self.at[e.0 as usize]
    }

    /// Lets the event happen.
    pub fn apply(&mut self, event: Event) {
        self.events.push(event);
        match event {
            Event::At(e, place) | Event::Goes(e, place) => self.at[e.0 as usize] = place,
            Event::Has(a, what) | Event::Takes(a, what) => self.at[what.0 as usize] = a,
            Event::Puts(a, what) => self.at[what.0 as usize] = self.at(a),
            Event::Gives(_, what, to) => self.at[what.0 as usize] = to,
            Event::Tells(..) => {}
        }
    }
}
