//! The suite on the memory backend, in virtual time.

mod support;

use support::Memory;

delayline_conformance::suite!(Memory::virtual_time());
