//! What a process consumes: a line for each queue, the pump that moves it, and giving back what was taken.

pub(crate) mod giving;
pub(crate) mod line;
pub(crate) mod lines;
pub(crate) mod pump;
