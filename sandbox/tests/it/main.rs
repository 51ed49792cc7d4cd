//! The sandbox as its callers see it: over HTTP, on a port and a journal of its own for each test.

mod caller;
mod charges;
mod journal;
mod refunds;
mod seeded;
mod webhooks;
