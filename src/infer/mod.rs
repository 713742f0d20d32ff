//! Inference: many texts written side by side, as text.
//!
//! | where | what |
//! |-------|------|
//! | [`chat`] | a conversation |
//! | [`engine`] | requests in a queue, the sequences that are being written, what was read before |
//! | [`schema`] | text that fits a JSON schema |
//! | [`stream`] | tokens to whole characters, up to a stop string |
//!
//! Below are the [sequences](crate::model::sequence) of tokens; above are who asks: a chat, a server.

pub mod chat;
pub mod engine;
pub mod schema;
pub mod stream;

pub use chat::{Answer, Conversation};
pub use engine::{Engine, Event, Finish, Job, Limits, Refused, Sink, Usage};
pub use stream::TextStream;
