//! The life cycle of a process, from the command line to the exit code.
//!
//! Every step that can fail runs before the flush, so that the last spans are sent even when a start fails.

use crate::{Admin, App, CommonConfig, HasCommon, Workers, serve_on, signals::Signals, telemetry::Telemetry};
use anyhow::Context;
use stampede_vocab::{Process, clock};
use std::{fmt::Display, net::SocketAddr, process::ExitCode, time::Duration};
use tokio::{net::TcpListener, runtime::Runtime, time::Instant};
use tokio_util::sync::CancellationToken;

/// Longest wait for blocking threads at exit.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(1);

/// Signals so soon after the first one count as the same: a terminal signals the whole group, and then the parent
/// signals its child.
const ECHO: Duration = Duration::from_secs(1);

/// Runs a process, named `stampede-<name>` in logs and spans.
///
/// Calls `build` to make the services from the configuration and to start their workers. It may wait for servers;
/// SIGTERM ends the wait. Returns 0 after an orderly stop; 1, with one line on stderr, if the process could not start
/// or a worker failed.
pub fn run<C, F, Fut, A>(process: Process, config: C, build: F) -> ExitCode
where
    C: HasCommon,
    F: FnOnce(C, Workers) -> Fut,
    Fut: Future<Output = anyhow::Result<A>>,
    A: Into<App>,
{
    match launch(process.name(), config, build) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stampede-{process}: {}", one_line(format_args!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn launch<C, F, Fut, A>(service: &'static str, config: C, build: F) -> anyhow::Result<()>
where
    C: HasCommon,
    F: FnOnce(C, Workers) -> Fut,
    Fut: Future<Output = anyhow::Result<A>>,
    A: Into<App>,
{
    let common = config.common().clone();
    clock::put_wrong(common.clock_wrong_by_ms);
    let runtime = runtime(&common).context("cannot start")?;
    let telemetry = {
        let _runtime = runtime.enter();
        Telemetry::start(service, &common).context("cannot start")?
    };
    let outcome = runtime.block_on(serve(service, &common, |workers| build(config, workers)));
    telemetry.flush();
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    outcome
}

fn runtime(common: &CommonConfig) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(common.worker_threads()).enable_all().build()
}

async fn serve<F, Fut, A>(service: &'static str, common: &CommonConfig, build: F) -> anyhow::Result<()>
where
    F: FnOnce(Workers) -> Fut,
    Fut: Future<Output = anyhow::Result<A>>,
    A: Into<App>,
{
    let trust = common.mesh.trust().context("cannot start")?;
    let open_files = allow_open_files();
    let mut signals = Signals::listen().context("cannot start")?;
    let workers = Workers::new();
    let listener = bind("--listen-addr", common.listen_addr).await?;
    let admin = bind("--admin-addr", common.admin_addr()).await?;
    let (address, admin_address) = (listener.local_addr()?, admin.local_addr()?);
    let started = workers.gate("start");
    let admin = Admin::spawn(admin, workers.clone());
    let built = tokio::select! {
        built = build(workers.clone()) => built.and_then(|app| Into::<App>::into(app).guarded_by(trust)).map(Some),
        failure = workers.failed() => Err(failure),
        signal = signals.next() => {
            tracing::info!(signal.name = signal, "signalled to stop before it had started");
            Ok(None)
        }
    };
    let app = match built {
        Ok(Some(app)) => app,
        ended => {
            // Workers that run already release their leases.
            workers.stop_all(Instant::now() + common.drain_timeout()).await;
            return ended.map(drop).context("cannot start");
        }
    };
    started.open();
    if common.mesh.insecure_mesh {
        tracing::warn!("whoever can connect is believed to be who they say: --insecure-mesh is for tests");
    }
    tracing::info!(
        service.name = format!("stampede-{service}"),
        server.address = %address,
        admin.address = %admin_address,
        process.open_files.limit = open_files,
        "serves"
    );
    let stop = CancellationToken::new();
    let serving = serve_on(listener, Some(admin), app, workers, stop.clone(), common.drain_timeout());
    until_signalled(serving, &stop, &mut signals).await
}

/// Starts the drain at the first signal, and ends it at a later one.
async fn until_signalled(
    serving: impl Future<Output = anyhow::Result<()>>,
    stop: &CancellationToken,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        outcome = &mut serving => return outcome,
        signal = signals.next() => tracing::info!(signal.name = signal, "drains"),
    }
    stop.cancel();
    let again = async {
        signals.ignore_for(ECHO).await;
        signals.next().await
    };
    tokio::select! {
        outcome = serving => outcome.inspect(|()| tracing::info!("stopped")),
        signal = again => {
            tracing::warn!(signal.name = signal, "signalled again, stopping without waiting");
            Ok(())
        }
    }
}

/// Raises the soft limit of open files to the hard one and returns it. Systems set it to 1,024 for programs older than
/// `poll`, fewer than the connections of a crowd. Without permission the process works with the present limit.
fn allow_open_files() -> Option<u64> {
    let raised = rlimit::increase_nofile_limit(rlimit::INFINITY);
    raised.inspect_err(|error| tracing::warn!(error.cause = %error, "the limit of open files stays as it is")).ok()
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot start: cannot listen on {flag} {address}"))
}

fn one_line(text: impl Display) -> String {
    text.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(one_line("cannot start:\n  no such\n\ttable\n"), "cannot start: no such table");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind("--listen-addr", address).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot start: cannot listen on --listen-addr {address}")));
    }
}
