//! One process's consumption of one queue: what has arrived, what is under lease, and how much is wanted.
//!
//! All subscriptions of a queue share one line, and leases outlive them ([`leases`]). A lease is an unacknowledged message
//! on the line's channel and a timer here; when the channel is lost, all its leases are. What comes is brought by the
//! line's pump ([`supply`]).
//!
//! 1. A message is in exactly one place: the pool (arrived, claimed by nobody), the leases, or on its way back.
//! 2. What leaves the leases or the pool is acknowledged only after whatever replaces it was confirmed by the broker.
//! 3. What nobody claims within 200 ms goes back to the broker, and no more is asked for until the next claim.

mod claims;
mod leases;
mod state;
mod supply;

pub(crate) use self::claims::Found;
pub(crate) use self::leases::{Looked, unclear};
pub(crate) use self::state::{Held, Leased, Line};
pub(crate) use self::supply::Came;
