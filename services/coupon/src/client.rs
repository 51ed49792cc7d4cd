//! The order service, asked how the orders ended that coupons are held for.

use crate::domain::OrderEnd;
use stampede_chassis::MeshChannel;
use stampede_proto::order::v1::{LookUpOrdersRequest, OrderState, order_service_client::OrderServiceClient};
use stampede_vocab::OrderId;
use std::collections::HashMap;

/// The order service. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    client: OrderServiceClient<MeshChannel>,
}

impl Orders {
    /// Speaks through this channel.
    pub fn new(channel: MeshChannel) -> Self {
        Self { client: OrderServiceClient::new(channel) }
    }

    /// How those of these orders ended that were written; `None` for one that has not, or of which that is not known.
    /// They are at most a page of old holds, which is one call.
    pub async fn ends(&self, orders: &[OrderId]) -> anyhow::Result<HashMap<OrderId, Option<OrderEnd>>> {
        let order_ids = orders.iter().map(OrderId::to_string).collect();
        let found = self.client.clone().look_up_orders(LookUpOrdersRequest { order_ids }).await?.into_inner().orders;
        found.iter().map(|status| Ok((status.order_id.parse()?, end_of(status.state())))).collect()
    }
}

/// How an order ended; `None` if it has not, or if that is not known.
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
        for going_on in [OrderState::Unspecified, AwaitingPayment, Paying, Paid, Refunding] {
            assert_eq!(end_of(going_on), None, "{going_on:?}");
        }
        let ends = [Fulfilled, Expired, Cancelled, Refunded].map(end_of);
        let expected = [OrderEnd::Fulfilled, OrderEnd::Unpaid, OrderEnd::Unpaid, OrderEnd::Refunded];
        assert_eq!(ends, expected.map(Some));
    }
}
