//! The operator's commands, as the command line has them. No behaviour.

use crate::{audit, healthcheck, messages, payments, prepare, secrets, seed, simulate, token};
use clap::Subcommand;

/// The operator's commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the schemas, bring them to this release, and make the topics
    Prepare(prepare::Args),
    /// Run a whole sale against the gateway, as its buyers would
    Simulate(simulate::Args),
    /// Check every promise against the databases, Redis, Kafka and the payment provider
    Audit(audit::Args),
    /// List messages that wait between the services, and decide on those that could not be applied
    Messages(messages::Args),
    /// List charges and refunds that are parked, and settle them
    Payments(payments::Args),
    /// Make tokens, such as the operator's
    Token(token::Args),
    /// Open an event with stock and coupons for a load test
    Seed(seed::Args),
    /// Check whether a process is ready
    Healthcheck(healthcheck::Args),
    /// Make the secrets of a mesh, each as a file
    Secrets(secrets::Args),
}
