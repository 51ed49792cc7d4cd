//! The whole state machine as a table: every state and every input.

use super::*;
use crate::domain::{Draft, GoodsKind, Line, Prices, RequestedLine, Reserved, StateName};
use stampede_vocab::{CouponId, EventId, ItemId, Money, OrderId, Quantity, RequestId};
use uuid::Uuid;

/// The state of an order of the default kind (see [`order_in`]) after each input of [`inputs`], which are the columns.
/// `-` is ignored, `=` is unchanged, `!` is refused; anything else is the next state.
const TABLE: &str = "
                 | committed        | rejected  | approved  | approved old | declined         | declined old | refunded | pay    | pay again | pay foreign | cancel    | cancel again | cancel foreign | refund    | refund again | refund other | before deadline | deadline | after grace | ask early | ask late  | event off | event off, refund
PENDING          | AWAITING_PAYMENT | CANCELLED | -         | -            | -                | -            | -        | !      | !         | !           | CANCELLED | CANCELLED    | !              | !         | !            | !            | -               | -        | -           | -         | -         | CANCELLED | CANCELLED
AWAITING_PAYMENT | -                | -         | -         | -            | -                | -            | -        | PAYING | =         | !           | CANCELLED | CANCELLED    | !              | !         | !            | !            | -               | EXPIRED  | EXPIRED     | -         | -         | CANCELLED | CANCELLED
PAYING           | -                | -         | FULFILLED | -            | AWAITING_PAYMENT | -            | -        | !      | =         | !           | !         | !            | !              | !         | !            | !            | -               | -        | EXPIRED     | -         | -         | -         | -
PAID             | FULFILLED        | REFUNDING | -         | -            | -                | -            | REFUNDED | !      | =         | !           | !         | !            | !              | !         | !            | !            | -               | -        | -           | -         | PAID      | -         | -
FULFILLED        | -                | -         | -         | -            | -                | -            | REFUNDED | !      | =         | !           | !         | !            | !              | REFUNDING | REFUNDING    | REFUNDING    | -               | -        | -           | -         | -         | -         | REFUNDING
EXPIRED          | -                | -         | PAID      | PAID         | -                | -            | -        | !      | =         | !           | !         | !            | !              | !         | !            | !            | -               | -        | -           | -         | -         | -         | -
CANCELLED        | -                | -         | REFUNDING | REFUNDING    | -                | -            | -        | !      | =         | !           | !         | =            | !              | !         | !            | !            | -               | -        | -           | -         | -         | -         | -
REFUNDING        | -                | -         | -         | -            | -                | -            | REFUNDED | !      | =         | !           | !         | !            | !              | !         | =            | !            | -               | -        | -           | -         | REFUNDING | -         | -
REFUNDED         | -                | -         | -         | -            | -                | -            | -        | !      | =         | !           | !         | !            | !              | !         | =            | !            | -               | -        | -           | -         | -         | -         | -
";

const PAY_BY: Timestamp = Timestamp::from_micros(1_000_000);
const EARLY: Timestamp = Timestamp::from_micros(999_999);
const POLICY: PaymentPolicy = PaymentPolicy {
    max_attempts: 10,
    pay_pause: Duration::from_secs(1),
    pay_window: Duration::from_secs(600),
    paying_grace: Duration::from_secs(5),
    ask_backoff: Duration::from_secs(30),
};

fn user(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n))
}

fn request(text: &str) -> RequestId {
    RequestId::parse(text).unwrap()
}

fn eur(minor_units: i64) -> Money {
    Money::new(minor_units, "EUR".parse().unwrap())
}

fn pay(buyer: u128, name: &str) -> Input {
    pay_with(buyer, name, "tok_1")
}

fn pay_with(buyer: u128, name: &str, method: &str) -> Input {
    Input::Pay { buyer: user(buyer), request: PayRequest::new(request(name), method), method: method.to_owned() }
}

fn cancel(buyer: u128, name: &str) -> Input {
    Input::Cancel { owner: Some(user(buyer)), by: user(buyer), request: request(name) }
}

