//! A Redis whose master changes while an event waits for its time.

use super::{item, micros, wish};
use crate::{
    lost_redis::{DURABLE, on_redis, replica_of, switch_over, through},
    sale::{LONG, Sale, eur, in_us, stampede_reason},
};
use stampede_proto::event::v1::{CreateEventRequest, Event, GetEventRequest};
use stampede_testkit::{
    FloatingAddress, Mesh, OwnRedis, Process, Service, World, as_operator, buyer, eventually, heavy,
};
use std::{mem, time::Duration};

/// Time until the event opens. Its stock is staged before, and the master of its timers and of its stock changes.
const OPENS_IN: Duration = Duration::from_secs(3);
/// Largest lateness of its opening.
const MAX_LATE_US: i64 = 1_000_000;
/// How often it may be later, each time after another change: the machine may stand still, which says nothing of the
/// processes.
const ROUNDS: usize = 3;
/// More units than a buyer may have.
const TOO_MANY: (usize, i32) = (0, 4);

async fn announced(mesh: &Mesh) -> Event {
    let request = CreateEventRequest { open_time: in_us(OPENS_IN), ..wish(item(eur(1_999), 10, 3)) };
    mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap()
}

/// Waits until its stock is staged: then these units are refused for the time, or for the limit once it is open.
async fn until_staged(sale: &Sale) {
    eventually("case 5: the stock is staged", || async {
        let refused = sale.place(buyer(), &[TOO_MANY], "").await.unwrap_err();
        ["EVENT_NOT_OPEN", "LIMIT_REACHED"].contains(&stampede_reason(&refused).as_str()).then_some(())
    })
    .await;
}

/// Returns how late the event opened, in microseconds.
async fn late_us(sale: &Sale) -> i64 {
    let request = GetEventRequest { event_id: sale.event.event_id.clone() };
    let event = sale.mesh.event().get_event(as_operator(request)).await.unwrap().into_inner().event.unwrap();
    let Event { open_time, actual_open_time, .. } = event;
    micros(actual_open_time.unwrap()) - micros(open_time.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_05_an_event_opens_on_time_after_the_master_of_its_timers_and_its_stock_has_changed() {
    let _permit = heavy().await;
    let (world, redis) = tokio::join!(World::prepared(), OwnRedis::start(&DURABLE));
    let (world, mut master) = (world.unwrap(), redis.unwrap());
    let address = FloatingAddress::leading_to(master.address()).await.unwrap();
    let url = through(&address, &master);
    let mesh = on_redis(&url)
        .set(Service::Event, "STAMPEDE_REDIS_URL", &url)
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis())
        .start(&world, Process::all())
        .await
        .unwrap();
    let mut sale = Sale { world, mesh, event: Event::default() };

    // The former masters keep their connections.
    let (mut late, mut former): (Vec<i64>, Vec<OwnRedis>) = (Vec::new(), Vec::new());
    while late.len() < ROUNDS && late.last().is_none_or(|late_us| *late_us > MAX_LATE_US) {
        sale.event = announced(&sale.mesh).await;
        until_staged(&sale).await;
        let next = switch_over(&master, replica_of(&master).await, &address).await;
        former.push(mem::replace(&mut master, next));
        sale.until_open(TOO_MANY).await;
        late.push(late_us(&sale).await);
    }
    assert!(late.iter().all(|late_us| *late_us >= 0), "case 5: it opened early: {late:?}");
    assert!(late.last().is_some_and(|late_us| *late_us <= MAX_LATE_US), "case 5: it opened {late:?} us late");
    sale.placed(buyer(), &[(0, 1)], "").await;
    eventually("case 5: the event service listens for timers at the new master", || async {
        (master.calls("subscribe").await.ok()? > 0).then_some(())
    })
    .await;
    let audit = sale.run_audit(&["--redis-url", &url, "--quiet-deadline-s", "60"]);
    assert!(audit.holds, "case 5: {audit:#?}");
    sale.mesh.stop().await.unwrap();
}
