//! Writes answers as JSON straight from their bytes, by a plan that is compiled from the descriptor once.
//!
//! The text equals that of the library, for the kinds of fields that answers have: texts, numbers, enums, times,
//! messages and lists of them. The library writes the rest: parts with another special JSON form, such as a duration,
//! and whole answers with an unusual encoding.

use super::{
    response::OPTIONS,
    wire::{Raw, next},
};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use prost_types::Timestamp;
use std::{io::Write, ops::RangeInclusive};

/// Deepest nesting of a plan.
const DEPTH: usize = 8;
/// Initial capacity, enough for most answers.
const CAPACITY: usize = 512;
/// Times that JSON has, in seconds since the epoch: of the years 1 to 9999.
const WRITABLE_S: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Writes the answers of one method.
#[derive(Debug)]
pub struct Writer {
    /// The only field that is sent; none for the whole message.
    only: Option<u32>,
    /// `None` if the library writes all of them.
    plan: Option<Plan>,
}

/// The plan of a message: its fields in their order.
#[derive(Debug)]
struct Plan {
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    number: u32,
    /// Its name in quotes, and the colon behind it.
    name: String,
    is_list: bool,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Text,
    Bool,
    Int32,
    Uint32,
    Int64,
    Uint64,
    /// The names in quotes, by their numbers.
    Enum(Vec<(i32, String)>),
    Message(Plan),
    /// A time, which most answers have: the library would encode and decode each once more.
    Time,
    /// A message that the library writes.
    Library(MessageDescriptor),
}

impl Writer {
    /// Writes messages of this kind, or the one field of them.
    pub fn of(output: &MessageDescriptor, only: Option<&FieldDescriptor>) -> Self {
        let plan = match only.map(FieldDescriptor::kind) {
            Some(Kind::Message(inner)) => Plan::of(&inner, DEPTH),
            Some(_) => None,
            None => Plan::of(output, DEPTH),
        };
        Self { only: only.map(FieldDescriptor::number), plan }
    }

    /// Returns the JSON of an encoded message; `None` if the library has to write it.
    pub fn write(&self, message: &[u8]) -> Option<Vec<u8>> {
        let plan = self.plan.as_ref()?;
        let sent = match self.only {
            Some(number) => only_field(number, message)?,
            None => message,
        };
        let mut json = Vec::with_capacity(CAPACITY);
        plan.write(sent, &mut json)?;
        Some(json)
    }
}

/// Returns the message in this field, if it is there once.
fn only_field(wanted: u32, mut rest: &[u8]) -> Option<&[u8]> {
    let mut found = None;
    while !rest.is_empty() {
        let (number, raw) = next(&mut rest)?;
        if number == wanted {
            let Raw::Bytes(bytes) = raw else { return None };
            if found.replace(bytes).is_some() {
                return None;
            }
        }
    }
    found
}

impl Plan {
    /// Returns the plan; `None` for a message that has a field of another kind, or a JSON form of its own.
    fn of(message: &MessageDescriptor, depth: usize) -> Option<Self> {
        if depth == 0 || message.package_name() == "google.protobuf" {
            return None;
        }
        let fields = message.fields().map(|field| Field::of(&field, depth)).collect::<Option<_>>()?;
        Some(Self { fields })
    }

    fn write(&self, message: &[u8], json: &mut Vec<u8>) -> Option<()> {
        let found = self.find(message)?;
        let mut between = b'{';
        for (field, raw) in self.fields.iter().zip(found) {
            // A message that is not set is left out; all else is written, empty or not.
            if raw.is_none() && field.is_single_message() {
                continue;
            }
            json.push(between);
            between = b',';
            json.extend_from_slice(field.name.as_bytes());
            if field.is_list {
                field.write_list(message, json)?;
            } else {
                field.shape.write(raw, json)?;
            }
        }
        if between == b'{' {
            json.push(b'{');
        }
        json.push(b'}');
        Some(())
    }

    /// Returns the value of each field, in the order of the plan; of a list, its last part.
    fn find<'b>(&self, message: &'b [u8]) -> Option<Vec<Option<Raw<'b>>>> {
        let mut found = vec![None; self.fields.len()];
        let mut rest = message;
        while !rest.is_empty() {
            let (number, raw) = next(&mut rest)?;
            let Some(place) = self.fields.iter().position(|field| field.number == number) else { continue };
            // A single field that comes twice has parts to merge, or one to drop, which the library does.
            if found[place].replace(raw).is_some() && !self.fields[place].is_list {
                return None;
            }
        }
        Some(found)
    }
}

impl Field {
    fn of(field: &FieldDescriptor, depth: usize) -> Option<Self> {
        let kind = field.kind();
        // An absent value with presence is left out, while a plan writes all values.
        let may_be_missing = field.supports_presence() && !matches!(kind, Kind::Message(_));
        if field.is_map() || field.containing_oneof().is_some() || may_be_missing {
            return None;
        }
        let name = format!("\"{}\":", field.name());
        Some(Self { number: field.number(), name, is_list: field.is_list(), shape: Shape::of(&kind, depth)? })
    }

