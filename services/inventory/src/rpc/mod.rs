//! The contract: what comes in is read, one usecase is called, what goes out is written.

mod convert;
mod outcomes;
mod server;

pub use server::InventoryApi;
