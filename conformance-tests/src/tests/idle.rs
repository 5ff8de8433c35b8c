//! IDLE: no polling.
