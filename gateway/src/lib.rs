//! The gateway: HTTP/JSON outside, gRPC inside.
//!
//! A request is routed by a table that was read from the annotations of the contract (`routes`). Its token is checked
//! if the route requires one (`auth`). Body, query and path become the request message of the method, and the answer
//! becomes JSON or a stream of events (`transcode`). Every failure is answered in one format (`problem`). What clients
//! hold on to meanwhile is bounded (`hold`, by the figures in `bounds`).
//!
//! A new RPC needs no code here. The only state of the gateway is which refresh tokens were used, in Redis, and it has
//! nothing of a service but its descriptor.
//!
//! It speaks HTTP only. gRPC health and reflection, the latter of all services that it leads to, are on its admin port.

mod auth;
mod bounds;
mod caching;
mod config;
mod dispatch;
mod gateway;
mod hold;
mod layers;
mod problem;
mod routes;
mod trace_id;
mod transcode;
mod upstream_config;
mod web_config;

pub use config::Config;

use anyhow::Context;
use auth::{AccessTokens, Auth, FirstTokens, Tickets};
use axum::Router;
use caching::Caching;
use gateway::Gateway;
use hold::Holds;
use layers::Metrics;
use routes::Table;
use stampede_chassis::{Http, MeshChannel, Workers, wait_for};
use stampede_lua::{Redis, RedisConfig};
use std::{collections::HashMap, sync::Arc};
use transcode::Transcoder;

/// Reads the contract, connects to Redis and the services, and makes what is served.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Http> {
    let tokens = AccessTokens::new(&config.auth_secret)?;
    let first = FirstTokens::new(&config.auth_secret)?;
    let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).context("the contract cannot be routed")?;
    let redis = connect(&config).await?;
    let channels: HashMap<_, _> = config
        .upstreams
        .services()
        .map(|(service, urls)| (service.name(), MeshChannel::connect(urls, service.name())))
        .collect();
    let upstreams = gateway::upstreams(&table, &channels)?;
    let services = upstreams.keys().cloned().collect();
    let gateway = Gateway {
        table,
        transcoder: Transcoder::new(upstreams, config.limits.call(), workers.draining()),
        auth: Auth::new(tokens, first, redis, config.lives()),
        tickets: Tickets::new(&config.auth_secret)?,
        caching: Caching::new(config.web.public_max_age_s),
        holds: Holds::new(&config.limits),
        metrics: Metrics::new(),
    };
    let router = Router::new().fallback(layers::answer).with_state(Arc::new(gateway));
    let router = config.web.around(router);
    Ok(Http::new(router, stampede_proto::DESCRIPTOR_SET, services).within(config.limits.http()))
}

async fn connect(config: &Config) -> anyhow::Result<Redis> {
    let redis = wait_for("Redis", config.common.wait_for_servers(), || {
        let (url, key_prefix) = (config.redis_url.clone(), config.redis_key_prefix.clone());
        Redis::connect(RedisConfig { url, key_prefix })
    })
    .await?;
    redis.require_noeviction().await?;
    Ok(redis)
}
