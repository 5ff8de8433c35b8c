//! Settles and extends leases.

use std::time::Duration;

use delayline_backend_kit::Answers;
use delayline_backend_kit::codec::id_bytes;
use delayline_backend_kit::times::{DELAY_MAX, micros_ceil, millis};
use delayline_core::{Disposition, Error, Lease, QueueName, Reason, Result};

use crate::codec::{number_bytes, text};
use crate::limits::PIECE;
use crate::scripts;
use crate::store::Store;
use crate::transport::{Reply, answered, unreadable};

impl Store {
    /// Settles leases, each with its disposition.
    pub(crate) async fn settle(
        &self,
        queue: &QueueName,
        dispositions: &[(Lease, Disposition)],
    ) -> Result<Vec<Result<()>>> {
        self.lifecycle.open()?;
        self.caps.check_batch(dispositions.len())?;
        let written: Vec<_> = dispositions.iter().map(|(lease, how)| written(lease, how)).collect::<Result<_>>()?;
        let mut answers = Answers::new(dispositions.len());
        for (shard, list) in self.by_shard(dispositions.iter().map(|(lease, _)| &lease.id)) {
            let shard = self.shard(queue, shard);
            for piece in list.chunks(PIECE.items) {
                if answers.have_failed() {
                    break;
                }
                let mut args = self.args(&shard, 2 * piece.len());
                piece.iter().for_each(|&at| args.extend_from_slice(&written[at]));
                let reply = self.run(&scripts::SETTLE, &shard, None, args).await;
                let answer = |code| match code {
                    b'0' => Ok(Ok(())),
                    b'1' => Ok(Err(Error::lease_lost())),
                    b'2' => Ok(Err(self.caps.out_of_range())),
                    _ => Err(unreadable()),
                };
                let read = |mut reply: Reply| reply.bytes()?.into_iter().map(answer).collect();
                answers.piece(piece, answered(reply, read));
            }
        }
        answers.finish()
    }

    pub(crate) async fn extend(
        &self,
        queue: &QueueName,
        leases: Vec<Lease>,
        by: Duration,
    ) -> Result<Vec<Result<Lease>>> {
        self.lifecycle.open()?;
        self.caps.check_lease(by)?;
        self.caps.check_batch(leases.len())?;
        let mut answers = Answers::new(leases.len());
        for (shard, list) in self.by_shard(leases.iter().map(|lease| &lease.id)) {
            let shard = self.shard(queue, shard);
            for piece in list.chunks(PIECE.items) {
                if answers.have_failed() {
                    break;
                }
                let mut args = self.args(&shard, 1 + 2 * piece.len());
                args.push(text(micros_ceil(by)));
                for &at in piece {
                    args.push(number_bytes(leases[at].fence).to_vec());
                    args.push(id_bytes(&leases[at].id));
                }
                let reply = self.run(&scripts::EXTEND, &shard, None, args).await;
                let read = |mut reply: Reply| piece.iter().map(|&at| extended(&mut reply, &leases[at])).collect();
                answers.piece(piece, answered(reply, read));
            }
        }
        answers.finish()
    }
}

/// Encodes a lease and its disposition for `settle.lua`.
fn written(lease: &Lease, disposition: &Disposition) -> Result<Vec<Vec<u8>>> {
    // A lost lease takes precedence over a delay out of range, and only the script knows whether the lease is lost.
    let delay = |after: &Duration| Some(if *after > DELAY_MAX { text("-1") } else { text(micros_ceil(*after)) });
    let why = |reason: &Reason| Some(reason.as_str().into());
    let (letter, delay, reason) = match disposition {
        Disposition::Complete => (b'c', None, None),
        Disposition::Retry { after, reason } => (b'r', delay(after), why(reason)),
        Disposition::Snooze { after } => (b's', delay(after), None),
        Disposition::DeadLetter { reason } => (b'b', None, why(reason)),
        Disposition::Release => (b'l', None, None),
        _ => return Err(Error::unsupported("this disposition")),
    };
    let mut head = Vec::with_capacity(8);
    head.push(letter);
    head.extend(number_bytes(lease.fence));
    Ok([head, id_bytes(&lease.id)].into_iter().chain(delay).chain(reason).collect())
}

/// Reads the result for one lease.
fn extended(reply: &mut Reply, lease: &Lease) -> Result<Result<Lease>> {
    let (ends, cancelled) = (reply.int()?, reply.int()? == 1);
    let Ok(ends) = u64::try_from(ends) else { return Ok(Err(Error::lease_lost())) };
    let mut lease = lease.clone();
    lease.expires_at = millis(ends);
    lease.cancelled = cancelled;
    Ok(Ok(lease))
}
