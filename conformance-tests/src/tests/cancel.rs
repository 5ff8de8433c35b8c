//! CANCEL: cancel, move and shift have a definite answer.
