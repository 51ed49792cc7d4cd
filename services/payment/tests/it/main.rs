//! The payment service as its neighbours see it: requested by message as by the order service, seen through its gRPC
//! API and its messages, and checked against the records of the provider.

mod bad_input;
mod breaker;
mod broken;
mod by_hand;
mod charging;
mod currencies;
mod ending;
mod lost_answers;
mod oddities;
mod parking;
mod reading;
mod refunding;
mod repeating;
mod round_trips;
mod sale;
mod slow_database;
mod stand_in;
mod webhooks;
