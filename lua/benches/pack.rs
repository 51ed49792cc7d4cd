//! The client's cost of the busiest script, without a server: packing a batch of reservations, and parsing the replies:
//! `cargo bench -p stampede-lua --bench pack`.

use divan::{Bencher, black_box, counter::ItemsCount};
use stampede_lua::{
    Value,
    stock::{InLedger, Reservation, WantedLine, arguments, decisions},
};
use stampede_vocab::{Fingerprint, ItemId, OrderId, Quantity, UserId};
use uuid::Uuid;

fn main() {
    divan::main();
}

/// The arguments of a batch, with which the script is called.
#[divan::bench(args = [1, 16, 256])]
fn write_reservations(bencher: Bencher<'_, '_>, reservations: usize) {
    let asks: Vec<_> = (0..reservations as u128).map(ask).collect();
    bencher.counter(ItemsCount::new(reservations)).bench_local(|| arguments(black_box(&asks)));
}

/// The replies to a batch of which each reservation is granted.
#[divan::bench(args = [1, 16, 256])]
fn read_holds(bencher: Bencher<'_, '_>, reservations: usize) {
    let replies: Vec<_> = (0..reservations as u128).map(hold).collect();
    assert!(decisions("stock/reserve", replies.clone()).iter().all(Result::is_ok), "each is a hold");
    bencher
        .counter(ItemsCount::new(reservations))
        .with_inputs(|| replies.clone())
        .bench_local_values(|replies| decisions("stock/reserve", replies));
}

/// An order of two lines, by a buyer of its own.
fn ask(number: u128) -> Reservation {
    Reservation {
        order_id: OrderId::from_uuid(Uuid::from_u128(number)),
        user_id: UserId::from_uuid(Uuid::from_u128(number)),
        fingerprint: fingerprint(),
        ledger: InLedger::Unknown,
        lines: [1, 2].map(line).to_vec(),
    }
}

fn line(number: u128) -> WantedLine {
    WantedLine { item_id: item(number), units: Quantity::new(1).expect("one is a quantity") }
}

/// The hold that it was granted, as the script packs it.
fn hold(number: u128) -> Value {
    let user = UserId::from_uuid(Uuid::from_u128(number));
    let lines = [1, 2].map(|number| format!("{}:1:0:1999", item(number))).join(",");
    let packed = format!("7|1700000000000001|{}|{user}|EUR|{lines}|1700000000000001", fingerprint());
    Value::BulkString(packed.into_bytes())
}

fn item(number: u128) -> ItemId {
    ItemId::from_uuid(Uuid::from_u128(number))
}

fn fingerprint() -> Fingerprint {
    Fingerprint::new([7; Fingerprint::LEN])
}
