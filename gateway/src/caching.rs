//! How answers may be kept: those that are the same for everybody by any cache and for a moment, those of one buyer by
//! that buyer alone, who asks each time whether they are still right.

use crate::routes::{Access, Route};
use http::{HeaderValue, Method};

/// The values of `Cache-Control`.
pub struct Caching {
    shared: HeaderValue,
    own: HeaderValue,
}

impl Caching {
    /// Lets any cache keep what is the same for everybody for so many seconds; with 0 it has to ask each time.
    pub fn new(public_max_age_s: u32) -> Self {
        let shared = match public_max_age_s {
            0 => HeaderValue::from_static("public, no-cache"),
            seconds => HeaderValue::try_from(format!("public, max-age={seconds}")).expect("ASCII is header text"),
        };
        Self { shared, own: HeaderValue::from_static("private, no-cache") }
    }

    /// How the answer of a route may be kept; `None` if nothing is to be said of it.
    pub fn control(&self, route: &Route) -> Option<&HeaderValue> {
        let control = if route.access == Access::Public { &self.shared } else { &self.own };
        (route.method == Method::GET).then_some(control)
    }
}
