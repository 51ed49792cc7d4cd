//! Packs reservations as arguments of the scripts, and parses holds as they store them.

use super::{distinct, item_ids, place};
use crate::{Args, FromRedisValue, RedisError, Value};
use stampede_vocab::{Currency, Fingerprint, ItemId, Money, OrderId, Quantity, Timestamp, UserId};
use std::str::FromStr;

/// The units that one order wants held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Order to hold for.
    pub order_id: OrderId,
    /// Buyer.
    pub user_id: UserId,
    /// Hash of the whole request: a hold is returned again to the same request only.
    pub fingerprint: Fingerprint,
    /// What is known of the order in the ledger.
    pub ledger: InLedger,
    /// At least one, and no item twice.
    pub lines: Vec<WantedLine>,
}

/// What is known of an order in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InLedger {
    /// Nothing.
    Unknown,
    /// It was looked up after this reading, and was not there.
    AbsentAfter(Reading),
    /// It is not there, whatever Redis has of the buyer. If somebody else has committed the same order meanwhile, its
    /// units are held twice until the ledger is asked to commit them, and a refusal may be for those units.
    Absent,
}

/// What Redis had of a buyer in the items of a reservation when it answered [`Decision::KnownBuyer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading(String);

/// Units of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedLine {
    /// Item.
    pub item_id: ItemId,
    /// Units wanted.
    pub units: Quantity,
}

/// Returns the items that the reservations name, each once, and the arguments of the script. Public for the benchmark.
#[doc(hidden)]
pub fn arguments(asks: &[Reservation]) -> (Vec<ItemId>, Args) {
    let items = distinct(asks.iter().flat_map(|ask| ask.lines.iter().map(|line| line.item_id)));
    let mut args = item_ids(&items);
    for ask in asks {
        ask.push_to(&mut args, &items);
    }
    (items, args)
}

/// Parses the replies of `script` to the reservations. Public for the benchmark.
#[doc(hidden)]
pub fn decisions(script: &'static str, replies: Vec<Value>) -> Vec<Result<Decision, RedisError>> {
    replies.into_iter().map(|reply| Decision::parse(script, reply)).collect()
}

impl Reservation {
    fn push_to(&self, args: &mut Args, items: &[ItemId]) {
        args.push(self.order_id.to_string());
        args.push(self.user_id.to_string());
        args.push(self.fingerprint.to_string());
        match &self.ledger {
            InLedger::Unknown => args.push(0_u8),
            InLedger::AbsentAfter(Reading(reading)) => args.push(reading.as_str()),
            InLedger::Absent => args.push(1_u8),
        }
        args.push(self.lines.len());
        for line in &self.lines {
            args.push(place(items, line.item_id));
            args.push(line.units.get());
        }
    }
}

/// The answer to one reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The units are held, by this call or an earlier one for the same order.
    Held(Hold),
    /// Nothing is held.
    Refused(Refusal),
    /// Nothing is decided: the buyer has or had units, so the ledger may have this very order. The caller looks it up
    /// there, and if it is missing reserves again with this reading. That gets the same answer with another reading if
    /// the buyer's units in the ledger have changed since.
    KnownBuyer(Reading),
}

/// The script's reply in place of a reason where it does not decide.
const KNOWN_BUYER: &str = "KNOWN_BUYER";

/// Units held for one order that is not in the ledger yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Order of arrival in the event: 1 came first.
    pub arrival: i64,
    /// When it was last requested, by the clock of Redis.
    pub held_at: Timestamp,
    /// When it was granted, by the clock of Redis.
    pub granted_at: Timestamp,
    /// Buyer.
    pub user_id: UserId,
    /// The lines, in the order of the request.
    pub lines: Vec<HeldLine>,
}

/// Units of one item on hold, with the price and the gift of that instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLine {
    /// Item.
    pub item_id: ItemId,
    /// Units held.
    pub units: i32,
    /// Gifts held with them: 1 or 0.
    pub gift_units: i32,
    /// Price of one unit.
    pub unit_price: Money,
}

/// A hold with its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHold {
    /// Order.
    pub order_id: OrderId,
    /// Its hold.
    pub hold: Hold,
}

