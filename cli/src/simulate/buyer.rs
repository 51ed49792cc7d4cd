//! One buyer up to an accepted order: claims a coupon, orders, comes back. `payer` has the rest of the order's life.

use super::{
    client::{Call, Failure},
    expect::Intent,
    follow::is_end,
    plan::{BuyerPlan, PlannedLine},
    stage::Stage,
    step::{Answer, Step},
    wire::{ClaimCoupon, Coupon, NewLine, Order, PlaceOrder},
};
use http::HeaderValue;
use stampede_proto::order::v1::OrderState;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

#[derive(Clone)]
pub struct Buyer {
    pub stage: Arc<Stage>,
    pub number: usize,
}

/// The outcome of an attempt to order.
enum Placed {
    Accepted(Order),
    Refused(Failure),
}

impl Buyer {
    pub fn plan(&self) -> &BuyerPlan {
        &self.stage.plan.buyers[self.number]
    }

    /// Returns the value of their header `authorization`.
    pub fn token(&self) -> &HeaderValue {
        &self.stage.tokens[self.number]
    }

    /// Claims a coupon that was to be claimed when it was `due`; a double clicker sends two requests at once.
    pub async fn claim(self, due: Instant) {
        if !self.plan().double_clicks {
            self.claim_as("claim-1", Intent::Claim, due).await;
            return;
        }
        let windows =
            (self.claim_as("claim-1", Intent::ClaimTwice, due), self.claim_as("claim-2", Intent::ClaimTwice, due));
        if tokio::join!(windows.0, windows.1) == (true, true) {
            self.record_anomaly(Step::Claim, "CLAIMED_TWICE", "two requests of one buyer were each given a coupon");
        }
    }

    /// Returns whether a coupon was issued to this request.
    async fn claim_as(&self, request_id: &str, intent: Intent<'_>, due: Instant) -> bool {
        let stage = &self.stage;
        let campaign = stage.campaign.expect("claims are planned for sales with a campaign only");
        let path = format!("/v1/campaigns/{campaign}:claim");
        let call = Call::post(path, &ClaimCoupon { request_id }).bearing(self.token()).due(due);
        match stage.client.call::<Coupon>(&call).await {
            Ok(coupon) => {
                stage.stats.answered(Step::Claim, Answer::Accepted, due.elapsed());
                stage.stats.count(Step::Claim, "ISSUED");
                stage.stats.coupon_acknowledged(coupon.coupon_id, stage.timeline.now());
                // The first of two coupons is kept; the caller reports the second.
                let _ = stage.coupons[self.number].set(coupon.coupon_id);
                true
            }
            Err(failure) => {
                stage.refused(self.number, intent, due, &failure);
                false
            }
        }
    }

    /// Orders, and follows the order to its end.
    pub async fn buy(self) {
        self.stage.stats.arrived();
        if let Some(order) = self.order().await {
            if self.plan().goes_over_limit {
                self.order_over_limit(&order).await;
            }
            self.finish(order).await;
        }
    }

    /// Returns an accepted order, if they get one.
    async fn order(&self) -> Option<Order> {
        let plan = self.plan();
        let opening = self.stage.timeline.instant(self.stage.timeline.open_time);
        let lines = &plan.lines;
        if let Some(early_by) = plan.early_by {
            let early = self.place("order-early", Intent::OrderEarly(lines), opening - early_by).await;
            if let Placed::Accepted(order) = early {
                // It was due before the opening, but sent so late that the event was open.
                return Some(order);
            }
        }
        let due = opening + plan.orders_after;
        sleep_until(due).await;
        match self.place("order-1", Intent::Order(lines), due).await {
            Placed::Accepted(order) => Some(order),
            Placed::Refused(failure) if plan.comes_back && failure.reason() == "SOLD_OUT" => self.come_back(due).await,
            Placed::Refused(_) => None,
        }
    }

    /// Retries for a single unit, until the sale is over. The schedule does not depend on answers: a late answer delays
    /// the next request, and the delay is measured.
    async fn come_back(&self, first: Instant) -> Option<Order> {
        let stage = &self.stage;
        let closes = stage.timeline.instant(stage.timeline.close_time);
        let modest = [PlannedLine { units: 1, ..self.plan().lines[0] }];
        for (attempt, due) in (2..).zip(come_back_times(first, stage.come_back_every, closes)) {
            sleep_until(due).await;
            if Instant::now() >= closes {
                break;
            }
            let placed = self.place(&format!("order-{attempt}"), Intent::ComeBack(&modest), due).await;
            if let Placed::Accepted(order) = placed {
                return Some(order);
            }
        }
        None
    }

