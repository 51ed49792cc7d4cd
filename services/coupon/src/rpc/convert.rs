//! Proto to domain and back, and each error of the domain as what a caller is told. Nothing is decided here.

use crate::{
    domain::{
        Campaign, CampaignTerms, Claim, ClaimError, Coupon, CouponState, CreateCampaignError, Failure, HoldError,
        HoldRequest,
    },
    usecase::{Held, IssuedCampaign},
    wire::timestamp,
};
use stampede_chassis::Identity;
use stampede_proto::{
    coupon::v1::{self as proto, hold_coupon_result::Outcome},
    r#type::v1::Money as ProtoMoney,
};
use stampede_status::{Problem, Reason};
use stampede_vocab::{Currency, Fingerprint, InvalidField, Money, ParseIdError, RequestId, Timestamp, UserId};
use std::{ops::RangeInclusive, str::FromStr};

/// 0001-01-01 and 9999-12-31 in seconds: what a timestamp of the contract may be.
const SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// How many holds one call may have.
const HOLDS: RangeInclusive<usize> = 1..=256;

/// The user who calls.
pub fn caller(identity: &Identity) -> Result<UserId, Problem> {
    let unreadable = |_| Problem::new(Reason::Unauthenticated, "the request does not say which user calls");
    identity.user_id.parse().map_err(unreadable)
}

/// An id of the request.
pub fn id<T: FromStr<Err = ParseIdError>>(field: &str, text: &str) -> Result<T, Problem> {
    parse(field, text).map_err(invalid)
}

/// An id that may be left out.
pub fn optional_id<T: FromStr<Err = ParseIdError>>(field: &str, text: &str) -> Result<Option<T>, Problem> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// A request id.
pub fn request_id(text: &str) -> Result<RequestId, Problem> {
    RequestId::parse(text).map_err(invalid)
}

/// What a request asked for.
pub fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, Problem> {
    Fingerprint::parse(bytes).map_err(invalid)
}

/// A field that cannot be what it is.
pub fn invalid(error: InvalidField) -> Problem {
    if error.field == "page_token" {
        Problem::new(Reason::InvalidPageToken, error.problem).field(error.field)
    } else {
        Problem::invalid_field(error.field, error.problem)
    }
}

/// What the creator of a campaign chose.
pub fn terms(request: proto::CreateCampaignRequest) -> Result<CampaignTerms, Problem> {
    Ok(CampaignTerms {
        name: request.name,
        quota: request.quota,
        discount: money("discount", request.discount)?,
        event_id: optional_id("event_id", &request.event_id)?,
        opens_at: instant("opens_at", request.opens_at)?,
        closes_at: instant("closes_at", request.closes_at)?,
    })
}

/// A claim of this user.
pub fn claim(user_id: UserId, request: &proto::ClaimCouponRequest) -> Result<Claim, Problem> {
    let campaign_id = id("campaign_id", &request.campaign_id)?;
    Ok(Claim { campaign_id, user_id, request_id: request_id(&request.request_id)? })
}

/// The holds of one call. One that cannot be read refuses all, by its place.
pub fn hold_requests(request: &proto::HoldCouponsRequest) -> Result<Vec<HoldRequest>, Problem> {
    let count = request.holds.len();
    if !HOLDS.contains(&count) {
        let (least, most) = HOLDS.into_inner();
        return Err(Problem::invalid_field("holds", format!("must be {least} to {most}, but are {count}")));
    }
    let read = |(index, hold)| hold_request(hold).map_err(|error| invalid(error.within(&format!("holds[{index}]"))));
    request.holds.iter().enumerate().map(read).collect()
}

/// The answer to one hold.
pub fn hold_result(held: &Held) -> proto::HoldCouponResult {
    let outcome = match held {
        Ok(held) => Outcome::Coupon(coupon(held)),
        Err(error) => Outcome::Refusal(proto::HoldCouponRefusal { reason: refusal_reason(error).into() }),
    };
    proto::HoldCouponResult { outcome: Some(outcome) }
}

/// A campaign as the contract shows it.
pub fn campaign(found: &IssuedCampaign) -> proto::Campaign {
    let IssuedCampaign { campaign, issued } = found;
    let terms = &campaign.terms;
    proto::Campaign {
        campaign_id: campaign.id.to_string(),
        name: terms.name.clone(),
        quota: terms.quota,
        discount: Some(proto_money(terms.discount)),
        event_id: terms.event_id.map(|event_id| event_id.to_string()).unwrap_or_default(),
        opens_at: Some(timestamp(terms.opens_at)),
        closes_at: Some(timestamp(terms.closes_at)),
        issued: *issued,
        create_time: Some(timestamp(campaign.created_at)),
    }
}

/// A coupon as the contract shows it.
pub fn coupon((coupon, campaign): &(Coupon, impl AsRef<Campaign>)) -> proto::Coupon {
    proto::Coupon {
        coupon_id: coupon.id.to_string(),
        campaign_id: coupon.campaign_id.to_string(),
        user_id: coupon.user_id.to_string(),
        rank: coupon.rank,
        state: state(coupon.state).into(),
        discount: Some(proto_money(campaign.as_ref().terms.discount)),
        order_id: coupon.state.order_id().map(|order_id| order_id.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(coupon.created_at)),
    }
}

