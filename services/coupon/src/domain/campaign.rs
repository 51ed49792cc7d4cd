//! A campaign: immutable once created, so it may be cached for ever.

use stampede_vocab::{
    CampaignId, EventId, InvalidField, Money, RequestId, Timestamp, UserId,
    limits::{MAX_NAME_CHARS, MAX_QUOTA},
    refuse_text_with_card_number,
};

/// The terms of a campaign, chosen by its creator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignTerms {
    /// Name shown to buyers.
    pub name: String,
    /// Number of coupons.
    pub quota: i32,
    /// Taken off the subtotal of an order.
    pub discount: Money,
    /// The only event in which the coupons are valid; `None` for any.
    pub event_id: Option<EventId>,
    pub open_time: Timestamp,
    pub close_time: Timestamp,
}

impl CampaignTerms {
    /// Fails with the first field that is invalid.
    pub fn check(&self) -> Result<(), InvalidField> {
        if !(1..=MAX_NAME_CHARS).contains(&self.name.chars().count()) {
            return Err(InvalidField::new("name", format!("must be 1 to {MAX_NAME_CHARS} characters")));
        }
        refuse_text_with_card_number("name", &self.name)?;
        if !(1..=MAX_QUOTA).contains(&self.quota) {
            return Err(InvalidField::new("quota", format!("must be 1 to {MAX_QUOTA}")));
        }
        if self.discount.minor_units < 1 {
            return Err(InvalidField::new("discount.minor_units", "must be more than zero"));
        }
        if self.close_time <= self.open_time {
            return Err(InvalidField::new("close_time", "must be after open_time"));
        }
        Ok(())
    }

    /// Refuses a campaign whose close time has passed.
    pub fn check_not_over(&self, now: Timestamp) -> Result<(), InvalidField> {
        if self.close_time <= now {
            return Err(InvalidField::new("close_time", "must be in the future"));
        }
        Ok(())
    }
}

/// A batch of coupons with a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Derived from the creator and the request id.
    pub id: CampaignId,
    /// Operator who created it.
    pub creator_id: UserId,
    /// Request that created it.
    pub request_id: RequestId,
    pub terms: CampaignTerms,
    pub created_at: Timestamp,
}

impl Campaign {
    /// Returns the campaign of this request. Its id is the same for the same creator and request id.
    pub fn create(creator_id: UserId, request_id: RequestId, terms: CampaignTerms, now: Timestamp) -> Self {
        let id = CampaignId::derive(creator_id, &request_id);
        Self { id, creator_id, request_id, terms, created_at: now }
    }

    /// Returns whether its claims have closed.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.terms.close_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> CampaignTerms {
        CampaignTerms {
            name: "First thousand".to_owned(),
            quota: 1_000,
            discount: Money::new(500, "EUR".parse().unwrap()),
            event_id: None,
            open_time: Timestamp::from_micros(10),
            close_time: Timestamp::from_micros(20),
        }
    }

    #[test]
    fn terms_within_every_bound_are_taken() {
        assert_eq!(terms().check(), Ok(()));
        assert_eq!(CampaignTerms { name: "ä".repeat(200), quota: MAX_QUOTA, ..terms() }.check(), Ok(()));
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let free = Money::zero("EUR".parse().unwrap());
        let cases = [
            ("name", CampaignTerms { name: String::new(), ..terms() }),
            ("name", CampaignTerms { name: "x".repeat(201), ..terms() }),
            ("name", CampaignTerms { name: "Call 4242-4242-4242-4242".to_owned(), ..terms() }),
            ("quota", CampaignTerms { quota: 0, ..terms() }),
            ("quota", CampaignTerms { quota: MAX_QUOTA + 1, ..terms() }),
            ("discount.minor_units", CampaignTerms { discount: free, ..terms() }),
            ("close_time", CampaignTerms { close_time: terms().open_time, ..terms() }),
        ];
        for (field, bad) in cases {
            assert_eq!(bad.check().unwrap_err().field, field);
        }
    }

    #[test]
    fn a_campaign_that_would_be_over_already_is_refused() {
        assert!(terms().check_not_over(Timestamp::from_micros(19)).is_ok());
        assert_eq!(terms().check_not_over(Timestamp::from_micros(20)).unwrap_err().field, "close_time");
    }

    #[test]
    fn a_repeat_creates_the_same_campaign() {
        let creator = UserId::from_uuid(uuid::Uuid::from_u128(1));
        let request = RequestId::parse("spring").unwrap();
        let first = Campaign::create(creator, request.clone(), terms(), Timestamp::from_micros(1));
        let again = Campaign::create(creator, request, terms(), Timestamp::from_micros(9));
        assert_eq!(first.id, again.id);
    }
}
