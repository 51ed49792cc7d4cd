//! Whole sales on a whole mesh of real processes, ended by the operator's audit.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

mod attacks;
mod audit;
mod boards;
mod breaks;
mod broken_steps;
mod calls;
mod cancelled_sale;
mod card_numbers;
mod clocks;
mod cluster;
mod command;
mod costs;
mod counters;
mod crowd;
mod currencies;
mod dead_letters;
mod faults;
mod field;
mod history;
mod idempotency;
mod load_tools;
mod lost_notices;
mod lost_redis;
mod message_breaks;
mod messages;
mod money_breaks;
mod moved_sale;
mod parked_payments;
mod prepare;
mod provider;
mod purchase;
mod roles;
mod rolling;
mod sale;
mod sold;
mod steps;
mod trace;
mod transactions;
mod webhook;
