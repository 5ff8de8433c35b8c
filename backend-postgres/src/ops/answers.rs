//! Batches: cut into pieces, and answered item by item however many of the pieces were done.

use std::collections::HashMap;
use std::hash::Hash;

use delayline_core::{Error, ErrorKind, Result};
use sqlx::postgres::PgRow;

use crate::codec::{corrupt, get};
use crate::limits::{PIECE, PIECE_BYTES};

/// Cuts a list into pieces of bounded length and size.
pub(super) fn pieces<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::with_capacity(items.len().min(PIECE));
    let mut bytes = 0;
    for item in items {
        let more = size(&item);
        if piece.len() == PIECE || (bytes + more > PIECE_BYTES && !piece.is_empty()) {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += more;
        piece.push(item);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// Parts a list so that no two in one part have the same key; each part keeps the order, and what has a key for the second
/// time comes in the second part.
pub(super) fn parted<T, K: Hash + Eq>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<Vec<T>> {
    let mut met = HashMap::new();
    let mut parts: Vec<Vec<T>> = Vec::new();
    for item in items {
        let nth = met.entry(key(&item)).or_insert(0_usize);
        if parts.len() == *nth {
            parts.push(Vec::new());
        }
        parts[*nth].push(item);
        *nth += 1;
    }
    parts
}

/// What the items of pieces answer that were not sent any more.
pub(super) fn unsent(e: &Error) -> Error {
    let kind = if e.kind() == ErrorKind::Ambiguous { ErrorKind::Unavailable } else { e.kind() };
    Error::new(kind, format!("not sent, because a part of the call before it failed: {}", e.message()))
}

/// One answer for each item. If nothing was answered and nothing can have taken effect, the failure is that of all.
pub(super) fn all_answered<T>(results: Vec<Option<Result<T>>>, failed: Option<Error>) -> Result<Vec<Result<T>>> {
    let Some(e) = failed else {
        return results.into_iter().map(|result| result.ok_or_else(corrupt)).collect();
    };
    let without_effect = |result: &Option<Result<T>>| match result {
        None => true,
        Some(Ok(_)) => false,
        Some(Err(own)) => own.kind() == e.kind() && own.kind() != ErrorKind::Ambiguous,
    };
    if results.iter().all(without_effect) {
        return Err(e);
    }
    Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(unsent(&e)))).collect())
}

/// The item that a row is the answer to: its first column counts from 1.
pub(super) fn nth<'i, T>(items: &'i [T], row: &PgRow) -> Result<&'i T> {
    let n = usize::try_from(get::<i64>(row, 0)?).unwrap_or(0);
    items.get(n.wrapping_sub(1)).ok_or_else(corrupt)
}
