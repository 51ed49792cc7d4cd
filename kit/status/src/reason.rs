//! The reasons a request can fail for: one table with the name, the gRPC code and the title.
//!
//! Names are part of the public contract: add freely, never rename or reuse one.

use http::StatusCode;
use std::time::Duration;
use tonic::Code;

macro_rules! reasons {
    ($($variant:ident $name:literal $code:ident $title:literal;)*) => {
        /// Why a request failed. The name is stable and is what clients match on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $title] $variant,)*
        }

        impl Reason {
            /// Every reason there is, in the order of the table.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The name in `UPPER_SNAKE`, as sent in `google.rpc.ErrorInfo` and in problem+json.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// The gRPC status code this reason is sent with.
            pub const fn code(self) -> Code {
                match self { $(Reason::$variant => Code::$code,)* }
            }

            /// One sentence that holds for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Reason::$variant => $title,)* }
            }
        }
    };
}

reasons! {
    InvalidField "INVALID_FIELD" InvalidArgument "A field has a value that is not allowed";
    InvalidPageToken "INVALID_PAGE_TOKEN" InvalidArgument "The page token was not issued for this list";
    TotalOverflow "TOTAL_OVERFLOW" InvalidArgument "The total is larger than an amount can be";
    MalformedJson "MALFORMED_JSON" InvalidArgument "The body is not valid JSON";
    MalformedMessage "MALFORMED_MESSAGE" InvalidArgument "The request cannot be decoded";
    UnknownField "UNKNOWN_FIELD" InvalidArgument "The request has a field that does not exist";
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" InvalidArgument "The body is not in a format that is taken";

    Unauthenticated "UNAUTHENTICATED" Unauthenticated "The request carries no valid credentials";
    TokenExpired "TOKEN_EXPIRED" Unauthenticated "The token has expired";
    TokenReused "TOKEN_REUSED" Unauthenticated "The refresh token was used before";
    TokenRevoked "TOKEN_REVOKED" Unauthenticated "The login that the token is of has ended";
    InvalidSignature "INVALID_SIGNATURE" Unauthenticated "The signature does not match the content";
    PermissionDenied "PERMISSION_DENIED" PermissionDenied "The caller's role does not allow this";

    EventNotFound "EVENT_NOT_FOUND" NotFound "There is no such event";
    ItemNotFound "ITEM_NOT_FOUND" NotFound "There is no such item in the event";
    CampaignNotFound "CAMPAIGN_NOT_FOUND" NotFound "There is no such campaign";
    CouponNotFound "COUPON_NOT_FOUND" NotFound "There is no such coupon";
    OrderNotFound "ORDER_NOT_FOUND" NotFound "There is no such order";
    PaymentNotFound "PAYMENT_NOT_FOUND" NotFound "There is no such payment";
    UnknownPath "UNKNOWN_PATH" NotFound "There is nothing under this path";
    MethodNotAllowed "METHOD_NOT_ALLOWED" Unimplemented "The method is not offered here";
    NotImplemented "NOT_IMPLEMENTED" Unimplemented "The service does not offer this yet";

    RequestIdReused "REQUEST_ID_REUSED" AlreadyExists "The request id was used before for a different request";

    EventNotOpen "EVENT_NOT_OPEN" FailedPrecondition "The event is not open yet";
    EventClosed "EVENT_CLOSED" FailedPrecondition "The event is closed";
    EventNotScheduled "EVENT_NOT_SCHEDULED" FailedPrecondition "The event is no longer merely scheduled";
    RescheduleTooLate "RESCHEDULE_TOO_LATE" FailedPrecondition "The event is too close to its opening to be rescheduled";
    VersionMismatch "VERSION_MISMATCH" Aborted "The resource has changed since the caller read it";
    CampaignNotOpen "CAMPAIGN_NOT_OPEN" FailedPrecondition "The campaign is not open yet";
    CampaignClosed "CAMPAIGN_CLOSED" FailedPrecondition "The campaign is closed";
    SoldOut "SOLD_OUT" FailedPrecondition "There are not enough units left";
    LimitReached "LIMIT_REACHED" FailedPrecondition "The buyer's limit is reached";
    AlreadyClaimed "ALREADY_CLAIMED" FailedPrecondition "The user has a coupon of this campaign already";
    CouponInUse "COUPON_IN_USE" FailedPrecondition "The coupon is used by another order";
    CouponWrongEvent "COUPON_WRONG_EVENT" FailedPrecondition "The coupon is for another event";
    CurrencyMismatch "CURRENCY_MISMATCH" FailedPrecondition "The amounts are in different currencies";
    PriceChanged "PRICE_CHANGED" FailedPrecondition "The price is not the one the buyer agreed to";
    OrderNotPayable "ORDER_NOT_PAYABLE" FailedPrecondition "The order cannot be paid in its state";
    PaymentDeadlinePassed "PAYMENT_DEADLINE_PASSED" FailedPrecondition "The time to pay the order has passed";
    TooManyAttempts "TOO_MANY_ATTEMPTS" FailedPrecondition "It was tried too often, or a moment ago, to pay the order";
    OrderNotCancellable "ORDER_NOT_CANCELLABLE" FailedPrecondition "The order cannot be cancelled in its state";
    OrderNotRefundable "ORDER_NOT_REFUNDABLE" FailedPrecondition "The order cannot be refunded in its state";

    BodyTimeout "BODY_TIMEOUT" DeadlineExceeded "The body of the request did not arrive in time";
    BodyTooLarge "BODY_TOO_LARGE" OutOfRange "The request is larger than is accepted";
    Throttled "THROTTLED" ResourceExhausted "The caller sends too many requests";
    SlowReader "SLOW_READER" Unavailable "The stream was not read for too long";
    NotReady "NOT_READY" Unavailable "What was asked for is being prepared";
    Overloaded "OVERLOADED" Unavailable "The service has more work than it can take";
    Unavailable "UNAVAILABLE" Unavailable "Something the service depends on does not answer";
    DeadlineExceeded "DEADLINE_EXCEEDED" DeadlineExceeded "The request took longer than its deadline";
    Internal "INTERNAL" Internal "The service failed to handle the request";
    Cancelled "CANCELLED" Cancelled "The caller went away";
}

