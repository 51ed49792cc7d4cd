//! An event as an operator requests it: valid by construction, but for its times, which need a clock.

use crate::domain::{Event, Gift, Item, Schedule, Times};
use stampede_vocab::{
    Currency, EventId, Fingerprint, InvalidField, ItemId, Money, RequestId, Timestamp, UserId,
    limits::{MAX_EVENT_ITEMS, MAX_LIMIT_PER_BUYER, MAX_NAME_CHARS, MAX_TOTAL_UNITS},
    refuse_text_with_card_number,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The caller.
    pub creator: UserId,
    /// The caller's idempotency key.
    pub request_id: RequestId,
    pub fingerprint: Fingerprint,
    name: String,
    times: Times,
    items: Vec<NewItem>,
}

impl NewEvent {
    /// Returns a request with a name of 1 to 200 characters and 1 to [`MAX_EVENT_ITEMS`] items in one currency. The
    /// error names the invalid field.
    pub fn new(
        (creator, request_id, fingerprint): (UserId, RequestId, Fingerprint),
        name: String,
        times: Times,
        items: Vec<NewItem>,
    ) -> Result<Self, InvalidField> {
        check_title("name", &name)?;
        check_one_currency(&items)?;
        Ok(Self { creator, request_id, fingerprint, name, times, items })
    }

    /// Returns the id of the event. A repeat of the request derives the same one.
    pub fn event_id(&self) -> EventId {
        EventId::derive(self.creator, &self.request_id)
    }

    pub fn times(&self) -> Times {
        self.times
    }

    pub fn event(&self, now: Timestamp) -> Event {
        let event_id = self.event_id();
        let items = self.items.iter().enumerate();
        Event {
            name: self.name.clone(),
            schedule: Schedule::new(event_id, self.times, now),
            items: items.map(|(index, item)| item.item(ItemId::derive(event_id, index))).collect(),
            created_at: now,
        }
    }
}

/// An item of an event that is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewItem {
    title: String,
    unit_price: Money,
    total_units: i32,
    limit_per_buyer: i32,
    gift: Option<Gift>,
}

impl NewItem {
    /// Returns an item. The error names the field that is out of its bounds.
    pub fn new(
        title: String,
        unit_price: Money,
        total_units: i32,
        limit_per_buyer: i32,
        gift: Option<Gift>,
    ) -> Result<Self, InvalidField> {
        check_title("title", &title)?;
        if unit_price.minor_units <= 0 {
            return Err(InvalidField::new("unit_price.minor_units", "must be more than 0"));
        }
        check_range("total_units", total_units, MAX_TOTAL_UNITS)?;
        check_range("limit_per_buyer", limit_per_buyer, MAX_LIMIT_PER_BUYER)?;
        if let Some(gift) = &gift {
            check_gift(gift).map_err(|error| error.within("gift"))?;
        }
        Ok(Self { title, unit_price, total_units, limit_per_buyer, gift })
    }

    fn currency(&self) -> Currency {
        self.unit_price.currency
    }

    fn item(&self, id: ItemId) -> Item {
        Item {
            id,
            title: self.title.clone(),
            unit_price: self.unit_price,
            total_units: self.total_units,
            limit_per_buyer: self.limit_per_buyer,
            gift: self.gift.clone(),
        }
    }
}

fn check_gift(gift: &Gift) -> Result<(), InvalidField> {
    check_title("title", &gift.title)?;
    check_range("total_units", gift.total_units, MAX_TOTAL_UNITS)
}

fn check_title(field: &str, title: &str) -> Result<(), InvalidField> {
    let chars = title.chars().count();
    if (1..=MAX_NAME_CHARS).contains(&chars) && !title.trim().is_empty() {
        refuse_text_with_card_number(field, title)
    } else {
        Err(InvalidField::new(field, format!("must be 1 to {MAX_NAME_CHARS} characters, not all blank")))
    }
}

