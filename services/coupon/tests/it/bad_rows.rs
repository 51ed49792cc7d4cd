//! A row that makes no campaign harms its campaign, and none beside it. For coupons see `holding.rs`.

use crate::sale::{Sale, hold_request, new_campaign, order, reason};
use anyhow::{Result, ensure};
use futures_util::future::join_all;
use redis::AsyncCommands;
use stampede_lua::coupon;
use stampede_proto::coupon::v1::{
    Campaign, GetCampaignRequest, GetCouponRequest, HoldCouponsRequest, ListCampaignsRequest, ListCouponsRequest,
    coupon_service_client::CouponServiceClient, hold_coupon_result::Outcome,
};
use stampede_status::Reason;
use stampede_testkit::{as_buyer, as_order_service, buyer, eventually};
use stampede_vocab::{CampaignId, CouponId, RequestId};
use tonic::transport::Channel;

/// Makes the discount of the campaign one of no currency.
async fn spoil(sale: &Sale, campaign: &Campaign) -> Result<()> {
    let id: CampaignId = campaign.campaign_id.parse()?;
    let spoil = sqlx::query("UPDATE campaigns SET currency = 'e?!' WHERE id = ?").bind(id.uuid());
    let spoilt = spoil.execute(&mut *sale.coupons.acquire().await?).await?;
    ensure!(spoilt.rows_affected() == 1, "nothing was spoilt");
    Ok(())
}

/// The ids of all campaigns, in pages of one.
async fn listed(client: &CouponServiceClient<Channel>) -> Result<Vec<String>> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListCampaignsRequest { page_size: 1, page_token };
        let page = client.clone().list_campaigns(request).await?.into_inner();
        ids.extend(page.campaigns.into_iter().map(|campaign| campaign.campaign_id));
        if page.next_page_token.is_empty() {
            return Ok(ids);
        }
        page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_campaign_that_cannot_be_read_fails_alone() -> Result<()> {
    let sale = Sale::open().await?;
    let first = sale.create(new_campaign("first")).await?;
    let bad = sale.create(new_campaign("bad")).await?;
    let last = sale.create(new_campaign("last")).await?;
    let owner = buyer();
    let (of_bad, of_last) = (sale.claim(&bad, owner, "a").await?, sale.claim(&last, owner, "a").await?);
    spoil(&sale, &bad).await?;
    // One that has read no campaign yet.
    let replica = sale.replica().await?;
    let client = replica.coupon();

    let holds = [hold_request(&of_bad, order(1)), hold_request(&of_last, order(2))];
    let request = as_order_service(HoldCouponsRequest { holds: holds.into() });
    let results = client.clone().hold_coupons(request).await?.into_inner().results;
    assert!(results[0].outcome.is_none(), "{results:?}");
    assert!(matches!(&results[1].outcome, Some(Outcome::Coupon(_))), "{results:?}");

    // Those that come together are one batch.
    let read = [&bad, &first].into_iter().cycle().take(20).map(|campaign| {
        let (mut client, campaign_id) = (client.clone(), campaign.campaign_id.clone());
        async move { client.get_campaign(GetCampaignRequest { campaign_id }).await }
    });
    for (index, answer) in join_all(read).await.into_iter().enumerate() {
        let reason = answer.err().map(|status| reason(&status));
        assert_eq!(reason, (index % 2 == 0).then_some(Reason::Internal), "{index}");
    }
    assert_eq!(listed(&client).await?, [last.campaign_id, first.campaign_id]);

    let list = as_buyer(owner, ListCouponsRequest::default());
    let coupons = client.clone().list_coupons(list).await?.into_inner().coupons;
    let coupons: Vec<_> = coupons.into_iter().map(|coupon| coupon.coupon_id).collect();
    assert_eq!(coupons, [of_last.coupon_id]);
    let get = as_buyer(owner, GetCouponRequest { coupon_id: of_bad.coupon_id });
    let refused = client.clone().get_coupon(get).await.expect_err("its campaign cannot be read");
    assert_eq!(reason(&refused), Reason::Internal);
    replica.stop().await?;
    sale.mesh.stop().await
}

#[tokio::test]
async fn campaigns_beside_one_that_cannot_be_read_are_finished_and_staged() -> Result<()> {
    let sale = Sale::open().await?;
    let (bad, good) = (sale.create(new_campaign("bad")).await?, sale.create(new_campaign("good")).await?);
    spoil(&sale, &bad).await?;
    let (user, id): (_, CampaignId) = (buyer(), good.campaign_id.parse()?);
    // The state that a replica leaves behind when it dies between the rank and the row.
    coupon::claim(&sale.redis, id, &[(user, RequestId::parse("a")?)]).await?;
    let request = GetCouponRequest { coupon_id: CouponId::derive(id, user).to_string() };
    eventually("the sweep stores it", || async {
        sale.client.clone().get_coupon(as_buyer(user, request.clone())).await.ok()?.into_inner().coupon
    })
    .await;

    let keys = sale.redis.keys();
    let () = sale.world.admin_redis().await?.del(&[keys.coupon_campaign(id), keys.coupon_pending(id)]).await?;
    eventually("it is staged again", || async {
        coupon::snapshot(&sale.redis, id).await.ok()?.filter(|progress| progress.ready)
    })
    .await;
    sale.mesh.stop().await
}
