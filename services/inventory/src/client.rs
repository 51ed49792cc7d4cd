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
            commands.extend(release_of(status.order_id.parse()?, status.state()));
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

/// Returns the command that gives back the units of an order in this state; `None` if it may need them, or its state is
/// unknown.
const fn release_of(order_id: OrderId, state: OrderState) -> Option<LedgerCommand> {
    match state {
        OrderState::Cancelled | OrderState::Expired => Some(LedgerCommand::ReleaseUnpaid(order_id)),
        OrderState::Refunded => Some(LedgerCommand::Release(order_id)),
        OrderState::Unspecified
        | OrderState::AwaitingPayment
        | OrderState::Paying
        | OrderState::Paid
        | OrderState::Fulfilled
        | OrderState::Refunding => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn only_an_order_that_ended_without_its_goods_gives_its_units_back() {
        use OrderState::{AwaitingPayment, Cancelled, Expired, Fulfilled, Paid, Paying, Refunded, Refunding};
        let order_id = OrderId::from_uuid(Uuid::from_u128(1));
        for state in [OrderState::Unspecified, AwaitingPayment, Paying, Paid, Fulfilled, Refunding] {
            assert_eq!(release_of(order_id, state), None, "{state:?}");
        }
        let unpaid = LedgerCommand::ReleaseUnpaid(order_id);
        let releases = [Cancelled, Expired, Refunded].map(|state| release_of(order_id, state));
        assert_eq!(releases, [unpaid.clone(), unpaid, LedgerCommand::Release(order_id)].map(Some));
    }
}
