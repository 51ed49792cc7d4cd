//! Measures how long a statement takes to be written as text: `cargo bench -p stampede-db`.

use divan::{Bencher, black_box, counter::ItemsCount};
use stampede_db::Statement;
use uuid::Uuid;

fn main() {
    divan::main();
}

/// An outbox row, of which a batch of orders writes as many as it has orders.
#[divan::bench(args = [1, 32, 256])]
fn insert_rows(bencher: Bencher<'_, '_>, rows: usize) {
    let (id, payload) = (Uuid::from_u128(7), vec![0x5a_u8; 160]);
    bencher.counter(ItemsCount::new(rows)).bench(|| {
        let mut insert = Statement::new("INSERT INTO outbox (aggregate_type, aggregate_id, version, payload) ");
        insert.push_values(0..rows, |mut row, version| {
            row.push_bind("order").push_bind(id).push_bind(version as i64).push_bind(payload.as_slice());
        });
        black_box(insert)
    });
}

/// The ids of a batch, as `WHERE id IN (...)` has them.
#[divan::bench(args = [1, 32, 256])]
fn list_of_ids(bencher: Bencher<'_, '_>, ids: usize) {
    let ids: Vec<Uuid> = (0..ids as u128).map(Uuid::from_u128).collect();
    bencher.counter(ItemsCount::new(ids.len())).bench(|| {
        let mut select = Statement::new("SELECT id FROM orders WHERE id IN ");
        select.push_list(black_box(&ids));
        black_box(select)
    });
}
