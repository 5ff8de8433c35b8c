//! Splits batches in which an item occurs twice, and matches items with the rows that answer them.

use std::collections::HashMap;
use std::hash::Hash;

use delayline_core::Result;
use sqlx::postgres::PgRow;

use crate::codec::{corrupt, get};

/// Splits a list so that no part has two items with the same key. Each part keeps the order; the second item with a key
/// goes into the second part.
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

/// The item that a row answers. The row's first column is the item's number, from 1.
pub(super) fn nth<'i, T>(items: &'i [T], row: &PgRow) -> Result<&'i T> {
    let n = usize::try_from(get::<i64>(row, 0)?).unwrap_or(0);
    items.get(n.wrapping_sub(1)).ok_or_else(corrupt)
}
