//! The limits that hold on every backend (BOUND). Those that differ, of payloads, batches, delays and leases, are in its
//! [`Capabilities`](crate::Capabilities).

/// Longest queue name, in bytes.
pub const QUEUE_NAME_BYTES_MAX: usize = 128;
/// Longest task id, in bytes of UTF-8.
pub const TASK_ID_BYTES_MAX: usize = 256;
/// Longest group name, in bytes of UTF-8.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Most headers on one task.
pub const HEADERS_MAX: usize = 64;
/// Longest header name, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Names and values of all headers of one task together, in bytes.
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Longest reason kept with a retry or a dead letter, in bytes; a longer one is cut at a character.
pub const REASON_BYTES_MAX: usize = 1024;
/// Most attempts a task may be given.
pub const ATTEMPTS_MAX: u32 = 10_000;
/// Attempts of a task for which nothing was said.
pub const ATTEMPTS_DEFAULT: u32 = 20;
/// Payload and headers of joined calls of one queue that may wait to be sent, in bytes, where nothing was said:
/// [`Queue::joined_bytes_max`](crate::Queue::joined_bytes_max).
pub const JOINED_BYTES_MAX_DEFAULT: usize = 64 * 1024 * 1024;
/// Most tasks or dead letters in one page of a listing.
pub const PAGE_MAX: usize = 1_000;
