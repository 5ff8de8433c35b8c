//! The limits that are the same on every backend (BOUND). The limits of payloads, batches, delays and leases differ:
//! see [`Capabilities`](crate::Capabilities).

/// Maximum length of a queue name, in bytes.
pub const QUEUE_NAME_BYTES_MAX: usize = 128;
/// Maximum length of a task id, in bytes of UTF-8.
pub const TASK_ID_BYTES_MAX: usize = 256;
/// Maximum length of a group name, in bytes of UTF-8.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Maximum number of headers of one task.
pub const HEADERS_MAX: usize = 64;
/// Maximum length of a header name, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Maximum size of all header names and values of one task together, in bytes.
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Maximum length of a reason that is stored with a retry or a dead letter, in bytes. A longer one is cut at a
/// character.
pub const REASON_BYTES_MAX: usize = 1024;
/// Maximum number of attempts that a task may be given.
pub const ATTEMPTS_MAX: u32 = 10_000;
/// Default number of attempts of a task.
pub const ATTEMPTS_DEFAULT: u32 = 20;
/// Default of [`Queue::joined_bytes_max`](crate::Queue::joined_bytes_max): maximum size of payload and headers of the
/// joined calls of one queue that wait to be sent, in bytes.
pub const JOINED_BYTES_MAX_DEFAULT: usize = 64 * 1024 * 1024;
/// Maximum number of tasks or dead letters in one page of a listing.
pub const PAGE_MAX: usize = 1_000;
