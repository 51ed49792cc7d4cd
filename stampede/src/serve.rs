//! What `stampede serve` runs: a process by its name, with a configuration of its own.

use clap::Subcommand;
use stampede_vocab::{Process, Service};
use std::process::ExitCode;

/// Declares the processes: the services, each with the crate that it is made from, and those beside them.
macro_rules! processes {
    ($($service:ident from $library:ident;)+) => {
        /// A process of the mesh. Each has its own configuration and ports, and runs in any number of replicas.
        #[derive(Subcommand)]
        pub enum Serve {
            $($service(Box<$library::Config>),)+
            Gateway(Box<stampede_gateway::Config>),
            Sandbox(Box<stampede_sandbox::Config>),
        }

        impl Serve {
            /// Runs the process until it is told to stop.
            pub fn run(self) -> ExitCode {
                match self {
                    $(Self::$service(config) => {
                        stampede_chassis::run(Service::$service.into(), *config, $library::build)
                    })+
                    Self::Gateway(config) => stampede_chassis::run(Process::Gateway, *config, stampede_gateway::build),
                    Self::Sandbox(config) => stampede_sandbox::run(*config),
                }
            }
        }
    };
}

processes! {
    Event from stampede_event;
    Coupon from stampede_coupon;
    Inventory from stampede_inventory;
    Order from stampede_order;
    Payment from stampede_payment;
}
