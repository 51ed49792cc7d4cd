//! Connect for unary calls: a plain POST with protobuf or JSON, and failures as JSON with an HTTP status.

use crate::{
    front::{good_token, request, with},
    grpc::{
        GET_PAYMENT, LIST_PAYMENTS, Reply, WAITS_LESS, WAITS_LONGER, WATCH_EVENTS, call, front, get_payment,
        list_payments, send,
    },
    raw::MAX_WAIT,
};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use prost::Message;
use serde_json::{Value, json};
use stampede_proto::payment::v1::GetPaymentResponse;
use tokio::time::timeout;

const PROTO: &str = "application/proto";
const JSON: &str = "application/json";
const VERSION: (&str, &str) = ("connect-protocol-version", "1");

fn json(reply: &Reply) -> Value {
    assert_eq!(reply.headers["content-type"], JSON, "{reply:?}");
    serde_json::from_slice(&reply.body).unwrap()
}

#[tokio::test]
async fn a_call_is_a_plain_post_in_protobuf_or_json() {
    let (front, _guard) = front(&[]).await;
    let token = good_token("buyer");
    let reply = send(&front, with(call(GET_PAYMENT, PROTO, &token, get_payment().encode_to_vec()), &[VERSION])).await;
    assert_eq!((reply.status.as_u16(), &reply.headers["content-type"]), (200, &PROTO.parse().unwrap()));
    let payment = GetPaymentResponse::decode(reply.body).unwrap().payment.unwrap();
    assert_eq!(payment.payment_id, "pay_1");
    let empty = send(&front, with(call(GET_PAYMENT, PROTO, &token, ""), &[VERSION])).await;
    assert_eq!(empty.status, 200, "no bytes are a message without fields");
    assert_eq!(GetPaymentResponse::decode(empty.body).unwrap().payment.unwrap().payment_id, "");
    for body in [r#"{"paymentId":"pay_1"}"#, r#"{"payment_id":"pay_1"}"#] {
        let reply = send(&front, with(call(GET_PAYMENT, JSON, &token, body), &[VERSION])).await;
        assert_eq!(reply.status, 200);
        assert_eq!(json(&reply)["payment"]["paymentId"], "pay_1", "{body}");
    }
}

#[tokio::test]
async fn a_failure_has_a_code_a_message_and_details() {
    let (patient, _guard) = front(&[WAITS_LONGER]).await;
    let (hasty, _other_guard) = front(&[WAITS_LESS]).await;
    for (what, code, status) in [
        ("SOLD_OUT", "failed_precondition", 400),
        ("PAYMENT_NOT_FOUND", "not_found", 404),
        ("NOT_READY", "unavailable", 503),
        ("slow", "deadline_exceeded", 504),
        ("foreign", "internal", 500),
    ] {
        let body = list_payments(what).encode_to_vec();
        let front = if what == "slow" { &hasty } else { &patient };
        let reply = send(front, with(call(LIST_PAYMENTS, PROTO, &good_token("buyer"), body), &[VERSION])).await;
        let error = json(&reply);
        assert_eq!((reply.status.as_u16(), &error["code"]), (status, &json!(code)), "{what}");
        assert!(error["message"].is_string() && !error.to_string().contains("secret"), "{error}");
        let info = error["details"].as_array().unwrap().iter().find(|one| one["type"] == "google.rpc.ErrorInfo");
        let value = STANDARD_NO_PAD.decode(info.unwrap()["value"].as_str().unwrap()).unwrap();
        assert!(String::from_utf8_lossy(&value).contains("stampede"), "the domain is in it");
    }
}

#[tokio::test]
async fn who_may_not_call_is_refused_in_the_same_form() {
    let (front, _guard) = front(&[]).await;
    for (path, token, code, status) in [
        (GET_PAYMENT, String::new(), "unauthenticated", 401),
        ("/stampede.event.v1.EventService/CreateEvent", good_token("buyer"), "permission_denied", 403),
        ("/stampede.order.v1.OrderService/LookUpOrders", good_token("operator"), "unimplemented", 501),
        (WATCH_EVENTS, String::new(), "unimplemented", 501),
    ] {
        let reply = send(&front, with(call(path, JSON, &token, "{}"), &[VERSION])).await;
        assert_eq!((reply.status.as_u16(), &json(&reply)["code"]), (status, &json!(code)), "{path}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_an_invalid_argument() {
    let (front, _guard) = front(&[]).await;
    let token = good_token("buyer");
    let good = r#"{"paymentId":"pay_1"}"#;
    for (body, headers, code) in [
        ("{", vec![VERSION], "invalid_argument"),
        (r#"{"nothing":1}"#, vec![VERSION], "invalid_argument"),
        (good, vec![("connect-protocol-version", "2")], "invalid_argument"),
        (good, vec![VERSION, ("content-encoding", "br")], "unimplemented"),
    ] {
        let reply = send(&front, with(call(GET_PAYMENT, JSON, &token, body), &headers)).await;
        assert_eq!(json(&reply)["code"], code, "{body} {headers:?}");
        assert_eq!(reply.headers["accept-encoding"], "identity,gzip");
    }
}

#[tokio::test]
async fn what_is_no_post_is_refused_by_naming_the_methods_of_a_call() {
    let (front, _guard) = front(&[]).await;
    for (method, path, status) in [
        ("DELETE", GET_PAYMENT, 405),
        ("GET", GET_PAYMENT, 405),
        ("GET", WATCH_EVENTS, 405),
        ("OPTIONS", GET_PAYMENT, 204),
        ("DELETE", "/stampede.order.v1.OrderService/LookUpOrders", 404),
    ] {
        let answer = front.send(request(method, path, "", "")).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        let allow = answer.headers.get("allow").map(|allow| allow.to_str().unwrap());
        assert_eq!(allow, (status != 404).then_some("POST, OPTIONS"), "{method} {path}");
    }
}

#[tokio::test]
async fn a_caller_who_waits_less_is_answered_sooner() {
    let (front, _guard) = front(&[WAITS_LONGER]).await;
    let slow = call(LIST_PAYMENTS, PROTO, &good_token("buyer"), list_payments("slow").encode_to_vec());
    let reply = timeout(MAX_WAIT, send(&front, with(slow, &[VERSION, ("connect-timeout-ms", "100")]))).await;
    assert_eq!(json(&reply.expect("the gateway itself would wait"))["code"], "deadline_exceeded");
}
