//! The kinds of calls that can be joined.

use std::future::Future;
use std::pin::Pin;

use super::committer::Committer;
use crate::{QueueName, Result};

/// A kind of call that can be joined.
pub(crate) trait Kind: Sized + Send + Sync + 'static {
    /// The path on which such calls meet: calls with the same one are joined.
    type Way: Send + Sync + 'static;
    type Item: Send + Unpin + 'static;
    type Answer: Send + 'static;

    fn committer(way: &Self::Way) -> &Committer<Self::Item, Self::Answer>;
    fn limits(way: &Self::Way) -> Limits<'_>;
    /// Approximate size that an item adds to a call, in bytes.
    fn size(item: &Self::Item) -> usize;
    fn send(way: &Self::Way, items: Vec<Self::Item>) -> Sending<'_, Self::Answer>;
}

/// A batch that is being sent.
pub(crate) type Sending<'a, T> = Pin<Box<dyn Future<Output = Result<Vec<Result<T>>>> + Send + 'a>>;

/// The limits of the calls of one kind on one path.
pub(crate) struct Limits<'a> {
    /// The queue, for messages.
    pub(crate) queue: &'a QueueName,
    /// Maximum number of items in one call.
    pub(crate) batch_max: usize,
    /// Maximum number of bytes that wait to be sent.
    pub(crate) bytes_max: usize,
}
