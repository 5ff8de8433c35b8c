//! Operation ids: records which change each one stands for, and forgets it after the operation window.

use std::time::Duration;

use delayline_backend_kit::codec::id_bytes;
use delayline_backend_kit::times::micros_ceil;
use delayline_core::{Action, Error, ErrorKind, OperationId, QueueName, Result, Select};
use tokio::time::Instant;

use crate::store::Store;
use crate::transport::failure::Effect;
use crate::transport::statement::Query;

/// An operation id and the digest of its change.
#[derive(Clone)]
pub(super) struct Operation {
    pub(super) id: uuid::Uuid,
    digest: Vec<u8>,
    window_ms: i64,
}

/// Records which change an operation id stands for.
pub(super) async fn begin(store: &Store, id: OperationId, digest: Vec<u8>) -> Result<Operation> {
    forget(store).await;
    *store.forget_at.lock() = Some(Instant::now() + store.config.operation_window + Duration::from_secs(1));
    let window_ms = micros_ceil(store.config.operation_window) / 1000;
    let operation = Operation { id: id.as_uuid(), digest, window_ms };
    let bound = operation.clone();
    let rows = store.rows("changing", Effect::Repeat, &store.sql.operation_begin, move |query| bound.bind(query, -1));
    if rows.await?.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("operation id {id} was used for a different change: use a new id"),
        ));
    }
    Ok(operation)
}

/// Forgets expired operations, once this process's last operation has expired. The next claim on any queue does this,
/// so that it costs an idle process nothing. If no queue is claimed from, the next change with an operation id does it.
pub(super) async fn forget_when_due(store: &Store) {
    let due = store.forget_at.lock().take_if(|at| *at <= Instant::now()).is_some();
    if due {
        forget(store).await;
    }
}

/// Forgets expired operations. If this fails, the next call does it.
async fn forget(store: &Store) {
    let forgotten = store.rows("forgetting", Effect::Repeat, &store.sql.operation_forget, |query| query).await;
    if let Err(e) = forgotten {
        tracing::debug!(error = %e, "could not delete expired operations, the next call tries again");
    }
}

impl Operation {
    pub(super) fn bind(&self, query: Query<'static>, piece: i32) -> Query<'static> {
        query.bind(self.id).bind(piece).bind(self.digest.as_slice()).bind(self.window_ms)
    }
}

/// FNV-1a with 128 bits. Every process must compute the same digest.
pub(super) fn digest(queue: &QueueName, select: &Select, action: Action) -> Result<Vec<u8>> {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let mut add = |bytes: &[u8]| {
        let length = (bytes.len() as u64).to_be_bytes();
        for &byte in length.iter().chain(bytes) {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    };
    add(queue.as_str().as_bytes());
    add(format!("{action:?}").as_bytes());
    match select {
        Select::Group(group) => {
            add(b"group");
            add(group.as_str().as_bytes());
        }
        Select::Tasks(tasks) => {
            add(b"tasks");
            for task in tasks {
                add(&id_bytes(&task.id));
                add(&task.receipt.to_vec());
            }
        }
        _ => return Err(Error::unsupported("this selection of tasks")),
    }
    Ok(hash.to_be_bytes().to_vec())
}