    fn is_single_message(&self) -> bool {
        !self.is_list && matches!(self.shape, Shape::Message(_) | Shape::Time | Shape::Library(_))
    }

    /// Writes all values of the field. The whole message is scanned for them: few have a list, and those are mostly
    /// that list.
    fn write_list(&self, message: &[u8], json: &mut Vec<u8>) -> Option<()> {
        json.push(b'[');
        let (mut rest, mut is_first) = (message, true);
        while !rest.is_empty() {
            let (number, raw) = next(&mut rest)?;
            if number != self.number {
                continue;
            }
            if !is_first {
                json.push(b',');
            }
            is_first = false;
            self.shape.write(Some(raw), json)?;
        }
        json.push(b']');
        Some(())
    }
}

impl Shape {
    fn of(kind: &Kind, depth: usize) -> Option<Self> {
        Some(match kind {
            Kind::String => Self::Text,
            Kind::Bool => Self::Bool,
            Kind::Int32 => Self::Int32,
            Kind::Uint32 => Self::Uint32,
            Kind::Int64 => Self::Int64,
            Kind::Uint64 => Self::Uint64,
            Kind::Enum(names) => {
                Self::Enum(names.values().map(|value| (value.number(), format!("\"{}\"", value.name()))).collect())
            }
            Kind::Message(inner) if inner.full_name() == "google.protobuf.Timestamp" => Self::Time,
            Kind::Message(inner) => match Plan::of(inner, depth - 1) {
                Some(plan) => Self::Message(plan),
                None => Self::Library(inner.clone()),
            },
            _ => return None,
        })
    }

    /// Writes one value; the default value for a missing field. Returns `None` for another wire type.
    fn write(&self, raw: Option<Raw<'_>>, json: &mut Vec<u8>) -> Option<()> {
        match (self, raw) {
            (Self::Text, None) => json.extend_from_slice(b"\"\""),
            (Self::Text, Some(Raw::Bytes(bytes))) => {
                serde_json::to_writer(json, std::str::from_utf8(bytes).ok()?).ok()?;
            }
            (Self::Message(plan), Some(Raw::Bytes(bytes))) => plan.write(bytes, json)?,
            (Self::Time, Some(Raw::Bytes(bytes))) => write_time(bytes, json)?,
            (Self::Library(descriptor), Some(Raw::Bytes(bytes))) => {
                let message = DynamicMessage::decode(descriptor.clone(), bytes).ok()?;
                message.serialize_with_options(&mut serde_json::Serializer::new(json), &OPTIONS).ok()?;
            }
            (Self::Text | Self::Message(_) | Self::Time | Self::Library(_), _)
            | (_, Some(Raw::Bytes(_) | Raw::Fixed)) => {
                return None;
            }
            (shape, None) => shape.write_number(0, json)?,
            (shape, Some(Raw::Varint(number))) => shape.write_number(number, json)?,
        }
        Some(())
    }

    /// Writes a varint value, truncated to the bits of its type.
    fn write_number(&self, number: u64, json: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Bool => write!(json, "{}", number != 0).ok()?,
            Self::Int32 => write!(json, "{}", number as i32).ok()?,
            Self::Uint32 => write!(json, "{}", number as u32).ok()?,
            // Readers of JSON may round numbers of 64 bits, so they are texts.
            Self::Int64 => write!(json, "\"{}\"", number as i64).ok()?,
            Self::Uint64 => write!(json, "\"{number}\"").ok()?,
            Self::Enum(names) => match names.iter().find(|(known, _)| *known == number as i32) {
                Some((_, name)) => json.extend_from_slice(name.as_bytes()),
                None => write!(json, "{}", number as i32).ok()?,
            },
            Self::Text | Self::Message(_) | Self::Time | Self::Library(_) => return None,
        }
        Some(())
    }
}

