//! What it costs to write and read what each request has as text, page tokens and ids: `cargo bench -p stampede-vocab`.

use divan::{Bencher, black_box};
use stampede_vocab::{OrderId, PageToken, RequestId, UserId};
use uuid::Uuid;

/// A list as the order service names it: of one buyer.
const LIST: &str = "orders:usr_0000000000000000000000001b";

fn main() {
    divan::main();
}

#[divan::bench]
fn write_page_token(bencher: Bencher<'_, '_>) {
    let token = token();
    bencher.bench_local(|| black_box(&token).to_string());
}

#[divan::bench]
fn read_page_token(bencher: Bencher<'_, '_>) {
    let text = token().to_string();
    bencher.bench_local(|| PageToken::parse(LIST, black_box(&text)).expect("it is a token of the list"));
}

#[divan::bench]
fn write_id(bencher: Bencher<'_, '_>) {
    let id = OrderId::from_uuid(Uuid::from_u128(7));
    bencher.bench_local(|| black_box(id).to_string());
}

#[divan::bench]
fn read_id(bencher: Bencher<'_, '_>) {
    let text = OrderId::from_uuid(Uuid::from_u128(7)).to_string();
    bencher.bench_local(|| black_box(text.as_str()).parse::<OrderId>().expect("it is an id"));
}

/// The id of an order, of which every request for it has to find the same.
#[divan::bench]
fn derive_id(bencher: Bencher<'_, '_>) {
    let user = UserId::from_uuid(Uuid::from_u128(7));
    let request = RequestId::parse("01985f2e-7c11-7d52-9c1e-2f6a0d0f3b77").expect("it can be printed");
    bencher.bench_local(|| OrderId::derive(black_box(user), black_box(&request)));
}

fn token() -> PageToken {
    PageToken::new(LIST, 1_767_225_600_000_000, Uuid::from_u128(9))
}
