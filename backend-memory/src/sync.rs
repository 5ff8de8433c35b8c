//! Atomics. The interleaving tests replace this module; they replace locks, channels and tasks in their manifests.

#[cfg(delayline_interleaved)]
pub(crate) use shuttle::sync::atomic;
#[cfg(not(delayline_interleaved))]
pub(crate) use std::sync::atomic;
