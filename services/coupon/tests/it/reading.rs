//! Campaigns and coupons as buyers and operators see them, page by page.

use crate::sale::{Sale, new_campaign, reason, refusal};
use anyhow::{Context, Result};
use stampede_proto::{
    convert::timestamp,
    coupon::v1::{
        CreateCampaignRequest, GetCampaignRequest, GetCouponRequest, ListCampaignsRequest, ListCouponsRequest,
        ListCouponsResponse,
    },
};
use stampede_status::Reason;
use stampede_testkit::{as_buyer, as_operator, buyer, eventually};
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::sleep;
use tonic::Request;

#[tokio::test]
async fn a_repeated_request_returns_the_campaign_created_first() -> Result<()> {
    let sale = Sale::open().await?;
    let request = CreateCampaignRequest { quota: 3, ..new_campaign("spring") };
    let created = sale.create(request.clone()).await?;
    assert_eq!((created.quota, created.issued, &created.name), (3, 0, &request.name));
    sale.claim(&created, buyer(), "a").await?;
    let again = sale.create(request.clone()).await?;
    assert_eq!((&again.campaign_id, again.issued), (&created.campaign_id, 1));

    let other = as_operator(CreateCampaignRequest { quota: 4, ..request });
    let refused = sale.client.clone().create_campaign(other).await.expect_err("another body");
    assert_eq!(refusal(&refused), (Reason::RequestIdReused, Some("request_id".to_owned())));
    let request = GetCampaignRequest { campaign_id: created.campaign_id };
    let found = sale.client.clone().get_campaign(request).await?.into_inner().campaign.context("a campaign")?;
    assert_eq!(found, again);
    sale.mesh.stop().await
}

/// How many campaigns are being inserted.
async fn inserting(sale: &Sale) -> Result<i64> {
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() \
                   AND info LIKE 'INSERT INTO campaigns%'";
    Ok(sqlx::query_scalar(waiting).fetch_one(&mut *sale.coupons.acquire().await?).await?)
}

#[tokio::test]
async fn a_request_that_is_sent_twice_as_its_campaign_closes_is_answered_alike() -> Result<()> {
    let sale = Sale::open().await?;
    let mut lock = sale.coupons.acquire().await?;
    sqlx::raw_sql("LOCK TABLES campaigns READ").execute(&mut *lock).await?;

    let close_time = Timestamp::now().plus(Duration::from_secs(1));
    let request = CreateCampaignRequest { close_time: Some(timestamp(close_time)), ..new_campaign("twice") };
    let send = || {
        let (mut client, request) = (sale.client.clone(), request.clone());
        tokio::spawn(async move { client.create_campaign(as_operator(request)).await })
    };
    let first = send();
    eventually("the first is inserted", || async { (inserting(&sale).await.ok()? == 1).then_some(()) }).await;
    sleep(close_time.since(Timestamp::now()) + Duration::from_millis(50)).await;
    let second = send();
    eventually("the second is answered or inserted", || async {
        (second.is_finished() || inserting(&sale).await.ok()? == 2).then_some(())
    })
    .await;
    sqlx::raw_sql("UNLOCK TABLES").execute(&mut *lock).await?;

    let (first, second) = (first.await?, second.await?);
    assert_eq!(first.is_ok(), second.is_ok(), "one was refused, and the other was not: {first:?}, {second:?}");
    sale.mesh.stop().await
}

#[tokio::test]
async fn campaigns_are_listed_newest_first() -> Result<()> {
    let sale = Sale::open().await?;
    let mut created = Vec::new();
    for n in 0..5 {
        created.push(sale.create(new_campaign(&format!("campaign-{n}"))).await?);
    }
    created.reverse();
    sale.claim(&created[1], buyer(), "a").await?;
    created[1].issued = 1;
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListCampaignsRequest { page_size: 2, page_token };
        let page = sale.client.clone().list_campaigns(request).await?.into_inner();
        listed.extend(page.campaigns);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, created);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_buyer_sees_their_own_coupons_and_nobody_elses() -> Result<()> {
    let sale = Sale::open().await?;
    let (user, other) = (buyer(), buyer());
    let mut own = Vec::new();
    for n in 0..3 {
        let campaign = sale.create(new_campaign(&format!("campaign-{n}"))).await?;
        own.push(sale.claim(&campaign, user, "a").await?);
        sale.claim(&campaign, other, "a").await?;
    }
    own.reverse();
    let mut client = sale.client.clone();
    let get = GetCouponRequest { coupon_id: own[0].coupon_id.clone() };
    let foreign = client.get_coupon(as_buyer(other, get.clone())).await.expect_err("somebody else's");
    assert_eq!(reason(&foreign), Reason::CouponNotFound);
    assert_eq!(client.get_coupon(as_buyer(user, get)).await?.into_inner().coupon.as_ref(), Some(&own[0]));

    let page = |page_token: &str, campaign_id: &str| {
        let request =
            ListCouponsRequest { page_size: 2, page_token: page_token.to_owned(), campaign_id: campaign_id.to_owned() };
        as_buyer(user, request)
    };
    let first = client.list_coupons(page("", "")).await?.into_inner();
    let second = client.list_coupons(page(&first.next_page_token, "")).await?.into_inner();
    assert_eq!((&first.coupons[..], &second.coupons[..]), (&own[..2], &own[2..]));
    assert_eq!(second.next_page_token, "");
    let of_one = client.list_coupons(page("", &own[1].campaign_id)).await?.into_inner();
    assert_eq!(of_one.coupons, own[1..2]);
    let mixed = client.list_coupons(page(&first.next_page_token, &own[1].campaign_id)).await;
    assert_eq!(reason(&mixed.expect_err("a token of another filter")), Reason::InvalidPageToken);
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_operator_lists_the_coupons_of_a_campaign_by_rank() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(5).await?;
    let users: Vec<_> = (0..5).map(|_| buyer()).collect();
    sale.crowd(&campaign, &users).await;
    let mut client = sale.client.clone();
    let mut ranks = Vec::new();
    let mut request = ListCouponsRequest { page_size: 2, campaign_id: campaign.campaign_id, ..Default::default() };
    loop {
        let ListCouponsResponse { coupons, next_page_token } =
            client.list_coupons(as_operator(request.clone())).await?.into_inner();
        ranks.extend(coupons.iter().map(|coupon| coupon.rank));
        request.page_token = next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(ranks, [1, 2, 3, 4, 5]);
    let unfiltered = client.list_coupons(as_operator(ListCouponsRequest::default())).await.expect_err("of which?");
    assert_eq!(refusal(&unfiltered), (Reason::InvalidField, Some("campaign_id".to_owned())));
    sale.mesh.stop().await
}

#[tokio::test]
async fn campaigns_are_public_and_coupons_are_not() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(1).await?;
    let mut client = sale.client.clone();
    let anybody = Request::new(ListCouponsRequest::default());
    assert_eq!(reason(&client.list_coupons(anybody).await.expect_err("nobody")), Reason::Unauthenticated);
    let denied = client.create_campaign(as_buyer(buyer(), new_campaign("mine"))).await.expect_err("a buyer");
    assert_eq!(reason(&denied), Reason::PermissionDenied);
    let get = GetCampaignRequest { campaign_id: campaign.campaign_id };
    assert!(client.get_campaign(Request::new(get)).await.is_ok());
    sale.mesh.stop().await
}