const fn refusal_reason(error: &HoldError) -> proto::HoldCouponRefusalReason {
    match error {
        HoldError::NotFound => proto::HoldCouponRefusalReason::CouponNotFound,
        HoldError::InUse { .. } => proto::HoldCouponRefusalReason::CouponInUse,
        HoldError::RequestIdReused => proto::HoldCouponRefusalReason::RequestIdReused,
        HoldError::WrongEvent => proto::HoldCouponRefusalReason::CouponWrongEvent,
        HoldError::CurrencyMismatch { .. } => proto::HoldCouponRefusalReason::CurrencyMismatch,
    }
}

const fn state(state: CouponState) -> proto::CouponState {
    match state {
        CouponState::Issued => proto::CouponState::Issued,
        CouponState::Held { .. } => proto::CouponState::Held,
        CouponState::Used { .. } => proto::CouponState::Used,
    }
}

fn hold_request(hold: &proto::CouponHold) -> Result<HoldRequest, InvalidField> {
    Ok(HoldRequest {
        coupon_id: parse("coupon_id", &hold.coupon_id)?,
        order_id: parse("order_id", &hold.order_id)?,
        request: Fingerprint::parse(&hold.request_fingerprint)?,
        user_id: parse("user_id", &hold.user_id)?,
        event_id: parse("event_id", &hold.event_id)?,
        currency: hold.currency.parse()?,
    })
}

fn parse<T: FromStr<Err = ParseIdError>>(field: &str, text: &str) -> Result<T, InvalidField> {
    text.parse().map_err(|error: ParseIdError| InvalidField::new(field, error.to_string()))
}

fn money(field: &str, money: Option<ProtoMoney>) -> Result<Money, Problem> {
    let money = money.ok_or_else(|| Problem::invalid_field(field, "must be set"))?;
    let currency: Currency = money.currency.parse().map_err(|error: InvalidField| invalid(error.within(field)))?;
    Ok(Money::new(money.minor_units, currency))
}

fn proto_money(money: Money) -> ProtoMoney {
    ProtoMoney { minor_units: money.minor_units, currency: money.currency.to_string() }
}

fn instant(field: &str, at: Option<prost_types::Timestamp>) -> Result<Timestamp, Problem> {
    let at = at.ok_or_else(|| Problem::invalid_field(field, "must be set"))?;
    if !SECONDS.contains(&at.seconds) || !(0..1_000_000_000).contains(&at.nanos) {
        return Err(Problem::invalid_field(field, "must be a time of the years 1 to 9999"));
    }
    Ok(Timestamp::from_micros(at.seconds * 1_000_000 + i64::from(at.nanos / 1_000)))
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Overloaded => Self::new(Reason::Overloaded, "too many calls are waiting; try again shortly"),
            Failure::Unreachable { server, cause } => Self::unavailable(server, cause),
            Failure::Broken(cause) => Self::internal_error(cause),
        }
    }
}

impl From<CreateCampaignError> for Problem {
    fn from(error: CreateCampaignError) -> Self {
        match error {
            CreateCampaignError::InvalidField(field) => invalid(field),
            CreateCampaignError::RequestIdReused => {
                Self::new(Reason::RequestIdReused, error.to_string()).field("request_id")
            }
            CreateCampaignError::Failure(failure) => failure.into(),
        }
    }
}

impl From<ClaimError> for Problem {
    fn from(error: ClaimError) -> Self {
        let of_campaign = |reason| Self::new(reason, error.to_string()).field("campaign_id");
        match error {
            ClaimError::CampaignNotFound => of_campaign(Reason::CampaignNotFound),
            ClaimError::NotOpen => of_campaign(Reason::CampaignNotOpen),
            ClaimError::Closed => of_campaign(Reason::CampaignClosed),
            ClaimError::SoldOut => of_campaign(Reason::SoldOut),
            ClaimError::AlreadyClaimed { coupon_id } => {
                of_campaign(Reason::AlreadyClaimed).meta("coupon_id", coupon_id)
            }
            ClaimError::NotReady => of_campaign(Reason::NotReady),
            ClaimError::Failure(failure) => failure.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of<T>(outcome: Result<T, Problem>) -> Option<String> {
        outcome.err().and_then(|problem| problem.field_path().map(str::to_owned))
    }

    #[test]
    fn instants_keep_their_microseconds_and_impossible_ones_are_refused() {
        let at = prost_types::Timestamp { seconds: -1, nanos: 999_999_999 };
        assert_eq!(instant("opens_at", Some(at)).unwrap(), Timestamp::from_micros(-1));
        for (seconds, nanos) in [(0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0)] {
            let at = prost_types::Timestamp { seconds, nanos };
            assert_eq!(field_of(instant("opens_at", Some(at))).as_deref(), Some("opens_at"), "{seconds} {nanos}");
        }
        assert_eq!(field_of(instant("closes_at", None)).as_deref(), Some("closes_at"));
    }

    #[test]
    fn a_wrong_currency_names_the_field_within_the_amount() {
        let wrong = ProtoMoney { minor_units: 1, currency: "euro".to_owned() };
        assert_eq!(field_of(money("discount", Some(wrong))).as_deref(), Some("discount.currency"));
        assert_eq!(field_of(money("discount", None)).as_deref(), Some("discount"));
    }

    #[test]
    fn a_wrong_page_token_has_a_reason_of_its_own() {
        assert_eq!(invalid(InvalidField::new("page_token", "is wrong")).reason(), Reason::InvalidPageToken);
        assert_eq!(invalid(InvalidField::new("page_size", "is wrong")).reason(), Reason::InvalidField);
    }
}
