//! The provider's records, read page by page over HTTP.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, de::DeserializeOwned};
use stampede_vocab::PaymentId;
use std::{collections::BTreeMap, fmt, time::Duration};

/// Rows of one page of the records.
const PAGE_SIZE: usize = 1_000;
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A charge as the provider has it.
#[derive(Debug, Deserialize)]
struct Recorded {
    id: String,
    key: String,
    #[serde(flatten)]
    charge: Charge,
}

#[derive(Debug, Deserialize)]
struct Page {
    charges: Vec<Recorded>,
    has_more: bool,
}

/// The status of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The bank has not answered yet.
    Pending,
    Captured,
    /// Refused for good.
    Declined,
}

/// The money that a charge has moved.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Charge {
    pub amount_minor: i64,
    pub currency: String,
    pub status: Status,
    /// The sum that was given back. A refund that is pending, or has failed, is no part of it.
    pub refunded_minor: i64,
}

impl Charge {
    /// Returns whether it has moved money or still may.
    pub fn is_money(&self) -> bool {
        self.status != Status::Declined
    }
}

impl fmt::Display for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { amount_minor, currency, refunded_minor, .. } = self;
        match self.status {
            Status::Pending => write!(f, "{amount_minor} {currency} pending"),
            Status::Declined => write!(f, "{amount_minor} {currency} declined"),
            Status::Captured => write!(f, "{amount_minor} {currency} captured, {refunded_minor} refunded"),
        }
    }
}

/// The idempotency key of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub payment: PaymentId,
    pub attempt: i32,
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let (payment, attempt) = text.split_once(':')?;
        Some(Self { payment: payment.parse().ok()?, attempt: attempt.parse().ok()? })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.payment, self.attempt)
    }
}

/// The charges that are not compared yet, by key. Each key has one, if the provider is idempotent.
#[derive(Default)]
pub struct Charges {
    by_key: BTreeMap<Key, Vec<Charge>>,
    unreadable: Vec<String>,
}

impl Charges {
    pub async fn read(url: &str) -> anyhow::Result<Self> {
        let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut charges = Self::default();
        let mut after: Option<String> = None;
        loop {
            let from = after.as_ref().map(|id| format!("&after={id}")).unwrap_or_default();
            let page: Page =
                get(&client, &format!("{}/v1/charges?limit={PAGE_SIZE}{from}", url.trim_end_matches('/'))).await?;
            after = page.charges.last().map(|recorded| recorded.id.clone());
            page.charges.into_iter().for_each(|recorded| charges.add(recorded));
            if !page.has_more {
                return Ok(charges);
            }
        }
    }

    fn add(&mut self, Recorded { key, charge, .. }: Recorded) {
        match Key::parse(&key) {
            Some(key) => self.by_key.entry(key).or_default().push(charge),
            None if charge.is_money() => self.unreadable.push(format!("{key} ({charge})")),
            None => {}
        }
    }

    /// Returns how many captured something.
    pub fn captured(&self) -> usize {
        self.by_key.values().flatten().filter(|charge| charge.status == Status::Captured).count()
    }

    /// Takes the names of charges with a foreign key.
    pub fn take_unreadable(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unreadable)
    }

    /// Takes the charges under a key.
    pub fn take(&mut self, key: Key) -> Vec<Charge> {
        self.by_key.remove(&key).unwrap_or_default()
    }

    /// Takes the charges that are left of a payment.
    pub fn take_all_of(&mut self, payment: PaymentId) -> Vec<(Key, Charge)> {
        let of_payment = Key { payment, attempt: i32::MIN }..=Key { payment, attempt: i32::MAX };
        let keys: Vec<Key> = self.by_key.range(of_payment).map(|(key, _)| *key).collect();
        keys.into_iter().flat_map(|key| self.take(key).into_iter().map(move |charge| (key, charge))).collect()
    }

    /// Returns the charges that are left.
    pub fn rest(self) -> impl Iterator<Item = (Key, Charge)> {
        self.by_key.into_iter().flat_map(|(key, charges)| charges.into_iter().map(move |charge| (key, charge)))
    }
}

async fn get<T: DeserializeOwned>(client: &Client<HttpConnector, Empty<Bytes>>, url: &str) -> anyhow::Result<T> {
    let answer = async {
        let response = client.get(url.parse()?).await?;
        ensure!(response.status().is_success(), "{url} answered {}", response.status());
        let body = Limited::new(response.into_body(), 16 * 1024 * 1024).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{url}: {error}"))?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    };
    tokio::time::timeout(PAGE_TIMEOUT, answer).await.with_context(|| format!("{url} did not answer in time"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_found_by_its_key_or_by_its_payment() {
        let payment = PaymentId::from_uuid(uuid::Uuid::from_u128(1));
        let mut charges = Charges::default();
        for key in [format!("{payment}:1"), format!("{payment}:2"), "by-hand".to_owned()] {
            let json = format!(
                r#"{{"id":"ch_1","key":"{key}","amount_minor":5,"currency":"EUR","payment_method":"x",
                    "status":"captured","decline_code":null,"refunded_minor":0}}"#
            );
            charges.add(serde_json::from_str(&json).unwrap());
        }
        assert_eq!((charges.captured(), charges.take_unreadable().len()), (2, 1));
        assert_eq!(charges.take(Key { payment, attempt: 1 }).len(), 1);
        assert_eq!(charges.take_all_of(payment)[0].0.to_string(), format!("{payment}:2"));
        assert_eq!(charges.rest().count(), 0);
    }
}
