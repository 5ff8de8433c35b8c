//! The memory backend through the trait: what its own design promises beyond the common rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes;
mod clocks;
mod leases;
mod limits;
mod support;
mod waking;
