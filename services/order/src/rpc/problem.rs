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
            Error::Place(refusal) => place_refused(refusal),
            Error::Command(refusal) => command_refused(refusal),
            Error::Peer(error) => peer(&error),
            Error::Db(error) => error.into(),
            Error::Batch(error) => error.into(),
            Error::TooLate => {
                Self::new(Reason::Unavailable, "the order could not be written in time: repeat it as it was")
            }
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

fn place_refused(refusal: PlaceRefusal) -> Problem {
    match refusal {
        PlaceRefusal::Stock(refusal) => stock(refusal),
        PlaceRefusal::Coupon(refusal) => coupon(refusal),
        PlaceRefusal::TotalOverflow => {
            Problem::new(Reason::TotalOverflow, "the total is too large to be an amount").field("lines")
        }
        PlaceRefusal::CurrencyMismatch { field, currency } => {
            Problem::new(Reason::CurrencyMismatch, format!("the order is in {currency}"))
                .field(field)
                .meta("currency", currency)
        }
        PlaceRefusal::PriceChanged { total } => Problem::new(Reason::PriceChanged, "the total is more than max_total")
            .field("max_total")
            .meta("total_minor_units", total.minor_units)
            .meta("currency", total.currency),
        PlaceRefusal::RequestIdReused => {
            Problem::new(Reason::RequestIdReused, "the request_id was used for another order: choose a new one")
                .field("request_id")
        }
    }
}

fn stock(refusal: StockRefusal) -> Problem {
    let StockRefusal { reason, line, allowed_units } = refusal;
    let of_line = |member: &str| line.map_or_else(|| "lines".to_owned(), |line| format!("lines[{line}].{member}"));
    match reason {
        StockReason::EventNotFound => {
            Problem::new(Reason::EventNotFound, "nothing of this event is on sale").field("event_id")
        }
        StockReason::EventNotOpen => Problem::new(Reason::EventNotOpen, "the event has not opened").field("event_id"),
        StockReason::EventClosed => Problem::new(Reason::EventClosed, "the event has closed").field("event_id"),
        StockReason::SoldOut => Problem::new(Reason::SoldOut, "not enough units are left")
            .field(of_line("units"))
            .meta("allowed_units", allowed_units),
        StockReason::LimitReached => Problem::new(Reason::LimitReached, "you would have more than the limit per buyer")
            .field(of_line("units"))
            .meta("allowed_units", allowed_units),
        StockReason::ItemNotFound => {
            Problem::new(Reason::ItemNotFound, "the event does not offer this item").field(of_line("item_id"))
        }
        // The order of a released reservation is found and returned, unless its row was lost.
        StockReason::NotReady | StockReason::Released => {
            Problem::new(Reason::NotReady, "the stock is being staged: try again shortly")
                .field(line.map_or_else(|| "event_id".to_owned(), |_| of_line("item_id")))
        }
        StockReason::CurrencyMismatch => {
            Problem::new(Reason::CurrencyMismatch, "the items are of more than one currency").field("lines")
        }
    }
}

fn coupon(refusal: CouponRefusal) -> Problem {
    let problem = match refusal {
        CouponRefusal::NotFound => Problem::new(Reason::CouponNotFound, "you have no such coupon"),
        CouponRefusal::InUse => Problem::new(Reason::CouponInUse, "the coupon is held or used by another order"),
        CouponRefusal::WrongEvent => Problem::new(Reason::CouponWrongEvent, "the coupon counts in another event"),
        CouponRefusal::CurrencyMismatch => {
            Problem::new(Reason::CurrencyMismatch, "the coupon is of another currency than the items")
        }
    };
    problem.field("coupon_id")
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
