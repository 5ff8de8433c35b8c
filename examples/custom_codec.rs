//! A custom payload format, and what happens to a payload that can't be decoded: `cargo run --example custom_codec`.

use std::sync::Arc;

use delayline::{Bytes, Codec, Error, ErrorKind, Queue, Raw, Result, connect};

/// An order and an amount in 12 bytes, preceded by a version byte.
#[derive(Debug, PartialEq)]
struct Refund {
    order: u64,
    cents: u32,
}

struct Packed;

impl Codec<Refund> for Packed {
    fn encode(&self, refund: &Refund) -> Result<Bytes> {
        let mut bytes = vec![1];
        bytes.extend(refund.order.to_be_bytes());
        bytes.extend(refund.cents.to_be_bytes());
        Ok(bytes.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<Refund> {
        let unreadable =
            || Error::new(ErrorKind::Codec, format!("expected a refund of 13 bytes, got {} bytes", payload.len()));
        match payload.split_first() {
            Some((1, rest)) => {
                let (order, cents) = rest.split_first_chunk::<8>().ok_or_else(unreadable)?;
                let cents: [u8; 4] = cents.try_into().map_err(|_| unreadable())?;
                Ok(Refund { order: u64::from_be_bytes(*order), cents: u32::from_be_bytes(cents) })
            }
            Some((version, _)) => Err(Error::new(ErrorKind::Codec, format!("refund of unknown version {version}"))),
            None => Err(unreadable()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let backend = connect("memory:").await?;
    let refunds = Queue::with_codec(Arc::clone(&backend), "refunds", Packed)?;
    refunds.schedule(&Refund { order: 7, cents: 1995 }).await?;

    // The same queue with raw bytes: a newer version of the application schedules into it.
    let raw = Queue::with_codec(backend, "refunds", Raw)?;
    raw.schedule(&Bytes::from_static(&[2, 0, 0])).await?;

    let mut consumer = refunds.consumer().open().await?;
    let task = consumer.next().await?;
    assert_eq!(*task.payload(), Refund { order: 7, cents: 1995 });
    task.complete().await?;

    // A payload that can't be decoded is dead-lettered with the reason. It can be redriven after an upgrade.
    assert!(consumer.try_next_batch(10).await?.is_empty());
    let dead = refunds.dead_letters(None, 10).await?.letters;
    println!("dead-lettered: {}", dead[0].reason);
    assert!(dead[0].reason.as_str().contains("unknown version 2"));
    Ok(())
}
