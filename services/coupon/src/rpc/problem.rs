//! Maps the errors of the use cases to the problems that callers get, all in one place.

use crate::{
    domain::{ClaimRefusal, CreateRefusal},
    usecase::Error,
};
use stampede_status::{Problem, Reason};
use tonic::Status;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Claim(refusal) => not_claimed(refusal),
            Error::Create(refusal) => not_created(refusal),
            Error::CampaignNotFound => Self::new(Reason::CampaignNotFound, error.to_string()).field("campaign_id"),
            Error::CouponNotFound => Self::new(Reason::CouponNotFound, error.to_string()).field("coupon_id"),
            Error::Db(error) => error.into(),
            Error::Redis(error) => error.into(),
            Error::Batch(error) => error.into(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

fn not_created(refusal: CreateRefusal) -> Problem {
    match refusal {
        CreateRefusal::InvalidField(error) => error.into(),
        CreateRefusal::RequestIdReused => {
            Problem::new(Reason::RequestIdReused, refusal.to_string()).field("request_id")
        }
    }
}

fn not_claimed(refusal: ClaimRefusal) -> Problem {
    let reason = match refusal {
        ClaimRefusal::CampaignNotFound => Reason::CampaignNotFound,
        ClaimRefusal::NotOpen => Reason::CampaignNotOpen,
        ClaimRefusal::Closed => Reason::CampaignClosed,
        ClaimRefusal::SoldOut => Reason::SoldOut,
        ClaimRefusal::AlreadyClaimed { .. } => Reason::AlreadyClaimed,
        ClaimRefusal::NotReady => Reason::NotReady,
    };
    let problem = Problem::new(reason, refusal.to_string()).field("campaign_id");
    match refusal {
        ClaimRefusal::AlreadyClaimed { coupon_id } => problem.meta("coupon_id", coupon_id),
        _ => problem,
    }
}
