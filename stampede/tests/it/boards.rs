//! Alerts and boards use existing metrics: each name in them is on `/metrics` of a mesh after one purchase.

use crate::sale::{LONG, Sale};
use stampede_testkit::{Metrics, Process, buyer};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Prefixes of metric names: those of the product, and the conventional ones that it has.
const PREFIXES: [&str; 4] = ["stampede_", "http_server_", "rpc_server_", "process_"];
/// The processes that Prometheus scrapes: all but the payment provider, which is a third party's.
fn read() -> impl Iterator<Item = Process> {
    Process::all().filter(|process| *process != Process::Sandbox)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/compose/observability")
}

fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let named = words.filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)));
    named.map(str::to_owned).collect()
}

fn named_in_rules_and_boards() -> BTreeSet<String> {
    let boards = fs::read_dir(folder().join("grafana/dashboards")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = boards.chain([folder().join("rules.yaml")]).collect();
    assert!(files.len() > 3, "{files:?}");
    files.iter().flat_map(|file| named_in(&fs::read_to_string(file).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_an_alert_or_a_board_is_measured() {
    let named = named_in_rules_and_boards();
    assert!(named.len() > 15, "{named:?}");
    let sale = Sale::open(LONG).await;
    let user = buyer();
    let coupon = sale.claim(user).await;
    sale.bought(user, &[(0, 1)], &coupon.coupon_id).await;
    // Any request will do: the gateway measures those that have a route.
    Metrics::read(&sale.mesh.url(Process::Gateway)).await.unwrap();
    let missing = stampede_testkit::eventually("every metric is there", || async {
        let mut there = BTreeSet::new();
        for service in read() {
            there.extend(sale.mesh.metrics(service).await.unwrap().names());
        }
        let missing: Vec<_> = named.difference(&there).cloned().collect();
        println!("missing: {missing:?}");
        missing.is_empty().then_some(missing)
    })
    .await;
    assert!(missing.is_empty());
    sale.mesh.stop().await.unwrap();
}
