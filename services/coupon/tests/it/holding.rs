//! Holding and releasing: one order at a time, and a repeat changes nothing.

use crate::sale::{Sale, hold_request, new_campaign, order, reason, release_request};
use anyhow::Result;
use futures_util::future::join_all;
use sqlx::Connection;
use stampede_proto::coupon::v1::{
    Coupon, CouponHold, CouponState, CreateCampaignRequest, HoldCouponsRequest, ListCouponsRequest,
    ReleaseCouponRequest, hold_coupon_result::Outcome,
};
use stampede_status::Reason;
use stampede_testkit::{MeshBuilder, Service, as_buyer, as_operator, as_order_service, buyer};
use stampede_vocab::{CouponId, EventId};
use uuid::Uuid;

#[tokio::test]
async fn a_coupon_is_held_for_one_order_and_comes_back() -> Result<()> {
    let sale = Sale::open().await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    let held = sale.hold(hold_request(&coupon, order(1))).await?;
    assert_eq!((held.state(), &held.order_id), (CouponState::Held, &order(1).to_string()));
    assert_eq!(held.discount, coupon.discount);
    assert_eq!(sale.hold(hold_request(&coupon, order(1))).await?, held);
    let taken = sale.hold(hold_request(&coupon, order(2))).await.expect_err("held by another");
    assert_eq!(reason(&taken), Reason::CouponInUse);

    sale.release(&coupon, order(2)).await?;
    assert_eq!(sale.now(&coupon).await?, held, "it is not that order's to release");
    let other = CouponHold { request_fingerprint: vec![2; 32], ..hold_request(&coupon, order(1)) };
    let reused = sale.hold(other).await.expect_err("another request under the same order");
    assert_eq!(reason(&reused), Reason::RequestIdReused);
    let other = ReleaseCouponRequest { request_fingerprint: vec![2; 32], ..release_request(&coupon, order(1)) };
    sale.client.clone().release_coupon(as_order_service(other)).await?;
    assert_eq!(sale.now(&coupon).await?, held, "it is not that request's to release");
    sale.release(&coupon, order(1)).await?;
    sale.release(&coupon, order(1)).await?;
    assert_eq!(sale.now(&coupon).await?, coupon);
    assert_eq!(sale.hold(hold_request(&coupon, order(2))).await?.order_id, order(2).to_string());
    sale.mesh.stop().await
}

#[tokio::test]
async fn of_many_orders_at_once_one_gets_the_coupon() -> Result<()> {
    let sale = Sale::open().await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    // Each order requests it twice, as a retry would.
    let requests = (1..=20).flat_map(|n| [n, n]).map(|n| sale.hold(hold_request(&coupon, order(n))));
    let held: Vec<_> = join_all(requests).await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(held.len(), 2, "{held:?}");
    assert_eq!(held[0].order_id, held[1].order_id);
    sale.mesh.stop().await
}

