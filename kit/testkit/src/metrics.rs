//! The admin port of a process: its metrics, as Prometheus reads them, and its readiness.

use crate::{Break, Mesh, eventually};
use anyhow::Result;
use stampede_vocab::Process;
use std::collections::BTreeSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One page of metrics.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Reads the page from the admin port at this URL.
    pub async fn read(admin_url: &str) -> Result<Self> {
        Ok(Self(page(admin_url, "/metrics").await?))
    }

    /// Returns the numbers of the series of this name that have all of these labels, such as `stage="ahead"`.
    pub fn values(&self, name: &str, labels: &[&str]) -> Vec<f64> {
        let is_named = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let lines = self.0.lines().filter(is_named);
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(*label)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
    }

    /// Returns the names of all series.
    pub fn names(&self) -> BTreeSet<String> {
        let series = self.0.lines().filter(|line| !line.starts_with('#'));
        series.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
    }
}

async fn page(admin_url: &str, path: &str) -> Result<String> {
    let address = admin_url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

impl Mesh {
    /// Reads the metrics of a process, the first of its replicas if there are more.
    pub async fn metrics(&self, process: impl Into<Process>) -> Result<Metrics> {
        Metrics::read(&self.admin_url(process)).await
    }

    /// Waits until each of these breaks has broken off a transaction, and transactions of this name have failed in the
    /// process: a break alone may have met another transaction that has the same texts.
    pub async fn until_broken(&self, process: impl Into<Process>, transaction: &str, breaks: &[Break]) {
        let process = process.into();
        let labels = [format!("transaction=\"{transaction}\""), "ok=\"false\"".to_owned()];
        eventually(&format!("{transaction} of {process} fails at each point"), || async {
            let metrics = self.metrics(process).await.ok()?;
            let failed =
                metrics.values("stampede_transaction_duration_seconds_count", &labels.each_ref().map(String::as_str));
            let is_broken = breaks.iter().all(|one| one.count() == 1) && failed.iter().any(|count| *count >= 1.0);
            is_broken.then_some(())
        })
        .await;
    }

    /// Reads the state of a process's workers from `/readyz`, of the first of its replicas if there are more.
    pub async fn readiness(&self, process: impl Into<Process>) -> Result<String> {
        page(&self.admin_url(process), "/readyz").await
    }
}
