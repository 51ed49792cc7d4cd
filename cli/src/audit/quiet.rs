//! Waits until nothing moves: a promise is about where things end, not about what is on its way.

use super::{retention::Retention, sources::Sources};
use crate::output::Output;
use stampede_vocab::Service;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(200);
/// Between two lines for who waits.
const SAID_EVERY: Duration = Duration::from_secs(2);

/// What moves beside messages to be sent, as counts that go down to zero by themselves. Where states are listed, they are those that have ended.
const MOVING: &[(&str, &str)] = &[
    (
        "orders on their way",
        "SELECT COUNT(*) FROM {order}.orders WHERE state IN ('PENDING', 'PAYING', 'PAID', 'REFUNDING')",
    ),
    (
        "orders over their deadline",
        "SELECT COUNT(*) FROM {order}.orders WHERE state = 'AWAITING_PAYMENT' AND pay_deadline_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
    ),
    ("charges on their way", "SELECT COUNT(*) FROM {payment}.attempts WHERE state NOT IN ('APPROVED', 'DECLINED')"),
    ("refunds on their way", "SELECT COUNT(*) FROM {payment}.refunds WHERE state <> 'REFUNDED'"),
    (
        "coupons held by orders that have ended",
        "SELECT COUNT(*) FROM {coupon}.coupons c LEFT JOIN {order}.orders o ON o.id = c.order_id WHERE c.state = 'HELD' \
         AND (o.id IS NULL OR o.state IN ('FULFILLED', 'REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED'))",
    ),
];

/// Waits until nothing moves, `deadline` at most. Returns what still moves.
pub async fn wait(
    sources: &Sources,
    retention: Retention,
    deadline: Duration,
    output: Output,
) -> anyhow::Result<Vec<String>> {
    let until = Instant::now() + deadline;
    let mut last_said = Instant::now();
    loop {
        let moving = look(sources, retention).await?;
        if moving.is_empty() || Instant::now() >= until {
            return Ok(moving);
        }
        if last_said.elapsed() > SAID_EVERY && !output.json {
            last_said = Instant::now();
            eprintln!("waiting until the mesh is quiet: {}", moving.join(", "));
        }
        sleep(PERIOD).await;
    }
}

/// What has to be compared row by row is looked at only where what can be counted is quiet.
///
/// A message may be applied between the one and the other and lead to the next, so nothing may be written meanwhile.
async fn look(sources: &Sources, retention: Retention) -> anyhow::Result<Vec<String>> {
    let mut moving = Vec::new();
    let before = last_messages(sources).await?;
    for service in Service::ALL {
        let count = sources.count(&format!("SELECT COUNT(*) FROM {{{service}}}.outbox_unsent")).await?;
        if count > 0 {
            moving.push(format!("{count} messages of {service} to be sent"));
        }
    }
    for (what, sql) in MOVING {
        let count = sources.count(sql).await?;
        if count > 0 {
            moving.push(format!("{count} {what}"));
        }
    }
    if !moving.is_empty() {
        return Ok(moving);
    }
    moving.extend(unread(sources, retention).await?);
    moving.extend(super::stock::moving(sources).await?);
    moving.extend(super::coupons::pending(sources).await?);
    if moving.is_empty() && last_messages(sources).await? != before {
        moving.push("messages that were just written".to_owned());
    }
    Ok(moving)
}

/// A number that changes with every message that is written.
async fn last_messages(sources: &Sources) -> anyhow::Result<i64> {
    let last = Service::ALL.map(|service| format!("(SELECT COALESCE(MAX(id), 0) FROM {{{service}}}.outbox)"));
    sources.count(&format!("SELECT {}", last.join(" + "))).await
}

/// Messages that a consumer has not recorded. Outboxes and inboxes are purged at different ages, so each message is
/// looked for, as far back as inboxes reach.
async fn unread(sources: &Sources, retention: Retention) -> anyhow::Result<Vec<String>> {
    let mut moving = Vec::new();
    for writer in Service::ALL {
        for reader in writer.readers() {
            let count = sources.count(&format!("SELECT COUNT(*) {}", retention.unread(writer, reader))).await?;
            if count > 0 {
                moving.push(format!("{count} messages of {writer} to be read by {reader}"));
            }
        }
    }
    Ok(moving)
}
