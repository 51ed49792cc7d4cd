//! Who calls: access tokens, refresh tokens, and who may use a route.
//!
//! An access token is a JWT, so any replica can check it without a server. A refresh token is good for one use. The
//! first one of a login is signed and holds the whole state; those after it are random texts, of which Redis has the
//! valid one. A ticket stands for an access token for one stream, where no header can be sent. Services never see any of
//! them, only whom it names.

mod access_token;
mod caller;
mod endpoints;
mod first_token;
mod jwt;
mod refresh_token;
mod ticket;

pub use self::{
    access_token::AccessTokens,
    caller::authenticate,
    endpoints::{Auth, Lives},
    first_token::FirstTokens,
    ticket::{Tickets, path_of as ticket_path_of},
};
