//! The suite on the memory backend in real time, on two threads: races that one thread never has.

mod support;

use support::Memory;

delayline_conformance::suite!(Memory::real_time());
