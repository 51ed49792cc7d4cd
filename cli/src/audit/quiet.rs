//! Waits until the mesh is quiescent: a promise is about final states, not about what is in flight.

use super::{messages, sources::Sources};
use crate::output::Output;
use stampede_vocab::Service;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two lines of progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Counts that fall to zero when nothing moves, in addition to unsent messages. Each is the work of the service whose
/// table comes first; a service that has work has one (`Service::has_work`).
const MOVING: &[(&str, &str)] = &[
    (
        "orders on their way",
        "SELECT COUNT(*) FROM {order}.orders WHERE state IN ('PENDING', 'PAYING', 'PAID', 'REFUNDING')",
    ),
    (
        "orders over their deadline",
        "SELECT COUNT(*) FROM {order}.orders WHERE state = 'AWAITING_PAYMENT' AND pay_deadline_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
    ),
    (
        "reservations of orders that were never written",
        "SELECT COUNT(*) FROM {inventory}.reservations r LEFT JOIN {order}.orders o ON o.id = r.order_id WHERE o.id IS NULL",
    ),
    (
        "reservations that are overdue",
        "SELECT COUNT(*) FROM {inventory}.reservations WHERE asked_at_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 60000000",
    ),
    (
        "cancelled events whose orders have not all ended",
        "SELECT COUNT(*) FROM {order}.cancelled_events WHERE settled_us IS NULL \
         AND (is_whole = FALSE OR remaining_orders > 0 OR refunding_orders > 0)",
    ),
    (
        "charges on their way",
        "SELECT COUNT(*) FROM {payment}.attempts WHERE state NOT IN ('PARKED', 'APPROVED', 'DECLINED')",
    ),
    ("refunds on their way", "SELECT COUNT(*) FROM {payment}.refunds WHERE state NOT IN ('PARKED', 'REFUNDED')"),
    ("decisions on anomalies to be carried out", "SELECT COUNT(*) FROM {payment}.anomalies WHERE state = 'DECIDED'"),
    (
        "coupons held by orders that have ended",
        "SELECT COUNT(*) FROM {coupon}.coupons c LEFT JOIN {order}.orders o ON o.id = c.order_id WHERE c.state = 'HELD' \
         AND (o.id IS NULL OR o.state IN ('FULFILLED', 'REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED'))",
    ),
];

/// Waits until nothing moves, or the time is over. Returns the counts that still move.
pub async fn wait(sources: &Sources, until: Instant, output: Output) -> anyhow::Result<Vec<String>> {
    let mut last_report = Instant::now();
    loop {
        let moving = still_moving(sources).await?;
        if moving.is_empty() || Instant::now() >= until {
            return Ok(moving);
        }
        if last_report.elapsed() > REPORT_INTERVAL && !output.json {
            last_report = Instant::now();
            eprintln!("waiting until the mesh is quiet: {}", moving.join(", "));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Returns the counts that are not zero. Queries Kafka and compares row by row only once all are zero, since that is
/// slow. Each statement is short: a long one would delay the purge of old row versions after the rush.
///
/// A message that is applied between the counts and the comparison may cause another one. So the mesh is quiet only if
/// no message was written in between.
async fn still_moving(sources: &Sources) -> anyhow::Result<Vec<String>> {
    let mut moving = Vec::new();
    let before = last_messages(sources).await?;
    for service in Service::ALL {
        let count = messages::unsent(sources, service).await?;
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
    for (consumer, count) in messages::to_be_replayed(sources).await? {
        moving.push(format!("{count} dead letters of {consumer} to be replayed"));
    }
    if !moving.is_empty() {
        return Ok(moving);
    }
    moving.extend(unread(sources).await?);
    moving.extend(super::stock::moving(sources).await?);
    moving.extend(super::coupons::pending(sources).await?);
    if moving.is_empty() && last_messages(sources).await? != before {
        moving.push("messages that were just written".to_owned());
    }
    Ok(moving)
}

/// Returns a number that changes with every message that is written.
pub async fn last_messages(sources: &Sources) -> anyhow::Result<i64> {
    let last = Service::ALL.map(|service| format!("(SELECT COALESCE(MAX(id), 0) FROM {{{service}}}.outbox)"));
    sources.count(&format!("SELECT {}", last.join(" + "))).await
}

/// Returns the messages that a consumer has yet to read, by the offsets that its group has committed.
async fn unread(sources: &Sources) -> anyhow::Result<Vec<String>> {
    let unread = sources.kafka.unread().await?;
    Ok(unread
        .into_iter()
        .map(|(writer, reader, count)| format!("{count} messages of {writer} to be read by {reader}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_of_each_service_that_has_any_is_waited_for() {
        for service in Service::ALL {
            let own = format!("SELECT COUNT(*) FROM {{{service}}}.");
            let is_waited_for = MOVING.iter().any(|(_, sql)| sql.starts_with(&own));
            assert_eq!(is_waited_for, service.has_work(), "{service}");
        }
    }
}
