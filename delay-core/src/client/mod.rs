//! What `queue`, `consume` and `worker` share to reach their store: the line, joined calls, and the size of a call.
//! This module knows none of those three.

pub(crate) mod answers;
pub(crate) mod commit;
pub(crate) mod line;
pub(crate) mod size;
