//! The cost of a reservation on a real Redis, by the size of the batch: `cargo bench -p stampede-lua`. Each case has a
//! server of its own, for which `redis-server` must be found on the PATH.

use divan::{Bencher, counter::ItemsCount};
use stampede_lua::{
    Redis, RedisConfig,
    stock::{Decision, InLedger, LedgerUnits, Reservation, StagedItem, Staging, Stock, WantedLine},
};
use stampede_testkit::OwnRedis;
use stampede_vocab::{EventId, Fingerprint, ItemId, Money, OrderId, Quantity, Timestamp, UserId};
use uuid::Uuid;

const LONG_AGO: Timestamp = Timestamp::from_micros(1_000_000);
const FAR: Timestamp = Timestamp::from_micros(4_000_000_000_000_000);

fn main() {
    divan::main();
}

/// Reservations of one unit each, every one by another buyer, so that all are granted.
#[divan::bench(args = [1, 16, 256], sample_count = 200, sample_size = 1)]
fn reserve(bencher: Bencher<'_, '_>, reservations: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let shelf = runtime.block_on(Shelf::open());
    bencher
        .counter(ItemsCount::new(reservations))
        .with_inputs(|| (0..reservations).map(|_| shelf.ask()).collect::<Vec<_>>())
        .bench_local_values(|asks| runtime.block_on(shelf.reserve(&asks)));
}

/// An open event with one item, which does not run out.
struct Shelf {
    stock: Stock,
    event: EventId,
    item: ItemId,
    _server: OwnRedis,
}

impl Shelf {
    async fn open() -> Self {
        let server = OwnRedis::start(&[]).await.expect("redis-server starts");
        let config = RedisConfig { url: server.url(), key_prefix: String::new() };
        let stock = Stock::new(Redis::connect(config).await.expect("Redis answers"));
        let (event, item) = (EventId::from_uuid(Uuid::from_u128(1)), ItemId::from_uuid(Uuid::from_u128(2)));
        let compared_on = stock.snapshot(event, &[]).await.expect("Redis answers").run_id;
        let staging = Staging {
            event_id: event,
            event_version: 1,
            open_time: LONG_AGO,
            close_time: FAR,
            expires_at: FAR,
            arrivals_at_least: 0,
            compared_on,
            was_compared: false,
            items: vec![StagedItem {
                item_id: item,
                total_units: i32::MAX,
                limit_per_buyer: 1,
                unit_price: Money::new(1999, "EUR".parse().expect("a currency")),
                gift_total_units: 0,
                ledger: LedgerUnits::default(),
            }],
        };
        assert!(stock.stage(&staging).await.expect("Redis answers"), "the event is staged");
        Self { stock, event, item, _server: server }
    }

    fn ask(&self) -> Reservation {
        let user_id = UserId::random();
        Reservation {
            order_id: OrderId::from_uuid(user_id.uuid()),
            user_id,
            fingerprint: Fingerprint::new([7; Fingerprint::LEN]),
            ledger: InLedger::Unknown,
            lines: vec![WantedLine { item_id: self.item, units: Quantity::new(1).expect("one is a quantity") }],
        }
    }

    async fn reserve(&self, asks: &[Reservation]) {
        let decisions = self.stock.reserve(self.event, asks).await.expect("Redis answers");
        assert!(decisions.iter().all(|decision| matches!(decision, Ok(Decision::Held(_)))), "each is granted");
    }
}
