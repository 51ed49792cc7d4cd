//! One buyer's way from an accepted order to its end: looks at it, and pays, cancels or forgets it.

use super::{
    buyer::Buyer,
    client::{Call, Failure},
    expect::{Intent, state_name},
    follow::View,
    plan::{Card, Ending},
    tally::Step,
    wire::{Nothing, Order, PayOrder},
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
        let call = Call::post(format!("/v1/orders/{}:cancel", order.order_id), &Nothing {});
        let call = call.bearing(self.token()).going_on();
        match self.stage.client.call::<Order>(&call).await {
            Ok(cancelled) => {
                self.stage.tally.took(Step::Cancel, due.elapsed());
                self.stage.tally.count(Step::Cancel, state_name(cancelled.state));
                drop(self.stage.follow.told(&cancelled));
            }
            Err(failure) => self.stage.refused(self.number, Step::Cancel, Intent::Cancel, due, &failure),
        }
    }

    /// Pays with `card`, and with a good one if that is declined.
    async fn pay(&self, order: &Order, mut view: watch::Receiver<View>, card: Card) {
        sleep(self.plan().thinks).await;
        if until(&mut view, |order| order.state != OrderState::Pending).await.state != OrderState::AwaitingPayment {
            self.stage.tally.count(Step::Payment, "ENDED_BEFORE");
            return;
        }
        let outcome = self.pay_with(order, &mut view, "pay-1", card).await;
        if outcome == Some(OrderState::AwaitingPayment) && card.is_declined() {
            sleep(self.plan().thinks).await;
            self.pay_with(order, &mut view, "pay-2", Card::Good).await;
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
        let call = call.bearing(self.token()).going_on();
        let begun = match self.send_payment(&call).await {
            Ok(begun) => begun,
            Err(failure) => {
                self.stage.refused(self.number, Step::Payment, Intent::Pay, due, &failure);
                return None;
            }
        };
        drop(self.stage.follow.told(&begun));
        let is_outcome = |order: &Order| order.version >= begun.version && order.state != OrderState::Paying;
        let outcome = until(view, is_outcome).await;
        self.report_payment(&outcome, card, due);
        Some(outcome.state)
    }

    async fn send_payment(&self, call: &Call) -> Result<Order, Failure> {
        let client = &self.stage.client;
        if !self.plan().double_clicks {
            return client.call(call).await;
        }
        let (one, other) = tokio::join!(client.call(call), client.call::<Order>(call));
        if one.is_ok() != other.is_ok() {
            self.surprised(Step::Payment, "SPLIT_CLICK", "one of two clicks to pay was taken, the other refused");
        }
        one.or(other)
    }

    /// Counts an outcome. It is measured by the order's own times, which are finer than how often the list is read.
    fn report_payment(&self, outcome: &Order, card: Card, due: Instant) {
        let (tally, timeline) = (&self.stage.tally, &self.stage.timeline);
        tally.took(Step::Payment, outcome.fulfilled_at.unwrap_or(outcome.update_time).since(timeline.time(due)));
        let declined = outcome.state == OrderState::AwaitingPayment;
        tally.count(Step::Payment, if declined { "DECLINED" } else { state_name(outcome.state) });
        if declined != card.is_declined() && outcome.state != OrderState::Expired {
            let detail = format!("a payment with {} led to {}", card.token(), state_name(outcome.state));
            self.surprised(Step::Payment, "WRONG_OUTCOME", &detail);
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
