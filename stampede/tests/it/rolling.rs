//! A rollout under load: every process is replaced, one replica after the other, behind a plain balancer of
//! connections. Buyers see no error, no truncated answer and no time-out, and nothing is done twice. Watchers get the
//! reason for which each stream ends.

mod balancer;
mod shopper;
mod watcher;

use crate::{
    crowd::Orders,
    roles::token,
    sale::{fresh, in_us, run_audit},
};
use balancer::{Balancer, get};
use serde_json::{Value, json};
use shopper::{Goods, Http, Seen, Shopper};
use stampede_testkit::{Mesh, MeshBuilder, Process, Service, World, eventually, heavy};
use std::{cell::Cell, net::SocketAddr, time::Duration};
use tokio::{sync::watch, task::JoinSet};
use watcher::Watcher;

/// Replicas of each process.
const REPLICAS: usize = 2;
/// Clients of each kind of HTTP.
const SHOPPERS: usize = 3;
/// Number of calls that a new replica of a service answers before the next one is replaced: its callers have found it.
const CALLS: f64 = 8.0;
/// The metric of the calls that a service has answered.
const COUNT: &str = "rpc_server_call_duration_seconds_count{";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_is_replaced_under_load_and_no_buyer_sees_it() {
    let _permit = heavy().await;
    let world = World::prepared().await.unwrap();
    let builder = Service::ALL.into_iter().fold(MeshBuilder::default(), |all, one| all.replicas(one, REPLICAS));
    let mut mesh = builder.replicas(Process::Gateway, REPLICAS).start(&world, Process::all()).await.unwrap();
    let gateways = mesh.addresses(Process::Gateway).into_iter().zip(mesh.admin_addresses(Process::Gateway));
    let balancer = Balancer::over(gateways).await;
    let (goods, first) = on_sale(&mesh, &balancer).await;

    let (stop, stopped) = watch::channel(false);
    let mut shoppers = JoinSet::new();
    for http in [Http::One, Http::Two].repeat(SHOPPERS) {
        let shopper = Shopper::of(balancer.url(), http).logged_in().await;
        shoppers.spawn(shopper.shop(goods.clone(), stopped.clone()));
    }
    let mut watchers = JoinSet::new();
    for http in [Http::One, Http::Two] {
        watchers.spawn(Watcher::of(&balancer.url(), &goods.event_id, http).watch(stopped.clone()));
    }
    for service in Service::ALL {
        for replica in 0..REPLICAS {
            mesh.roll(service, replica).await.unwrap();
            until_called(service, mesh.admin_addresses(service)[replica]).await;
        }
    }
    // The connections of clients stay where they are: a new gateway gets none until another leaves.
    for replica in 0..REPLICAS {
        mesh.roll(Process::Gateway, replica).await.unwrap();
        let address = mesh.addresses(Process::Gateway)[replica];
        let leads = || std::future::ready(balancer.leads_to(address).then_some(()));
        eventually("the balancer has seen the new gateway", leads).await;
    }
    stop.send_replace(true);

    let seen: Vec<Seen> = shoppers.join_all().await;
    let watched: Vec<Seen> = watchers.join_all().await;
    let faults: Vec<_> = seen.iter().chain(&watched).flat_map(|seen| &seen.faults).collect();
    assert!(faults.is_empty(), "{} of {} answers: {faults:#?}", faults.len(), answers(&seen));
    assert!(seen.iter().all(|seen| !seen.orders.is_empty()), "somebody has bought nothing");
    assert!(watched.iter().all(|seen| seen.answers > 0), "a stream went on while all that serve it were replaced");
    let placed = first + seen.iter().map(|seen| seen.orders.len()).sum::<usize>();
    assert_eq!(Orders::of(&world).await.placed().await, i64::try_from(placed).unwrap(), "an order was placed twice");
    let audit = run_audit(&world, &mesh, &["--quiet-deadline-s", "90"]);
    assert!(audit.holds, "{audit:#?}");
    mesh.stop().await.unwrap();
}

fn answers(seen: &[Seen]) -> usize {
    seen.iter().map(|seen| seen.answers).sum()
}

/// Creates an event and a campaign, and waits until orders are accepted. Returns them, and how many orders that took.
async fn on_sale(mesh: &Mesh, balancer: &Balancer) -> (Goods, usize) {
    let mut operator = Shopper::of(balancer.url(), Http::One).bearing(&token(mesh, "operator"));
    let item = json!({"title": "a kettle", "unit_price": euros(), "total_units": 100_000, "limit_per_buyer": 1_000});
    let event = json!({
        "request_id": fresh(), "name": "a sale", "open_time": at(2), "close_time": at(3_600), "items": [item],
    });
    let campaign = json!({
        "request_id": fresh(), "name": "ten off", "quota": 10, "discount": euros(), "open_time": at(0),
        "close_time": at(3_600),
    });
    let event = operator.post("/v1/events", &event).await.unwrap();
    let campaign = operator.post("/v1/campaigns", &campaign).await.unwrap();
    let goods = Goods {
        event_id: text(&event["event_id"]),
        item_id: text(&event["items"][0]["item_id"]),
        campaign_id: text(&campaign["campaign_id"]),
    };
    let placed = Cell::new(0);
    eventually("orders are taken", || async {
        let mut buyer = Shopper::of(balancer.url(), Http::One).logged_in().await;
        let order = buyer.place(&goods).await;
        // One whose repeat was refused counts too.
        placed.set(placed.get() + buyer.seen.orders.len());
        order
    })
    .await;
    (goods, placed.get())
}

fn euros() -> Value {
    json!({"minor_units": 1_000, "currency": "EUR"})
}

fn at(seconds: u64) -> String {
    in_us(Duration::from_secs(seconds)).unwrap().to_string()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// Waits until the callers of a replica have found it.
async fn until_called(service: Service, admin: SocketAddr) {
    eventually(&format!("{service} at {admin} is called"), || async {
        let metrics = get(admin, "/metrics").await?;
        (calls(&metrics) >= CALLS).then_some(())
    })
    .await;
}

/// Counts the answered calls on a page of metrics, without health checks.
fn calls(metrics: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(COUNT) && !line.contains("grpc.health"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
