//! The scenarios. Each runs once on a store, and returns the figures and the result of the books.

mod far_future;
mod herd;
mod order_timeout;
mod retry_storm;
mod scene;
mod session_expiry;
mod steady;

use delayline::{Capabilities, Support};

pub(super) use self::scene::Scene;
use super::args::Scenario;
use super::figures::Run;
use crate::exit::Failure;

/// What a store lacks for a scenario; `None` if it can run it.
pub(super) fn lacks(scenario: Scenario, caps: &Capabilities) -> Option<&'static str> {
    match scenario {
        Scenario::Herd | Scenario::Steady | Scenario::RetryStorm | Scenario::FarFuture => None,
        Scenario::OrderTimeout if caps.cancel == Support::Unsupported => Some("cancel"),
        Scenario::OrderTimeout => None,
        Scenario::SessionExpiry if caps.replace != Support::Definite => Some("replace"),
        Scenario::SessionExpiry if caps.reschedule != Support::Definite => Some("a move with a definite answer"),
        Scenario::SessionExpiry if caps.cancel != Support::Definite => Some("a cancel with a definite answer"),
        Scenario::SessionExpiry => None,
    }
}

/// Runs a scenario once.
pub(super) async fn play(scene: &Scene<'_>) -> Result<Run, Failure> {
    match scene.scenario {
        Scenario::Herd => herd::play(scene).await,
        Scenario::Steady => steady::play(scene).await,
        Scenario::OrderTimeout => order_timeout::play(scene).await,
        Scenario::SessionExpiry => session_expiry::play(scene).await,
        Scenario::RetryStorm => retry_storm::play(scene).await,
        Scenario::FarFuture => far_future::play(scene).await,
    }
}
