//! Renders messages of streams as events.

use super::{answer::name_of, event::Event, response};
use crate::{hold::subject, routes::Rpc};
use bytes::Bytes;
use prost_reflect::DynamicMessage;
use stampede_status::Problem;

/// Bytes of the hash that names a message.
const ID_BYTES: usize = 8;

/// A message as it is sent.
pub struct Rendering {
    pub subject: Option<String>,
    /// Names its content.
    pub id: String,
    /// The event with that name, as it is sent.
    pub event: Bytes,
}

impl Rendering {
    /// Renders a message.
    pub fn of(rpc: &Rpc, message: &[u8]) -> Result<Self, Problem> {
        let message = DynamicMessage::decode(rpc.output.clone(), message).map_err(Problem::internal_error)?;
        let json = response::to_json(rpc, &message)?;
        let id = name_of(&json, ID_BYTES);
        let event = Event::message().id(&id).into_bytes(&String::from_utf8_lossy(&json));
        Ok(Self { subject: subject(&message), id, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Endpoint, Lookup, Table};
    use http::Method;
    use prost::Message;
    use stampede_proto::event::v1::{Event as Sale, WatchEventsResponse};
    use stampede_status::Reason;
    use std::sync::Arc;

    fn rpc() -> Arc<Rpc> {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let Lookup::Found(route) = table.find(&Method::GET, "/v1/events:watch") else { panic!("no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("the gateway's own") };
        Arc::clone(rpc)
    }

    fn rendering(version: i64) -> Rendering {
        let event = Sale { event_id: "evt_1".into(), version, ..Sale::default() };
        Rendering::of(&rpc(), &WatchEventsResponse { event: Some(event) }.encode_to_vec()).unwrap()
    }

    #[test]
    fn a_message_is_named_by_what_it_says() {
        assert_eq!(rendering(1).subject.as_deref(), Some("evt_1"));
        assert_eq!(rendering(1).id, rendering(1).id);
        assert_ne!(rendering(1).id, rendering(2).id);
    }

    #[test]
    fn what_is_no_message_is_a_fault_of_the_service() {
        let outcome = Rendering::of(&rpc(), &[0xff]);
        assert_eq!(outcome.err().map(|problem| problem.reason()), Some(Reason::Internal));
    }
}