#[tokio::test]
async fn holds_of_one_call_are_answered_each_by_itself_in_the_order_requested() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(2).await?;
    let free = sale.claim(&campaign, buyer(), "a").await?;
    let taken = sale.claim(&campaign, buyer(), "a").await?;
    let by_another = sale.hold(hold_request(&taken, order(1))).await?;
    let unknown = Coupon { coupon_id: CouponId::from_uuid(Uuid::from_u128(3)).to_string(), ..free.clone() };
    let requests = [(&taken, order(2)), (&free, order(3)), (&unknown, order(4))];
    let answers = sale.hold_all(requests.map(|(coupon, order)| hold_request(coupon, order)).into()).await?;
    let [Err(in_use), Ok(held), Err(not_found)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((reason(in_use), reason(not_found)), (Reason::CouponInUse, Reason::CouponNotFound));
    assert_eq!((held.state(), &held.order_id), (CouponState::Held, &order(3).to_string()));
    assert_eq!(sale.now(&free).await?, *held);
    assert_eq!(sale.now(&taken).await?, by_another);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_coupon_that_does_not_fit_the_order_is_refused() -> Result<()> {
    let sale = Sale::open().await?;
    let event_id = EventId::from_uuid(Uuid::from_u128(1)).to_string();
    let campaign = sale.create(CreateCampaignRequest { event_id, ..new_campaign("one-event") }).await?;
    let coupon = sale.claim(&campaign, buyer(), "a").await?;
    let good = hold_request(&coupon, order(1));
    let elsewhere = EventId::from_uuid(Uuid::from_u128(2)).to_string();
    let unknown = CouponId::from_uuid(Uuid::from_u128(3)).to_string();
    let cases = [
        (Reason::CouponWrongEvent, CouponHold { event_id: elsewhere, ..good.clone() }),
        (Reason::CurrencyMismatch, CouponHold { currency: "USD".to_owned(), ..good.clone() }),
        (Reason::CouponNotFound, CouponHold { user_id: buyer().to_string(), ..good.clone() }),
        (Reason::CouponNotFound, CouponHold { coupon_id: unknown, ..good.clone() }),
    ];
    for (expected, request) in cases {
        let refused = sale.hold(request).await.expect_err("it does not fit");
        assert_eq!(reason(&refused), expected);
    }
    assert_eq!(sale.now(&coupon).await?, coupon, "nothing changed");
    assert!(sale.hold(good).await.is_ok());
    sale.mesh.stop().await
}

#[tokio::test]
async fn only_services_hold_and_release() -> Result<()> {
    let sale = Sale::open().await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    let owner = coupon.user_id.parse()?;
    let hold = HoldCouponsRequest { holds: vec![hold_request(&coupon, order(1))] };
    let release = release_request(&coupon, order(1));
    let mut client = sale.client.clone();
    let refused = [
        client.hold_coupons(as_buyer(owner, hold.clone())).await.err(),
        client.hold_coupons(as_operator(hold)).await.err(),
        client.release_coupon(as_buyer(owner, release.clone())).await.err(),
        client.release_coupon(as_operator(release)).await.err(),
    ];
    for refused in refused {
        assert_eq!(refused.as_ref().map(reason), Some(Reason::PermissionDenied));
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_coupon_that_cannot_be_read_fails_alone() -> Result<()> {
    let settings = MeshBuilder::default().set_all("STAMPEDE_ORDER_WRITE_LIMIT_MS", 200);
    let settings = settings.set(Service::Coupon, "STAMPEDE_COUPON_UNWRITTEN_HOLD_AGE_MS", 300);
    let sale = Sale::open_with(settings, [Service::Coupon, Service::Order]).await?;
    let campaign = sale.campaign(3).await?;
    let owner = buyer();
    let (bad, good) = (sale.claim(&campaign, owner, "a").await?, sale.claim(&campaign, buyer(), "a").await?);
    let other = sale.claim(&sale.create(new_campaign("other")).await?, owner, "a").await?;
    // Both are on hold for orders that nobody has written; the sweep comes to the bad one first.
    sale.hold(hold_request(&bad, order(1))).await?;
    sale.tamper(&bad, "UPDATE coupons SET request_id = '', updated_us = updated_us - 1 WHERE id = ?").await?;
    sale.hold(hold_request(&good, order(2))).await?;
    sale.reaches(&good, CouponState::Issued).await;

    let requests = [hold_request(&bad, order(1)), hold_request(&good, order(3))];
    let request = as_order_service(HoldCouponsRequest { holds: requests.into() });
    let results = sale.client.clone().hold_coupons(request).await?.into_inner().results;
    assert!(results[0].outcome.is_none(), "{results:?}");
    assert!(matches!(&results[1].outcome, Some(Outcome::Coupon(_))), "{results:?}");
    let released = join_all([sale.release(&bad, order(1)), sale.release(&good, order(3))]).await;
    assert_eq!(released.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true], "{released:?}");
    assert_eq!(sale.now(&good).await?.state(), CouponState::Issued);

    let list = ListCouponsRequest::default();
    let listed = sale.client.clone().list_coupons(as_buyer(owner, list)).await?.into_inner().coupons;
    assert_eq!(listed, [other]);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_hold_whose_order_was_never_written_is_returned() -> Result<()> {
    let settings = MeshBuilder::default().set_all("STAMPEDE_ORDER_WRITE_LIMIT_MS", 200);
    let settings = settings.set(Service::Coupon, "STAMPEDE_COUPON_UNWRITTEN_HOLD_AGE_MS", 300);
    let sale = Sale::open_with(settings, [Service::Coupon, Service::Order]).await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    sale.hold(hold_request(&coupon, order(1))).await?;
    assert_eq!(sale.reaches(&coupon, CouponState::Issued).await, coupon);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_coupon_that_somebody_has_locked_keeps_no_other_from_coming_back() -> Result<()> {
    let settings = MeshBuilder::default().set_all("STAMPEDE_ORDER_WRITE_LIMIT_MS", 200);
    let settings = settings.set(Service::Coupon, "STAMPEDE_COUPON_UNWRITTEN_HOLD_AGE_MS", 3_000);
    let sale = Sale::open_with(settings, [Service::Coupon, Service::Order]).await?;
    let campaign = sale.campaign(2).await?;
    let locked = sale.claim(&campaign, buyer(), "a").await?;
    let free = sale.claim(&campaign, buyer(), "a").await?;
    let holds = [(&locked, order(1)), (&free, order(2))].map(|(coupon, order)| hold_request(coupon, order));
    sale.hold_all(holds.into()).await?;
    let id: CouponId = locked.coupon_id.parse()?;
    let mut conn = sale.coupons.acquire().await?;
    let mut lock = conn.begin().await?;
    sqlx::query("SELECT 1 FROM coupons WHERE id = ? FOR UPDATE").bind(id.uuid()).execute(&mut *lock).await?;
    sale.reaches(&free, CouponState::Issued).await;
    assert_eq!(sale.now(&locked).await?.state(), CouponState::Held);
    lock.rollback().await?;
    sale.reaches(&locked, CouponState::Issued).await;
    sale.mesh.stop().await
}