#[test]
fn an_operator_cancels_anybodys_order_and_only_their_own_repeat_is_known() {
    let by_operator = |name| Input::Cancel { owner: None, by: user(3), request: request(name) };
    let mut order = order_in(state(StateName::AwaitingPayment), None);
    let step = order.apply(&by_operator("c"), EARLY, &POLICY).unwrap();
    assert_eq!(step.end_request, Some(EndRequest { verb: EndVerb::Cancel, by: user(3), id: request("c") }));
    assert_eq!(order.apply(&by_operator("c"), EARLY, &POLICY), Err(NoStep::AlreadyApplied));
    let refused = NoStep::Refused(CommandRefusal::NotCancellable(StateName::Cancelled));
    assert_eq!(order.apply(&cancel(1, "c"), EARLY, &POLICY), Err(refused));
}

fn refund(operator: u128, name: &str) -> Input {
    Input::Refund { operator: user(operator), request: request(name) }
}

/// An order of user 1 in `state`, of one item with a gift, paid for twice so far (the first one declined) unless it has
/// never been payable. A cancelled one was cancelled by `cancel-1`, a refunded one refunded by
/// `refund-1` of operator 3.
fn order_in(state: State, coupon: Option<CouponId>) -> Order {
    let wanted = RequestedLine { item: ItemId::from_uuid(Uuid::from_u128(9)), units: Quantity::new(2).unwrap() };
    let event = EventId::from_uuid(Uuid::from_u128(3));
    let draft = Draft::new(user(1), request("place"), event, vec![wanted], coupon, None).unwrap();
    let line = Line {
        item: wanted.item,
        units: wanted.units,
        unit_price: eur(50),
        gift_units: 1,
        title: "Kettle".into(),
        gift_title: "Tea set".into(),
    };
    let reserved = Reserved { lines: vec![line], arrival: 7, request_time: None, is_committed: true };
    let prices = Prices::of(&reserved.lines).unwrap();
    let mut order = Order::place(&draft, reserved, prices, Timestamp::from_micros(1), PAY_BY);
    if state != State::Pending {
        order.pay_requests = ["pay-1", "pay-2"].map(|name| PayRequest::new(request(name), "tok_1")).to_vec();
    }
    order.end_request = match state {
        State::Cancelled { .. } => Some(EndRequest { verb: EndVerb::Cancel, by: user(1), id: request("cancel-1") }),
        State::Refunding(_) | State::Refunded(_) => {
            Some(EndRequest { verb: EndVerb::Refund, by: user(3), id: request("refund-1") })
        }
        _ => None,
    };
    Order { state, ..order }
}

fn state(name: StateName) -> State {
    let refund_origin = RefundOrigin { pay_deadline: Some(PAY_BY), fulfill_time: Some(EARLY) };
    match name {
        StateName::Pending => State::Pending,
        StateName::AwaitingPayment => State::AwaitingPayment { pay_deadline: PAY_BY },
        StateName::Paying => State::Paying { pay_deadline: PAY_BY },
        StateName::Paid => State::Paid { pay_deadline: PAY_BY },
        StateName::Fulfilled => State::Fulfilled { pay_deadline: PAY_BY, at: EARLY },
        StateName::Expired => State::Expired { pay_deadline: PAY_BY },
        StateName::Cancelled => State::Cancelled { pay_deadline: Some(PAY_BY) },
        StateName::Refunding => State::Refunding(refund_origin),
        StateName::Refunded => State::Refunded(refund_origin),
    }
}

/// All units are committed, and all gifts that were reserved.
fn committed() -> Input {
    Input::StockCommitted { gifts: Vec::new() }
}

