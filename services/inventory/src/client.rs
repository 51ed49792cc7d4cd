//! Client of the order service: looks up which orders need their units.

use crate::domain::LedgerCommand;
use stampede_chassis::MeshChannel;
use stampede_proto::order::v1::{
    LookUpOrdersRequest, LookUpOrdersResponse, OrderState, OrderStatus, order_service_client::OrderServiceClient,
};
use stampede_vocab::{OrderId, limits::MAX_PER_CALL};
use std::{collections::HashSet, time::Duration};

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

    /// Returns those of these orders that were written and may need their units, and the time within which the others
    /// may still be written. A cancelled order gives back whatever it has, so it is left out.
    pub async fn needing_units(&self, orders: &[OrderId]) -> anyhow::Result<(HashSet<OrderId>, Duration)> {
        let (statuses, write_limit) = self.statuses(orders).await?;
        let needing = statuses.iter().filter(|status| status.state() != OrderState::Cancelled);
        let needing: anyhow::Result<HashSet<OrderId>> =
            needing.map(|status| Ok(status.order_id.parse::<OrderId>()?)).collect();
        Ok((needing?, write_limit))
    }

    /// Returns the ledger commands of those of these orders that have ended without their goods: the same as by their
    /// last message.
    pub async fn ended(&self, orders: &[OrderId]) -> anyhow::Result<Vec<LedgerCommand>> {
        let mut commands = Vec::new();
        let (statuses, _) = self.statuses(orders).await?;
        for status in statuses {
            let order_id: OrderId = status.order_id.parse()?;
            match status.state() {
                OrderState::Cancelled | OrderState::Expired => commands.push(LedgerCommand::ReleaseUnpaid(order_id)),
                OrderState::Refunded => commands.push(LedgerCommand::Release(order_id)),
                _ => {}
            }
        }
        Ok(commands)
    }

    /// Returns the statuses of those of these orders that were written, and the longest write limit that was told.
    async fn statuses(&self, orders: &[OrderId]) -> anyhow::Result<(Vec<OrderStatus>, Duration)> {
        let (mut statuses, mut write_limit_ms) = (Vec::with_capacity(orders.len()), 0);
        for orders in orders.chunks(MAX_PER_CALL) {
            let order_ids = orders.iter().map(OrderId::to_string).collect();
            let response = self.client.clone().look_up_orders(LookUpOrdersRequest { order_ids }).await?;
            let LookUpOrdersResponse { orders, write_limit_ms: limit_ms } = response.into_inner();
            statuses.extend(orders);
            write_limit_ms = limit_ms.max(write_limit_ms);
        }
        Ok((statuses, Duration::from_millis(u64::try_from(write_limit_ms)?)))
    }
}
