//! What every request goes through, from the outside in: its route with span, trace id and metrics, panics, the bound on
//! requests under way, and the caller (which is [`crate::auth`]'s).

mod metrics;
mod observe;

use self::metrics::Metrics;
use crate::{auth, dispatch::dispatch, gateway::Gateway, problem::Refusal};
use axum::{
    BoxError, Router,
    error_handling::HandleErrorLayer,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use stampede_status::{Problem, Reason};
use std::{any::Any, sync::Arc};
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer};
use tower_http::catch_panic::CatchPanicLayer;

/// The whole gateway as one router, with at most `max_in_flight` requests under way.
pub fn router(gateway: Arc<Gateway>, max_in_flight: usize) -> Router {
    let bound = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(overloaded))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(max_in_flight));
    let observer = observe::Observer { gateway: Arc::clone(&gateway), metrics: Metrics::new() };
    // The last one added is the outermost.
    Router::new()
        .fallback(dispatch)
        .layer(from_fn_with_state(Arc::clone(&gateway), auth::authenticate))
        .layer(bound)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(observer, observe::observe))
        .with_state(gateway)
}

async fn overloaded(_: BoxError) -> Refusal {
    Problem::new(Reason::Overloaded, "too many requests are under way").into()
}

/// The panic itself is logged by the hook of the process.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Refusal::from(Problem::internal_error("a handler of the gateway panicked")).into_response()
}
