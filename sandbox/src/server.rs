//! Connects the parts and serves them until stopped. Listener and stop are the caller's, so a test can
//! bind port 0.

use crate::{
    api::{self, ApiState},
    config::{Config, Mode},
    fate::Fates,
    processor::Processor,
    webhook::Notifier,
};
use anyhow::Context;
use axum::serve::ListenerExt;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Serves until `stop`, then drains requests under way for at most the drain time-out.
///
/// Fails if the journal cannot be opened or replayed.
pub async fn serve(listener: TcpListener, config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let drain_timeout = config.drain_timeout();
    let processor = Arc::new(Processor::open(&config.journal)?);
    let deliveries = TaskTracker::new();
    let fates = (config.mode == Mode::Seeded).then(|| Arc::new(Fates::of(&config)));
    let notifier = notifier(&config, &deliveries, fates.clone());
    let state = ApiState { processor, notifier, config: Arc::new(config), fates, stop: stop.clone() };
    // What a stopped process still had to capture and to refund: the timers are not in the journal.
    for charge_id in state.processor.read(|records| records.pending()) {
        state.capture_later(charge_id);
    }
    for refund in state.processor.read(|records| records.pending_refunds()) {
        state.end_refund_later(&refund);
    }
    let address = listener.local_addr()?;
    tracing::info!(server.address = %address, "the sandbox listens");

    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error.cause = %error, "TCP_NODELAY is not set");
        }
    });
    let router = api::router(state);
    let stopping = stop.clone();
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { stopping.cancelled().await });
    let drained = async {
        served.await?;
        deliveries.close();
        deliveries.wait().await;
        anyhow::Ok(())
    };
    tokio::select! {
        result = drained => result.context("the server failed"),
        () = overdue(&stop, drain_timeout) => {
            tracing::warn!("stopped with requests or notices still under way");
            Ok(())
        }
    }
}

fn notifier(config: &Config, deliveries: &TaskTracker, fates: Option<Arc<Fates>>) -> Notifier {
    let (Some(url), Some(secret)) = (&config.webhook_url, &config.webhook_secret) else {
        return Notifier::default();
    };
    let (notifier, delivery) = Notifier::new(url.clone(), secret.clone(), fates);
    deliveries.spawn(delivery.run());
    notifier
}

async fn overdue(stop: &CancellationToken, drain_timeout: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(drain_timeout).await;
}
