//! LOSS: an accepted task is delivered until it ends.
