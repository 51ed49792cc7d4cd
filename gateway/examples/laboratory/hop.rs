//! The hop from HTTP to gRPC: reads JSON, makes the call over one connection, writes JSON. It knows the one method,
//! checks nothing, and has no deadline, no balancing and no retry.

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde::{Deserialize, Serialize};
use stampede_proto::coupon::v1::{ClaimCouponRequest, ClaimCouponResponse};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

const METHOD: &str = "http://backend/stampede.coupon.v1.CouponService/ClaimCoupon";
/// The head of a frame: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;

type Backend = SendRequest<Full<Bytes>>;

/// The body of a claim.
#[derive(Deserialize)]
struct Claim {
    request_id: String,
}

/// A coupon as the gateway writes it.
#[derive(Serialize)]
struct Shown<'a> {
    coupon_id: &'a str,
    campaign_id: &'a str,
    user_id: &'a str,
    rank: i32,
    state: &'a str,
    discount: Discount<'a>,
    order_id: &'a str,
    create_time: String,
}

#[derive(Serialize)]
struct Discount<'a> {
    minor_units: String,
    currency: &'a str,
}

pub async fn serve(listener: TcpListener, backend: SocketAddr) -> anyhow::Result<()> {
    let socket = TcpStream::connect(backend).await.context("the backend is not there")?;
    socket.set_nodelay(true)?;
    let (backend, connection) = handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let backend: Backend = backend.clone();
        let service = service_fn(move |request| hop(backend.clone(), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

async fn hop(mut backend: Backend, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let claim: Claim = serde_json::from_slice(&body.collect().await?.to_bytes())?;
    let segment = head.uri.path().rsplit('/').next().unwrap_or_default();
    let campaign_id = segment.trim_end_matches(":claim").to_owned();
    let call = Request::post(METHOD).header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
    let message = framed(&ClaimCouponRequest { campaign_id, request_id: claim.request_id })?;
    let answer = backend.send_request(call.body(Full::new(message))?).await?;
    let answer = answer.into_body().collect().await?.to_bytes();
    let answer = ClaimCouponResponse::decode(answer.get(FRAME_HEAD..).context("no message")?)?;
    let json = serde_json::to_vec(&shown(&answer)?)?;
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(Full::new(json.into()))?)
}

fn framed(message: &impl Message) -> anyhow::Result<Bytes> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_HEAD + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length)?);
    message.encode(&mut frame)?;
    Ok(frame.freeze())
}

fn shown(answer: &ClaimCouponResponse) -> anyhow::Result<Shown<'_>> {
    let coupon = answer.coupon.as_ref().context("no coupon")?;
    let discount = coupon.discount.as_ref().context("no discount")?;
    Ok(Shown {
        coupon_id: &coupon.coupon_id,
        campaign_id: &coupon.campaign_id,
        user_id: &coupon.user_id,
        rank: coupon.rank,
        state: coupon.state().as_str_name(),
        discount: Discount { minor_units: discount.minor_units.to_string(), currency: &discount.currency },
        order_id: &coupon.order_id,
        create_time: coupon.create_time.as_ref().context("no time")?.to_string(),
    })
}
