//! Converts between the contract and the domain. Validates requests field by field; errors name the first invalid
//! field.

use crate::{
    domain::{Campaign, CampaignTerms, Claim, Coupon, CouponState, EndedOrder, HoldRefusal, HoldRequest, OrderEnd},
    usecase::{CouponList, FoundCoupon, Held, IssuedCampaign},
};
use stampede_chassis::Identity;
use stampede_proto::{
    convert::{money, time, timestamp},
    coupon::v1::{self as proto, hold_coupon_result::Outcome},
};
use stampede_service::{Page, Paging};
use stampede_status::Problem;
use stampede_vocab::{
    CampaignId, CouponId, Currency, Fingerprint, InvalidField, RequestId, UserId, field, limits::MAX_PER_CALL,
};
use std::ops::RangeInclusive;

/// Allowed number of holds in one call.
const HOLDS: RangeInclusive<usize> = 1..=MAX_PER_CALL;

/// Parses the field `campaign_id`.
pub fn campaign_id(text: &str) -> Result<CampaignId, Problem> {
    Ok(field::id("campaign_id", text)?)
}

/// Parses the field `coupon_id`.
pub fn coupon_id(text: &str) -> Result<CouponId, Problem> {
    Ok(field::id("coupon_id", text)?)
}

pub fn request_id(text: &str) -> Result<RequestId, Problem> {
    Ok(RequestId::of_request(text)?)
}

/// Parses the page of all campaigns that is requested.
pub fn campaigns(request: &proto::ListCampaignsRequest) -> Result<Paging, Problem> {
    Ok(Paging::parse("campaigns", request.page_size, &request.page_token)?)
}

/// Parses the list of coupons and the page of it that are requested. Fails for an operator who names no campaign.
pub fn coupons(identity: &Identity, request: &proto::ListCouponsRequest) -> Result<(CouponList, Paging), Problem> {
    let campaign_id = field::optional_id("campaign_id", &request.campaign_id)?;
    let list = match (identity.owner()?, campaign_id) {
        (Some(user_id), campaign_id) => CouponList::OfUser { user_id, campaign_id },
        (None, Some(campaign_id)) => CouponList::OfCampaign(campaign_id),
        (None, None) => return Err(Problem::invalid_field("campaign_id", "must be set by an operator")),
    };
    Ok((list, Paging::parse(list.name(), request.page_size, &request.page_token)?))
}

/// Converts the release of a coupon by an order.
pub fn released(request: &proto::ReleaseCouponRequest) -> Result<EndedOrder, Problem> {
    Ok(EndedOrder {
        coupon_id: field::id("coupon_id", &request.coupon_id)?,
        order_id: field::id("order_id", &request.order_id)?,
        end: OrderEnd::Released { request: Fingerprint::parse(&request.request_fingerprint)? },
    })
}

/// Converts the terms of a new campaign.
pub fn terms(request: proto::CreateCampaignRequest) -> Result<CampaignTerms, Problem> {
    Ok(CampaignTerms {
        name: request.name,
        quota: request.quota,
        discount: money("discount", request.discount.as_ref())?,
        event_id: field::optional_id("event_id", &request.event_id)?,
        open_time: time("open_time", request.open_time)?,
        close_time: time("close_time", request.close_time)?,
    })
}

pub fn claim(user_id: UserId, request: &proto::ClaimCouponRequest) -> Result<Claim, Problem> {
    Ok(Claim { campaign_id: campaign_id(&request.campaign_id)?, user_id, request_id: request_id(&request.request_id)? })
}

/// Converts the holds of one call. An invalid one fails the call; the error has its index.
pub fn hold_requests(request: &proto::HoldCouponsRequest) -> Result<Vec<HoldRequest>, Problem> {
    field::ensure_count("holds", request.holds.len(), HOLDS)?;
    Ok(field::each("holds", &request.holds, hold_request)?)
}

/// Converts the outcome of one hold; it is empty if the coupon cannot be read.
pub fn hold_result(held: Option<&Held>) -> proto::HoldCouponResult {
    let outcome = held.map(|held| match held {
        Ok(held) => Outcome::Coupon(coupon(held)),
        Err(error) => Outcome::Refusal(proto::HoldCouponRefusal { reason: refusal_reason(error).into() }),
    });
    proto::HoldCouponResult { outcome }
}

pub fn campaign(found: &IssuedCampaign) -> proto::Campaign {
    let IssuedCampaign { campaign, issued } = found;
    let terms = &campaign.terms;
    proto::Campaign {
        campaign_id: campaign.id.to_string(),
        name: terms.name.clone(),
        quota: terms.quota,
        discount: Some(terms.discount.into()),
        event_id: terms.event_id.map(|event_id| event_id.to_string()).unwrap_or_default(),
        open_time: Some(timestamp(terms.open_time)),
        close_time: Some(timestamp(terms.close_time)),
        issued: *issued,
        create_time: Some(timestamp(campaign.created_at)),
    }
}

pub fn coupon((coupon, campaign): &(Coupon, impl AsRef<Campaign>)) -> proto::Coupon {
    proto::Coupon {
        coupon_id: coupon.id.to_string(),
        campaign_id: coupon.campaign_id.to_string(),
        user_id: coupon.user_id.to_string(),
        rank: coupon.rank,
        state: state(coupon.state).into(),
        discount: Some(campaign.as_ref().terms.discount.into()),
        order_id: coupon.state.order_id().map(|order_id| order_id.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(coupon.created_at)),
    }
}

const fn refusal_reason(error: &HoldRefusal) -> proto::HoldCouponRefusalReason {
    match error {
        HoldRefusal::NotFound => proto::HoldCouponRefusalReason::CouponNotFound,
        HoldRefusal::InUse { .. } => proto::HoldCouponRefusalReason::CouponInUse,
        HoldRefusal::RequestIdReused => proto::HoldCouponRefusalReason::RequestIdReused,
        HoldRefusal::WrongEvent => proto::HoldCouponRefusalReason::CouponWrongEvent,
        HoldRefusal::CurrencyMismatch { .. } => proto::HoldCouponRefusalReason::CurrencyMismatch,
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
        coupon_id: field::id("coupon_id", &hold.coupon_id)?,
        order_id: field::id("order_id", &hold.order_id)?,
        request: Fingerprint::parse(&hold.request_fingerprint)?,
        user_id: field::id("user_id", &hold.user_id)?,
        event_id: field::id("event_id", &hold.event_id)?,
        currency: Currency::stored(&hold.currency)?,
    })
}

pub fn campaign_page(page: &Page<IssuedCampaign>) -> proto::ListCampaignsResponse {
    proto::ListCampaignsResponse {
        campaigns: page.rows.iter().map(campaign).collect(),
        next_page_token: page.next_page_token.clone(),
    }
}

pub fn coupon_page(page: &Page<FoundCoupon>) -> proto::ListCouponsResponse {
    proto::ListCouponsResponse {
        coupons: page.rows.iter().map(coupon).collect(),
        next_page_token: page.next_page_token.clone(),
    }
}