impl Reason {
    /// Returns the reason with this name, if any.
    pub fn parse(name: &str) -> Option<Reason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }

    /// Returns the HTTP status of this reason: that of the gRPC code, with a few exceptions.
    pub fn http(self) -> StatusCode {
        match self {
            Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Reason::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Reason::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => http_of(self.code()),
        }
    }

    /// Returns how long a caller should wait before a retry; `None` if a retry does not help.
    pub const fn default_retry(self) -> Option<Duration> {
        match self {
            Reason::NotReady => Some(Duration::from_millis(500)),
            Reason::SlowReader | Reason::Overloaded | Reason::Unavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Returns the reason for a bare gRPC code, as foreign servers and proxies send it.
    pub(crate) const fn of_code(code: Code) -> Reason {
        match code {
            Code::InvalidArgument => Reason::InvalidField,
            Code::Unauthenticated => Reason::Unauthenticated,
            Code::PermissionDenied => Reason::PermissionDenied,
            Code::NotFound => Reason::UnknownPath,
            Code::Unimplemented => Reason::MethodNotAllowed,
            Code::AlreadyExists => Reason::RequestIdReused,
            // tonic returns this code for a message over the decoding limit.
            Code::OutOfRange => Reason::BodyTooLarge,
            Code::ResourceExhausted => Reason::Throttled,
            Code::Unavailable | Code::Aborted => Reason::Unavailable,
            Code::DeadlineExceeded => Reason::DeadlineExceeded,
            Code::Cancelled => Reason::Cancelled,
            Code::Ok | Code::Unknown | Code::FailedPrecondition | Code::Internal | Code::DataLoss => Reason::Internal,
        }
    }
}

fn http_of(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::OutOfRange => StatusCode::PAYLOAD_TOO_LARGE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        // nginx's code for a caller that has gone; nobody reads it.
        Code::Cancelled => StatusCode::from_u16(499).expect("499 is a valid status code"),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_upper_snake_and_parse_back() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let name = reason.as_str();
            assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
            assert_eq!(Reason::parse(name), Some(*reason));
        }
        assert_eq!(Reason::parse("sold_out"), None);
    }

    #[test]
    fn names_are_the_variants_in_upper_snake() {
        for reason in Reason::ALL {
            let camel: String =
                reason.as_str().split('_').map(|word| format!("{}{}", &word[..1], word[1..].to_lowercase())).collect();
            assert_eq!(format!("{reason:?}").to_lowercase(), camel.to_lowercase());
        }
    }

    #[test]
    fn codes_and_http_statuses_are_those_of_the_contract() {
        let table = [
            (Reason::InvalidField, Code::InvalidArgument, 400),
            (Reason::TotalOverflow, Code::InvalidArgument, 400),
            (Reason::TokenReused, Code::Unauthenticated, 401),
            (Reason::TokenRevoked, Code::Unauthenticated, 401),
            (Reason::PermissionDenied, Code::PermissionDenied, 403),
            (Reason::OrderNotFound, Code::NotFound, 404),
            (Reason::MethodNotAllowed, Code::Unimplemented, 405),
            (Reason::NotImplemented, Code::Unimplemented, 501),
            (Reason::UnsupportedMediaType, Code::InvalidArgument, 415),
            (Reason::BodyTimeout, Code::DeadlineExceeded, 408),
            (Reason::RequestIdReused, Code::AlreadyExists, 409),
            (Reason::SoldOut, Code::FailedPrecondition, 409),
            (Reason::OrderNotRefundable, Code::FailedPrecondition, 409),
            (Reason::VersionMismatch, Code::Aborted, 409),
            (Reason::BodyTooLarge, Code::OutOfRange, 413),
            (Reason::Throttled, Code::ResourceExhausted, 429),
            (Reason::Cancelled, Code::Cancelled, 499),
            (Reason::Internal, Code::Internal, 500),
            (Reason::NotReady, Code::Unavailable, 503),
            (Reason::Overloaded, Code::Unavailable, 503),
            (Reason::DeadlineExceeded, Code::DeadlineExceeded, 504),
        ];
        for (reason, code, http) in table {
            assert_eq!((reason.code(), reason.http().as_u16()), (code, http), "{reason}");
        }
    }

    #[test]
    fn a_bare_code_maps_to_a_reason_of_that_code_or_to_internal() {
        for number in 1..=16 {
            let code = Code::from_i32(number);
            let reason = Reason::of_code(code);
            let same = reason.code() == code;
            let softened = code == Code::Aborted && reason == Reason::Unavailable;
            assert!(same || softened || reason == Reason::Internal, "{code:?} -> {reason}");
        }
    }
}
