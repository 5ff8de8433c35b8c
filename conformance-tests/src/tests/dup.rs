//! DUP: one live lease, and every redelivery has a cause.