/// A refusal of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub cause: Cause,
    /// Item at fault; none where it is the event.
    pub item_id: Option<ItemId>,
    /// Units that are left, or that the limit still allows; 0 where it does not apply.
    pub allowed_units: i32,
}

/// The reasons for which the script refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The order holds units already, for another request.
    RequestIdReused,
    /// The event has not opened.
    EventNotOpen,
    /// The event has closed.
    EventClosed,
    /// The stock is not staged, or is being rebuilt.
    NotReady,
    /// The event does not offer the item.
    ItemNotFound,
    /// The lines are of more than one currency.
    CurrencyMismatch,
    /// The buyer would have more than the limit.
    LimitReached,
    /// Not enough units are left.
    SoldOut,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 8] = [
        Self::RequestIdReused,
        Self::EventNotOpen,
        Self::EventClosed,
        Self::NotReady,
        Self::ItemNotFound,
        Self::CurrencyMismatch,
        Self::LimitReached,
        Self::SoldOut,
    ];

    /// Its name in the script.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::EventNotOpen => "EVENT_NOT_OPEN",
            Self::EventClosed => "EVENT_CLOSED",
            Self::NotReady => "NOT_READY",
            Self::ItemNotFound => "ITEM_NOT_FOUND",
            Self::CurrencyMismatch => "CURRENCY_MISMATCH",
            Self::LimitReached => "LIMIT_REACHED",
            Self::SoldOut => "SOLD_OUT",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }
}

impl Decision {
    /// Reads a hold, which is a text, or a refusal, which is a list.
    fn parse(script: &'static str, reply: Value) -> Result<Self, RedisError> {
        if !matches!(reply, Value::Array(_)) {
            let packed: String = read(script, reply)?;
            return Hold::parse(script, &packed).map(Self::Held);
        }
        let (cause, item, allowed_units): (String, String, i32) = read(script, reply)?;
        if cause == KNOWN_BUYER {
            return Ok(Self::KnownBuyer(Reading(item)));
        }
        let cause = Cause::parse(&cause).ok_or_else(|| RedisError::reply(script, &cause))?;
        let item_id = if item.is_empty() { None } else { Some(field(script, &item)?) };
        Ok(Self::Refused(Refusal { cause, item_id, allowed_units }))
    }
}

