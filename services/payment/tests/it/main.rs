//! The payment service as its neighbours see it: asked by message as the order service asks, seen through its gRPC
//! API and its messages, and checked against the book of the provider.

mod bad_input;
mod charging;
mod ending;
mod reading;
mod refunding;
mod shop;
mod unknown;
mod webhooks;
