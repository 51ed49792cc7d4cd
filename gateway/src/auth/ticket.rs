//! Tickets: credentials for one stream, for readers that cannot send a header, as `EventSource` of browsers cannot.
//!
//! A ticket stands in the address of the stream (`?ticket=`), where logs and histories may keep it. So it is valid for
//! that one path and for some seconds: it is no access token, and cannot be exchanged for one. Its stream ends with the
//! access token that it was issued for, and when the login ends.

use super::{
    caller::Caller,
    endpoints::{fields, rfc3339, text},
    jwt::Jwt,
    secrets::Secrets,
    session::Session,
};
use crate::routes::{Access, TICKET};
use http::Uri;
use jsonwebtoken::errors::ErrorKind;
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
    /// Name of the login that it was issued to, by which it is revoked too.
    login: String,
    /// End of the access token that it was issued for, and of the stream, in seconds since the epoch.
    session_exp: i64,
}

/// A ticket, as it is issued.
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
    pub fn new(secrets: &Secrets) -> Self {
        Self { jwt: Jwt::new(secrets, ISSUER) }
    }

    /// Issues a ticket for the stream at `path`, in the name of the caller, and valid no longer than their token.
    pub fn issue(&self, caller: &Caller, path: String) -> Result<Ticket, Problem> {
        let Caller { identity, session } = caller;
        let exp = session.exp().min(Timestamp::now().micros() / 1_000_000 + LIFE_S);
        let claims = Claims {
            sub: identity.user_id.clone(),
            role: identity.role.as_str().to_owned(),
            exp,
            iss: ISSUER.to_owned(),
            path: path.clone(),
            login: session.login().to_owned(),
            session_exp: session.exp(),
        };
        let ticket = self.jwt.sign(&claims).map_err(Problem::internal_error)?;
        Ok(Ticket { ticket, path, expires_at: rfc3339(exp) })
    }

    /// Returns the caller of a stream, if a ticket names them. A ticket that is present must be valid. Does not check
    /// whether its login was revoked.
    pub fn caller(&self, access: Access, uri: &Uri) -> Result<Option<Caller>, Problem> {
        let Some(ticket) = in_query(uri).filter(|_| access != Access::Public) else { return Ok(None) };
        let caller = self.check(ticket, uri.path())?;
        if access == Access::Operator {
            caller.identity.require_operator()?;
        }
        Ok(Some(caller))
    }

    fn check(&self, ticket: &str, path: &str) -> Result<Caller, Problem> {
        let claims: Claims = self.jwt.read(ticket).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Problem::new(Reason::TokenExpired, "the ticket has expired"),
            _ => refused("the ticket is not valid"),
        })?;
        if claims.path != path {
            return Err(refused("the ticket is for another path"));
        }
        match claims.role.parse::<Role>() {
            Ok(role @ (Role::Buyer | Role::Operator)) => Ok(Caller {
                identity: Identity { user_id: claims.sub, role },
                session: Session::new(claims.login, claims.session_exp),
            }),
            Ok(Role::Service) | Err(_) => Err(refused("the ticket is not valid")),
        }
    }
}

/// Returns the path that a ticket is requested for.
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
    use crate::auth::access_token::{AccessTokens, Holder};
    use secrecy::SecretString;

    const PATH: &str = "/v1/orders/ord_1:watch";
    const LATER: i64 = 4_000_000_000;

    fn secrets(signing: &str, other: Option<&str>) -> Secrets {
        Secrets::new(&SecretString::from(signing), other.map(SecretString::from).as_ref()).unwrap()
    }

    fn ours() -> Secrets {
        secrets("0123456789abcdef0123456789abcdef", None)
    }

    fn buyer(session_exp: i64) -> Caller {
        let identity = Identity { user_id: "usr_1".to_owned(), role: Role::Buyer };
        Caller { identity, session: Session::new("f1".to_owned(), session_exp) }
    }

    fn ticket() -> String {
        Tickets::new(&ours()).issue(&buyer(LATER), PATH.to_owned()).unwrap().ticket
    }

    fn opened(access: Access, uri: &str) -> Result<Option<Caller>, Reason> {
        Tickets::new(&ours()).caller(access, &uri.parse().unwrap()).map_err(|problem| problem.reason())
    }

    #[test]
    fn a_ticket_opens_its_path_and_no_other_for_the_session_of_who_asked() {
        let ticket = ticket();
        assert_eq!(opened(Access::Authenticated, &format!("{PATH}?ticket={ticket}")), Ok(Some(buyer(LATER))));
        assert_eq!(opened(Access::Authenticated, &format!("{PATH}?a=b&ticket={ticket}")), Ok(Some(buyer(LATER))));
        assert_eq!(opened(Access::Authenticated, PATH), Ok(None), "a header may say it");
        assert_eq!(opened(Access::Public, &format!("{PATH}?ticket={ticket}")), Ok(None), "nobody asks");
        let elsewhere = format!("/v1/orders/ord_2:watch?ticket={ticket}");
        assert_eq!(opened(Access::Authenticated, &elsewhere), Err(Reason::Unauthenticated));
        assert_eq!(opened(Access::Operator, &format!("{PATH}?ticket={ticket}")), Err(Reason::PermissionDenied));
    }

    #[test]
    fn a_ticket_is_good_while_its_key_is_changed() {
        let uri: Uri = format!("{PATH}?ticket={}", ticket()).parse().unwrap();
        let next = "another secret of thirty-two bytes";
        let changing = Tickets::new(&secrets(next, Some("0123456789abcdef0123456789abcdef")));
        assert_eq!(changing.caller(Access::Authenticated, &uri).unwrap(), Some(buyer(LATER)));
        assert!(Tickets::new(&secrets(next, None)).caller(Access::Authenticated, &uri).is_err());
    }

    #[test]
    fn no_other_token_passes_for_a_ticket_nor_the_other_way_round() {
        let access = AccessTokens::new(&ours()).unwrap();
        let holder = Holder { user: "usr_1".to_owned(), role: Role::Buyer, family: "f1".to_owned() };
        let token = access.issue(&holder, 5, LATER).unwrap();
        assert_eq!(opened(Access::Authenticated, &format!("{PATH}?ticket={token}")), Err(Reason::Unauthenticated));
        assert_eq!(access.check(&ticket()).unwrap_err().reason(), Reason::Unauthenticated);
    }

    #[test]
    fn a_ticket_is_good_no_longer_than_the_token_that_it_was_given_for() {
        let ticket = Tickets::new(&ours()).issue(&buyer(1_000), PATH.to_owned()).unwrap().ticket;
        assert_eq!(opened(Access::Authenticated, &format!("{PATH}?ticket={ticket}")), Err(Reason::TokenExpired));
    }
}
