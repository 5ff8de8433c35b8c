//! Batches: parted where an item stands twice in one, and matched with the rows that answer them.

use std::collections::HashMap;
use std::hash::Hash;

use delayline_core::Result;
use sqlx::postgres::PgRow;

use crate::codec::{corrupt, get};

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

/// The item that a row is the answer to: its first column counts from 1.
pub(super) fn nth<'i, T>(items: &'i [T], row: &PgRow) -> Result<&'i T> {
    let n = usize::try_from(get::<i64>(row, 0)?).unwrap_or(0);
    items.get(n.wrapping_sub(1)).ok_or_else(corrupt)
}
