//! The handler behind the layers: reads the body up to its limit, acquires the permits of the request, and calls the
//! endpoint of its route.

use crate::{
    auth::{Caller, ticket_path_of},
    gateway::Gateway,
    hold::Class,
    routes::{Access, Endpoint, Lookup, Native, Route},
    trace_id::TraceId,
    transcode::{Call, refuse_query},
};
use axum::{
    Json,
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use stampede_chassis::{Block, keep};
use stampede_status::{DOCS_BASE, Problem, Reason};

/// The media type of bodies.
const JSON: &str = "application/json";

/// Answers a request that has a route and may use it; `caller` is `None` where a route is open to all.
pub async fn dispatch(
    gateway: &Gateway,
    route: &Route,
    caller: Option<&Caller>,
    trace_id: &TraceId,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let (holds, class) = (&gateway.holds, Class::of(route));
    let holder = holds.holder(&parts, caller.map(|caller| &caller.identity));
    match &route.endpoint {
        Endpoint::Native(native) => {
            refuse_query(parts.uri.query().unwrap_or_default())?;
            let body = holds.read(body, &holder, class).await?;
            require_json(&parts.headers, &body)?;
            let permit = holds.request(&holder, class)?;
            let answer = answer(gateway, route, *native, caller, holder.block, &parts.headers, &body).await?;
            holds.answer(&holder, permit, answer)
        }
        Endpoint::Rpc(rpc) => {
            // A method without a body does not wait for one.
            let body = if rpc.has_body { holds.read(body, &holder, class).await? } else { Bytes::new() };
            // A raw body is passed on as bytes, whatever its media type.
            if rpc.raw_body.is_none() {
                require_json(&parts.headers, &body)?;
            }
            // Acquired only now: a permit covers the call and its answer, not a body that is still arriving.
            let permit = holds.request(&holder, class)?;
            // A call is over before its token expires; a stream may not be.
            let end = caller.filter(|_| rpc.streaming).map(|caller| gateway.auth.end_of(caller));
            let call = Call {
                rpc,
                caller: caller.map(|caller| &caller.identity),
                block: holder.block,
                trace_id,
                uri: &parts.uri,
                headers: &parts.headers,
                cache_control: gateway.caching.control(route),
                body: &body,
                is_public: route.access == Access::Public,
            };
            if rpc.streaming {
                let stream = holds.stream(&holder, class, &parts.uri)?;
                // The permit of the request is released once the stream begins; that of the stream when it ends.
                return Ok(keep(gateway.transcoder.call(call, end).await?, stream));
            }
            if let Some(reads) = gateway.reads.as_ref().filter(|_| call.is_shareable()) {
                let (answer, permit) = gateway.transcoder.read(reads, call, permit).await?;
                return holds.answer(&holder, permit, answer);
            }
            holds.answer(&holder, permit, gateway.transcoder.call(call, end).await?)
        }
    }
}

async fn answer(
    gateway: &Gateway,
    route: &Route,
    native: Native,
    caller: Option<&Caller>,
    block: Option<Block>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Problem> {
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    match native {
        Native::Index => Ok(index().into_response()),
        Native::Page(page) => Ok(gateway.pages.answer(page, gateway.caching.control(route), headers)),
        Native::IssueToken => {
            let pair = gateway.auth.issue(body, block).await?;
            Ok((StatusCode::CREATED, no_store, Json(pair)).into_response())
        }
        Native::VerifyToken => Ok((no_store, Json(gateway.auth.verify(body)?)).into_response()),
        Native::RefreshToken => Ok((no_store, Json(gateway.auth.refresh(body, block).await?)).into_response()),
        Native::RevokeToken => {
            gateway.auth.revoke(body, block).await?;
            Ok((no_store, Json(json!({}))).into_response())
        }
        Native::IssueTicket => {
            let caller =
                caller.ok_or_else(|| Problem::internal_error("tickets are given to callers without a name"))?;
            let ticket = gateway.tickets.issue(caller, path_of_stream(gateway, body)?)?;
            Ok((StatusCode::CREATED, no_store, Json(ticket)).into_response())
        }
    }
}

fn path_of_stream(gateway: &Gateway, body: &[u8]) -> Result<String, Problem> {
    let path = ticket_path_of(body)?;
    match gateway.table.find(&Method::GET, &path) {
        Lookup::Found(route) if route.is_stream() => Ok(path),
        _ => Err(Problem::invalid_field("path", "must be the path of a stream, such as /v1/orders/{order_id}:watch")),
    }
}

/// Returns the entry points of the API.
fn index() -> Json<serde_json::Value> {
    Json(json!({
        "name": "stampede",
        "version": env!("CARGO_PKG_VERSION"),
        "links": {
            "token": "/v1/auth/tokens",
            "ticket": "/v1/auth/tickets",
            "events": "/v1/events",
            "campaigns": "/v1/campaigns",
            "coupons": "/v1/coupons",
            "orders": "/v1/orders",
            "payments": "/v1/payments",
            "openapi": "/openapi.json",
            "docs": "/docs",
            "errors": DOCS_BASE,
        },
    }))
}

/// Refuses a body whose headers say that it is not JSON, or that it is encoded. Without such headers it is read as
/// JSON; an empty body may have any.
fn require_json(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() {
        return Ok(());
    }
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let coding = text(header::CONTENT_ENCODING).unwrap_or("identity");
    if !coding.eq_ignore_ascii_case("identity") {
        return Err(Problem::new(Reason::UnsupportedMediaType, "the body must not be compressed or otherwise encoded"));
    }
    if is_json(text(header::CONTENT_TYPE).unwrap_or(JSON)) {
        return Ok(());
    }
    let problem = format!("the body must be JSON (Content-Type: {JSON})");
    Err(Problem::new(Reason::UnsupportedMediaType, problem))
}

/// Returns whether this is `application/json`, or a kind of it such as `application/problem+json`, with any parameters.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let bytes = media_type.as_bytes();
    let begins = bytes.first_chunk::<12>().is_some_and(|start| start.eq_ignore_ascii_case(b"application/"));
    let ends = bytes.last_chunk::<5>().is_some_and(|end| end.eq_ignore_ascii_case(b"+json"));
    media_type.eq_ignore_ascii_case(JSON) || (begins && ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_taken_for_json() {
        for (name, value, is_taken) in [
            ("accept", "text/html", true),
            ("content-type", "application/json", true),
            ("content-type", "Application/JSON; charset=utf-8", true),
            ("content-type", "application/vnd.example+json", true),
            ("content-type", "APPLICATION/Vnd.Example+Json", true),
            ("content-encoding", "identity", true),
            ("content-type", "text/plain", false),
            ("content-type", "application/x-www-form-urlencoded", false),
            ("content-type", "application/jsonp", false),
            ("content-type", "", false),
            ("content-encoding", "gzip", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            let refused = require_json(&headers, b"{}").err().map(|problem| problem.reason());
            assert_eq!(refused, (!is_taken).then_some(Reason::UnsupportedMediaType), "{name}: {value}");
            assert!(require_json(&headers, b"").is_ok(), "{name}: {value}");
        }
    }
}
