//! An OpenTelemetry collector that keeps the spans that it receives: a test sees a trace as operators do.

use anyhow::Result;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
};
use std::{
    fmt::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// A span as it was sent. Ids are in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedSpan {
    /// Name of the process, such as `stampede-order`.
    pub service: String,
    /// Name of the span.
    pub name: String,
    /// The trace that it belongs to.
    pub trace_id: String,
    /// Its own id.
    pub span_id: String,
    /// Id of the span that caused it; empty for the first of a trace.
    pub parent_span_id: String,
}

/// Takes spans over OTLP gRPC until it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Spans,
    server: JoinHandle<()>,
}

#[derive(Debug, Default, Clone)]
struct Spans(Arc<Mutex<Vec<CollectedSpan>>>);

impl Collector {
    /// A collector on a port of its own.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let spans = Spans::default();
        let service = TraceServiceServer::new(spans.clone());
        let server = tokio::spawn(async move {
            let served = Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)).await;
            served.expect("the listener is sound");
        });
        Ok(Self { address, spans, server })
    }

    /// The value for `--otlp-endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the spans of one trace that have arrived so far.
    pub fn trace(&self, trace_id: &str) -> Vec<CollectedSpan> {
        self.spans.lock().iter().filter(|span| span.trace_id == trace_id).cloned().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Spans {
    fn lock(&self) -> MutexGuard<'_, Vec<CollectedSpan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.lock();
        for sent in request.into_inner().resource_spans {
            let service = text_of(&sent.resource.unwrap_or_default().attributes, "service.name");
            kept.extend(sent.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| CollectedSpan {
                service: service.clone(),
                name: span.name,
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_span_id: hex(&span.parent_span_id),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The attribute of this name; empty if there is none, or it is no text.
fn text_of(attributes: &[KeyValue], key: &str) -> String {
    let named = attributes.iter().filter(|attribute| attribute.key == key);
    let values = named.filter_map(|attribute| attribute.value.as_ref()?.value.as_ref());
    let mut texts = values.filter_map(|value| match value {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    });
    texts.next().unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}
