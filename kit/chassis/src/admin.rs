//! The operator's port: GET /healthz (alive), /readyz (may be called), /metrics (Prometheus text), and over gRPC the
//! standard health service, for the process as a whole, and reflection.
//!
//! Serves from before the process is built until after it has drained. Reflection is UNAVAILABLE until the services of
//! the process are known.

use crate::{
    Workers,
    health::Health,
    serve::{HttpBounds, http},
};
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use prometheus::{Encoder, TextEncoder};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::Status;
use tower::ServiceExt;

/// The admin server of a process. It serves until this is dropped.
pub struct Admin {
    reflection: Reflection,
    _server: AbortOnDropHandle<()>,
}

/// The reflection services, once they are set.
type Reflection = Arc<OnceLock<Router>>;

impl Admin {
    /// Serves health, readiness and metrics on `listener`, as `workers` report them.
    pub fn spawn(listener: TcpListener, workers: Workers) -> Admin {
        let reflection = Reflection::default();
        let health = Health::of(&[]);
        let router = router(workers.clone(), &health, reflection.clone());
        let server = tokio::spawn(async move {
            let _health = health.follow(workers).await;
            http::serve(listener, router, HttpBounds::of_admin(), None, CancellationToken::new()).await;
        });
        Admin { reflection, _server: AbortOnDropHandle::new(server) }
    }

    /// Sets the reflection services. Later calls have no effect.
    pub(crate) fn reflect(&self, reflection: Router) {
        self.reflection.get_or_init(|| reflection);
    }
}

fn router(workers: Workers, health: &Health, reflection: Reflection) -> Router {
    let grpc = Router::new()
        .route_service("/grpc.health.v1.Health/{method}", health.server())
        .route("/grpc.reflection.v1.ServerReflection/{method}", any(reflect))
        .route("/grpc.reflection.v1alpha.ServerReflection/{method}", any(reflect))
        .with_state(reflection);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(workers)
        .merge(grpc)
}

async fn reflect(State(reflection): State<Reflection>, request: Request) -> Response {
    match reflection.get() {
        Some(reflection) => reflection.clone().oneshot(request).await.into_response(),
        None => Status::unavailable("the process is starting").into_http::<axum::body::Body>().into_response(),
    }
}

/// One line for each gate, and one for each note.
async fn readyz(State(workers): State<Workers>) -> impl IntoResponse {
    let status = if workers.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = String::new();
    if workers.draining().is_cancelled() {
        text.push_str("draining\n");
    }
    for (name, open) in &*workers.gates().borrow() {
        text.push_str(name);
        text.push_str(if *open { ": ready\n" } else { ": not ready\n" });
    }
    for (name, moves) in &*workers.notes().borrow() {
        text.push_str(name);
        text.push_str(if *moves { ": moves\n" } else { ": stands still\n" });
    }
    (status, text)
}

async fn metrics() -> impl IntoResponse {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&prometheus::gather(), &mut text) {
        Ok(()) => Ok(([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
