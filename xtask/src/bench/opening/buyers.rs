//! Buyers who try to be the first in some of the events that open at one instant.

use crate::bench::opening::{curve::late_ms, rows::Planned};
use anyhow::Context;
use stampede_vocab::Timestamp;
use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

/// Time before the opening at which a buyer begins to try.
const BEFORE: Duration = Duration::from_millis(50);
/// Time between two tries.
const TICK: Duration = Duration::from_millis(10);
/// Time after the opening at which a buyer gives up.
const PATIENCE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

/// The buyer, and the gateway that gets the orders.
#[derive(Debug, Clone)]
pub struct Shop {
    /// The gateway, HOST:PORT.
    pub gateway: String,
    /// The access token of a buyer.
    pub token: String,
}

/// Returns when the first order was accepted in each of these events, in milliseconds after the opening; none where no
/// order was accepted.
pub fn first_orders(shop: &Shop, events: &[Planned], due_at: Timestamp) -> anyhow::Result<Vec<Option<f64>>> {
    let buyers: Vec<_> = events
        .iter()
        .map(|event| {
            let (shop, event) = (shop.clone(), *event);
            thread::spawn(move || first_order(&shop, event, due_at))
        })
        .collect();
    let joined = buyers.into_iter().map(|buyer| buyer.join().map_err(|_| anyhow::anyhow!("a buyer has panicked"))?);
    joined.collect()
}

fn first_order(shop: &Shop, event: Planned, due_at: Timestamp) -> anyhow::Result<Option<f64>> {
    thread::sleep(due_at.minus(BEFORE).since(Timestamp::now()));
    let end = due_at.plus(PATIENCE);
    for attempt in 0_u32.. {
        let is_accepted = shop.place(event, attempt)?;
        let now = Timestamp::now();
        if is_accepted {
            return Ok(Some(late_ms(now, due_at)));
        }
        if now > end {
            break;
        }
        thread::sleep(TICK);
    }
    Ok(None)
}

impl Shop {
    /// Orders a unit. Returns whether the order was accepted.
    fn place(&self, Planned { event, item }: Planned, attempt: u32) -> anyhow::Result<bool> {
        let Self { gateway, token } = self;
        let body = format!(
            r#"{{"request_id":"{event}-{attempt}","event_id":"{event}","lines":[{{"item_id":"{item}","units":1}}]}}"#
        );
        let mut stream = TcpStream::connect(gateway).with_context(|| format!("cannot connect to {gateway}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "POST /v1/orders HTTP/1.1\r\nHost: {gateway}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("the gateway does not answer")?;
        Ok(answer.starts_with("HTTP/1.1 20"))
    }
}
