//! One buyer's way from an accepted order to its end: looks at it, and pays, cancels or forgets it.

use super::{
    buyer::Buyer,
    client::{Call, Failure},
    expect::{Intent, leads_there, state_name},
    follow::View,
    plan::{Card, Ending},
    step::{Answer, Step, Timed},
    wire::{CancelOrder, Order, PayOrder},
};
use stampede_proto::order::v1::OrderState;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

impl Buyer {
    /// Does with the order what was planned. Who had to come back for it is eager, and pays.
    pub async fn finish(&self, order: Order) {
        let view = self.stage.follow.told(&order);
        match self.plan().ending {
            Ending::Abandons if !self.plan().comes_back => {}
            Ending::Cancels if !self.plan().comes_back => self.cancel(&order).await,
            Ending::Abandons | Ending::Cancels => self.pay(&order, view, Card::Good).await,
            Ending::Pays(card) => self.pay(&order, view, card).await,
        }
    }

    async fn cancel(&self, order: &Order) {
        sleep(self.plan().thinks).await;
        let due = Instant::now();
        let call = Call::post(format!("/v1/orders/{}:cancel", order.order_id), &CancelOrder { request_id: "cancel" });
        let call = call.bearing(self.token()).going_on().due(due);
        match self.send(&call, Step::Cancel).await {
            Ok(cancelled) => {
                self.stage.stats.answered(Step::Cancel, Answer::Accepted, due.elapsed());
                self.stage.stats.count(Step::Cancel, state_name(cancelled.state));
                drop(self.stage.follow.told(&cancelled));
            }
            Err(failure) => {
                self.stage.follow.doubted(order.order_id);
                self.stage.refused(self.number, Intent::Cancel, due, &failure);
            }
        }
    }

    /// Pays with `card`, and with a good one if that is declined.
    async fn pay(&self, order: &Order, mut view: watch::Receiver<View>, card: Card) {
        sleep(self.plan().thinks).await;
        let seen = until(&mut view, |order| order.state != OrderState::Pending).await;
        let Some(payable_since) = seen.payable_since() else { return self.ended_before(&seen) };
        self.stage.stats.took(Timed::PlaceToAwaitingPayment, payable_since.since(seen.create_time));
        let outcome = self.pay_with(order, &mut view, "pay-1", card).await;
        if outcome == Some(OrderState::AwaitingPayment) && card.is_declined() {
            sleep(self.plan().thinks).await;
            self.pay_with(order, &mut view, "pay-2", Card::Good).await;
        }
    }

    /// It is expected only of an order whose time was over before its buyer saw that it could be paid. That an order
    /// was rejected is reported for all orders when all is over.
    fn ended_before(&self, order: &Order) {
        self.stage.stats.count(Step::Payment, "ENDED_BEFORE");
        let expired = order.state == OrderState::Expired && order.is_overdue();
        if !expired && order.state != OrderState::Rejected {
            let detail = format!("{} is {} before its buyer has paid", order.order_id, state_name(order.state));
            self.record_anomaly(Step::Payment, "ENDED_BEFORE", &detail);
        }
    }

    /// Pays once, and tells the state to which that has led; none if the payment was refused at once.
    async fn pay_with(
        &self,
        order: &Order,
        view: &mut watch::Receiver<View>,
        request_id: &str,
        card: Card,
    ) -> Option<OrderState> {
        let due = Instant::now();
        let body = PayOrder { request_id, payment_method: card.token() };
        let call = Call::post(format!("/v1/orders/{}:pay", order.order_id), &body);
        let call = call.bearing(self.token()).going_on().due(due);
        let begun = match self.send(&call, Step::Payment).await {
            Ok(begun) => begun,
            Err(failure) => {
                self.stage.follow.doubted(order.order_id);
                let deadline = view.borrow().order.pay_deadline;
                self.stage.refused(self.number, Intent::Pay(deadline), due, &failure);
                return None;
            }
        };
        drop(self.stage.follow.told(&begun));
        let is_outcome = |order: &Order| order.version >= begun.version && order.state != OrderState::Paying;
        let outcome = until(view, is_outcome).await;
        self.report_payment(&begun, &outcome, card, due);
        Some(outcome.state)
    }

    /// Sends it, twice at once if this buyer clicks everything twice. That not both are taken or both refused is an
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

    /// Counts an outcome. It is measured by the order's own times, which are finer than how often the list is read.
    fn report_payment(&self, begun: &Order, outcome: &Order, card: Card, due: Instant) {
        let (stats, timeline) = (&self.stage.stats, &self.stage.timeline);
        let ended_at = outcome.fulfilled_at.unwrap_or(outcome.update_time);
        stats.answered(Step::Payment, Answer::Accepted, ended_at.since(timeline.time(due)));
        if let (OrderState::Paying, Card::Good, Some(fulfilled_at)) = (begun.state, card, outcome.fulfilled_at) {
            stats.took(Timed::PayToFulfilled, fulfilled_at.since(begun.update_time));
        }
        let declined = outcome.state == OrderState::AwaitingPayment;
        stats.count(Step::Payment, if declined { "DECLINED" } else { state_name(outcome.state) });
        if !leads_there(card, outcome) {
            let detail = format!("{} led {} to {}", card.token(), outcome.order_id, state_name(outcome.state));
            self.record_anomaly(Step::Payment, "WRONG_OUTCOME", &detail);
        }
    }
}

/// Waits until the order is as wanted. It is bounded by the deadline of the whole simulation.
async fn until(view: &mut watch::Receiver<View>, wanted: impl Fn(&Order) -> bool) -> Order {
    match view.wait_for(|view| wanted(&view.order)).await {
        Ok(view) => view.order,
        Err(_) => unreachable!("the book of orders outlives every buyer, who shares it"),
    }
}
