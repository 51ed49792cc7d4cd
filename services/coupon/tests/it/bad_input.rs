//! Bad input gets the right reason, names the field, and changes nothing.

use crate::sale::{Sale, hold_request, new_campaign, order, reason, refusal, release_request};
use anyhow::Result;
use stampede_proto::{
    convert::timestamp,
    coupon::v1::{
        ClaimCouponRequest, CouponHold, CreateCampaignRequest, GetCampaignRequest, GetCouponRequest,
        ListCampaignsRequest, ListCouponsRequest, ReleaseCouponRequest,
    },
    r#type::v1::Money,
};
use stampede_status::Reason;
use stampede_testkit::{as_buyer, as_operator, as_order_service, buyer};
use stampede_vocab::Timestamp;
use tonic::Code;

/// Makes a good request bad in one place.
type Spoil<T> = fn(&mut T);

#[rustfmt::skip]
const BAD_CAMPAIGNS: [(&str, Spoil<CreateCampaignRequest>); 19] = [
    ("request_id", |r| r.request_id.clear()),
    ("request_id", |r| r.request_id = "x".repeat(65)),
    ("name", |r| r.name.clear()),
    ("name", |r| r.name = "x".repeat(201)),
    ("name", |r| r.name = "4242424242424242".to_owned()),
    ("quota", |r| r.quota = 0),
    ("quota", |r| r.quota = -1),
    ("quota", |r| r.quota = 10_000_001),
    ("discount", |r| r.discount = None),
    ("discount.minor_units", |r| r.discount = Some(Money { minor_units: 0, currency: "EUR".to_owned() })),
    ("discount.minor_units", |r| r.discount = Some(Money { minor_units: -1, currency: "EUR".to_owned() })),
    ("discount.currency", |r| r.discount = Some(Money { minor_units: 1, currency: "ZZZ".to_owned() })),
    ("discount.currency", |r| r.discount = Some(Money { minor_units: 1, currency: "eur".to_owned() })),
    ("event_id", |r| r.event_id = "cmp_0000000000000000000000001a".to_owned()),
    ("open_time", |r| r.open_time = None),
    ("open_time", |r| r.open_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 })),
    ("close_time", |r| r.close_time = None),
    ("close_time", |r| r.close_time = r.open_time),
    ("close_time", |r| { r.open_time = Some(timestamp(stampede_vocab::Timestamp::from_micros(0))); r.close_time = Some(timestamp(Timestamp::now())); }),
];

#[tokio::test]
async fn a_bad_campaign_is_refused_by_its_field_and_not_created() -> Result<()> {
    let sale = Sale::open().await?;
    let mut client = sale.client.clone();
    for (field, spoil) in BAD_CAMPAIGNS {
        let mut bad = new_campaign("spring");
        spoil(&mut bad);
        let refused = client.create_campaign(as_operator(bad)).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused}");
        assert_eq!(refusal(&refused), (Reason::InvalidField, Some(field.to_owned())), "{refused}");
    }
    let listed = client.list_campaigns(ListCampaignsRequest::default()).await?.into_inner();
    assert!(listed.campaigns.is_empty());
    sale.mesh.stop().await
}

#[rustfmt::skip]
const BAD_CLAIMS: [(&str, Spoil<ClaimCouponRequest>); 5] = [
    ("campaign_id", |r| r.campaign_id.clear()),
    ("campaign_id", |r| r.campaign_id = "cpn_0000000000000000000000001a".to_owned()),
    ("request_id", |r| r.request_id.clear()),
    ("request_id", |r| r.request_id = "two words".to_owned()),
    ("request_id", |r| r.request_id = "x".repeat(65)),
];

