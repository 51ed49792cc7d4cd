//! Maps the errors of the use cases to the problems that callers get, all in one place.

use crate::{
    client::PeerError,
    domain::{CommandRefusal, CouponRefusal, PlaceRefusal, StateName, StockReason, StockRefusal},
    usecase::Error,
};
use stampede_status::{Problem, Reason};
use tonic::Status;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Place(refusal) => place_refused(&refusal),
            Error::Command(refusal) => command_refused(refusal),
            Error::Peer(error) => peer(&error),
            Error::Db(error) => error.into(),
            Error::Batch(error) => error.into(),
            Error::TooLate => Self::new(Reason::Unavailable, error.to_string()),
            Error::EventNotCancelled(_) => Self::new(Reason::EventNotFound, error.to_string()).field("event_id"),
            Error::BrokenOff => Self::internal_error(error),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

fn place_refused(refusal: &PlaceRefusal) -> Problem {
    let problem = |reason| Problem::new(reason, refusal.to_string());
    match refusal {
        PlaceRefusal::Stock(refusal) => stock(*refusal),
        PlaceRefusal::Coupon(refusal) => problem(coupon(*refusal)).field("coupon_id"),
        PlaceRefusal::TotalOverflow => problem(Reason::TotalOverflow).field("lines"),
        PlaceRefusal::CurrencyMismatch { field, currency } => {
            problem(Reason::CurrencyMismatch).field(*field).meta("currency", currency)
        }
        PlaceRefusal::PriceChanged { total } => problem(Reason::PriceChanged)
            .field("max_total")
            .meta("total_minor_units", total.minor_units)
            .meta("currency", total.currency),
        PlaceRefusal::RequestIdReused => problem(Reason::RequestIdReused).field("request_id"),
    }
}

fn stock(refusal: StockRefusal) -> Problem {
    let StockRefusal { reason: why, line, allowed_units } = refusal;
    let of_line = |member: &str| line.map_or_else(|| "lines".to_owned(), |line| format!("lines[{line}].{member}"));
    let problem = |reason| Problem::new(reason, why.to_string());
    match why {
        StockReason::EventNotFound => problem(Reason::EventNotFound).field("event_id"),
        StockReason::EventNotOpen => problem(Reason::EventNotOpen).field("event_id"),
        StockReason::EventClosed => problem(Reason::EventClosed).field("event_id"),
        StockReason::SoldOut => problem(Reason::SoldOut).field(of_line("units")).meta("allowed_units", allowed_units),
        StockReason::LimitReached => {
            problem(Reason::LimitReached).field(of_line("units")).meta("allowed_units", allowed_units)
        }
        StockReason::ItemNotFound => problem(Reason::ItemNotFound).field(of_line("item_id")),
        StockReason::NotReady | StockReason::Released => {
            problem(Reason::NotReady).field(line.map_or_else(|| "event_id".to_owned(), |_| of_line("item_id")))
        }
        StockReason::CurrencyMismatch => problem(Reason::CurrencyMismatch).field("lines"),
    }
}

const fn coupon(refusal: CouponRefusal) -> Reason {
    match refusal {
        CouponRefusal::NotFound => Reason::CouponNotFound,
        CouponRefusal::InUse => Reason::CouponInUse,
        CouponRefusal::WrongEvent => Reason::CouponWrongEvent,
        CouponRefusal::CurrencyMismatch => Reason::CurrencyMismatch,
    }
}

fn command_refused(refusal: CommandRefusal) -> Problem {
    let in_state = |reason: Reason, state: StateName| {
        Problem::new(reason, refusal.to_string()).field("order_id").meta("state", state.as_str())
    };
    match refusal {
        CommandRefusal::NotFound => Problem::new(Reason::OrderNotFound, refusal.to_string()).field("order_id"),
        CommandRefusal::RequestIdReused => {
            Problem::new(Reason::RequestIdReused, refusal.to_string()).field("request_id")
        }
        CommandRefusal::NotPayable(state) => in_state(Reason::OrderNotPayable, state),
        CommandRefusal::PaymentDeadlinePassed => {
            Problem::new(Reason::PaymentDeadlinePassed, refusal.to_string()).field("order_id")
        }
        CommandRefusal::TooManyAttempts { attempts, wait } => {
            let problem = Problem::new(Reason::TooManyAttempts, refusal.to_string()).field("order_id");
            let problem = problem.meta("attempts", attempts);
            match wait {
                Some(wait) => problem.retry_after(wait),
                None => problem,
            }
        }
        CommandRefusal::NotCancellable(state) => in_state(Reason::OrderNotCancellable, state),
        CommandRefusal::NotRefundable(state) => in_state(Reason::OrderNotRefundable, state),
    }
}

