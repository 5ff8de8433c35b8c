//! BOUND: everything has a limit, and a typed error at it.
