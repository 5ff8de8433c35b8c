//! Tests of several rooms together, on a real broker.

mod gate;
