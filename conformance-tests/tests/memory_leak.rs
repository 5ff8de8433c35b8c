//! The LEAK tests on the memory backend, alone in this process.

mod support;

use support::Memory;

delayline_conformance::leak_suite!(Memory::virtual_time());