fn inputs() -> Vec<(Input, Timestamp)> {
    vec![
        (committed(), EARLY),
        (Input::StockRejected, EARLY),
        (Input::PaymentApproved { attempt: 2 }, EARLY),
        (Input::PaymentApproved { attempt: 1 }, EARLY),
        (Input::PaymentDeclined { attempt: 2, code: "card_declined".to_owned() }, EARLY),
        (Input::PaymentDeclined { attempt: 1, code: "card_declined".to_owned() }, EARLY),
        (Input::PaymentRefunded, EARLY),
        (pay(1, "pay-3"), EARLY),
        (pay(1, "pay-1"), EARLY),
        (pay(2, "pay-3"), EARLY),
        (cancel(1, "cancel-2"), EARLY),
        (cancel(1, "cancel-1"), EARLY),
        (cancel(2, "cancel-1"), EARLY),
        (refund(3, "refund-2"), EARLY),
        (refund(3, "refund-1"), EARLY),
        (refund(4, "refund-1"), EARLY),
        (Input::DeadlinePassed, EARLY),
        (Input::DeadlinePassed, PAY_BY),
        (Input::DeadlinePassed, PAY_BY.plus(POLICY.paying_grace)),
        (Input::AskAgain, Timestamp::from_micros(0).plus(POLICY.ask_backoff)),
        (Input::AskAgain, Timestamp::from_micros(1).plus(2 * POLICY.ask_backoff)),
        (Input::EventCancelled { refund_paid: false }, EARLY),
        (Input::EventCancelled { refund_paid: true }, EARLY),
    ]
}

/// Returns the cell of the table for this result.
fn seen(before: &Order, after: &Order, taken: &Result<Step, NoStep>) -> String {
    match taken {
        Ok(step) => {
            assert_eq!((step.from, &step.to), (before.state.name(), &after.state));
            assert_eq!(after.version, before.version + 1, "a transition is one version");
            after.state.name().as_str().to_owned()
        }
        Err(no_step) => {
            assert_eq!(after, before, "an order that did not move is as it was");
            let cell = match no_step {
                NoStep::AlreadyApplied => "=",
                NoStep::Ignored => "-",
                NoStep::Refused(_) => "!",
            };
            cell.to_owned()
        }
    }
}

#[test]
fn every_input_in_every_state_does_what_the_table_says() {
    let mut rows = TABLE.lines().filter(|line| !line.is_empty()).map(|line| line.split('|').map(str::trim));
    let columns: Vec<&str> = rows.next().unwrap().skip(1).collect();
    assert_eq!(columns.len(), inputs().len());
    let mut states = Vec::new();
    for mut row in rows {
        let name = StateName::parse(row.next().unwrap()).unwrap();
        states.push(name);
        for (((input, now), column), expected) in inputs().into_iter().zip(&columns).zip(row) {
            let before = order_in(state(name), None);
            let mut after = before.clone();
            let taken = after.apply(&input, now, &POLICY);
            assert_eq!(seen(&before, &after, &taken), expected, "{name:?} and {column}");
        }
    }
    assert_eq!(states, StateName::ALL);
}

fn refused_with(refusal: CommandRefusal) -> Result<Step, NoStep> {
    Err(NoStep::Refused(refusal))
}

fn take(order: &mut Order, input: Input) -> MessageBody {
    let step = order.apply(&input, EARLY, &POLICY).expect("a step");
    step.body.unwrap_or_else(|| panic!("{} published nothing", input.name()))
}

fn coupon() -> Option<CouponId> {
    Some(CouponId::from_uuid(Uuid::from_u128(5)))
}

#[test]
fn a_placed_order_is_payable_and_an_earlier_release_s_pending_one_gets_the_whole_window() {
    assert_eq!(order_in(state(StateName::AwaitingPayment), None).placed().body.name(), "OrderPlaced");
    let mut order = order_in(State::Pending, None);
    let step = order.apply(&committed(), EARLY, &POLICY).expect("a step");
    assert_eq!((step.body, step.pay_deadline), (None, order.state.pay_deadline()));
    assert_eq!(order.state.pay_deadline(), Some(EARLY.plus(POLICY.pay_window)));
}

#[test]
fn each_payment_is_an_attempt_of_its_own() {
    let mut order = order_in(state(StateName::AwaitingPayment), coupon());
    let message = take(&mut order, pay(1, "pay-3"));
    let (buyer, amount, method) = (user(1), eur(100), "tok_1".to_owned());
    assert_eq!(message, MessageBody::PaymentRequested { buyer, attempt: 3, amount, method });
    assert_eq!(order.attempts(), 3);
    let declined = Input::PaymentDeclined { attempt: 3, code: "card_declined".to_owned() };
    let step = order.apply(&declined, EARLY, &POLICY).expect("a step");
    assert_eq!((step.body, &step.decline), (None, &order.last_decline));
    assert_eq!(order.last_decline.as_deref(), Some("card_declined"));
}

