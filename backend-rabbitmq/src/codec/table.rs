//! Values in AMQP tables: headers of messages and arguments of queues.

use lapin::types::{AMQPValue, FieldTable};

pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.as_bytes().to_vec().into())
}

pub(crate) fn long(number: i64) -> AMQPValue {
    AMQPValue::LongLongInt(number)
}

/// An unsigned number of 64 bits, stored in the signed type, which all brokers support.
pub(crate) fn bits(number: u64) -> AMQPValue {
    long(number.cast_signed())
}

pub(crate) fn string(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

pub(crate) fn number(table: &FieldTable, name: &str) -> Option<i64> {
    match *table.inner().get(name)? {
        AMQPValue::LongLongInt(n) => Some(n),
        AMQPValue::LongInt(n) => Some(n.into()),
        AMQPValue::LongUInt(n) => Some(n.into()),
        AMQPValue::ShortInt(n) => Some(n.into()),
        AMQPValue::ShortUInt(n) => Some(n.into()),
        AMQPValue::ShortShortInt(n) => Some(n.into()),
        AMQPValue::ShortShortUInt(n) => Some(n.into()),
        _ => None,
    }
}

/// The arguments of a classic queue. A virtual host may have another default type, which can't be exclusive.
pub(crate) fn classic() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("classic"));
    table
}
