//! Replaces `http` in a build without it, and refuses `--metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use delayline::Queue;

use super::gate;
use crate::exit::Failure;
use crate::missing::not_built;

/// There is none.
pub(super) struct Served(Infallible);

pub(super) fn record() -> Result<Infallible, Failure> {
    Err(not_built("`--metrics`", "metrics-server"))
}

pub(super) async fn serve(
    _: SocketAddr,
    handle: Infallible,
    _: Arc<OnceLock<Queue<Bytes>>>,
    _: Arc<gate::Shared>,
) -> Result<(Served, SocketAddr), Failure> {
    match handle {}
}