impl Hold {
    /// Reads `arrival|held_at_us|fingerprint|user|currency|item:units:gifts:price,...|granted_at_us`. A hold that an
    /// earlier release has granted does not have the last part.
    pub(super) fn parse(script: &'static str, packed: &str) -> Result<Self, RedisError> {
        let parts: Vec<&str> = packed.split('|').collect();
        let [arrival, held_at_us, _, user, currency, lines, ref granted_at_us @ ..] = parts[..] else {
            return Err(RedisError::reply(script, packed));
        };
        let granted_at_us = match granted_at_us {
            [] => held_at_us,
            [granted_at_us] => granted_at_us,
            _ => return Err(RedisError::reply(script, packed)),
        };
        let currency = field(script, currency)?;
        Ok(Self {
            arrival: field(script, arrival)?,
            held_at: Timestamp::from_micros(field(script, held_at_us)?),
            granted_at: Timestamp::from_micros(field(script, granted_at_us)?),
            user_id: field(script, user)?,
            lines: lines.split(',').map(|line| held_line(script, line, currency)).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the items that it holds.
    pub fn items(&self) -> Vec<ItemId> {
        self.lines.iter().map(|line| line.item_id).collect()
    }
}

impl OpenHold {
    pub(super) fn parse(script: &'static str, order_id: &str, packed: &str) -> Result<Self, RedisError> {
        Ok(Self { order_id: field(script, order_id)?, hold: Hold::parse(script, packed)? })
    }
}

fn held_line(script: &'static str, packed: &str, currency: Currency) -> Result<HeldLine, RedisError> {
    let parts: Vec<&str> = packed.split(':').collect();
    let [item, units, gifts, price] = parts[..] else { return Err(RedisError::reply(script, packed)) };
    Ok(HeldLine {
        item_id: field(script, item)?,
        units: field(script, units)?,
        gift_units: field(script, gifts)?,
        unit_price: Money::new(field(script, price)?, currency),
    })
}

/// Parses one part of a packed text.
pub(super) fn field<T: FromStr>(script: &'static str, text: &str) -> Result<T, RedisError> {
    text.parse().map_err(|_| RedisError::reply(script, text))
}

fn read<T: FromRedisValue>(script: &'static str, value: Value) -> Result<T, RedisError> {
    T::from_redis_value(value).map_err(|error| RedisError::reply(script, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{
        collection::vec,
        prelude::{any, prop_assert, prop_assert_eq, proptest},
        sample::Index,
    };
    use uuid::Uuid;

    const ITEM: &str = "itm_0000000000000000000000001a";
    const USER: &str = "usr_0000000000000000000000001b";
    const REQUEST: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

    #[test]
    fn a_packed_hold_reads_back() {
        let packed = format!("7|1700000000000001|{REQUEST}|{USER}|EUR|{ITEM}:2:1:1999");
        let of_before = Hold::parse("test", &packed).unwrap();
        assert_eq!(of_before.granted_at.micros(), 1_700_000_000_000_001);
        let hold = Hold::parse("test", &format!("{packed}|1600000000000001")).unwrap();
        assert_eq!((hold.arrival, hold.held_at.micros()), (7, 1_700_000_000_000_001));
        assert_eq!(hold.granted_at.micros(), 1_600_000_000_000_001);
        assert_eq!(hold.user_id.to_string(), USER);
        let price = Money::new(1999, "EUR".parse().unwrap());
        assert_eq!(
            hold.lines,
            [HeldLine { item_id: ITEM.parse().unwrap(), units: 2, gift_units: 1, unit_price: price }]
        );
    }

    #[test]
    fn a_hold_of_another_shape_is_an_error_that_names_the_script() {
        let bad_lines = ["", "EUR", "EUR|", &format!("EUR|{ITEM}:1:0")];
        let bad = bad_lines.map(|rest| format!("1|2|{REQUEST}|{USER}|{rest}"));
        for bad in bad.iter().map(String::as_str).chain(["", "1|2|3"]) {
            assert!(Hold::parse("stock/x", bad).unwrap_err().to_string().contains("stock/x"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_packed_hold_reads_back(
            arrival: i64,
            held_at_us: i64,
            lines in vec((any::<u128>(), any::<i32>(), any::<i32>(), any::<i64>()), 1..20),
        ) {
            let item = |id: u128| ItemId::from_uuid(Uuid::from_u128(id));
            let packed_line = |&(id, units, gifts, price): &(u128, i32, i32, i64)| format!("{}:{units}:{gifts}:{price}", item(id));
            let packed_lines = lines.iter().map(packed_line).collect::<Vec<_>>().join(",");
            let hold = Hold::parse("test", &format!("{arrival}|{held_at_us}|{REQUEST}|{USER}|EUR|{packed_lines}")).unwrap();
            prop_assert_eq!((hold.arrival, hold.held_at.micros()), (arrival, held_at_us));
            let read: Vec<_> = hold.lines.iter().map(|line| (line.item_id, line.units, line.gift_units, line.unit_price.minor_units)).collect();
            let written: Vec<_> = lines.iter().map(|&(id, units, gifts, price)| (item(id), units, gifts, price)).collect();
            prop_assert_eq!(read, written);
        }

        #[test]
        fn a_damaged_hold_is_another_hold_or_an_error_that_names_the_script(
            place in any::<Index>(),
            with in "[|:,a-z0-9-]{0,2}",
        ) {
            let mut packed = format!("7|1700000000000001|{REQUEST}|{USER}|EUR|{ITEM}:2:1:1999,{ITEM}:1:0:5");
            let place = place.index(packed.len());
            packed.replace_range(place..=place, &with);
            match Hold::parse("stock/x", &packed) {
                Ok(hold) => {
                    let lines = packed.split('|').nth(5).unwrap_or_default();
                    prop_assert_eq!(hold.lines.len(), lines.split(',').count());
                }
                Err(error) => prop_assert!(error.to_string().contains("stock/x"), "{}", error),
            }
        }
    }
}
