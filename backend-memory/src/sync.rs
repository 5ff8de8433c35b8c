//! Atomics, which the interleaving tests replace; locks, channels and tasks they replace in their manifests.

#[cfg(delayline_interleaved)]
pub(crate) use shuttle::sync::atomic;
#[cfg(not(delayline_interleaved))]
pub(crate) use std::sync::atomic;
