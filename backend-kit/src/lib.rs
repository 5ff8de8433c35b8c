//! What a network backend of delayline needs besides its store, for the included backends and for yours.
//!
//! | module | what it is |
//! |---|---|
//! | [`claims`] | [`ListeningSubscription`]: single-flight claims, waiting, giving back unreceived tasks |
//! | [`notify`] | [`Notifier`], [`Listener`]: notifications over one supervised connection |
//! | [`reconnect`] | [`Reconnect`]: one connection that many callers share, reconnected after it breaks |
//! | [`backoff`] | [`Backoff`]: pauses between failing attempts |
//! | [`lifecycle`] | [`Lifecycle`]: whether a backend is open, and which queues are consumed through it |
//! | [`answers`] | [`Answers`]: one answer for each item of a call that is sent in pieces |
//! | [`options`] | [`UrlForm`]: URLs and their options |
//! | [`tls`] | whose cryptography rustls uses, and the error of a build without TLS |
//! | [`passwords`] | [`ExposedPassword`]: a warning of a password that is sent unencrypted |
//! | [`codec`] | ids, headers and numbers as bytes |
//! | [`ids`] | [`Ids`]: task ids and random numbers |
//! | [`redrive`] | [`Pace`]: the rate of a redrive |
//! | [`times`] | times in the form that stores keep |
//!
//! `conformance-tests/examples/third_party.rs` is a complete backend that uses this crate.

// Feature badges on docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod answers;
pub mod backoff;
pub mod claims;
pub mod codec;
pub mod ids;
pub mod lifecycle;
pub mod notify;
pub mod options;
pub mod passwords;
pub mod reconnect;
pub mod redrive;
pub mod times;
pub mod tls;

pub use answers::{Answers, PieceMax};
pub use backoff::Backoff;
pub use claims::{Claims, ListeningSubscription};
pub use ids::Ids;
pub use lifecycle::{Entered, Lifecycle};
pub use notify::{Listener, Local, Notification, Notifier, Source, Subscriber};
pub use options::{UrlForm, UrlOption};
pub use passwords::ExposedPassword;
pub use reconnect::{Connected, Reconnect};
pub use redrive::Pace;
