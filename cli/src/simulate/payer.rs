//! One buyer from an accepted order to its end: pays, cancels or abandons it. The order is watched only while its
//! payment is under way.

use super::{
    buyer::Buyer,
    client::{Call, Failure},
    expect::{Intent, leads_there, state_name},
    plan::{Card, Ending},
    step::{Answer, Step, Timed},
    wire::{CancelOrder, Order, PayOrder},
};
use stampede_proto::order::v1::OrderState;
use tokio::time::{Instant, sleep};

impl Buyer {
    /// Ends the order as planned. A buyer who had to come back for it pays.
    pub async fn finish(&self, order: Order) {
        match self.plan().ending {
            Ending::Abandons if !self.plan().comes_back => {}
            Ending::Cancels if !self.plan().comes_back => self.cancel(&order).await,
            Ending::Abandons | Ending::Cancels => self.pay(order, Card::Good).await,
            Ending::Pays(card) => self.pay(order, card).await,
        }
    }

    async fn cancel(&self, order: &Order) {
        sleep(self.plan().thinks).await;
        let due = Instant::now();
        let call = Call::post(format!("/v1/orders/{}:cancel", order.order_id), &CancelOrder { request_id: "cancel" });
        let call = call.bearing(self.token()).follow_up().due(due);
        match self.send(&call, Step::Cancel).await {
            Ok(cancelled) => {
                self.stage.stats.answered(Step::Cancel, Answer::Accepted, due.elapsed());
                self.stage.stats.count(Step::Cancel, state_name(cancelled.state));
                self.stage.follow.record(&cancelled);
            }
            Err(failure) => self.stage.refused(self.number, Intent::Cancel, due, &failure),
        }
    }

    /// Pays with `card`, and with a good one if that is declined.
    async fn pay(&self, placed: Order, card: Card) {
        sleep(self.plan().thinks).await;
        let Some(outcome) = self.pay_with(&placed, "pay-1", card).await else { return };
        if outcome.state == OrderState::AwaitingPayment && card.is_declined() {
            sleep(self.plan().thinks).await;
            self.pay_with(&outcome, "pay-2", Card::Good).await;
        }
    }

    /// Waits until the payment of the order is not under way, and returns the order; `None` if it cannot be watched,
    /// which is an anomaly. The deadline of the whole simulation bounds the wait.
    async fn once_paid(&self, order: Order) -> Option<Order> {
        if order.state != OrderState::Paying {
            return Some(order);
        }
        let call = Call::get(format!("/v1/orders/{}:watch", order.order_id)).bearing(self.token());
        let take = |newest: Order| {
            self.stage.follow.record(&newest);
            (newest.version > order.version && newest.state != OrderState::Paying).then_some(newest)
        };
        match self.stage.client.watch(&call, take).await {
            Ok(newest) => Some(newest),
            Err(failure) => {
                let detail = format!("{} cannot be watched: {}", order.order_id, failure.detail());
                self.stage.record_anomaly(self.number, Step::Payment, failure.reason(), &detail, failure.trace_id());
                None
            }
        }
    }

    /// Pays once, and returns the order after that; none if the payment was refused at once.
    async fn pay_with(&self, order: &Order, request_id: &str, card: Card) -> Option<Order> {
        let due = Instant::now();
        let body = PayOrder { request_id, payment_method: card.token() };
        let call = Call::post(format!("/v1/orders/{}:pay", order.order_id), &body);
        let call = call.bearing(self.token()).follow_up().due(due);
        let begun = match self.send(&call, Step::Payment).await {
            Ok(begun) => begun,
            Err(failure) => {
                self.stage.refused(self.number, Intent::Pay(order.pay_deadline), due, &failure);
                return None;
            }
        };
        self.stage.follow.record(&begun);
        let outcome = self.once_paid(begun).await?;
        self.report_payment(&begun, &outcome, card, due);
        Some(outcome)
    }

    /// Sends a request, for a double clicker twice at once. If one is accepted and the other refused, that is an
    /// anomaly.
    async fn send(&self, call: &Call, step: Step) -> Result<Order, Failure> {
        let client = &self.stage.client;
        if !self.plan().double_clicks {
            return client.call(call).await;
        }
        let (one, other) = tokio::join!(client.call(call), client.call::<Order>(call));
        if let (Ok(_), Err(failure)) | (Err(failure), Ok(_)) = (&one, &other) {
            let detail =
                format!("one of two clicks was taken, the other not: {} ({})", failure.reason(), failure.detail());
            self.stage.record_anomaly(self.number, step, "SPLIT_CLICK", &detail, failure.trace_id());
        }
        one.or(other)
    }

    /// Counts an outcome. Its latency is by the order's own times, which are more precise than those of its watch.
    fn report_payment(&self, begun: &Order, outcome: &Order, card: Card, due: Instant) {
        let (stats, timeline) = (&self.stage.stats, &self.stage.timeline);
        let ended_at = outcome.fulfill_time.unwrap_or(outcome.update_time);
        stats.answered(Step::Payment, Answer::Accepted, ended_at.since(timeline.time(due)));
        if let (OrderState::Paying, Card::Good, Some(fulfill_time)) = (begun.state, card, outcome.fulfill_time) {
            stats.took(Timed::PayToFulfilled, fulfill_time.since(begun.update_time));
        }
        let declined = outcome.state == OrderState::AwaitingPayment;
        stats.count(Step::Payment, if declined { "DECLINED" } else { state_name(outcome.state) });
        if !leads_there(card, outcome) {
            let detail = format!("{} led {} to {}", card.token(), outcome.order_id, state_name(outcome.state));
            self.record_anomaly(Step::Payment, "WRONG_OUTCOME", &detail);
        }
    }
}
