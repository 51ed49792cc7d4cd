//! The caller of a route, and whether they may call it.

use super::{endpoints::Auth, session::Session};
use crate::routes::Access;
use http::{HeaderMap, header};
use stampede_chassis::Identity;
use stampede_status::{Problem, Reason};

/// A caller, and the session that they are authenticated for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user and role that the token names.
    pub identity: Identity,
    pub session: Session,
}

/// Checks the token if the route requires one, and returns the caller. An open route ignores the token, so a buyer with
/// an expired one can still see what is on sale.
pub fn authenticate(auth: &Auth, access: Access, headers: &HeaderMap) -> Result<Option<Caller>, Problem> {
    Ok(match access {
        Access::Public => None,
        Access::Authenticated => Some(identify(auth, headers)?),
        Access::Operator => {
            let caller = identify(auth, headers)?;
            // No access token has the role of a service, which may do this too.
            caller.identity.require_operator()?;
            Some(caller)
        }
    })
}

/// Authenticates a request: the one place where credentials become a caller. Another kind (a token of an OpenID
/// provider, a client's certificate) is one more way to a [`Caller`]; nothing behind it knows which one was used.
fn identify(auth: &Auth, headers: &HeaderMap) -> Result<Caller, Problem> {
    let token = bearer(headers).ok_or_else(|| {
        Problem::new(Reason::Unauthenticated, "send an access token as \"Authorization: Bearer <token>\"")
    })?;
    auth.check(token)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
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
