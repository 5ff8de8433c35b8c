//! Counts and times of what happens to tasks, through the facade of the crate `metrics`: `docs/metrics.md` lists them.
//!
//! The core records them where things happen, so that every backend has the same. What only a backend sees, it tells by
//! [`round_trip`] and [`reconnected`]. Without the Cargo feature `metrics` every function here is empty.
//!
//! With it, an application installs a recorder of its choice, such as `metrics-exporter-prometheus`, and may call
//! [`describe`] to give it the units and what they mean.

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;
mod what;

#[cfg(not(feature = "metrics"))]
use self::off as recorder;
#[cfg(feature = "metrics")]
use self::on as recorder;
pub(crate) use self::recorder::{Flight, count, delivered, levels, noting};
pub use self::recorder::{begin, describe, reconnected, round_trip};
pub(crate) use self::what::{Event, Levels};
