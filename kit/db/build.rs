//! Rebuilds this crate when a migration is added or changed: the SQL is embedded at compile time.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
