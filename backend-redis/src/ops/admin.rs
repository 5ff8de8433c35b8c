//! Pauses, resumes and deletes queues.

use delayline_core::{AdminOp, Error, QueueName, Result};

use crate::codec::text;
use crate::scripts;
use crate::store::Store;

impl Store {
    pub(crate) async fn administer(&self, queue: &QueueName, op: AdminOp) -> Result<()> {
        self.lifecycle.open()?;
        for shard in self.shards(queue) {
            let mut args = self.args(&shard, 1);
            let script = match op {
                AdminOp::Pause | AdminOp::Resume => {
                    args.push(text(u8::from(op == AdminOp::Pause)));
                    &scripts::PAUSE
                }
                AdminOp::Delete => &scripts::DELETE,
                _ => return Err(Error::unsupported("this operation on a queue")),
            };
            self.run(script, &shard, None, args).await?;
        }
        Ok(())
    }
}
