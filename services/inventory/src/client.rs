//! Client of the order service: looks up which orders need their units.

use crate::domain::LedgerCommand;
use stampede_chassis::MeshChannel;
use stampede_proto::order::v1::{
    LookUpOrdersRequest, OrderState, OrderStatus, order_service_client::OrderServiceClient,
};
use stampede_vocab::{OrderId, limits::MAX_PER_CALL};
use std::collections::HashSet;

/// A client of the order service. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    client: OrderServiceClient<MeshChannel>,
}

impl Orders {
    /// Returns a client on this channel.
    pub fn new(channel: MeshChannel) -> Self {
        Self { client: OrderServiceClient::new(channel) }
    }

    /// Returns those of these orders that were written and may need their units. A cancelled order gives back whatever
    /// it has, so it is left out.
    pub async fn needing_units(&self, orders: &[OrderId]) -> anyhow::Result<HashSet<OrderId>> {
        let statuses = self.statuses(orders).await?.into_iter();
        let needing = statuses.filter(|status| status.state() != OrderState::Cancelled);
        needing.map(|status| Ok(status.order_id.parse::<OrderId>()?)).collect()
    }

    /// Returns the ledger commands of those of these orders that have ended without their goods: the same as by their
    /// last message.
    pub async fn ended(&self, orders: &[OrderId]) -> anyhow::Result<Vec<LedgerCommand>> {
        let mut commands = Vec::new();
        for status in self.statuses(orders).await? {
            let order_id: OrderId = status.order_id.parse()?;
            match status.state() {
                OrderState::Cancelled | OrderState::Expired => commands.push(LedgerCommand::ReleaseUnpaid(order_id)),
                OrderState::Refunded => commands.push(LedgerCommand::Release(order_id)),
                _ => {}
            }
        }
        Ok(commands)
    }

    /// Returns the statuses of those of these orders that were written.
    async fn statuses(&self, orders: &[OrderId]) -> anyhow::Result<Vec<OrderStatus>> {
        let mut statuses = Vec::with_capacity(orders.len());
        for orders in orders.chunks(MAX_PER_CALL) {
            let order_ids = orders.iter().map(OrderId::to_string).collect();
            let response = self.client.clone().look_up_orders(LookUpOrdersRequest { order_ids }).await?;
            statuses.extend(response.into_inner().orders);
        }
        Ok(statuses)
    }
}
