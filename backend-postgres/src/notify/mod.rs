//! Wake-ups: what tells a sleeping consumer that something was placed in its queue.

pub(crate) mod bells;
pub(crate) mod ear;
