//! Tickets: who opens a stream, for readers that cannot send a header, as `EventSource` of browsers cannot.
//!
//! A ticket stands in the address of the stream (`?ticket=`), where logs and histories may keep it. So it is good for
//! that one path and for some seconds, and for nothing else: it is no access token, and none can be had for it.

use super::{
    endpoints::{fields, rfc3339, text},
    jwt::{Jwt, SecretError},
};
use crate::routes::{Access, TICKET};
use http::Uri;
use jsonwebtoken::errors::ErrorKind;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use stampede_chassis::{Identity, Role};
use stampede_status::{Problem, Reason};
use stampede_vocab::Timestamp;

/// Not that of other tokens: a ticket passes for none of them.
const ISSUER: &str = "stampede/ticket";
/// Time to open the stream, and to open it again when the connection breaks at once.
const LIFE_S: i64 = 30;

#[derive(Serialize, Deserialize)]
struct Claims {
    /// Id of the user.
    sub: String,
    role: String,
    /// End of its time, in seconds since the epoch.
    exp: i64,
    iss: String,
    /// The only path that it opens.
    path: String,
}

/// A ticket, as it is given.
#[derive(Debug, Serialize)]
pub struct Ticket {
    ticket: String,
    path: String,
    expires_at: String,
}

/// Signs and checks tickets.
pub struct Tickets {
    jwt: Jwt,
}

impl Tickets {
    /// Takes the shared secret.
    pub fn new(secret: &SecretString) -> Result<Self, SecretError> {
        Ok(Self { jwt: Jwt::new(secret, ISSUER)? })
    }

    /// A ticket for the stream at `path`, in the name of who asks for it.
    pub fn issue(&self, caller: &Identity, path: String) -> Result<Ticket, Problem> {
        let exp = Timestamp::now().micros() / 1_000_000 + LIFE_S;
        let claims = Claims {
            sub: caller.user_id.clone(),
            role: caller.role.as_str().to_owned(),
            exp,
            iss: ISSUER.to_owned(),
            path: path.clone(),
        };
        let ticket = self.jwt.sign(&claims).map_err(Problem::internal_error)?;
        Ok(Ticket { ticket, path, expires_at: rfc3339(exp) })
    }

    /// Who opens a stream that wants to know, if a ticket says it. One that is there must be good.
    pub fn caller(&self, access: Access, uri: &Uri) -> Result<Option<Identity>, Problem> {
        let Some(ticket) = in_query(uri).filter(|_| access != Access::Public) else { return Ok(None) };
        let identity = self.check(ticket, uri.path())?;
        if access == Access::Operator {
            identity.require_operator()?;
        }
        Ok(Some(identity))
    }

    fn check(&self, ticket: &str, path: &str) -> Result<Identity, Problem> {
        let claims: Claims = self.jwt.read(ticket).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Problem::new(Reason::TokenExpired, "the ticket has expired"),
            _ => refused("the ticket is not valid"),
        })?;
        if claims.path != path {
            return Err(refused("the ticket is for another path"));
        }
        match claims.role.parse::<Role>() {
            Ok(role @ (Role::Buyer | Role::Operator)) => Ok(Identity { user_id: claims.sub, role }),
            Ok(Role::Service) | Err(_) => Err(refused("the ticket is not valid")),
        }
    }
}

/// The path that a ticket is asked for.
pub fn path_of(body: &[u8]) -> Result<String, Problem> {
    text(&fields(body, &["path"])?, "path")
}

fn in_query(uri: &Uri) -> Option<&str> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == TICKET).map(|(_, value)| value)
}

fn refused(problem: &str) -> Problem {
    Problem::new(Reason::Unauthenticated, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AccessTokens;

    const PATH: &str = "/v1/orders/ord_1:watch";

    fn secret() -> SecretString {
        SecretString::from("0123456789abcdef0123456789abcdef")
    }

    fn tickets() -> Tickets {
        Tickets::new(&secret()).unwrap()
    }

    fn buyer() -> Identity {
        Identity { user_id: "usr_1".to_owned(), role: Role::Buyer }
    }

    fn opened(access: Access, uri: &str) -> Result<Option<Identity>, Reason> {
        tickets().caller(access, &uri.parse().unwrap()).map_err(|problem| problem.reason())
    }

    #[test]
    fn a_ticket_opens_its_path_and_no_other() {
        let ticket = tickets().issue(&buyer(), PATH.to_owned()).unwrap().ticket;
        assert_eq!(opened(Access::Buyer, &format!("{PATH}?ticket={ticket}")), Ok(Some(buyer())));
        assert_eq!(opened(Access::Buyer, &format!("{PATH}?a=b&ticket={ticket}")), Ok(Some(buyer())));
        assert_eq!(opened(Access::Buyer, PATH), Ok(None), "a header may say it");
        assert_eq!(opened(Access::Public, &format!("{PATH}?ticket={ticket}")), Ok(None), "nobody asks");
        let elsewhere = format!("/v1/orders/ord_2:watch?ticket={ticket}");
        assert_eq!(opened(Access::Buyer, &elsewhere), Err(Reason::Unauthenticated));
        assert_eq!(opened(Access::Operator, &format!("{PATH}?ticket={ticket}")), Err(Reason::PermissionDenied));
    }

    #[test]
    fn no_other_token_passes_for_a_ticket_nor_the_other_way_round() {
        let access = AccessTokens::new(&secret()).unwrap();
        let token = access.issue("usr_1", Role::Buyer, 5, 4_000_000_000).unwrap();
        assert_eq!(opened(Access::Buyer, &format!("{PATH}?ticket={token}")), Err(Reason::Unauthenticated));
        let ticket = tickets().issue(&buyer(), PATH.to_owned()).unwrap().ticket;
        assert_eq!(access.check(&ticket).unwrap_err().reason(), Reason::Unauthenticated);
    }

    #[test]
    fn an_old_ticket_is_refused() {
        let claims = Claims {
            sub: "usr_1".to_owned(),
            role: "buyer".to_owned(),
            exp: 1_000,
            iss: ISSUER.to_owned(),
            path: PATH.to_owned(),
        };
        let ticket = tickets().jwt.sign(&claims).unwrap();
        assert_eq!(opened(Access::Buyer, &format!("{PATH}?ticket={ticket}")), Err(Reason::TokenExpired));
    }
}
