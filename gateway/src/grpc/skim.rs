//! Decodes only the subject of a message, for limits that need nothing else of it.

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};

/// The beginning of a stream's message: the resource.
#[derive(Clone, PartialEq, Message)]
struct Skimmed {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
}

/// The beginning of a resource: its id.
#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, optional, tag = "1")]
    id: Option<String>,
}

/// Returns a function that reads the subject of the messages of a stream, which are `output`, by the rule of
/// [`crate::hold::subject`], without decoding their other fields.
pub fn subject_of(output: &MessageDescriptor) -> impl Fn(&Bytes) -> Option<String> + Send + use<> {
    let has_id = begins_with_a_resource(output);
    move |message: &Bytes| {
        let skimmed = has_id.then(|| Skimmed::decode(message.clone()).ok()).flatten()?;
        skimmed.resource.map(|resource| resource.id.unwrap_or_default())
    }
}

fn begins_with_a_resource(output: &MessageDescriptor) -> bool {
    let Some(field) = output.get_field(1).filter(|field| !field.is_list()) else { return false };
    let Kind::Message(resource) = field.kind() else { return false };
    resource.get_field(1).is_some_and(|id| id.kind() == Kind::String && !id.is_list())
}

/// Counts the subjects of a stream by its request: the values of its lists, such as the ids of the watched events, or
/// else the one that it names.
pub fn subjects(request: &DynamicMessage) -> usize {
    let lists = request.fields().filter_map(|(_, value)| match value {
        Value::List(values) => Some(values.len()),
        _ => None,
    });
    lists.sum::<usize>().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::DescriptorPool;
    use stampede_proto::{
        event::v1::{Event, WatchEventsRequest, WatchEventsResponse},
        inventory::v1::{Stock, WatchStockRequest, WatchStockResponse},
    };

    fn descriptor(name: &str) -> MessageDescriptor {
        DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).unwrap().get_message_by_name(name).unwrap()
    }

    #[test]
    fn a_message_is_about_the_same_as_when_it_is_decoded() {
        let event = Event { event_id: "evt_1".into(), name: "sale".into(), ..Event::default() };
        let of_event = WatchEventsResponse { event: Some(event) }.encode_to_vec();
        let of_stock = WatchStockResponse { stocks: vec![Stock::default()] }.encode_to_vec();
        for (name, message, expected) in [
            ("stampede.event.v1.WatchEventsResponse", of_event, Some("evt_1".to_owned())),
            ("stampede.event.v1.WatchEventsResponse", Vec::new(), None),
            ("stampede.inventory.v1.WatchStockResponse", of_stock, None),
        ] {
            let output = descriptor(name);
            let decoded = DynamicMessage::decode(output.clone(), message.as_slice()).unwrap();
            assert_eq!(subject_of(&output)(&message.clone().into()), expected, "{name}");
            if !message.is_empty() {
                assert_eq!(crate::hold::subject(&decoded), expected, "{name}");
            }
        }
    }

    #[test]
    fn a_stream_counts_by_what_it_is_about() {
        let many = WatchEventsRequest { event_ids: vec!["a".into(), "b".into(), "c".into()] }.encode_to_vec();
        let one = WatchStockRequest { event_id: "a".into() }.encode_to_vec();
        for (name, request, expected) in [
            ("stampede.event.v1.WatchEventsRequest", many, 3),
            ("stampede.event.v1.WatchEventsRequest", Vec::new(), 1),
            ("stampede.inventory.v1.WatchStockRequest", one, 1),
        ] {
            let request = DynamicMessage::decode(descriptor(name), request.as_slice()).unwrap();
            assert_eq!(subjects(&request), expected, "{name}");
        }
    }
}
