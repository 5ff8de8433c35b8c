//! What a queue and all that comes of it share on the way to their store: the line, calls that are joined, and what one call
//! may carry. `queue`, `consume` and `worker` stand on it, and it knows none of them.

pub(crate) mod answers;
pub(crate) mod commit;
pub(crate) mod line;
pub(crate) mod size;
