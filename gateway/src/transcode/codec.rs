//! The gRPC codec of messages that are known by their descriptor only.

use crate::grpc::BytesCodec;
use bytes::Bytes;
use prost::Message;
use prost_reflect::DynamicMessage;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};

/// Initial capacity of a buffer. Most messages are smaller, and each open stream keeps its buffer.
const BUFFER_BYTES: usize = 1_024;
/// Buffered bytes after which a frame is flushed; tonic's default.
const YIELD_BYTES: usize = 32 * 1_024;

/// Buffers for messages that are mostly small.
pub fn small_buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// Encodes any message, and leaves answers as they came.
#[derive(Debug, Clone, Copy)]
pub struct DynamicCodec;

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = Bytes;
    type Encoder = DynamicEncoder;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

/// The sending half.
#[derive(Debug)]
pub struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        small_buffers()
    }
}
