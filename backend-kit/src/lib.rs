//! What a network backend of delayline needs besides its store: written once, for our own backends and for yours.
//!
//! | module | what it is |
//! |---|---|
//! | [`claims`] | [`ListeningIntake`]: one claim at a time, waiting for notifications, and what nobody received is given back |
//! | [`notify`] | [`Notifier`], [`Listener`]: notifications over one connection that is watched and restored |
//! | [`reconnect`] | [`Reconnect`]: one connection that many callers share, made anew when it has broken |
//! | [`backoff`] | [`Backoff`]: how long to wait between attempts |
//! | [`lifecycle`] | [`Lifecycle`]: whether a backend is open, and which queues are consumed through it |
//! | [`answers`] | [`Answers`]: one answer for each item of a call that is made in pieces |
//! | [`options`] | [`UrlForm`]: URLs and their options |
//! | [`tls`] | whose cryptography rustls uses, and the error of a build without TLS |
//! | [`passwords`] | [`ExposedPassword`]: a warning of a password that is sent unencrypted |
//! | [`codec`] | ids, headers and numbers as bytes |
//! | [`ids`] | [`Ids`]: task ids and random numbers |
//! | [`redrive`] | [`Pace`]: the rate of a redrive |
//! | [`times`] | times as stores keep them |
//!
//! `conformance-tests/examples/third_party.rs` is a whole backend that uses it.

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
pub use claims::{Claims, ListeningIntake};
pub use ids::Ids;
pub use lifecycle::{Entered, Lifecycle};
pub use notify::{Listener, Local, Notification, Notifier, Source, Subscriber};
pub use options::{UrlForm, UrlOption};
pub use passwords::ExposedPassword;
pub use reconnect::{Connected, Reconnect};
pub use redrive::Pace;