#[test]
fn payments_are_bounded_and_pause_longer_after_each_decline() {
    let decline = |attempt| Input::PaymentDeclined { attempt, code: "card_declined".to_owned() };
    let mut order = order_in(State::AwaitingPayment { pay_deadline: PAY_BY.plus(POLICY.pay_window) }, None);
    let mut now = EARLY;
    let mut waits = Vec::new();
    for attempt in 3..=10 {
        let name = format!("pay-{attempt}");
        if let Err(NoStep::Refused(CommandRefusal::TooManyAttempts { attempts, wait: Some(wait) })) =
            order.apply(&pay(1, &name), now, &POLICY)
        {
            assert_eq!(attempts, attempt - 1);
            waits.push(wait.as_secs());
            let too_early = now.plus(wait).minus(Duration::from_micros(1));
            assert!(order.apply(&pay(1, &name), too_early, &POLICY).is_err());
            now = now.plus(wait);
            order.apply(&pay(1, &name), now, &POLICY).expect("the pause is over");
        }
        assert_eq!(order.attempts(), attempt);
        order.apply(&decline(attempt), now, &POLICY).expect("it is declined");
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60]);
    let last = CommandRefusal::TooManyAttempts { attempts: 10, wait: None };
    assert_eq!(order.apply(&pay(1, "pay-11"), now.plus(MAX_PAY_PAUSE), &POLICY), refused_with(last));
    assert_eq!(order.apply(&pay(1, "pay-10"), now, &POLICY), Err(NoStep::AlreadyApplied));
}

#[test]
fn an_approved_payment_grants_the_item_and_its_gift() {
    let mut order = order_in(state(StateName::Paying), coupon());
    let message = take(&mut order, Input::PaymentApproved { attempt: 2 });
    assert_eq!(message, MessageBody::Fulfilled { buyer: user(1), coupon: coupon(), at: EARLY });
    let granted: Vec<_> = order.goods().iter().map(|goods| (goods.kind, goods.units, goods.grant_time)).collect();
    assert_eq!(granted, [(GoodsKind::Item, 2, EARLY), (GoodsKind::Gift, 1, EARLY)]);
}

#[test]
fn whatever_ends_unpaid_returns_its_coupon() {
    let mut rejected = order_in(State::Pending, coupon());
    assert_eq!(take(&mut rejected, Input::StockRejected), MessageBody::Cancelled { coupon: coupon() });
    let mut cancelled = order_in(state(StateName::AwaitingPayment), coupon());
    assert_eq!(take(&mut cancelled, cancel(1, "cancel-1")), MessageBody::Cancelled { coupon: coupon() });
    let mut expired = order_in(State::AwaitingPayment { pay_deadline: EARLY }, coupon());
    assert_eq!(take(&mut expired, Input::DeadlinePassed), MessageBody::Expired { coupon: coupon() });
    assert!([rejected, cancelled, expired].iter().all(|order| order.state.has_returned_coupon()));
}

#[test]
fn money_that_comes_late_goes_back_if_the_event_was_cancelled() {
    let approved = Input::PaymentApproved { attempt: 2 }.for_cancelled_event().unwrap();
    for (before, after) in [
        (StateName::Expired, StateName::Refunding),
        (StateName::Cancelled, StateName::Refunding),
        (StateName::Paying, StateName::Fulfilled),
    ] {
        let mut order = order_in(state(before), None);
        order.apply(&approved, EARLY, &POLICY).unwrap();
        assert_eq!(order.state.name(), after, "{before:?}");
    }
    assert!(Input::PaymentRefunded.for_cancelled_event().is_none());
}

#[test]
fn an_event_that_is_cancelled_ends_its_orders_with_the_messages_of_any_other_end() {
    let off = Input::EventCancelled { refund_paid: true };
    let mut unpaid = order_in(state(StateName::AwaitingPayment), coupon());
    assert_eq!(take(&mut unpaid, off.clone()), MessageBody::Cancelled { coupon: coupon() });
    assert_eq!(unpaid.end_request, None, "nobody has asked for this order to be ended");
    let mut paid = order_in(state(StateName::Fulfilled), coupon());
    assert_eq!(take(&mut paid, off.clone()), MessageBody::RefundRequested { amount: eur(100) });
    assert_eq!(paid.apply(&off, EARLY, &POLICY), Err(NoStep::Ignored), "one refund, however often it is said");
}

