//! Counts requests and measures their duration, by route and outcome. A stream counts until it begins.

use crate::routes::Route;
use http::{Method, StatusCode};
use opentelemetry::{KeyValue, StringValue, metrics::Histogram};
use stampede_chassis::telemetry::duration_histogram;
use std::{sync::Arc, time::Duration};

/// The label of requests without a route.
const UNKNOWN: &str = "unknown";

pub struct Metrics {
    duration: Histogram<f64>,
}

impl Metrics {
    /// Uses the present global meter.
    pub fn new() -> Self {
        let description = "Time from the head of a request to the head of its answer.";
        Self { duration: duration_histogram("http.server.request.duration", description) }
    }

    /// Records one answer. Without a route neither method nor path becomes a label, since callers can invent any.
    pub fn record(&self, method: &Method, route: Option<&Route>, status: StatusCode, elapsed: Duration) {
        match route {
            Some(route) => self.measure(method_name(method), Arc::clone(&route.template).into(), status, elapsed),
            None => self.measure("other", UNKNOWN.into(), status, elapsed),
        }
    }

    /// Records the answer to a call, whose route is the path of its method. Its status is that of HTTP/JSON for the
    /// same outcome: those of gRPC are all 200.
    pub fn record_call(&self, path: Option<StringValue>, status: StatusCode, elapsed: Duration) {
        self.measure("POST", path.unwrap_or_else(|| UNKNOWN.into()), status, elapsed);
    }

    fn measure(&self, method: &'static str, route: StringValue, status: StatusCode, elapsed: Duration) {
        let labels = [
            KeyValue::new("http_request_method", method),
            KeyValue::new("http_route", route),
            KeyValue::new("http_response_status_code", i64::from(status.as_u16())),
        ];
        self.duration.record(elapsed.as_secs_f64(), &labels);
    }
}

/// Returns the label of a method that a route can have.
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
