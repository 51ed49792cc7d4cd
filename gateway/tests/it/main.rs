//! The gateway over HTTP: what a client sees, with real tokens in a real Redis.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod front;
mod reflection;
mod refusals;
mod services;
mod streams;
mod tokens;
mod unary;
