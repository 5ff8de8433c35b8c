//! Atomics, which the interleaving tests replace here. They replace locks, channels and tasks in their Cargo manifest.

#[cfg(delayline_interleaved)]
pub(crate) use shuttle::sync::atomic;
#[cfg(not(delayline_interleaved))]
pub(crate) use std::sync::atomic;