    /// Tries for all that one buyer may have of an item, on top of the order they have.
    async fn order_over_limit(&self, first: &Order) {
        let PlannedLine { item, .. } = self.plan().lines[0];
        let too_much = [PlannedLine { item, units: self.stage.limits[item] }];
        let placed = self.place("order-over-limit", Intent::OrderOverLimit(&too_much), Instant::now()).await;
        if let Placed::Accepted(second) = placed {
            self.report_excess(first, &second).await;
        }
    }

    /// Reports an excess if the first order counts. An order that cannot be read counts.
    async fn report_excess(&self, first: &Order, second: &Order) {
        let call = Call::get(format!("/v1/orders/{}", first.order_id)).bearing(self.token()).follow_up();
        let state = self.stage.client.call::<Order>(&call).await.map_or(first.state, |order| order.state);
        if state == OrderState::Fulfilled || !is_end(state) {
            let detail = format!("{} was accepted on top of {}", second.order_id, first.order_id);
            self.record_anomaly(Step::Order, "OVER_LIMIT", &detail);
        }
    }

    async fn place(&self, request_id: &str, intent: Intent<'_>, due: Instant) -> Placed {
        let mut call = self.order_call(request_id, intent.lines());
        if self.plan().cuts_connection {
            // A repeat, though the coupon may have been issued since; and it is late on purpose.
            self.stage.client.send_and_cut(&call.clone().due(due), self.cut_after()).await;
        } else {
            call = call.due(due);
        }
        if !self.plan().double_clicks {
            return self.place_once(&call, intent, due).await;
        }
        match tokio::join!(self.place_once(&call, intent, due), self.place_once(&call, intent, due)) {
            (Placed::Accepted(one), Placed::Accepted(other)) if one.order_id == other.order_id => Placed::Accepted(one),
            (Placed::Refused(failure), Placed::Refused(_)) => Placed::Refused(failure),
            (Placed::Accepted(order), Placed::Accepted(_)) => {
                self.record_anomaly(Step::Order, "TWO_ORDERS", "one request id has made two orders");
                Placed::Accepted(order)
            }
            // Units may have been returned, or the event opened, between the two.
            (Placed::Accepted(order), Placed::Refused(_)) | (Placed::Refused(_), Placed::Accepted(order)) => {
                Placed::Accepted(order)
            }
        }
    }

    async fn place_once(&self, call: &Call, intent: Intent<'_>, due: Instant) -> Placed {
        let stage = &self.stage;
        match stage.client.call::<Order>(call).await {
            Ok(order) => {
                stage.follow.record(&order);
                let new = stage.stats.order_acknowledged(order.order_id, stage.timeline.now());
                let (answer, outcome) =
                    if new { (Answer::Accepted, "ACCEPTED") } else { (Answer::Repeated, "REPEATED") };
                stage.stats.answered(intent.step(), answer, due.elapsed());
                stage.stats.count(intent.step(), outcome);
                Placed::Accepted(order)
            }
            Err(failure) => {
                stage.refused(self.number, intent, due, &failure);
                Placed::Refused(failure)
            }
        }
    }

    fn order_call(&self, request_id: &str, lines: &[PlannedLine]) -> Call {
        let stage = &self.stage;
        let line = |line: &PlannedLine| NewLine { item_id: stage.items[line.item], units: line.units };
        let order = PlaceOrder {
            request_id,
            event_id: stage.event,
            lines: lines.iter().map(line).collect(),
            coupon_id: stage.coupons[self.number].get().copied(),
        };
        Call::post("/v1/orders", &order).bearing(self.token())
    }

    /// Returns a random pause, up to one after which the answer is surely on its way.
    fn cut_after(&self) -> Duration {
        Duration::from_millis((self.number % 16) as u64)
    }

    pub fn record_anomaly(&self, step: Step, outcome: &str, detail: &str) {
        self.stage.record_anomaly(self.number, step, outcome, detail, None);
    }
}

/// Returns the times at which a buyer comes back, from the `first` visit until it `closes`.
fn come_back_times(first: Instant, every: Duration, closes: Instant) -> impl Iterator<Item = Instant> {
    (1..).map(move |times| first + every * times).take_while(move |due| *due < closes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_does_so_at_fixed_times_until_the_close() {
        let first = Instant::now();
        let seconds = Duration::from_secs;
        let times: Vec<_> = come_back_times(first, seconds(2), first + seconds(6)).collect();
        assert_eq!(times, [first + seconds(2), first + seconds(4)]);
    }
}
