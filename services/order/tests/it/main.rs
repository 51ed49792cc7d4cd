//! The order service through its gRPC API, with the real inventory and coupon services beside it: processes on real
//! servers, each test in a world of its own. Payments are answered by message, as the payment service answers.

mod bad_input;
mod bad_rows;
mod cancelled_event;
mod concurrent_duplicates;
mod consumer;
mod coupons;
mod earlier_release;
mod ending;
mod frozen;
mod killed;
mod listing;
mod lock_order;
mod locked_event;
mod one_row;
mod paying;
mod placing;
mod reading;
mod remade_topic;
mod repeats;
mod round_trips;
mod sale;
mod silent_kafka;
mod slow_database;
mod sweeps;
