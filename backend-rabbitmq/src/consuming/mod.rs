//! Consumption by a process: a line for each queue, the pump that drives it, and the return of messages.

pub(crate) mod giving;
pub(crate) mod line;
pub(crate) mod lines;
pub(crate) mod pump;
