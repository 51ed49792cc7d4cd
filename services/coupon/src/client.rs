//! Client of the order service: looks up how the orders ended that coupons are held for.

use crate::domain::OrderEnd;
use stampede_chassis::MeshChannel;
use stampede_proto::order::v1::{LookUpOrdersRequest, OrderState, order_service_client::OrderServiceClient};
use stampede_vocab::OrderId;
use std::{collections::HashMap, time::Duration};

/// A client of the order service. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    client: OrderServiceClient<MeshChannel>,
}

impl Orders {
    pub fn new(channel: MeshChannel) -> Self {
        Self { client: OrderServiceClient::new(channel) }
    }

    /// Returns the ends of those of these orders that were written, and the time within which the others may still be
    /// written. An end is `None` for an order without one, or of unknown state. At most
    /// [`MAX_PER_CALL`](stampede_vocab::limits::MAX_PER_CALL) orders.
    pub async fn ends(&self, orders: &[OrderId]) -> anyhow::Result<(HashMap<OrderId, Option<OrderEnd>>, Duration)> {
        let order_ids = orders.iter().map(OrderId::to_string).collect();
        let found = self.client.clone().look_up_orders(LookUpOrdersRequest { order_ids }).await?.into_inner();
        let ends: anyhow::Result<HashMap<OrderId, Option<OrderEnd>>> =
            found.orders.iter().map(|status| Ok((status.order_id.parse()?, end_of(status.state())))).collect();
        Ok((ends?, Duration::from_millis(u64::try_from(found.write_limit_ms)?)))
    }
}

/// Returns how an order ended; `None` if it has not, or its state is unknown.
const fn end_of(state: OrderState) -> Option<OrderEnd> {
    match state {
        OrderState::Fulfilled => Some(OrderEnd::Fulfilled),
        OrderState::Expired | OrderState::Cancelled => Some(OrderEnd::Unpaid),
        OrderState::Refunded => Some(OrderEnd::Refunded),
        OrderState::Unspecified
        | OrderState::AwaitingPayment
        | OrderState::Paying
        | OrderState::Paid
        | OrderState::Refunding => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_goes_on_has_no_end() {
        use OrderState::{AwaitingPayment, Cancelled, Expired, Fulfilled, Paid, Paying, Refunded, Refunding};
        for state in [OrderState::Unspecified, AwaitingPayment, Paying, Paid, Refunding] {
            assert_eq!(end_of(state), None, "{state:?}");
        }
        let ends = [Fulfilled, Expired, Cancelled, Refunded].map(end_of);
        let expected = [OrderEnd::Fulfilled, OrderEnd::Unpaid, OrderEnd::Unpaid, OrderEnd::Refunded];
        assert_eq!(ends, expected.map(Some));
    }
}