#[test]
fn a_late_payment_takes_the_units_again_or_is_refunded() {
    let mut order = order_in(state(StateName::Expired), None);
    assert!(matches!(take(&mut order, Input::PaymentApproved { attempt: 2 }), MessageBody::PaidLate { .. }));
    let mut lucky = order.clone();
    assert!(matches!(take(&mut lucky, committed()), MessageBody::Fulfilled { .. }));
    assert_eq!(lucky.goods().len(), 2);
    let mut without_gift = order.clone();
    let gifts = vec![(order.lines[0].item, 0)];
    assert!(matches!(take(&mut without_gift, Input::StockCommitted { gifts }), MessageBody::Fulfilled { .. }));
    assert_eq!((without_gift.goods().len(), without_gift.lines[0].gift_units), (1, 0), "the gift went to another");
    let refund = take(&mut order, Input::StockRejected);
    assert_eq!(refund, MessageBody::RefundRequested { amount: eur(100) });
    assert!(order.goods().is_empty());
}

#[test]
fn only_gifts_that_differ_from_what_was_promised_are_part_of_a_step() {
    let gifts_of_step = |gift_units| {
        let mut order = order_in(state(StateName::Paid), None);
        let gifts = vec![(order.lines[0].item, gift_units)];
        order.apply(&Input::StockCommitted { gifts }, EARLY, &POLICY).expect("a step").gifts.len()
    };
    assert_eq!((gifts_of_step(1), gifts_of_step(0)), (0, 1));
}

#[test]
fn a_late_payment_with_a_coupon_is_refunded_and_the_coupon_is_not_returned_twice() {
    let mut order = order_in(state(StateName::Expired), coupon());
    let refund = take(&mut order, Input::PaymentApproved { attempt: 2 });
    assert_eq!(refund, MessageBody::RefundRequested { amount: eur(100) });
    assert_eq!(take(&mut order, Input::PaymentRefunded), MessageBody::Refunded { coupon: None });
}

#[test]
fn a_refund_of_what_was_fulfilled_returns_the_coupon_and_remembers_the_goods() {
    let mut order = order_in(state(StateName::Paying), coupon());
    take(&mut order, Input::PaymentApproved { attempt: 2 });
    take(&mut order, refund(3, "refund-1"));
    assert!(!order.state.has_returned_coupon(), "until the money is back the coupon counts as used");
    assert_eq!(take(&mut order, Input::PaymentRefunded), MessageBody::Refunded { coupon: coupon() });
    assert_eq!((order.state.fulfill_time(), order.goods().len()), (Some(EARLY), 2));
}

#[test]
fn what_was_given_back_by_hand_ends_as_if_a_refund_had_been_asked_for() {
    let mut order = order_in(state(StateName::Fulfilled), coupon());
    assert_eq!(take(&mut order, Input::PaymentRefunded), MessageBody::Refunded { coupon: coupon() });
    assert_eq!((order.state.fulfill_time(), order.goods().len()), (Some(EARLY), 2));
    assert_eq!(order.end_request, None, "nobody has asked this service");
    let mut late = order_in(state(StateName::Paid), None);
    assert_eq!(take(&mut late, Input::PaymentRefunded), MessageBody::Refunded { coupon: None });
    assert_eq!(late.apply(&committed(), EARLY, &POLICY), Err(NoStep::Ignored), "units that are taken now go back");
}

#[test]
fn a_repeat_of_what_cancelled_an_order_is_known_whatever_came_later() {
    let mut order = order_in(state(StateName::AwaitingPayment), None);
    take(&mut order, cancel(1, "c"));
    take(&mut order, Input::PaymentApproved { attempt: 2 });
    take(&mut order, Input::PaymentRefunded);
    assert_eq!(order.apply(&cancel(1, "c"), EARLY, &POLICY), Err(NoStep::AlreadyApplied));
    let other = refused_with(CommandRefusal::NotCancellable(StateName::Refunded));
    assert_eq!(order.apply(&cancel(1, "d"), EARLY, &POLICY), other);
    let verb = refused_with(CommandRefusal::NotRefundable(StateName::Refunded));
    assert_eq!(order.apply(&refund(1, "c"), EARLY, &POLICY), verb, "the same name for another verb is another request");
}

