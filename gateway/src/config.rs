//! The configuration of the gateway: flags and environment.

use crate::{auth::Lives, bounds::LimitConfig, upstream_config::UpstreamConfig, web_config::WebConfig};
use clap::Parser;
use secrecy::SecretString;
use stampede_chassis::{CommonConfig, HasCommon, TlsFiles};
use std::{path::PathBuf, time::Duration};

/// Ends `--help`.
const EXAMPLE: &str = "\
Example:
  STAMPEDE_AUTH_SECRET=$(openssl rand -hex 32) stampede serve gateway --listen-addr 0.0.0.0:8080 \\
    --mesh-secret-file secrets/mesh/secret --redis-url redis://127.0.0.1:6379/0 --order-urls http://127.0.0.1:7104,http://127.0.0.1:7114";

/// The gateway: HTTP/JSON, gRPC, gRPC-Web and Connect outside, gRPC inside.
///
/// All are on one port, with health and with reflection of what can be called from outside; reflection of all that it
/// leads to is on --admin-addr. It needs Redis, and calls the services as they become ready.
#[derive(Debug, Clone, Parser)]
#[command(after_help = EXAMPLE)]
pub struct Config {
    /// Redis: redis://[user:password@]host:port[/database]; or a cluster, except in the event service:
    /// redis-cluster://[user:password@]host:port[,host:port...].
    #[arg(long, env = "STAMPEDE_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: SecretString,

    /// Prefix of every Redis key.
    #[arg(long, env = "STAMPEDE_REDIS_KEY_PREFIX", value_name = "PREFIX", default_value = "")]
    pub redis_key_prefix: String,

    /// Key that access tokens are signed with (HS256): at least 32 bytes, the same on every replica.
    #[arg(long, env = "STAMPEDE_AUTH_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub auth_secret: SecretString,

    /// Another key whose tokens are accepted too: the next or the last --auth-secret, while that is changed. All
    /// replicas first get the next one here, then as --auth-secret with the last one here, then without it.
    #[arg(long, env = "STAMPEDE_AUTH_SECRET_OTHER", value_name = "SECRET", hide_env_values = true)]
    pub auth_secret_other: Option<SecretString>,

    /// Life of an access token, in seconds.
    #[arg(long, env = "STAMPEDE_ACCESS_TTL_S", value_name = "SECONDS", default_value_t = 900,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub access_ttl_s: u64,

    /// Life of a refresh token, in seconds; each refresh begins a new one.
    #[arg(long, env = "STAMPEDE_REFRESH_TTL_S", value_name = "SECONDS", default_value_t = 86_400,
          value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub refresh_ttl_s: u64,

    /// Time in which a refresh whose answer was lost can be repeated, in seconds; after that the same token ends its
    /// login.
    #[arg(long, env = "STAMPEDE_REFRESH_REPEAT_S", value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(5..=3_600))]
    pub refresh_repeat_s: u64,

    /// Multiplies what a user and an address may do of each act (gateway/src/acts/rules.rs): more than 1 for a load
    /// test from few addresses, 0 for no limits.
    #[arg(long, env = "STAMPEDE_ACT_LIMITS_FACTOR", value_name = "FACTOR", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub act_limits_factor: u32,

    /// Longest wait for Redis to say whether an act is within these limits, in milliseconds; then the act is let
    /// through. Redis answers within a millisecond, or something is wrong. On a cluster the answers that have come by
    /// then count.
    #[arg(long, env = "STAMPEDE_ACT_LIMITS_WAIT_MS", value_name = "MS", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(1..=2_000))]
    pub act_limits_wait_ms: u64,

    /// Certificate of the gateway in PEM, with those that it is signed by. Its port then speaks TLS, and nothing else.
    /// It is read again when it changes.
    #[arg(long, env = "STAMPEDE_TLS_CERT_FILE", value_name = "FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,

    /// Private key of that certificate, in PEM.
    #[arg(long, env = "STAMPEDE_TLS_KEY_FILE", value_name = "FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,

    /// URLs of the services.
    #[command(flatten)]
    pub upstreams: UpstreamConfig,

    /// Bounds of one request, and of all of them together.
    #[command(flatten)]
    pub limits: LimitConfig,

    /// Rules for browsers, for caches in front and for the gateway's own.
    #[command(flatten)]
    pub web: WebConfig,

    /// The configuration that every process has.
    #[command(flatten)]
    pub common: CommonConfig,
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.common
    }
}

impl Config {
    /// Returns the paths of the certificate and its key; `None` for a port without TLS.
    pub fn tls_files(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.tls_cert_file.clone()?, self.tls_key_file.clone()?);
        Some(TlsFiles { certificate, key })
    }

    /// Returns the longest wait for the limits of acts.
    pub const fn act_limits_wait(&self) -> Duration {
        Duration::from_millis(self.act_limits_wait_ms)
    }

    pub fn lives(&self) -> Lives {
        Lives {
            access: Duration::from_secs(self.access_ttl_s),
            refresh: Duration::from_secs(self.refresh_ttl_s),
            repeat: Duration::from_secs(self.refresh_repeat_s),
        }
    }
}
