//! Tickets: one stream, opened without a header, in the name of the caller who requested it.

use crate::{
    front::{Front, good_token},
    services,
};
use serde_json::json;

const PATH: &str = "/v1/orders/ord_1:watch";

#[tokio::test]
async fn a_ticket_opens_its_stream_in_the_name_of_who_asked_for_it() {
    let (url, _guard) = services::serve().await;
    let front = Front::start(&[("--order-urls", url.as_str())]).await;
    let issued = front.post("/v1/auth/tickets", &good_token("buyer"), &json!({ "path": PATH })).await;
    assert_eq!((issued.status.as_u16(), &issued.headers["cache-control"]), (201, &"no-store".parse().unwrap()));
    let issued = issued.json();
    assert_eq!(issued["path"], PATH);
    assert!(issued["expires_at"].as_str().unwrap().ends_with('Z'), "{issued}");
    let ticket = issued["ticket"].as_str().unwrap();

    let opened = front.get(&format!("{PATH}?ticket={ticket}"), "").await;
    assert_eq!(opened.reason(), "ORDER_NOT_FOUND", "the service was asked");
    assert_eq!(opened.json()["detail"], "usr_0000000000000000000000001a");

    assert_eq!(front.get(PATH, "").await.reason(), "UNAUTHENTICATED");
    let elsewhere = front.get(&format!("/v1/orders/ord_2:watch?ticket={ticket}"), "").await;
    assert_eq!(elsewhere.reason(), "UNAUTHENTICATED");
    assert_eq!(front.get(PATH, ticket).await.reason(), "UNAUTHENTICATED", "it is no access token");
    assert_eq!(front.get(&format!("/v1/orders?ticket={ticket}"), "").await.reason(), "UNAUTHENTICATED");
}
