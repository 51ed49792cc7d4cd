//! Tracks the open orders of callers, by the answers to limited calls.
//!
//! An order counts as open once it is answered as AWAITING_PAYMENT, until the deadline in the answer, and as settled
//! once it is answered in any other state: PAYING, CANCELLED, EXPIRED. A declined order counts again when its payment
//! is requested again. An order without an answer may have been placed, so it counts for a fixed time: hanging up does
//! not evade the limit. An order that an operator cancels is settled for the buyer in the answer.
//!
//! A settled order is recorded before its answer is sent, since the caller may then place the next one at once, by any
//! gateway. An open order is recorded after its answer. The next order of its buyer counts it on the same gateway, and
//! most often on another too, as Redis is nearer than the client; a record that is late or lost loosens the limit by
//! one order. The answer to a repeat may be recorded once the order is settled already: settled orders are remembered
//! for a while, in which no record opens them again. A declined one too counts again only after that.

use super::{
    Act, Actor, Acts,
    meters::By,
    rules::{OPEN_AT_MOST, OPEN_FOR},
};
use prost::Message;
use prost_reflect::DynamicMessage;
use stampede_chassis::{Block, Identity, Role};
use stampede_lua::gate::{OpenOrders, Question};
use stampede_proto::{
    convert,
    order::v1::{Order, OrderState, PlaceOrderResponse},
};
use stampede_status::{Problem, Reason};
use stampede_vocab::{OrderId, RequestId, Timestamp, UserId};
use std::{mem, sync::Arc, time::Duration};

/// An admitted call, until it is answered.
pub struct OrderTracker {
    acts: Arc<Acts>,
    act: Act,
    owners: Owners,
    /// The order; `None` once its state is recorded.
    order: Option<OrderId>,
}

/// The keys under which the order of a call counts as open.
enum Owners {
    /// The caller, and their address.
    Known(Vec<OpenOrders>),
    /// The buyer in the answer, as the caller is an operator. It still counts for the address that it was placed from,
    /// which is unknown by now.
    Answered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Placed,
    Settled,
}

impl Acts {
    /// Returns whether the calls of a method are limited.
    pub fn limits(&self, grpc_path: &str) -> bool {
        self.factor > 0 && Act::of_rpc(grpc_path).is_some()
    }

    /// Counts a call, if its method is limited. Fails with `THROTTLED` over a limit.
    pub async fn call(
        self: &Arc<Self>,
        grpc_path: &str,
        caller: Option<&Identity>,
        block: Option<Block>,
        message: &DynamicMessage,
    ) -> Result<Option<OrderTracker>, Problem> {
        let Some(act) = Act::of_rpc(grpc_path).filter(|_| self.factor > 0) else { return Ok(None) };
        let actor = actor_of(act, caller, block, message);
        // Operators cancel orders of others, without a limit.
        let is_for_others = act == Act::Cancel && caller.is_some_and(|caller| caller.role == Role::Operator);
        if !is_for_others {
            self.admit(act, &actor).await?;
        }
        // A claim has no order.
        let Some(order) = actor.order.or(actor.placing) else { return Ok(None) };
        let owners = if is_for_others { Owners::Answered } else { Owners::Known(self.open_orders(&actor)) };
        Ok(Some(OrderTracker { acts: Arc::clone(self), act, owners, order: Some(order) }))
    }

    fn open_orders(&self, actor: &Actor<'_>) -> Vec<OpenOrders> {
        let owners = [By::Token, By::Address].into_iter().filter_map(|by| actor.subject(by));
        owners.map(|owner| OpenOrders::of(self.redis.keys(), owner)).collect()
    }
}

fn actor_of<'a>(act: Act, caller: Option<&'a Identity>, block: Option<Block>, message: &DynamicMessage) -> Actor<'a> {
    // Derived as the order service does. It refuses an invalid text itself.
    let placing = || {
        let user = caller?.user_id.parse::<UserId>().ok()?;
        let request_id = message.get_field_by_name("request_id")?;
        Some(OrderId::derive(user, &RequestId::parse(request_id.as_str()?).ok()?))
    };
    Actor {
        token: caller.map(|caller| caller.user_id.as_str()),
        block,
        order: message.get_field_by_name("order_id").and_then(|id| id.as_str()?.parse().ok()),
        placing: if act == Act::Order { placing() } else { None },
    }
}

impl OrderTracker {
    /// Records the state of the order in the encoded answer.
    pub async fn record(mut self, answer: Result<&[u8], &Problem>) {
        let Some(order) = self.order.take() else { return };
        let answer = answer.map_err(Problem::reason).and_then(read);
        match change(self.act, answer.as_ref()) {
            Some(Change::Placed) => self.placed(order, open_for(answer.as_ref().ok(), Timestamp::now())),
            Some(Change::Settled) => {
                let of = match &mut self.owners {
                    Owners::Known(of) => mem::take(of),
                    Owners::Answered => self.of_buyer(answer.as_ref().ok()),
                };
                if !of.is_empty() {
                    // A caller that hangs up now does not cancel it: a queued request is sent anyway.
                    self.acts.queue.ask(Question::Settled { order, of, life: self.acts.settled_for }).await;
                }
            }
            None => {}
        }
    }

    /// Records an order that is open for so long. For an operator's call it is counted already, by its buyer.
    fn placed(&mut self, order: OrderId, life: Duration) {
        if let Owners::Known(of) = &mut self.owners {
            let of = mem::take(of);
            self.acts.queue.post(Question::Placed { order, of, life });
        }
    }

