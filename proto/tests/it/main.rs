//! The contract beside the code that keeps it.

mod bounds;
