//! What a call must be for it to be joined with others.

use std::future::Future;
use std::pin::Pin;

use super::committer::Committer;
use crate::{QueueName, Result};

/// A kind of call that can be joined.
pub(crate) trait Kind: Sized + Send + Sync + 'static {
    /// What such calls go by: where those meet that are joined.
    type Way: Send + Sync + 'static;
    type Item: Send + Unpin + 'static;
    type Answer: Send + 'static;

    fn committer(way: &Self::Way) -> &Committer<Self::Item, Self::Answer>;
    fn limits(way: &Self::Way) -> Limits<'_>;
    /// What an item adds to a call, in bytes, roughly.
    fn size(item: &Self::Item) -> usize;
    fn send(way: &Self::Way, items: Vec<Self::Item>) -> Sending<'_, Self::Answer>;
}

/// A batch on its way.
pub(crate) type Sending<'a, T> = Pin<Box<dyn Future<Output = Result<Vec<Result<T>>>> + Send + 'a>>;

/// What holds for the calls of one kind on one way.
pub(crate) struct Limits<'a> {
    /// Where they go, to be told by.
    pub(crate) queue: &'a QueueName,
    /// The most items in one call.
    pub(crate) batch_max: usize,
    /// The most bytes that wait to be sent.
    pub(crate) bytes_max: usize,
}
