//! One process's consumption of one queue: what has arrived, what is under lease, and how much is wanted.
//!
//! All subscriptions of a queue share one line, and leases outlive them ([`leases`]). A lease is an unacknowledged
//! message on the line's channel, and a timer here. When the channel is lost, all its leases are lost. The line's pump
//! receives the messages ([`supply`]).
//!
//! 1. A message is in exactly one place: the pool (arrived and unclaimed), the leases, or on its way back.
//! 2. A message that leaves the leases or the pool is acknowledged only after the broker has confirmed its replacement,
//!    if any.
//! 3. A message that is not claimed within 200 ms returns to the broker, and no more are requested until the next
//!    claim.

mod claims;
mod leases;
mod state;
mod supply;

pub(crate) use self::claims::Found;
pub(crate) use self::leases::{Looked, unclear};
pub(crate) use self::state::{Held, Leased, Line};
pub(crate) use self::supply::Came;
