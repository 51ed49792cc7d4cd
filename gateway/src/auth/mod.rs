//! Who calls: access tokens, refresh tokens, and the layer that asks for them.
//!
//! An access token is a JWT, so any replica can check it by itself. A refresh token is a random text that is good for
//! one use; which one is valid is known to Redis alone. Services never see a token, only whom it names.

mod access_token;
mod endpoints;
mod layer;
mod refresh_token;

pub use self::{
    access_token::AccessTokens,
    endpoints::{Auth, Lives},
    layer::{Caller, authenticate},
};