#[tokio::test]
async fn a_bad_claim_is_refused_by_its_field_and_takes_no_rank() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(1).await?;
    let mut client = sale.client.clone();
    for (field, spoil) in BAD_CLAIMS {
        let mut bad = ClaimCouponRequest { campaign_id: campaign.campaign_id.clone(), request_id: "a".to_owned() };
        spoil(&mut bad);
        let refused = client.claim_coupon(as_buyer(buyer(), bad)).await.expect_err(field);
        assert_eq!(refusal(&refused), (Reason::InvalidField, Some(field.to_owned())), "{refused}");
    }
    assert_eq!(sale.claim(&campaign, buyer(), "a").await?.rank, 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_is_not_there_is_not_found_by_its_field() -> Result<()> {
    let sale = Sale::open().await?;
    let mut client = sale.client.clone();
    let campaign_id = "cmp_0000000000000000000000001a".to_owned();
    let coupon_id = "cpn_0000000000000000000000001a".to_owned();
    let claim = ClaimCouponRequest { campaign_id: campaign_id.clone(), request_id: "a".to_owned() };
    let table = [
        (Reason::CampaignNotFound, "campaign_id", client.claim_coupon(as_buyer(buyer(), claim)).await.map(drop)),
        (
            Reason::CampaignNotFound,
            "campaign_id",
            client.get_campaign(GetCampaignRequest { campaign_id }).await.map(drop),
        ),
        (
            Reason::CouponNotFound,
            "coupon_id",
            client.get_coupon(as_operator(GetCouponRequest { coupon_id })).await.map(drop),
        ),
    ];
    for (reason, field, answer) in table {
        let refused = answer.expect_err("there is none");
        assert_eq!(refusal(&refused), (reason, Some(field.to_owned())), "{refused}");
        assert_eq!(refused.code(), Code::NotFound);
    }
    sale.mesh.stop().await
}

#[rustfmt::skip]
const BAD_HOLDS: [(&str, Spoil<CouponHold>); 7] = [
    ("holds[1].coupon_id", |r| r.coupon_id.clear()),
    ("holds[1].order_id", |r| r.order_id = "ord_1".to_owned()),
    ("holds[1].user_id", |r| r.user_id.clear()),
    ("holds[1].event_id", |r| r.event_id.clear()),
    ("holds[1].currency", |r| r.currency.clear()),
    ("holds[1].currency", |r| r.currency = "euro".to_owned()),
    ("holds[1].request_fingerprint", |r| r.request_fingerprint = vec![1; 31]),
];

#[tokio::test]
async fn a_bad_hold_is_refused_by_its_field_and_nothing_is_held() -> Result<()> {
    let sale = Sale::open().await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    let good = hold_request(&coupon, order(1));
    for (field, spoil) in BAD_HOLDS {
        let mut bad = good.clone();
        spoil(&mut bad);
        let refused = sale.hold_all(vec![good.clone(), bad]).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused}");
        assert_eq!(refusal(&refused), (Reason::InvalidField, Some(field.to_owned())), "{refused}");
    }
    for count in [0, 257] {
        let refused = sale.hold_all(vec![good.clone(); count]).await.expect_err("too few or too many");
        assert_eq!(refusal(&refused), (Reason::InvalidField, Some("holds".to_owned())), "{count}: {refused}");
    }
    assert_eq!(sale.now(&coupon).await?, coupon, "nothing is held");
    let most = sale.hold_all(vec![good; 256]).await?;
    assert!(most.len() == 256 && most.iter().all(Result::is_ok), "as many as there may be: {most:?}");
    sale.mesh.stop().await
}

#[rustfmt::skip]
const BAD_RELEASES: [(&str, Spoil<ReleaseCouponRequest>); 3] = [
    ("coupon_id", |r| r.coupon_id = "ord_0000000000000000000000001a".to_owned()),
    ("order_id", |r| r.order_id.clear()),
    ("request_fingerprint", |r| r.request_fingerprint.clear()),
];

#[tokio::test]
async fn a_bad_release_is_refused_by_its_field_and_changes_nothing() -> Result<()> {
    let sale = Sale::open().await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    let held = sale.hold(hold_request(&coupon, order(1))).await?;
    for (field, spoil) in BAD_RELEASES {
        let mut bad = release_request(&coupon, order(1));
        spoil(&mut bad);
        let refused = sale.client.clone().release_coupon(as_order_service(bad)).await.expect_err(field);
        assert_eq!(refusal(&refused), (Reason::InvalidField, Some(field.to_owned())), "{refused}");
    }
    assert_eq!(sale.now(&coupon).await?, held);
    sale.mesh.stop().await
}

#[tokio::test]
async fn bad_ids_and_pages_are_refused_by_their_field() -> Result<()> {
    let sale = Sale::open().await?;
    let mut client = sale.client.clone();
    let refused = client.get_campaign(GetCampaignRequest { campaign_id: "x".to_owned() }).await.expect_err("an id");
    assert_eq!(refusal(&refused), (Reason::InvalidField, Some("campaign_id".to_owned())));
    let refused = client.get_coupon(as_operator(GetCouponRequest::default())).await.expect_err("an id");
    assert_eq!(refusal(&refused), (Reason::InvalidField, Some("coupon_id".to_owned())));
    let page = |page_size| ListCampaignsRequest { page_size, ..Default::default() };
    let refused = client.list_campaigns(page(-1)).await.expect_err("a size");
    assert_eq!(refusal(&refused), (Reason::InvalidField, Some("page_size".to_owned())));
    client.list_campaigns(page(i32::MAX)).await?;
    let request = ListCampaignsRequest { page_token: "coupons.1.x".to_owned(), ..Default::default() };
    let refused = client.list_campaigns(request).await.expect_err("a token");
    assert_eq!(refusal(&refused), (Reason::InvalidPageToken, Some("page_token".to_owned())));
    let request = ListCouponsRequest { campaign_id: "x".to_owned(), ..Default::default() };
    let refused = client.list_coupons(as_buyer(buyer(), request)).await.expect_err("an id");
    assert_eq!(reason(&refused), Reason::InvalidField);
    sale.mesh.stop().await
}
