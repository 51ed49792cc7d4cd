//! The tables that a sale uses while a fault of the database lasts: a fault of another one would break nothing.
//!
//! The event service writes its events before the first order and after the last one. In between it reads them, and its
//! relays renew their leases, as those of every service do.

use stampede_vocab::Service;

/// Tables that statements of a sale name: each such statement fails while its table is away.
pub const fn used(service: Service) -> &'static [&'static str] {
    match service {
        Service::Event => &["events", "outbox", "outbox_leases", "outbox_relays"],
        Service::Inventory => &["ledger", "reservations", "stock"],
        Service::Coupon => &["campaigns", "coupons", "outbox"],
        Service::Order => &["orders", "outbox", "outbox_leases"],
        Service::Payment => &["attempts", "outbox", "payments"],
    }
}

/// Tables that get new rows during a sale. The INSERT into `outbox_relays` at each renewal counts although it mostly
/// finds its row there: the trigger is met before.
pub const fn inserted_into(service: Service) -> &'static [&'static str] {
    match service {
        Service::Event => &["outbox_relays"],
        Service::Inventory => &["ledger", "reservations"],
        Service::Coupon => &["coupons", "outbox"],
        Service::Order => &["orders", "outbox"],
        Service::Payment => &["attempts", "outbox", "payments"],
    }
}

/// Tables whose rows a sale changes or locks. The servers lock no gaps, so tables that only get new rows are not among
/// them.
pub const fn updated(service: Service) -> &'static [&'static str] {
    match service {
        Service::Event => &["outbox_leases", "outbox_relays"],
        Service::Inventory => &["outbox_leases", "stock"],
        Service::Coupon => &["campaigns", "coupons"],
        Service::Order => &["orders", "outbox_leases"],
        Service::Payment => &["attempts", "payments"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// All migrations of a service.
    fn migrations(service: Service) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let folder = root.join("migrations").join(service.name());
        let files = fs::read_dir(folder).expect("migrations").map(|entry| entry.expect("readable").path());
        files.map(|file| fs::read_to_string(file).expect("text")).collect()
    }

    #[test]
    fn every_table_is_one_of_its_service() {
        for service in Service::ALL {
            let migrations = migrations(service);
            for tables in [used(service), inserted_into(service), updated(service)] {
                assert!(!tables.is_empty(), "{service}");
                for table in tables {
                    assert!(migrations.contains(&format!("CREATE TABLE {table} (")), "{service}: {table}");
                }
            }
        }
    }
}