    fn of_buyer(&self, answer: Option<&Order>) -> Vec<OpenOrders> {
        let buyer = answer.map(|order| &order.user_id).filter(|buyer| !buyer.is_empty());
        buyer.map(|buyer| OpenOrders::of(self.acts.redis.keys(), buyer)).into_iter().collect()
    }
}

impl Drop for OrderTracker {
    fn drop(&mut self) {
        if let Some(order) = self.order.take().filter(|_| self.act == Act::Order) {
            self.placed(order, OPEN_FOR);
        }
    }
}

/// Returns the order in an encoded answer. Every method of orders that is limited has the same one.
fn read(answer: &[u8]) -> Result<Order, Reason> {
    let answer = PlaceOrderResponse::decode(answer).map_err(|_| Reason::Internal)?;
    Ok(answer.order.unwrap_or_default())
}

fn change(act: Act, answer: Result<&Order, &Reason>) -> Option<Change> {
    match answer {
        Ok(order) if order.state() == OrderState::AwaitingPayment => Some(Change::Placed),
        Ok(_) => Some(Change::Settled),
        Err(reason) => (act == Act::Order && may_be_placed(*reason)).then_some(Change::Placed),
    }
}

/// Returns how long an order counts as open: until its deadline, if the answer has one that is a time.
fn open_for(order: Option<&Order>, now: Timestamp) -> Duration {
    let deadline = convert::time("pay_deadline", order.and_then(|order| order.pay_deadline));
    deadline.map_or(OPEN_FOR, |deadline| deadline.since(now).min(OPEN_AT_MOST))
}

/// Returns whether the order may be stored despite this failure, by the contract of each reason.
fn may_be_placed(reason: Reason) -> bool {
    matches!(reason, Reason::Unavailable | Reason::DeadlineExceeded | Reason::Internal | Reason::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::DescriptorPool;
    use stampede_proto::order::v1::{CancelOrderResponse, PayOrderResponse, PlaceOrderRequest};

    fn message(name: &str, encoded: &[u8]) -> DynamicMessage {
        let pool = DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).unwrap();
        DynamicMessage::decode(pool.get_message_by_name(name).unwrap(), encoded).unwrap()
    }

    fn in_state(state: OrderState) -> Order {
        Order { user_id: "usr_1".to_owned(), state: state.into(), ..Order::default() }
    }

    #[test]
    fn an_order_is_read_from_the_answer_of_each_method() {
        let order = in_state(OrderState::Paying);
        let (placed, paid, cancelled) = (
            PlaceOrderResponse { order: Some(order.clone()) },
            PayOrderResponse { order: Some(order.clone()) },
            CancelOrderResponse { order: Some(order.clone()) },
        );
        for answer in [placed.encode_to_vec(), paid.encode_to_vec(), cancelled.encode_to_vec()] {
            assert_eq!(read(&answer), Ok(order.clone()));
        }
        assert_eq!(read(b"\x0a\x05"), Err(Reason::Internal));
    }

    #[test]
    fn an_order_counts_while_it_waits_for_its_payment_and_when_nobody_knows() {
        let change = |answer: &Result<Order, Reason>| change(Act::Order, answer.as_ref());
        assert_eq!(change(&Ok(in_state(OrderState::AwaitingPayment))), Some(Change::Placed));
        for ended in [OrderState::Paying, OrderState::Fulfilled, OrderState::Cancelled, OrderState::Expired] {
            assert_eq!(change(&Ok(in_state(ended))), Some(Change::Settled), "{ended:?}");
        }
        for (reason, expected) in [
            (Reason::SoldOut, None),
            (Reason::RequestIdReused, None),
            (Reason::Overloaded, None),
            (Reason::NotReady, None),
            (Reason::DeadlineExceeded, Some(Change::Placed)),
            (Reason::Unavailable, Some(Change::Placed)),
        ] {
            assert_eq!(change(&Err(reason)), expected, "{reason}");
        }
    }

    #[test]
    fn an_order_counts_until_its_deadline_and_for_a_day_at_most() {
        let now = Timestamp::from_micros(1_000_000_000);
        let due = |seconds, nanos| {
            let pay_deadline = Some(prost_types::Timestamp { seconds, nanos });
            Order { pay_deadline, ..in_state(OrderState::AwaitingPayment) }
        };
        for (order, expected) in [
            (due(1_002, 500_000_000), Duration::from_millis(2_500)),
            (due(4_600, 0), Duration::from_secs(3_600)),
            (due(999, 0), Duration::ZERO),
            (due(100_000_000, 0), OPEN_AT_MOST),
            (due(i64::MAX, 0), OPEN_FOR),
            (in_state(OrderState::AwaitingPayment), OPEN_FOR),
        ] {
            assert_eq!(open_for(Some(&order), now), expected, "{order:?}");
        }
        assert_eq!(open_for(None, now), OPEN_FOR);
    }

    #[test]
    fn a_repeat_is_the_same_order() {
        let user = UserId::random();
        let caller = Identity { user_id: user.to_string(), role: stampede_chassis::Role::Buyer };
        let request = PlaceOrderRequest { request_id: "r-1".to_owned(), ..PlaceOrderRequest::default() };
        let request = message("stampede.order.v1.PlaceOrderRequest", &request.encode_to_vec());
        let known = actor_of(Act::Order, Some(&caller), None, &request);
        assert_eq!(known.placing, Some(OrderId::derive(user, &RequestId::parse("r-1").unwrap())));
        assert_eq!((known.token, known.order), (Some(caller.user_id.as_str()), None));
        assert_eq!(actor_of(Act::Claim, Some(&caller), None, &request).placing, None);
    }
}
