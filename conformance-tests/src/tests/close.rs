//! CLOSE: close ends, and gives back.
