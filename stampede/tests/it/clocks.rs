//! A sale on machines whose clocks disagree: each service goes by the clock that its replicas share.

use crate::sale::Sale;
use stampede_proto::order::v1::OrderState;
use stampede_testkit::{MeshBuilder, Process, Service, buyer};
use stampede_vocab::Timestamp;
use std::time::Duration;

/// The other buyer pays within it.
const PAY_WINDOW: Duration = Duration::from_secs(5);
/// Error of a process's clock measurement on a busy machine: much less than any clock is wrong.
const JUDGED_WITHIN: Duration = Duration::from_millis(250);

/// By how much each clock is wrong, in milliseconds. Neighbours in a purchase differ by four seconds.
const WRONG_BY_MS: [(Process, i64); 6] = [
    (Process::Service(Service::Event), 2_000),
    (Process::Service(Service::Inventory), -2_000),
    (Process::Service(Service::Coupon), 2_000),
    (Process::Service(Service::Order), -2_000),
    (Process::Service(Service::Payment), 2_000),
    (Process::Gateway, 2_000),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_on_machines_whose_clocks_disagree_keeps_every_promise() {
    let builder = WRONG_BY_MS
        .into_iter()
        .fold(MeshBuilder::default(), |builder, (process, ms)| builder.set(process, "STAMPEDE_CLOCK_WRONG_BY_MS", ms));
    let sale = Sale::open_on(builder, PAY_WINDOW).await;
    let (payer, other) = (buyer(), buyer());

    let coupon = sale.claim(payer).await;
    let asked = Timestamp::now();
    let unpaid = sale.placed(other, &[(0, 1)], "").await;
    let answered = Timestamp::now();
    let deadline = unpaid.pay_deadline.map(|at| at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000).unwrap();
    let deadline = Timestamp::from_micros(deadline);
    assert!(deadline.plus(JUDGED_WITHIN) >= asked.plus(PAY_WINDOW), "{deadline:?}, asked at {asked:?}");
    assert!(deadline <= answered.plus(PAY_WINDOW).plus(JUDGED_WITHIN), "{deadline:?}, answered at {answered:?}");

    sale.bought(payer, &[(0, 1)], &coupon.coupon_id).await;
    sale.until(other, &unpaid, OrderState::Expired).await;
    assert!(Timestamp::now().plus(JUDGED_WITHIN) >= deadline, "expired early");
    sale.until_left(0, 9, 1).await;
    sale.audit();
}
