//! The task that serves all listeners, over one connection at a time.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use delayline_core::{Result, meter};
use tokio::sync::watch;
use tokio::time::timeout;

use super::book::Shared;
use super::source::{Source, Subscriber};
use crate::Backoff;

pub(super) struct Service<S: Source> {
    pub(super) source: S,
    /// The backend's name in metrics.
    pub(super) name: &'static str,
    pub(super) answer_timeout: Duration,
    /// Changes when another connection to the server was lost.
    pub(super) troubles: watch::Receiver<u64>,
    pub(super) shared: Arc<Shared<S::Key>>,
}

/// Runs until there are no listeners.
pub(super) async fn serve<S: Source>(service: Arc<Service<S>>) {
    let (shared, backend) = (&service.shared, service.name);
    let mut backoff = Backoff::new();
    let mut was_lost = false;
    while !shared.ended() {
        tokio::select! {
            () = backoff.wait() => {}
            () = shared.until_unwanted() => continue,
        }
        // From here on, this connection is checked when others to the server are in trouble.
        let mut troubles = service.troubles.clone();
        troubles.mark_unchanged();
        let connected = tokio::select! {
            connected = service.source.connect() => connected,
            () = shared.until_unwanted() => continue,
        };
        let subscriber = match connected {
            Ok(subscriber) => subscriber,
            Err(e) => {
                tracing::debug!(backend, error = %e, "no connection for notifications");
                backoff.failed();
                continue;
            }
        };
        if std::mem::take(&mut was_lost) {
            meter::reconnected(backend);
        }
        let mut link = Link { service: &service, subscriber, subscribed: HashSet::new(), troubles };
        let end = link.attend().await;
        let worked = !link.subscribed.is_empty();
        // Close the connection before anybody is told to look.
        drop(link);
        if end.is_break() {
            was_lost = true;
            // A connection that worked may be reopened at once; after one that never did, the back-off applies.
            if worked {
                backoff.succeeded();
            } else {
                backoff.failed();
            }
            tracing::debug!(backend, "the connection for notifications was lost");
        }
        shared.lost();
    }
}

/// One connection, and the keys that it is subscribed to.
struct Link<'s, S: Source> {
    service: &'s Service<S>,
    subscriber: S::Subscriber,
    subscribed: HashSet<S::Key>,
    troubles: watch::Receiver<u64>,
}

impl<S: Source> Link<'_, S> {
    /// Passes on received notifications, until the connection is lost (break) or nobody listens any longer (continue).
    async fn attend(&mut self) -> ControlFlow<()> {
        let shared = &self.service.shared;
        while let Some(wanted) = shared.wanted() {
            self.subscribe(wanted).await?;
            loop {
                tokio::select! {
                    received = self.subscriber.receive() => match received {
                        Ok(Some((key, notification))) => shared.tell(&key, notification),
                        Ok(None) => {}
                        Err(_) => return ControlFlow::Break(()),
                    },
                    () = shared.changed.notified() => break,
                    () = shared.doubt.notified() => self.ping().await?,
                    // The sender may be gone after a backend was dropped; the listeners are then gone soon, too.
                    Ok(()) = self.troubles.changed() => self.ping().await?,
                }
            }
        }
        ControlFlow::Continue(())
    }

    async fn subscribe(&mut self, wanted: HashSet<S::Key>) -> ControlFlow<()> {
        let limit = self.service.answer_timeout;
        let new: Vec<_> = wanted.difference(&self.subscribed).cloned().collect();
        let old: Vec<_> = self.subscribed.difference(&wanted).cloned().collect();
        if !new.is_empty() {
            in_time(limit, self.subscriber.subscribe(new.clone())).await?;
        }
        if !old.is_empty() {
            in_time(limit, self.subscriber.unsubscribe(old)).await?;
        }
        self.subscribed = wanted;
        self.service.shared.subscribed(&new, &self.subscribed);
        ControlFlow::Continue(())
    }

    async fn ping(&mut self) -> ControlFlow<()> {
        in_time(self.service.answer_timeout, self.subscriber.ping()).await
    }
}

async fn in_time(limit: Duration, answer: impl Future<Output = Result<()>>) -> ControlFlow<()> {
    match timeout(limit, answer).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
    }
}
