//! What happened: every call with its arguments, its answer and both times, in one list that checkers read and a file
//! keeps.
//!
//! The idea is Jepsen's (Kingsbury, "Call me maybe", 2013): clients note when a call began and how it ended, and what
//! ended without an answer stays in the list as [`Unknown`](What::Unknown), because it may have taken effect.

mod event;
mod file;
mod recorder;
mod writing;

pub use event::{
    Accepted, Answer, Change, ChangeAnswer, Content, Delivered, Disposition, Due, Event, Extended, Held, Item, Op,
    Planned, Tally, What,
};
pub use file::{DeclaredOrder, Header, ReadError, Recording};
pub use recorder::Recorded;
pub use writing::History;