/// Passes transient reasons on. All others become INTERNAL, so that no detail of a peer leaks.
fn peer(error: &PeerError) -> Problem {
    let (peer, status) = match error {
        PeerError::Failed { peer, status } => (peer, status),
        PeerError::NotSent { error, .. } => return (*error).into(),
    };
    let answered = Problem::from_status(status).reason();
    match answered {
        Reason::NotReady | Reason::Overloaded | Reason::Throttled | Reason::DeadlineExceeded => {
            Problem::new(answered, format!("the {peer} service is not able to answer now")).internal(error)
        }
        Reason::Unavailable | Reason::Cancelled => Problem::unavailable(format!("the {peer} service"), error),
        _ => Problem::internal_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: impl Into<Error>) -> Problem {
        error.into().into()
    }

    fn seen(error: impl Into<Error>) -> (Reason, Option<String>) {
        let problem = failed(error);
        (problem.reason(), problem.field_path().map(str::to_owned))
    }

    #[test]
    fn a_stock_refusal_names_the_line_and_what_is_allowed() {
        let refusal = StockRefusal { reason: StockReason::LimitReached, line: Some(1), allowed_units: 2 };
        let problem = failed(PlaceRefusal::Stock(refusal));
        assert_eq!((problem.reason(), problem.field_path()), (Reason::LimitReached, Some("lines[1].units")));
        assert_eq!(problem.metadata()["allowed_units"], "2");
    }

    #[test]
    fn a_refusal_of_another_service_has_a_sentence_for_the_buyer() {
        let refusal = StockRefusal { reason: StockReason::SoldOut, line: Some(0), allowed_units: 0 };
        assert_eq!(failed(PlaceRefusal::Stock(refusal)).detail(), "not enough units are left");
        let in_use = failed(PlaceRefusal::Coupon(CouponRefusal::InUse));
        assert_eq!(in_use.detail(), "the coupon is held or used by another order");
    }

    #[test]
    fn each_refusal_names_its_field() {
        let stock = |reason| PlaceRefusal::Stock(StockRefusal { reason, line: None, allowed_units: 0 });
        let field = |text: &str| Some(text.to_owned());
        assert_eq!(seen(stock(StockReason::EventClosed)), (Reason::EventClosed, field("event_id")));
        assert_eq!(seen(stock(StockReason::ItemNotFound)), (Reason::ItemNotFound, field("lines")));
        assert_eq!(seen(stock(StockReason::EventNotFound)), (Reason::EventNotFound, field("event_id")));
        assert_eq!(seen(stock(StockReason::NotReady)), (Reason::NotReady, field("event_id")));
        let item = StockRefusal { reason: StockReason::NotReady, line: Some(2), allowed_units: 0 };
        assert_eq!(seen(PlaceRefusal::Stock(item)), (Reason::NotReady, field("lines[2].item_id")));
        assert_eq!(seen(CommandRefusal::RequestIdReused), (Reason::RequestIdReused, field("request_id")));
        let coupon = PlaceRefusal::Coupon(CouponRefusal::InUse);
        assert_eq!(seen(coupon), (Reason::CouponInUse, field("coupon_id")));
        assert_eq!(seen(PlaceRefusal::RequestIdReused), (Reason::RequestIdReused, field("request_id")));
    }

    #[test]
    fn a_verb_that_is_refused_names_the_state() {
        let problem = failed(CommandRefusal::NotPayable(StateName::Paying));
        assert_eq!(problem.reason(), Reason::OrderNotPayable);
        assert_eq!(problem.metadata()["state"], "PAYING");
    }

    #[test]
    fn only_a_pause_between_two_payments_says_when_to_come_again() {
        let seconds = std::time::Duration::from_secs;
        for wait in [Some(seconds(4)), None] {
            let problem = failed(CommandRefusal::TooManyAttempts { attempts: 5, wait });
            assert_eq!((problem.reason(), problem.retry_delay()), (Reason::TooManyAttempts, wait));
            assert_eq!(problem.metadata()["attempts"], "5");
        }
    }

    #[test]
    fn what_another_service_says_of_its_insides_stays_inside() {
        let error = |status| Error::from(PeerError::Failed { peer: stampede_vocab::Service::Inventory, status });
        let secret = failed(error(Status::internal("row 17 of secret_table")));
        assert_eq!(secret.reason(), Reason::Internal);
        assert!(!secret.detail().contains("secret"));
        assert_eq!(seen(error(Status::unavailable("refused"))).0, Reason::Unavailable);
    }
}
