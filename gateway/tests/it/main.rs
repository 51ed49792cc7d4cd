//! The gateway over HTTP, as a client sees it, with real tokens in a real Redis.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod acts;
mod attacks;
mod caching;
mod cross_origin;
mod dice;
mod drawn;
mod errors_doc;
mod front;
mod fuzz;
mod grpc;
mod grpc_connect;
mod grpc_own;
mod grpc_web;
mod holds;
mod meters;
mod openapi;
mod orders;
mod protocol;
mod raw;
mod reflection;
mod refusals;
mod services;
mod sessions;
mod shared_reads;
mod slow_readers;
mod streams;
mod tickets;
mod tls;
mod tokens;
mod unary;
mod victim;
