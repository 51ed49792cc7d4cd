//! Who calls a route, and whether they may.

use super::access_token::AccessTokens;
use crate::routes::Access;
use http::{HeaderMap, header};
use stampede_chassis::Identity;
use stampede_status::{Problem, Reason};

/// Checks the token if the route wants one, and returns who calls. An open route ignores the token, so a buyer with an
/// old one can still see what is on sale.
pub fn authenticate(tokens: &AccessTokens, access: Access, headers: &HeaderMap) -> Result<Option<Identity>, Problem> {
    Ok(match access {
        Access::Public => None,
        Access::Buyer => Some(identify(tokens, headers)?),
        Access::Operator => {
            let identity = identify(tokens, headers)?;
            // No access token has the role of a service, which may do this too.
            identity.require_operator()?;
            Some(identity)
        }
    })
}

fn identify(tokens: &AccessTokens, headers: &HeaderMap) -> Result<Identity, Problem> {
    let token = bearer(headers).ok_or_else(|| {
        Problem::new(Reason::Unauthenticated, "send an access token as \"Authorization: Bearer <token>\"")
    })?;
    tokens.check(token).map(|(_, identity)| identity)
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
