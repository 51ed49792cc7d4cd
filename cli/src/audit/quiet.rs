//! Waits until nothing moves: a promise is about where things end, not about what is on its way.

use super::sources::Sources;
use crate::output::Output;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What moves, as counts that go down to zero by themselves.
const MOVING: &[(&str, &str)] = &[
    ("messages of event to be sent", "SELECT COUNT(*) FROM {event}.outbox WHERE sent_us IS NULL"),
    ("messages of coupon to be sent", "SELECT COUNT(*) FROM {coupon}.outbox WHERE sent_us IS NULL"),
    ("messages of inventory to be sent", "SELECT COUNT(*) FROM {inventory}.outbox WHERE sent_us IS NULL"),
    ("messages of order to be sent", "SELECT COUNT(*) FROM {order}.outbox WHERE sent_us IS NULL"),
    ("messages of payment to be sent", "SELECT COUNT(*) FROM {payment}.outbox WHERE sent_us IS NULL"),
    (
        "orders on their way",
        "SELECT COUNT(*) FROM {order}.orders WHERE state IN ('PENDING', 'PAYING', 'PAID', 'REFUNDING')",
    ),
    (
        "orders over their deadline",
        "SELECT COUNT(*) FROM {order}.orders WHERE state = 'AWAITING_PAYMENT' AND pay_deadline_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
    ),
    (
        "charges on their way",
        "SELECT COUNT(*) FROM {payment}.attempts WHERE state IN ('REQUESTED', 'CHARGING', 'UNKNOWN')",
    ),
    ("refunds on their way", "SELECT COUNT(*) FROM {payment}.refunds WHERE state <> 'REFUNDED'"),
    (
        "messages to be read by order",
        "SELECT (SELECT COUNT(*) FROM {inventory}.outbox) + (SELECT COUNT(*) FROM {payment}.outbox) \
         - (SELECT COUNT(*) FROM {order}.inbox WHERE source IN ('/stampede/inventory', '/stampede/payment'))",
    ),
    (
        "messages to be read by inventory",
        "SELECT (SELECT COUNT(*) FROM {order}.outbox) + (SELECT COUNT(*) FROM {event}.outbox) \
         - (SELECT COUNT(*) FROM {inventory}.inbox WHERE source IN ('/stampede/order', '/stampede/event'))",
    ),
    (
        "messages to be read by coupon",
        "SELECT (SELECT COUNT(*) FROM {order}.outbox) - (SELECT COUNT(*) FROM {coupon}.inbox WHERE source = '/stampede/order')",
    ),
    (
        "messages to be read by payment",
        "SELECT (SELECT COUNT(*) FROM {order}.outbox) - (SELECT COUNT(*) FROM {payment}.inbox WHERE source = '/stampede/order')",
    ),
    (
        "coupons held by orders that have ended",
        "SELECT COUNT(*) FROM {coupon}.coupons c LEFT JOIN {order}.orders o ON o.id = c.order_id WHERE c.state = 'HELD' \
         AND (o.id IS NULL OR o.state IN ('FULFILLED', 'REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED'))",
    ),
];

/// Waits until nothing moves, `deadline` at most. Returns what still moves.
pub async fn wait(sources: &Sources, deadline: Duration, output: Output) -> anyhow::Result<Vec<String>> {
    let until = Instant::now() + deadline;
    let mut last_said = Instant::now();
    loop {
        let moving = look(sources).await?;
        if moving.is_empty() || Instant::now() >= until {
            return Ok(moving);
        }
        if last_said.elapsed() > Duration::from_secs(2) && !output.json {
            last_said = Instant::now();
            eprintln!("waiting until the mesh is quiet: {}", moving.join(", "));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn look(sources: &Sources) -> anyhow::Result<Vec<String>> {
    let mut moving = Vec::new();
    for (what, sql) in MOVING {
        let count = sources.count(sql).await?;
        if count > 0 {
            moving.push(format!("{count} {what}"));
        }
    }
    moving.extend(super::stock::held(sources).await?);
    moving.extend(super::coupons::pending(sources).await?);
    Ok(moving)
}
