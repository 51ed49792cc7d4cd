//! The HTTP handler: reads a body, and answers as a claim is answered.

use axum::{Router, response::IntoResponse, routing::post, serve::ListenerExt};
use bytes::Bytes;
use http::header;
use std::hint::black_box;
use tokio::net::TcpListener;

const ANSWER: &str = r#"{"coupon_id":"cpn_2x4y6z8e0n9gqvk3m5r7t1c2d0","campaign_id":"cmp_2x4y6z8e0n9gqvk3m5r7t1c2d0",
"user_id":"usr_0000000000000000000000001a","rank":4711,"state":"COUPON_STATE_ISSUED",
"discount":{"minor_units":"1000","currency":"EUR"},"order_id":"","create_time":"2026-09-21T14:13:20.123456Z"}"#;

pub async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let router = Router::new().route("/v1/campaigns/{claimed}", post(answer));
    let listener = listener.tap_io(|socket| {
        // A socket that is gone already is noticed when it is read.
        let _ = socket.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

async fn answer(body: Bytes) -> impl IntoResponse {
    black_box(body);
    ([(header::CONTENT_TYPE, "application/json")], ANSWER)
}
