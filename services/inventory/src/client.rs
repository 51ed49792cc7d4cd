//! The order service, asked where orders stand whose units are on hold.

use crate::domain::OrderLiveness;
use stampede_chassis::MeshChannel;
use stampede_proto::order::v1::{
    LookUpOrdersRequest, OrderState, OrderStatus, order_service_client::OrderServiceClient,
};
use stampede_vocab::OrderId;
use std::collections::HashMap;

/// Most orders in one question.
const MAX_ORDERS: usize = 256;

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

    /// Whether these orders still need their holds. One that was never written so far is left out.
    pub async fn liveness_by_order(&self, orders: &[OrderId]) -> anyhow::Result<HashMap<OrderId, OrderLiveness>> {
        let mut liveness_by_order = HashMap::with_capacity(orders.len());
        for orders in orders.chunks(MAX_ORDERS) {
            let order_ids = orders.iter().map(OrderId::to_string).collect();
            let response = self.client.clone().look_up_orders(LookUpOrdersRequest { order_ids }).await?;
            for status in response.into_inner().orders {
                liveness_by_order.insert(status.order_id.parse()?, liveness(&status));
            }
        }
        Ok(liveness_by_order)
    }
}

/// An order that is in none of its ends without units needs its hold, or the ledger has answered meanwhile.
fn liveness(status: &OrderStatus) -> OrderLiveness {
    match status.state() {
        OrderState::Rejected | OrderState::Expired | OrderState::Cancelled | OrderState::Refunded => {
            OrderLiveness::Ended
        }
        OrderState::Unspecified
        | OrderState::Pending
        | OrderState::AwaitingPayment
        | OrderState::Paying
        | OrderState::Paid
        | OrderState::Fulfilled
        | OrderState::Refunding => OrderLiveness::Alive,
    }
}
