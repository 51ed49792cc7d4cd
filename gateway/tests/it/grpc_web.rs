//! gRPC-Web, in both of its forms: messages in frames, and the status in a last one.

use crate::{
    front::{Front, good_token},
    grpc::{GET_PAYMENT, LIST_PAYMENTS, Reply, WATCH_EVENTS, call, framed, front, get_payment, list_payments, send},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes};
use http::{Request, Version};
use http_body_util::BodyExt;
use prost::Message;
use stampede_proto::{event::v1::WatchEventsRequest, payment::v1::GetPaymentResponse};

const WEB: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text";

/// Returns the messages of a body, and the lines of its trailers.
fn read(mut body: Bytes) -> (Vec<Bytes>, String) {
    let mut messages = Vec::new();
    loop {
        let (flags, length) = (body.get_u8(), usize::try_from(body.get_u32()).unwrap());
        let content = body.split_to(length);
        if flags == 0x80 {
            assert!(body.is_empty(), "the trailers are the last");
            return (messages, String::from_utf8(content.to_vec()).unwrap());
        }
        messages.push(content);
    }
}

/// Makes a call over HTTP/1.1, as a browser may make it.
async fn ask(front: &Front, mut request: Request<axum::body::Body>) -> Reply {
    *request.version_mut() = Version::HTTP_11;
    send(front, request).await
}

#[tokio::test]
async fn an_answer_ends_with_a_frame_of_trailers() {
    let (front, _guard) = front(&[]).await;
    let reply = ask(&front, call(GET_PAYMENT, WEB, &good_token("buyer"), framed(&get_payment()))).await;
    assert_eq!((reply.status.as_u16(), &reply.headers["content-type"]), (200, &WEB.parse().unwrap()));
    assert!(reply.trailers.is_empty(), "a browser reads none");
    let (messages, trailers) = read(reply.body);
    assert_eq!(GetPaymentResponse::decode(messages[0].clone()).unwrap().payment.unwrap().payment_id, "pay_1");
    assert_eq!((messages.len(), trailers.as_str()), (1, "grpc-status:0\r\n"));
}

#[tokio::test]
async fn a_failure_is_in_the_frame_of_trailers_with_its_details() {
    let (front, _guard) = front(&[]).await;
    for (path, token, code) in [
        (LIST_PAYMENTS, good_token("buyer"), "9"),
        (LIST_PAYMENTS, String::new(), "16"),
        ("/stampede.order.v1.OrderService/LookUpOrders", good_token("operator"), "12"),
    ] {
        let reply = ask(&front, call(path, WEB, &token, framed(&list_payments("SOLD_OUT")))).await;
        assert_eq!(reply.status, 200);
        let (messages, trailers) = read(reply.body);
        assert!(messages.is_empty());
        assert!(trailers.contains(&format!("grpc-status:{code}\r\n")), "{trailers}");
        assert!(trailers.contains("grpc-status-details-bin:"), "{trailers}");
    }
}

#[tokio::test]
async fn the_text_form_has_all_in_base64() {
    let (front, _guard) = front(&[]).await;
    let body = STANDARD.encode(framed(&get_payment()));
    let reply = ask(&front, call(GET_PAYMENT, TEXT, &good_token("buyer"), body)).await;
    assert_eq!(reply.headers["content-type"], "application/grpc-web-text+proto");
    let (messages, trailers) = read(STANDARD.decode(&reply.body).unwrap().into());
    assert_eq!(GetPaymentResponse::decode(messages[0].clone()).unwrap().payment.unwrap().payment_id, "pay_1");
    assert_eq!(trailers, "grpc-status:0\r\n");
    let nonsense = ask(&front, call(GET_PAYMENT, TEXT, &good_token("buyer"), "????")).await;
    let (_, trailers) = read(STANDARD.decode(&nonsense.body).unwrap().into());
    assert!(trailers.contains("grpc-status:3\r\n"), "{trailers}");
}

#[tokio::test]
async fn a_stream_comes_message_by_message_in_both_forms() {
    let (front, _guard) = front(&[]).await;
    let request = framed(&WatchEventsRequest { event_ids: vec!["end".into()] });
    for (content_type, request) in [(WEB, request.clone()), (TEXT, STANDARD.encode(&request).into_bytes())] {
        let mut body = front.open(call(WATCH_EVENTS, content_type, "", request)).await.into_body();
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let part = frame.unwrap().into_data().unwrap();
            // Each part is padded by itself.
            whole.extend(if content_type == TEXT { STANDARD.decode(&part).unwrap() } else { part.to_vec() });
        }
        let (messages, trailers) = read(whole.into());
        assert_eq!((messages.len(), trailers.as_str()), (2, "grpc-status:0\r\n"), "{content_type}");
    }
}
