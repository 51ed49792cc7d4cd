//! Authentication: access tokens, refresh tokens, and who may use a route.
//!
//! An access token is a JWT, so any replica can check it without a server; each has the list of the few that are
//! revoked. A refresh token is valid for one use, which may be repeated for a while. The first one of a login is signed
//! and holds the whole state; each of those after it follows from the one before, and Redis has the hash of the valid
//! one. A ticket stands for an access token for one stream, where no header can be sent. Services never see any of
//! them, only the user and role that it names.

mod access_token;
mod caller;
mod endpoints;
mod first_token;
mod jwt;
mod logins;
mod refresh_token;
mod revoked;
mod secrets;
mod session;
mod ticket;
mod verified;

pub use self::{
    caller::{Caller, authenticate},
    endpoints::{Auth, Lives, Tokens},
    revoked::Revoked,
    secrets::Secrets,
    session::UntilEnd,
    ticket::{Tickets, path_of as ticket_path_of},
};
