//! Receipts: a caller needs one to change a task.

use delayline_core::Receipt;

/// The receipt of a task: its due time and its number.
pub(crate) fn receipt(due_ms: i64, number: u128) -> Receipt {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&due_ms.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Receipt::from_bytes(&bytes)
}

/// Decodes a receipt; `None` if this backend did not write it.
pub(crate) fn read_receipt(receipt: &Receipt) -> Option<(i64, u128)> {
    let bytes: [u8; 24] = receipt.to_vec().try_into().ok()?;
    let (due, number) = bytes.split_at(8);
    Some((i64::from_be_bytes(due.try_into().ok()?), u128::from_be_bytes(number.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_back_and_others_are_not() {
        assert_eq!(read_receipt(&receipt(-3, u128::MAX - 1)), Some((-3, u128::MAX - 1)));
        assert_eq!(read_receipt(&Receipt::NONE), None);
        assert_eq!(read_receipt(&Receipt::from_words([1, 2])), None);
    }
}