/// Writes an encoded time; `None` for one that JSON does not have.
fn write_time(time: &[u8], json: &mut Vec<u8>) -> Option<()> {
    let time = Timestamp::decode(time).ok()?;
    WRITABLE_S.contains(&time.seconds).then_some(())?;
    write!(json, "\"{time}\"").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        routes::{Endpoint, Rpc, Table},
        transcode::response,
    };
    use proptest::{
        collection::vec,
        prelude::{ProptestConfig, any, proptest},
        sample::Index,
    };
    use prost_reflect::Value;
    use std::sync::{Arc, LazyLock};

    static RPCS: LazyLock<Vec<Arc<Rpc>>> = LazyLock::new(|| {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let rpcs = table.routes().filter_map(|route| match &route.endpoint {
            Endpoint::Rpc(rpc) => Some(Arc::clone(rpc)),
            Endpoint::Native(_) => None,
        });
        rpcs.collect()
    });

    /// Returns a message with four of five of its fields; which ones, and what they hold, follows from `seed`.
    fn filled(message: &MessageDescriptor, seed: u32) -> DynamicMessage {
        let mut filled = DynamicMessage::new(message.clone());
        for field in message.fields() {
            let seed = seed + field.number();
            let Some(value) = value(&field.kind(), seed).filter(|_| !field.is_map() && !seed.is_multiple_of(5)) else {
                continue;
            };
            let value = if field.is_list() { Value::List(vec![value; (seed % 3) as usize]) } else { value };
            filled.set_field(&field, value);
        }
        filled
    }

    fn value(kind: &Kind, seed: u32) -> Option<Value> {
        Some(match kind {
            Kind::String => {
                Value::String(["", "usr_1", "\"\n\\\u{1}\u{e9}\u{2028}\u{1d11e}"][(seed % 3) as usize].to_owned())
            }
            Kind::Bool => Value::Bool(seed.is_multiple_of(2)),
            Kind::Int32 => Value::I32([0, 7, i32::MIN][(seed % 3) as usize]),
            Kind::Uint32 => Value::U32([0, 7, u32::MAX][(seed % 3) as usize]),
            Kind::Int64 => Value::I64([0, 9_007_199_254_740_993, i64::MIN][(seed % 3) as usize]),
            Kind::Uint64 => Value::U64([0, 7, u64::MAX][(seed % 3) as usize]),
            Kind::Enum(_) => Value::EnumNumber([0, 1, 99, -1][(seed % 4) as usize]),
            Kind::Message(inner) if inner.package_name() == "google.protobuf" => Value::Message(time(inner, seed)),
            Kind::Message(inner) => Value::Message(filled(inner, seed)),
            _ => return None,
        })
    }

    /// Returns a time or a duration. Some are at an end of what can be written, and some behind it.
    fn time(message: &MessageDescriptor, seed: u32) -> DynamicMessage {
        let mut time = DynamicMessage::new(message.clone());
        let seconds = match seed % 16 {
            0 => -62_135_596_800,
            1 => 253_402_300_799,
            2 => 253_402_300_800,
            _ => i64::from(seed),
        };
        time.set_field_by_name("seconds", Value::I64(seconds));
        time.set_field_by_name("nanos", Value::I32([0, 5_000, 999_999_999][(seed % 3) as usize]));
        time
    }

    fn text(json: Vec<u8>) -> String {
        String::from_utf8(json).unwrap()
    }

    /// Compares the JSON of these bytes with the library's, letter by letter, as answers are named by their hash.
    /// Returns whether it was written without the library.
    fn check(rpc: &Rpc, bytes: &[u8]) -> bool {
        let Some(json) = rpc.writer.write(bytes) else { return false };
        let message = DynamicMessage::decode(rpc.output.clone(), bytes).expect("what is written can be read");
        let expected = response::to_json(rpc, &message).expect("what is written can be written by the library");
        assert_eq!(text(json), text(expected), "{}: {bytes:?}", rpc.label);
        true
    }

    #[test]
    fn every_answer_of_the_contract_is_written_as_the_library_writes_it() {
        for rpc in RPCS.iter() {
            let written = (0..60).filter(|seed| check(rpc, &filled(&rpc.output, *seed).encode_to_vec())).count();
            assert!(written > 0, "the library writes {}", rpc.label);
        }
    }

    #[test]
    fn what_breaks_off_or_is_said_twice_is_written_as_the_library_reads_it_or_left_to_it() {
        for rpc in RPCS.iter() {
            let [one, other] = [3, 7].map(|seed| filled(&rpc.output, seed).encode_to_vec());
            for end in 0..one.len() {
                check(rpc, &one[..end]);
            }
            check(rpc, &[one, other].concat());
        }
    }

    #[test]
    fn what_the_contract_does_not_know_is_passed_over() {
        // A number, four and eight bytes, and a text, as a later release may send them.
        let later = [
            &[0xf8, 0x3f, 1][..],
            &[0xfd, 0x3f, 1, 2, 3, 4],
            &[0xf9, 0x3f, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0xfa, 0x3f, 1, 255],
        ];
        for rpc in RPCS.iter() {
            let mut answers = (0..60).map(|seed| filled(&rpc.output, seed).encode_to_vec());
            let known = answers.find(|bytes| check(rpc, bytes)).expect("one of them is written");
            assert!(check(rpc, &[&later.concat()[..], &known].concat()), "{}", rpc.label);
        }
    }

    #[test]
    fn a_message_with_a_value_that_may_be_missing_is_left_to_the_library() {
        let request = &RPCS.iter().find(|rpc| rpc.label.ends_with("/RescheduleEvent")).unwrap().input;
        assert!(Writer::of(request, None).write(&[]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn a_damaged_answer_is_written_as_the_library_reads_it_or_left_to_it(
            rpc in any::<Index>(),
            seed in 0_u32..60,
            cuts in vec((any::<Index>(), any::<u8>()), 1..4),
        ) {
            let rpc = rpc.get(RPCS.as_slice());
            let mut bytes = filled(&rpc.output, seed).encode_to_vec();
            for (place, byte) in cuts {
                // Nothing is damaged in an answer without a field.
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
            }
            check(rpc, &bytes);
        }
    }
}
