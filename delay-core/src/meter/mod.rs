//! Metrics of what happens to tasks, through the facade of the crate `metrics`. `docs/metrics.md` lists them.
//!
//! The core records them, so that every backend has the same metrics. A backend reports what only it can see, through
//! [`round_trip`] and [`reconnected`]. Without the Cargo feature `metrics`, every function here does nothing.
//!
//! With the feature, an application installs a recorder of its choice, such as `metrics-exporter-prometheus`, and may
//! call [`describe`] to give it the descriptions and units.

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
