//! The order service, asked which orders need their units.

use stampede_chassis::MeshChannel;
use stampede_proto::order::v1::{LookUpOrdersRequest, OrderState, order_service_client::OrderServiceClient};
use stampede_vocab::OrderId;
use std::collections::HashSet;

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

    /// Those of these orders that were written and may need their units. One that was cancelled gives back whatever it
    /// has, so it is left out.
    pub async fn needing_units(&self, orders: &[OrderId]) -> anyhow::Result<HashSet<OrderId>> {
        let mut needing = HashSet::with_capacity(orders.len());
        for orders in orders.chunks(MAX_ORDERS) {
            let order_ids = orders.iter().map(OrderId::to_string).collect();
            let response = self.client.clone().look_up_orders(LookUpOrdersRequest { order_ids }).await?;
            let orders = response.into_inner().orders;
            for status in orders.into_iter().filter(|status| status.state() != OrderState::Cancelled) {
                needing.insert(status.order_id.parse()?);
            }
        }
        Ok(needing)
    }
}
