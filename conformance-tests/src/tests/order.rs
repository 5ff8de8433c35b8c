//! ORDER: by (visible at, sequence).
