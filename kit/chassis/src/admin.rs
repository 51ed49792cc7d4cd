//! The operator's port: GET /healthz (alive), /readyz (may be called), /metrics (Prometheus text).
//!
//! It serves from before the process is built until after it has drained.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Encoder, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::Workers;

/// Serves until the handle is dropped.
pub(crate) fn spawn(listener: TcpListener, workers: Workers) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(workers)).await {
            tracing::error!(error.cause = %error, "the admin server stopped");
        }
    }))
}

fn router(workers: Workers) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(workers)
}

/// One line for each thing the process waits for.
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
