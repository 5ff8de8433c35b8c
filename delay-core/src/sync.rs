//! Atomics, which the interleaving tests replace; locks, channels and tasks they replace in their manifests.

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic;
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic;
