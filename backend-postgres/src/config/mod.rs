//! How a Postgres backend is set up: its settings, URLs that set them, and the capabilities that follow from them.

pub(crate) mod capabilities;
mod options;
pub(crate) mod server;
pub(crate) mod settings;
mod url;
