//! The handler behind the layers: reads the body up to its limit, and calls the endpoint of the route.

use crate::{
    gateway::Gateway,
    routes::{Endpoint, Native, Route},
    trace_id::TraceId,
    transcode::{Call, refuse_query},
};
use axum::{
    Json,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use stampede_chassis::Identity;
use stampede_status::{DOCS_BASE, Problem, Reason};
use std::time::Duration;

/// Longest wait for a body, which is small. Guards against slow-body attacks.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Answers a request that has a route and may use it; `caller` is `None` where a route is open to all.
pub async fn dispatch(
    gateway: &Gateway,
    route: &Route,
    caller: Option<&Identity>,
    trace_id: &TraceId,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    match &route.endpoint {
        Endpoint::Native(native) => {
            refuse_query(parts.uri.query().unwrap_or_default())?;
            let body = read(body, gateway.body_limit).await?;
            answer(gateway, *native, &body).await
        }
        Endpoint::Rpc(rpc) => {
            // A method without a body does not wait for one.
            let body = if rpc.has_body { read(body, gateway.body_limit).await? } else { Bytes::new() };
            gateway.transcoder.call(Call { rpc, caller, trace_id, uri: &parts.uri, body: &body }).await
        }
    }
}

async fn answer(gateway: &Gateway, native: Native, body: &[u8]) -> Result<Response, Problem> {
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    match native {
        Native::Index => Ok(index().into_response()),
        Native::IssueToken => {
            let pair = gateway.auth.issue(body).await?;
            Ok((StatusCode::CREATED, no_store, Json(pair)).into_response())
        }
        Native::VerifyToken => Ok((no_store, Json(gateway.auth.verify(body)?)).into_response()),
        Native::RefreshToken => Ok((no_store, Json(gateway.auth.refresh(body).await?)).into_response()),
    }
}

/// Returns the entry points of the API.
fn index() -> Json<serde_json::Value> {
    Json(json!({
        "name": "stampede",
        "version": env!("CARGO_PKG_VERSION"),
        "links": {
            "token": "/v1/auth/tokens",
            "events": "/v1/events",
            "campaigns": "/v1/campaigns",
            "coupons": "/v1/coupons",
            "orders": "/v1/orders",
            "payments": "/v1/payments",
            "errors": DOCS_BASE,
        },
    }))
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    // One deadline for the whole body, not one for each chunk: a byte a second would keep the connection for ever.
    let late = |_| Problem::new(Reason::DeadlineExceeded, "the body of the request did not arrive in time");
    let body = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, limit).collect()).await.map_err(late)?;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            Problem::new(Reason::BodyTooLarge, format!("the body may have {limit} bytes")).meta("limit_bytes", limit)
        } else {
            Problem::new(Reason::Cancelled, "the body of the request broke off")
        }
    })
}