#[test]
fn refusals_say_what_the_buyer_can_understand() {
    let refused = |name, input: &Input, now| order_in(state(name), None).apply(input, now, &POLICY);
    let late = CommandRefusal::PaymentDeadlinePassed;
    assert_eq!(refused(StateName::AwaitingPayment, &pay(1, "new"), PAY_BY), refused_with(late));
    assert_eq!(refused(StateName::Expired, &pay(1, "new"), PAY_BY), refused_with(late));
    let foreign = refused_with(CommandRefusal::NotFound);
    assert_eq!(refused(StateName::Paying, &pay(2, "pay-1"), EARLY), foreign);
    let reused = refused_with(CommandRefusal::RequestIdReused);
    for name in [StateName::AwaitingPayment, StateName::Paying, StateName::Fulfilled] {
        assert_eq!(refused(name, &pay_with(1, "pay-1", "tok_2"), EARLY), reused);
    }
    let paying = refused_with(CommandRefusal::NotPayable(StateName::Paying));
    assert_eq!(refused(StateName::Paying, &pay(1, "new"), EARLY), paying);
}

#[test]
fn whoever_owes_an_answer_is_asked_for_it_again_after_a_time_that_doubles_up_to_a_bound() {
    let asked = |state, asks| {
        let mut order = Order { asks, ..order_in(state, None) };
        let first = (1..=2 * MAX_ASK_BACKOFF.as_secs()).find(|seconds| {
            let now = order.updated_at.plus(Duration::from_secs(*seconds));
            order.clone().apply(&Input::AskAgain, now, &POLICY).is_ok()
        });
        let seconds = first.expect("it is asked again");
        let now = order.updated_at.plus(Duration::from_secs(seconds));
        let step = order.apply(&Input::AskAgain, now, &POLICY).expect("a step");
        (seconds, step.body.map(|body| body.name()), order.asks)
    };
    let (first, body, asks) = asked(state(StateName::Refunding), 0);
    assert_eq!((body, asks), (Some("RefundRequested"), 1));
    assert!((30..=38).contains(&first), "{first} s");
    let (second, body, asks) = asked(state(StateName::Paid), 1);
    assert_eq!((body, asks), (Some("OrderPaidLate"), 2));
    assert!((60..=76).contains(&second), "{second} s");
    let (later, ..) = asked(state(StateName::Paid), MANY_ASKS - 1);
    assert!((3_600..=4_500).contains(&later), "{later} s");
    let mut answered = Order { asks: 3, ..order_in(state(StateName::Refunding), None) };
    take(&mut answered, Input::PaymentRefunded);
    assert_eq!(answered.asks, 0);
}

#[test]
fn no_first_request_for_an_answer_waits_longer_than_the_bound() {
    for last_byte in [0, 255] {
        let id = OrderId::from_uuid(Uuid::from_u128(last_byte));
        let order = Order { id, ..order_in(state(StateName::Paid), None) };
        let now = order.updated_at.plus(POLICY.longest_first_ask_backoff());
        assert!(order.clone().apply(&Input::AskAgain, now, &POLICY).is_ok(), "{last_byte}");
    }
}

#[test]
fn who_has_asked_many_times_asks_once_a_day() {
    for asks in [MANY_ASKS, i32::MAX] {
        let order = Order { asks, ..order_in(state(StateName::Paid), None) };
        let asked_after = |time| order.clone().apply(&Input::AskAgain, order.updated_at.plus(time), &POLICY);
        assert_eq!(asked_after(LAST_ASK_BACKOFF - Duration::from_secs(1)), Err(NoStep::Ignored));
        assert!(asked_after(LAST_ASK_BACKOFF + LAST_ASK_BACKOFF / 4).is_ok());
    }
}
