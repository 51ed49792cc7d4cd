//! Authentication: access tokens, refresh tokens, and the layer that checks them.
//!
//! An access token is a JWT, so any replica can check it without a server. A refresh token is good for one use. The
//! first one of a login is signed and holds the whole state; those after it are random texts, of which Redis has the
//! valid one. Services never see a token, only whom it names.

mod access_token;
mod endpoints;
mod first_token;
mod jwt;
mod layer;
mod refresh_token;

pub use self::{
    access_token::AccessTokens,
    endpoints::{Auth, Lives},
    first_token::FirstTokens,
    layer::{Caller, authenticate},
};
