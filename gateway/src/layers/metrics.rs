//! How many requests there are, how they end, and how long they take, by route. A stream counts until it begins.

use crate::routes::Route;
use http::{Method, StatusCode};
use opentelemetry::{KeyValue, global, metrics::Histogram};
use std::{sync::Arc, time::Duration};

const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The instruments of the gateway.
#[derive(Clone)]
pub struct Metrics {
    duration: Histogram<f64>,
}

impl Metrics {
    /// Measures through the global meter, as it is now.
    pub fn new() -> Self {
        let duration = global::meter("stampede")
            .f64_histogram("http.server.request.duration")
            .with_description("Time from the head of a request to the head of its answer.")
            .with_unit("s")
            .with_boundaries(SECONDS.to_vec())
            .build();
        Self { duration }
    }

    /// Records one answer. Without a route neither method nor path is told apart: callers can make up any.
    pub fn record(&self, method: &Method, route: Option<&Route>, status: StatusCode, elapsed: Duration) {
        let (method, template) = match route {
            Some(route) => (method_name(method), Arc::clone(&route.template)),
            None => ("other", Arc::from("unknown")),
        };
        let labels = [
            KeyValue::new("http_request_method", method),
            KeyValue::new("http_route", template),
            KeyValue::new("http_response_status_code", i64::from(status.as_u16())),
        ];
        self.duration.record(elapsed.as_secs_f64(), &labels);
    }
}

/// The methods that a route can have.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
