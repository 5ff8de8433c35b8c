//! The harness of the memory backend.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::Arc;

use delayline_conformance::{Harness, Time};
use delayline_core::{Clock, DelayBackend, Result, Shift, TestClock, Timestamp, async_trait};
use delayline_memory::{MemoryBackend, MemoryConfig};
use parking_lot::Mutex;

/// Where the wall clock starts.
const WALL: i64 = 1_900_000_000_000;

/// The memory backend, with a wall clock that can be stepped.
#[derive(Debug)]
pub struct Memory {
    time: Time,
    /// Made when the first client is opened, because it runs on the clock of the test's runtime.
    clock: Mutex<Option<Arc<TestClock>>>,
}

impl Memory {
    /// On one thread, with tokio's clock paused.
    pub fn virtual_time() -> Self {
        Self { time: Time::Virtual, clock: Mutex::default() }
    }

    /// On two threads, in real time.
    pub fn real_time() -> Self {
        Self { time: Time::Real, clock: Mutex::default() }
    }

    fn clock(&self) -> Arc<TestClock> {
        let fresh = || Arc::new(TestClock::at(Timestamp::from_unix_millis(WALL)));
        self.clock.lock().get_or_insert_with(fresh).clone()
    }
}

#[async_trait]
impl Harness for Memory {
    async fn open(&self) -> Result<Arc<dyn DelayBackend>> {
        Ok(Arc::new(MemoryBackend::with_config(MemoryConfig::default().clock(self.clock()).seed(1))))
    }

    fn time(&self) -> Time {
        self.time
    }

    fn wall(&self) -> Timestamp {
        self.clock().wall()
    }

    fn step_wall(&self, by: Shift) -> bool {
        match by {
            Shift::Later(by) => self.clock().step_forward(by),
            Shift::Sooner(by) => self.clock().step_back(by),
            _ => unreachable!("one that the suite does not know"),
        }
        true
    }
}
