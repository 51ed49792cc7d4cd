//! The transcoding of one route without its call, for the benchmark alone.

use crate::{
    routes::{Endpoint, Lookup, Rpc, Table},
    transcode::{assemble, of_bytes},
};
use anyhow::bail;
use http::{Method, Uri};
use prost::Message;
use std::sync::Arc;

/// A request of the contract, without its body.
pub struct Transcoding {
    rpc: Arc<Rpc>,
    uri: Uri,
}

impl Transcoding {
    /// Finds the route. Fails for a path that no service answers.
    pub fn of(method: &Method, path: &'static str) -> anyhow::Result<Self> {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET)?;
        let Lookup::Found(route) = table.find(method, path) else { bail!("{path} has no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { bail!("{path} is the gateway's own") };
        Ok(Self { rpc: Arc::clone(rpc), uri: Uri::from_static(path) })
    }

    /// Turns a body into the message for the service.
    pub fn request(&self, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(assemble(&self.rpc, &self.uri, body)?.encode_to_vec())
    }

    /// Turns the message of the service into the body of the answer.
    pub fn answer(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(of_bytes(&self.rpc, message)?)
    }
}
