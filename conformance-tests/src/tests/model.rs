//! MODEL: the trait against a reference that is too simple to be wrong.
