//! The layer that lets a request through to its route only if the caller may use it.

use crate::{
    gateway::Gateway,
    problem::Refusal,
    routes::{Access, Route},
};
use axum::{
    extract::{Extension, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, header};
use stampede_chassis::{Identity, Role};
use stampede_status::{Problem, Reason};
use std::sync::Arc;

/// The caller, in the extensions of an authorized request; `None` if the route is open to all.
#[derive(Debug, Clone)]
pub struct Caller(pub Option<Identity>);

/// Checks the token if the route requires one. On an open route it is ignored, so a buyer with an expired token can
/// still see what is on sale.
pub async fn authenticate(
    State(gateway): State<Arc<Gateway>>,
    Extension(route): Extension<Arc<Route>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let caller = match route.access {
        Access::Public => None,
        Access::Buyer => Some(identify(&gateway, request.headers())?),
        Access::Operator => Some(require_operator(identify(&gateway, request.headers())?)?),
    };
    request.extensions_mut().insert(Caller(caller));
    Ok(next.run(request).await)
}

fn identify(gateway: &Gateway, headers: &HeaderMap) -> Result<Identity, Problem> {
    let token = bearer(headers).ok_or_else(|| {
        Problem::new(Reason::Unauthenticated, "send an access token as \"Authorization: Bearer <token>\"")
    })?;
    gateway.auth.tokens.check(token).map(|(_, identity)| identity)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn require_operator(identity: Identity) -> Result<Identity, Problem> {
    match identity.role {
        Role::Operator => Ok(identity),
        Role::Buyer | Role::Service => Err(Problem::new(Reason::PermissionDenied, "this is for operators")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_a_bearer_token_is_taken() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("abc", None),
            ("Bearer", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), token, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
