//! CLEAR: what you are told is true.
