//! The gRPC handler: claims of coupons, campaigns, and health.

use axum::{Router, body::Body, extract::Request, routing::any};
use bytes::Bytes;
use futures_util::future::ready;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use stampede_proto::{
    coupon::v1::{
        Campaign, ClaimCouponRequest, ClaimCouponResponse, Coupon, CouponState, GetCampaignRequest, GetCampaignResponse,
    },
    r#type::v1::Money,
};
use stampede_status::{Problem, Reason};
use tokio::net::TcpListener;
use tonic::{
    Status,
    server::Grpc,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// The service of the calls.
pub const SERVICE: &str = "stampede.coupon.v1.CouponService";
/// The `request_id` of a claim that is refused.
const REFUSED: &str = "refused";
/// Resets that are not yet accepted: wrk leaves with its requests under way.
const MAX_PENDING_RESETS: usize = 8_192;

pub async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let router = calls().route("/grpc.health.v1.Health/Check", any(health));
    Server::builder()
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .add_routes(Routes::from(router))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

/// Returns the routes of the calls.
pub fn calls() -> Router {
    Router::new()
        .route(&format!("/{SERVICE}/ClaimCoupon"), any(claim))
        .route(&format!("/{SERVICE}/GetCampaign"), any(campaign))
}

async fn claim(request: Request) -> Response<tonic::body::Body> {
    let codec = ProstCodec::<ClaimCouponResponse, ClaimCouponRequest>::default();
    Grpc::new(codec).unary(service_fn(claimed), request).await
}

async fn claimed(request: tonic::Request<ClaimCouponRequest>) -> Result<tonic::Response<ClaimCouponResponse>, Status> {
    let ClaimCouponRequest { campaign_id, request_id } = request.into_inner();
    if request_id == REFUSED {
        return Err(Problem::new(Reason::SoldOut, "every coupon of the campaign was issued").into());
    }
    let coupon = Coupon {
        coupon_id: "cpn_2x4y6z8e0n9gqvk3m5r7t1c2d0".to_owned(),
        campaign_id,
        user_id: "usr_0000000000000000000000001a".to_owned(),
        rank: 4_711,
        state: CouponState::Issued.into(),
        discount: euros(10),
        create_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 123_456_000 }),
        ..Coupon::default()
    };
    Ok(tonic::Response::new(ClaimCouponResponse { coupon: Some(coupon) }))
}

async fn campaign(request: Request) -> Response<tonic::body::Body> {
    let codec = ProstCodec::<GetCampaignResponse, GetCampaignRequest>::default();
    Grpc::new(codec).unary(service_fn(shown), request).await
}

async fn shown(request: tonic::Request<GetCampaignRequest>) -> Result<tonic::Response<GetCampaignResponse>, Status> {
    let campaign = Campaign {
        campaign_id: request.into_inner().campaign_id,
        name: "ten off".to_owned(),
        quota: 10_000,
        discount: euros(10),
        event_id: "evt_6zr8ffxwndaart51cqabf0xqbp".to_owned(),
        issued: 4_711,
        ..Campaign::default()
    };
    Ok(tonic::Response::new(GetCampaignResponse { campaign: Some(campaign) }))
}

fn euros(euros: i64) -> Option<Money> {
    Some(Money { minor_units: euros * 100, currency: "EUR".to_owned() })
}

/// Returns SERVING, byte by byte: a frame of two bytes, field 1 is 1.
async fn health() -> Response<Body> {
    let went_well = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let serving = Full::new(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1])).with_trailers(ready(Some(Ok(went_well))));
    let mut response = Response::new(Body::new(serving));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
