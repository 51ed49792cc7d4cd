//! What every process is built on, as its operator meets it.

mod process;