fn check_range(field: &str, value: i32, max: i32) -> Result<(), InvalidField> {
    if (1..=max).contains(&value) { Ok(()) } else { Err(InvalidField::new(field, format!("must be 1 to {max}"))) }
}

fn check_one_currency(items: &[NewItem]) -> Result<(), InvalidField> {
    let currency = match items {
        [first, ..] if items.len() <= MAX_EVENT_ITEMS => first.currency(),
        _ => return Err(InvalidField::new("items", format!("must be 1 to {MAX_EVENT_ITEMS} items"))),
    };
    match items.iter().position(|item| item.currency() != currency) {
        None => Ok(()),
        Some(index) => Err(InvalidField::new(
            format!("items[{index}].unit_price.currency"),
            format!("must be {currency} as that of items[0]: all items of an event have one currency"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn eur(minor_units: i64) -> Money {
        Money::new(minor_units, "EUR".parse().unwrap())
    }

    fn item(price: Money) -> NewItem {
        NewItem::new("Lamp".to_owned(), price, 10, 2, None).unwrap()
    }

    fn event(name: &str, items: Vec<NewItem>) -> Result<NewEvent, InvalidField> {
        let times = Times::new(Timestamp::from_micros(1), Timestamp::from_micros(2)).unwrap();
        let caller = UserId::from_uuid(Uuid::from_u128(1));
        let origin = (caller, RequestId::parse("r-1").unwrap(), Fingerprint::new([0; 32]));
        NewEvent::new(origin, name.to_owned(), times, items)
    }

    #[test]
    fn the_field_out_of_bounds_is_named() {
        let gift = |title: &str, total_units| Some(Gift { title: title.to_owned(), total_units });
        let table = [
            ("title", ("", 1, 1, 1, None)),
            ("title", ("  ", 1, 1, 1, None)),
            ("title", ("Lamp 4242 4242 4242 4242", 1, 1, 1, None)),
            ("unit_price.minor_units", ("Lamp", 0, 1, 1, None)),
            ("unit_price.minor_units", ("Lamp", -1, 1, 1, None)),
            ("total_units", ("Lamp", 1, 0, 1, None)),
            ("total_units", ("Lamp", 1, 10_000_001, 1, None)),
            ("limit_per_buyer", ("Lamp", 1, 1, 0, None)),
            ("limit_per_buyer", ("Lamp", 1, 1, 1_001, None)),
            ("gift.title", ("Lamp", 1, 1, 1, gift("", 1))),
            ("gift.total_units", ("Lamp", 1, 1, 1, gift("Bulb", 0))),
        ];
        for (field, (title, price, total, limit, gift)) in table {
            let refused = NewItem::new(title.to_owned(), eur(price), total, limit, gift).unwrap_err();
            assert_eq!(refused.field, field);
        }
    }

    #[test]
    fn an_event_has_a_name_and_1_to_100_items_in_one_currency() {
        let usd = Money::new(1, "USD".parse().unwrap());
        assert!(event(&"ä".repeat(200), vec![item(eur(1)); 100]).is_ok());
        assert_eq!(event(&"ä".repeat(201), vec![item(eur(1))]).unwrap_err().field, "name");
        assert_eq!(event("Sale", vec![]).unwrap_err().field, "items");
        assert_eq!(event("Sale", vec![item(eur(1)); 101]).unwrap_err().field, "items");
        let mixed = event("Sale", vec![item(eur(1)), item(usd)]).unwrap_err();
        assert_eq!(mixed.field, "items[1].unit_price.currency");
    }

    #[test]
    fn a_repeat_makes_the_same_event() {
        let new = event("Sale", vec![item(eur(1)), item(eur(2))]).unwrap();
        let first = new.event(Timestamp::from_micros(5));
        assert_eq!(first, new.event(Timestamp::from_micros(5)));
        assert_ne!(first.items[0].id, first.items[1].id);
        assert_eq!((first.schedule.version, first.id()), (1, new.event_id()));
    }
}
