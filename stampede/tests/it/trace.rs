//! One trace from a buyer's click to their goods: through HTTP, gRPC, outbox, Kafka and consumers.

use crate::sale::{eur, fresh, in_us};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use stampede_proto::{
    event::v1::{CreateEventRequest, Event, NewItem},
    inventory::v1::GetStockRequest,
};
use stampede_testkit::{CollectedSpan, Collector, Mesh, MeshBuilder, Process, World, as_operator, eventually};
use std::{collections::HashSet, time::Duration};

/// The trace that the buyer's client has begun, and its own span in it.
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN_ID: &str = "00f067aa0ba902b7";

/// Spans that the trace must have: the process and the name.
const STEPS: [(&str, &str); 7] = [
    ("stampede-gateway", "/v1/auth/tokens"),
    ("stampede-gateway", "/v1/orders"),
    ("stampede-order", "stampede.order.v1.OrderService/PlaceOrder"),
    ("stampede-inventory", "stampede.inventory.v1.InventoryService/Reserve"),
    ("stampede-order", "stampede.order.v1.OrderService/PayOrder"),
    ("stampede-payment", "process stampede.message.v1.PaymentRequested"),
    ("stampede-order", "process stampede.message.v1.PaymentApproved"),
];

/// A buyer's client that traces its requests.
struct Traced {
    http: Client<HttpConnector, Full<Bytes>>,
    gateway: String,
    token: String,
}

impl Traced {
    async fn new(mesh: &Mesh) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let mut client = Self { http, gateway: mesh.url(Process::Gateway), token: String::new() };
        let pair = client.post("/v1/auth/tokens", &json!({})).await;
        client.token = pair["access_token"].as_str().unwrap().to_owned();
        client
    }

    /// Sends it as part of the trace.
    async fn post(&self, path: &str, body: &Value) -> Value {
        let traceparent = format!("00-{TRACE_ID}-{CLIENT_SPAN_ID}-01");
        let request = Request::post(format!("{}{path}", self.gateway));
        let request = request.header("traceparent", traceparent);
        let answer = self.send(request, body.to_string()).await;
        assert_eq!(answer.headers()["x-trace-id"], TRACE_ID);
        serde_json::from_slice(answer.body()).unwrap()
    }

    /// Reads outside of the trace: the number of polls is random.
    async fn get(&self, path: &str) -> Value {
        let answer = self.send(Request::get(format!("{}{path}", self.gateway)), String::new()).await;
        serde_json::from_slice(answer.body()).unwrap()
    }

    async fn send(&self, mut request: http::request::Builder, body: String) -> Response<Bytes> {
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        let answer = self.http.request(request.body(Full::from(body)).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert!(head.status.is_success(), "{}: {}", head.status, String::from_utf8_lossy(&body));
        Response::from_parts(head, body)
    }

    async fn until(&self, order_id: &str, state: &str) {
        eventually(&format!("{order_id} is {state}"), || async {
            let order = self.get(&format!("/v1/orders/{order_id}")).await;
            (order["state"] == state).then_some(())
        })
        .await;
    }
}

/// An event with one item, open, its stock staged.
async fn open_event(mesh: &Mesh) -> Event {
    let item = NewItem {
        title: "a kettle".to_owned(),
        unit_price: eur(1_999),
        total_units: 10,
        limit_per_buyer: 3,
        gift: None,
    };
    let request = CreateEventRequest {
        request_id: fresh(),
        name: "a traced sale".to_owned(),
        open_time: in_us(Duration::ZERO),
        close_time: in_us(Duration::from_secs(600)),
        items: vec![item],
    };
    let event = mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap();
    eventually("the stock is staged", || async {
        let request = GetStockRequest { event_id: event.event_id.clone() };
        let stocks = mesh.inventory().get_stock(as_operator(request)).await.ok()?.into_inner().stocks;
        stocks.first().is_some_and(|stock| stock.left_units == 10).then_some(())
    })
    .await;
    event
}

fn has_every_step(spans: &[CollectedSpan]) -> bool {
    STEPS.iter().all(|(service, name)| spans.iter().any(|span| span.service == *service && span.name.contains(name)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_leads_from_the_click_to_the_goods() {
    let collector = Collector::start().await.unwrap();
    let world = World::prepared().await.unwrap();
    let mesh = MeshBuilder::default()
        .set_all("STAMPEDE_OTLP_ENDPOINT", collector.endpoint())
        .set_all("OTEL_BSP_SCHEDULE_DELAY", 200)
        .start(&world, Process::all())
        .await
        .unwrap();
    let event = open_event(&mesh).await;
    let buyer = Traced::new(&mesh).await;
    let order = json!({
        "request_id": fresh(),
        "event_id": event.event_id,
        "lines": [{ "item_id": event.items[0].item_id, "units": 1 }],
    });
    let order = buyer.post("/v1/orders", &order).await;
    let order_id = order["order_id"].as_str().unwrap();
    buyer.until(order_id, "ORDER_STATE_AWAITING_PAYMENT").await;
    let pay = json!({ "request_id": fresh(), "payment_method": "pm_card_ok" });
    buyer.post(&format!("/v1/orders/{order_id}:pay"), &pay).await;
    buyer.until(order_id, "ORDER_STATE_FULFILLED").await;

    eventually(&format!("the collector has {STEPS:?}"), || async {
        has_every_step(&collector.trace(TRACE_ID)).then_some(())
    })
    .await;
    // The processes flush the remaining spans when they stop.
    mesh.stop().await.unwrap();
    let trace = collector.trace(TRACE_ID);
    let known: HashSet<&str> = trace.iter().map(|span| span.span_id.as_str()).chain([CLIENT_SPAN_ID]).collect();
    for span in &trace {
        assert!(known.contains(span.parent_span_id.as_str()), "the parent of {span:?} is missing: {trace:#?}");
    }
}
