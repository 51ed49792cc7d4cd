//! The gateway: HTTP/JSON, gRPC, gRPC-Web and Connect outside, gRPC inside.
//!
//! A request is routed by a table that was read from the annotations of the contract (`routes`). Its token is checked
//! if the route requires one (`auth`). Body, query and path become the request message of the method, and the answer
//! becomes JSON or a stream of events (`transcode`). A call in gRPC, gRPC-Web or Connect is of one of the same methods
//! and has the same bounds; its messages are passed on as they are (`grpc`). Both reach the services the same way
//! (`upstream`); strangers who read the same at a time are one reader for a service (`shared_reads`). Every failure of
//! HTTP/JSON is answered in one format (`problem`). The resources that clients hold meanwhile are bounded (`hold`, by
//! the figures in `bounds`), and the rate of their acts is limited (`acts`, by the figures in `acts::rules`). The same
//! table describes the answers (`openapi`).
//!
//! A new RPC needs no code here, unless it is to be limited too. The only state of the gateway is in Redis: which
//! refresh tokens were used, which logins are revoked, and the counts of acts. Of a service it has the descriptor, and
//! for a moment its public answers.
//!
//! gRPC health, and reflection of the methods that can be called from outside, are on its port. Reflection of all that
//! it leads to is on its admin port.
//!
//! It runs as `stampede serve gateway`; `--help` has an example.

mod acts;
mod auth;
mod bounds;
mod caching;
mod config;
mod dispatch;
mod gateway;
mod grpc;
mod hex;
mod hold;
mod layers;
mod openapi;
mod problem;
mod routes;
mod shared_reads;
mod trace_id;
mod transcode;
#[doc(hidden)]
pub mod transcoding;
mod upstream;
mod upstream_config;
mod web_config;

pub use config::Config;

use acts::Acts;
use anyhow::Context;
use auth::{Auth, Revoked, Secrets, Tickets, Tokens};
use caching::Caching;
use gateway::Gateway;
use grpc::Own;
use hold::{Holds, SharedStreams};
use layers::Metrics;
use openapi::Pages;
use routes::Table;
use secrecy::ExposeSecret;
use shared_reads::SharedReads;
use stampede_chassis::{Http, MeshChannel, SharedClock, Stage, Tls, Workers, follow_clock, wait_for};
use stampede_lua::{Redis, RedisConfig};
use stampede_vocab::{Process, Service};
use std::{collections::HashMap, sync::Arc};
use transcode::Transcoder;
use upstream::Upstream;

/// Returns the OpenAPI description of the gateway, as served at `/openapi.json`, but indented.
pub fn openapi() -> anyhow::Result<String> {
    let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).context("the contract cannot be routed")?;
    openapi::text(&table).context("the description cannot be written")
}

/// Reads the contract, connects to Redis and the services, and builds the server.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Http> {
    let tls = tls(&config).await.context("--tls-cert-file and --tls-key-file")?;
    let secrets = Secrets::new(&config.auth_secret, config.auth_secret_other.as_ref())?;
    let tickets = Tickets::new(&secrets);
    let tokens = Tokens::new(secrets)?;
    let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).context("the contract cannot be routed")?;
    let redis = connect(&config).await?;
    follow_redis(&config, &redis, &workers).await?;
    let revoked = revoked_logins(&config, &redis, &workers).await?;
    let call_timeout = config.limits.call().deadline;
    let acts = Arc::new(Acts::new(redis.clone(), config.act_limits_factor, config.act_limits_wait(), call_timeout));
    let signer = config.common.mesh.signer(Process::Gateway)?;
    let channel = |(service, urls): (Service, &[String])| {
        (service.name(), MeshChannel::connect(urls, service.name()).signed_by(signer.clone()))
    };
    let channels: HashMap<_, _> = config.upstreams.services().map(channel).collect();
    let channels = gateway::upstreams(&table, &channels)?;
    let services = channels.keys().cloned().collect();
    let upstream = Arc::new(Upstream::new(channels, config.limits.call()));
    let watcher_stall = config.limits.watcher_stall();
    let own = Own::new(&table, workers.draining()).await?;
    let gateway = Gateway {
        pages: Pages::new(&table),
        table,
        transcoder: Transcoder::new(Arc::clone(&upstream), Arc::clone(&acts), workers.draining(), watcher_stall),
        upstream,
        shared: SharedStreams::new(watcher_stall),
        own,
        auth: Auth::new(tokens, revoked, Arc::clone(&acts), redis, config.lives()),
        acts,
        draining: workers.draining(),
        tickets,
        caching: Caching::new(config.web.public_max_age_s),
        reads: config.web.shared_read().map(SharedReads::new),
        holds: Holds::new(&config.limits),
        watcher_stall,
        metrics: Metrics::new(),
    };
    let router = config.web.around(layers::answer, Arc::new(gateway));
    Ok(Http::new(router, stampede_proto::DESCRIPTOR_SET, services).within(config.limits.http()).in_tls(tls))
}

async fn tls(config: &Config) -> anyhow::Result<Option<Tls>> {
    match config.tls_files() {
        Some(files) => Tls::read(files).await.map(Some),
        None => Ok(None),
    }
}

async fn connect(config: &Config) -> anyhow::Result<Redis> {
    let redis = wait_for("Redis", config.common.wait_for_servers(), || {
        let (url, key_prefix) = (config.redis_url.expose_secret().to_owned(), config.redis_key_prefix.clone());
        Redis::connect(RedisConfig { url, key_prefix })
    })
    .await?;
    redis.require_noeviction().await?;
    Ok(redis)
}

/// Follows the clock of Redis: tokens expire, and pages count down, by the clock that opens the sale.
async fn follow_redis(config: &Config, redis: &Redis, workers: &Workers) -> anyhow::Result<()> {
    let clock = SharedClock { of: "redis", leads: true };
    let redis = redis.clone();
    let read = move || {
        let redis = redis.clone();
        async move { redis.time().await }
    };
    follow_clock(workers, clock, config.common.wait_for_servers(), read).await
}

/// Loads the revoked logins before the first request is served, and starts the task that polls for more.
async fn revoked_logins(config: &Config, redis: &Redis, workers: &Workers) -> anyhow::Result<Arc<Revoked>> {
    let read = || Revoked::load(redis.clone());
    let (revoked, since) = wait_for("the list of revoked logins", config.common.wait_for_servers(), read).await?;
    let revoked = Arc::new(revoked);
    let followed = Arc::clone(&revoked);
    workers.spawn(Stage::Consumer, "revoked logins", |stop| followed.follow(since, stop));
    Ok(revoked)
}
