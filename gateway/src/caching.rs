//! Cache headers of answers: public ones may be cached by any cache for a moment, those of one buyer only by that
//! buyer, who revalidates them each time.

use crate::routes::{Access, Route};
use http::{HeaderValue, Method};

/// The values of `Cache-Control`.
pub struct Caching {
    shared: HeaderValue,
    own: HeaderValue,
}

impl Caching {
    /// Lets any cache keep public answers for so many seconds; with 0 it revalidates them each time.
    pub fn new(public_max_age_s: u32) -> Self {
        let shared = match public_max_age_s {
            0 => HeaderValue::from_static("public, no-cache"),
            seconds => HeaderValue::try_from(format!("public, max-age={seconds}")).expect("ASCII is header text"),
        };
        Self { shared, own: HeaderValue::from_static("private, no-cache") }
    }

    /// Returns the `Cache-Control` of the answers of a route; `None` for no header.
    pub fn control(&self, route: &Route) -> Option<&HeaderValue> {
        let control = if route.access == Access::Public { &self.shared } else { &self.own };
        (route.method == Method::GET).then_some(control)
    }
}
