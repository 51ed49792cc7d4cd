//! Renders messages of streams as events, once for all watchers.
//!
//! A crowd that watches one resource gets the same bytes over as many streams. The event depends only on the bytes, so
//! it is cached for the other watchers.

use super::{answer::name_of, response};
use crate::{hold::subject, routes::Rpc};
use axum::response::sse::Event;
use prost_reflect::DynamicMessage;
use stampede_status::Problem;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bytes of the hash that names a message.
const ID_BYTES: usize = 8;
/// Most cached messages of one method. The cache is cleared when it is full; messages still in use are soon cached
/// again.
const MOST_KEPT: usize = 256;
/// Largest cached message, in bytes. A larger one is rendered for each watcher, so that the cache stays small.
const MOST_BYTES: usize = 8 * 1024;

/// A message as it is sent.
pub struct Rendering {
    pub subject: Option<String>,
    /// Names its content.
    pub id: String,
    /// The event with that name.
    pub event: Event,
}

/// The recent renderings, by the path of their method.
#[derive(Default)]
pub struct Renderings {
    kept: Mutex<HashMap<String, OfMethod>>,
}

type OfMethod = HashMap<Box<[u8]>, Arc<Rendering>>;

impl Renderings {
    /// Returns the rendering of a message.
    pub fn of(&self, rpc: &Rpc, message: &[u8]) -> Result<Arc<Rendering>, Problem> {
        if let Some(known) = self.find(rpc, message) {
            return Ok(known);
        }
        let rendering = Arc::new(Rendering::new(rpc, message)?);
        if message.len() <= MOST_BYTES {
            self.keep(rpc, message, &rendering);
        }
        Ok(rendering)
    }

    fn find(&self, rpc: &Rpc, message: &[u8]) -> Option<Arc<Rendering>> {
        let kept = self.kept();
        kept.get(rpc.grpc_path.as_str())?.get(message).cloned()
    }

    fn keep(&self, rpc: &Rpc, message: &[u8], rendering: &Arc<Rendering>) {
        let mut kept = self.kept();
        let of_method = kept.entry(rpc.grpc_path.as_str().to_owned()).or_default();
        if of_method.len() >= MOST_KEPT {
            of_method.clear();
        }
        of_method.insert(message.into(), Arc::clone(rendering));
    }

    /// No code panics while it has this lock.
    fn kept(&self) -> MutexGuard<'_, HashMap<String, OfMethod>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rendering {
    fn new(rpc: &Rpc, message: &[u8]) -> Result<Self, Problem> {
        let message = DynamicMessage::decode(rpc.output.clone(), message).map_err(Problem::internal_error)?;
        let json = response::to_json(rpc, &message)?;
        let id = name_of(&json, ID_BYTES);
        let event = Event::default().id(&id).data(String::from_utf8_lossy(&json));
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

    fn rpc() -> Arc<Rpc> {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let Lookup::Found(route) = table.find(&Method::GET, "/v1/events:watch") else { panic!("no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("the gateway's own") };
        Arc::clone(rpc)
    }

    fn message(version: i64) -> Vec<u8> {
        let event = Sale { event_id: "evt_1".into(), version, ..Sale::default() };
        WatchEventsResponse { event: Some(event) }.encode_to_vec()
    }

    #[test]
    fn the_same_message_is_rendered_once_and_another_is_not_taken_for_it() {
        let (renderings, rpc) = (Renderings::default(), rpc());
        let first = renderings.of(&rpc, &message(1)).unwrap();
        assert_eq!(first.subject.as_deref(), Some("evt_1"));
        assert!(Arc::ptr_eq(&first, &renderings.of(&rpc, &message(1)).unwrap()));
        let second = renderings.of(&rpc, &message(2)).unwrap();
        assert_ne!(first.id, second.id);
    }

    #[test]
    fn few_messages_are_kept_and_no_large_one() {
        let (renderings, rpc) = (Renderings::default(), rpc());
        for version in 0..1_000 {
            renderings.of(&rpc, &message(version)).unwrap();
        }
        let kept = |renderings: &Renderings| renderings.kept().values().map(HashMap::len).sum::<usize>();
        let before = kept(&renderings);
        assert!((1..=MOST_KEPT).contains(&before), "{before}");
        let large = Sale { name: "x".repeat(MOST_BYTES), ..Sale::default() };
        renderings.of(&rpc, &WatchEventsResponse { event: Some(large) }.encode_to_vec()).unwrap();
        assert_eq!(kept(&renderings), before);
    }

    #[test]
    fn what_is_no_message_is_a_fault_of_the_service() {
        let outcome = Renderings::default().of(&rpc(), &[0xff]);
        assert_eq!(outcome.err().map(|problem| problem.reason()), Some(Reason::Internal));
    }
}
