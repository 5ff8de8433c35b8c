//! LIVE: sleepers wake in time, and after faults unaided.
