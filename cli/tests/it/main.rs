//! Whole sales on a whole mesh of real processes, ended by the operator's audit.

mod audit;
mod faults;
mod purchase;
mod sale;
