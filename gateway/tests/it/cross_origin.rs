//! Pages of other origins, and OPTIONS of a path.

use crate::front::{Answer, Front, request, with};

const SHOP: (&str, &str) = ("origin", "https://shop.example");

async fn preflight(front: &Front) -> Answer {
    let wants = [
        SHOP,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,idempotency-key,x-grpc-web"),
    ];
    front.send(with(request("OPTIONS", "/v1/orders", "", ""), &wants)).await
}

#[tokio::test]
async fn pages_of_the_configured_origins_may_use_the_api() {
    let front = Front::start(&[("--cors-origins", "https://shop.example,https://other.example")]).await;
    let allowed = preflight(&front).await;
    assert!(allowed.status.is_success(), "{allowed:?}");
    assert_eq!(allowed.headers["access-control-allow-origin"], SHOP.1);
    let headers = allowed.headers["access-control-allow-headers"].to_str().unwrap();
    for header in ["authorization", "content-type", "idempotency-key", "connect-protocol-version", "x-grpc-web"] {
        assert!(headers.contains(header), "{headers}");
    }
    assert!(!allowed.headers.contains_key("access-control-allow-credentials"));
    let answer = front.send(with(request("GET", "/", "", ""), &[SHOP])).await;
    assert_eq!(answer.headers["access-control-allow-origin"], SHOP.1);
    assert!(answer.headers["access-control-expose-headers"].to_str().unwrap().contains("x-trace-id"));
    let refused = front.send(with(request("GET", "/v1/nothing", "", ""), &[SHOP])).await;
    assert_eq!(refused.headers["access-control-allow-origin"], SHOP.1, "a page gets the reason, too");
    let stranger = front.send(with(request("GET", "/", "", ""), &[("origin", "https://else.example")])).await;
    assert!(!stranger.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn pages_may_not_unless_configured_and_paths_say_what_they_take() {
    let front = Front::start(&[]).await;
    let answer = preflight(&front).await;
    assert_eq!(answer.status, 204);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let mut methods: Vec<_> = answer.headers["allow"].to_str().unwrap().split(", ").collect();
    methods.sort_unstable();
    assert_eq!(methods, ["GET", "HEAD", "OPTIONS", "POST"]);
    assert_eq!(front.send(request("OPTIONS", "*", "", "")).await.status, 204);
    assert_eq!(front.send(request("OPTIONS", "/v1/nothing", "", "")).await.reason(), "UNKNOWN_PATH");
}
