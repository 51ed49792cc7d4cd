//! A Redis that refuses writes, or is frozen, under orders and claims.

use super::visitor::Visitor;
use crate::sale::{Sale, eur, fresh, in_us};
use serde_json::{Value, json};
use stampede_proto::coupon::v1::{ClaimCouponRequest, CreateCampaignRequest};
use stampede_testkit::{OwnRedis, Process, as_buyer, as_operator, buyer, eventually};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

const JSON: &str = "application/json";
/// Buyers who come at once. Each orders a unit and claims a coupon.
const CROWD: usize = 20;
/// Units for both crowds, and for one who probes whether there are coupons.
const QUOTA: i32 = 41;
/// Times for which writes are refused, and for which nothing is answered.
const REFUSES: Duration = Duration::from_secs(3);
const STANDS: Duration = Duration::from_secs(8);
/// Longest time after that until everybody is served, on a machine that other tests load.
const SERVED_WITHIN: Duration = Duration::from_secs(20);
/// Pause of a buyer before a retry.
const PAUSE: Duration = Duration::from_millis(200);

/// A call that is retried under its `request_id` until it is accepted.
struct Wish {
    gateway: Arc<Visitor>,
    token: String,
    path: String,
    body: Value,
}

impl Wish {
    /// Returns how often it was refused for now, or was not answered by its deadline. Any other refusal fails the test.
    async fn granted(self) -> usize {
        let mut put_off = 0;
        loop {
            let answer = self.gateway.post(&self.path, &self.token, JSON, self.body.to_string()).await;
            match answer.status.as_u16() {
                200 => return put_off,
                503 if answer.says_when => put_off += 1,
                504 => put_off += 1,
                _ => panic!("case 6: {}: {answer:?}", self.path),
            }
            sleep(PAUSE).await;
        }
    }
}

/// The sale and the campaign of the crowds.
struct Shop<'s> {
    gateway: Arc<Visitor>,
    sale: &'s Sale,
    campaign_id: String,
}

impl<'s> Shop<'s> {
    async fn open(sale: &'s Sale) -> Self {
        let request = CreateCampaignRequest {
            request_id: fresh(),
            name: "ten off".to_owned(),
            quota: QUOTA,
            discount: eur(1_000),
            event_id: String::new(),
            open_time: in_us(Duration::ZERO),
            close_time: in_us(Duration::from_secs(600)),
        };
        let created = sale.mesh.coupon().create_campaign(as_operator(request)).await.unwrap().into_inner();
        let campaign_id = created.campaign.unwrap().campaign_id;
        let first = buyer();
        eventually("the campaign takes claims", || async {
            let request = ClaimCouponRequest { campaign_id: campaign_id.clone(), request_id: "first".to_owned() };
            sale.mesh.coupon().claim_coupon(as_buyer(first, request)).await.ok()
        })
        .await;
        Self { gateway: Arc::new(Visitor::of(sale.mesh.url(Process::Gateway))), sale, campaign_id }
    }

    /// The calls of a crowd whose buyers have logged in.
    async fn crowd(&self) -> Vec<Wish> {
        let item_id = &self.sale.event.items[0].item_id;
        let mut wishes = Vec::new();
        for _ in 0..CROWD {
            let token = self.logged_in().await;
            let lines = json!([{"item_id": item_id, "units": 1}]);
            let order = json!({"request_id": fresh(), "event_id": self.sale.event.event_id, "lines": lines});
            wishes.push(self.wish(&token, "/v1/orders".to_owned(), order));
            let claim = format!("/v1/campaigns/{}:claim", self.campaign_id);
            wishes.push(self.wish(&token, claim, json!({"request_id": fresh()})));
        }
        wishes
    }

    async fn logged_in(&self) -> String {
        eventually("a buyer is logged in", || async {
            let pair = self.gateway.post("/v1/auth/tokens", "", JSON, "{}").await.json;
            pair["access_token"].as_str().map(str::to_owned)
        })
        .await
    }

    fn wish(&self, token: &str, path: String, body: Value) -> Wish {
        Wish { gateway: self.gateway.clone(), token: token.to_owned(), path, body }
    }
}

/// Makes all calls at once, each with the count of its refusals.
fn come(wishes: Vec<Wish>) -> JoinSet<usize> {
    let mut crowd = JoinSet::new();
    for wish in wishes {
        crowd.spawn(wish.granted());
    }
    crowd
}

/// Checks that everybody is served soon, and that somebody had to wait.
async fn all_served(crowd: JoinSet<usize>, what: &str) {
    let served = timeout(SERVED_WITHIN, crowd.join_all()).await;
    let put_off = served.unwrap_or_else(|_| panic!("case 6: {what}: not all are served after {SERVED_WITHIN:?}"));
    assert!(put_off.iter().sum::<usize>() > 0, "case 6: {what}: nobody was put off");
}

/// `no_disk` makes this Redis refuse every write, since it could not store a copy of its data, and `disk` ends that.
pub async fn case_06_a_redis_that_refuses_or_stands_still_under_a_crowd_costs_it_a_wait(
    sale: &Sale,
    redis: &OwnRedis,
    (no_disk, disk): (&str, &str),
) {
    let shop = Shop::open(sale).await;
    let wishes = shop.crowd().await;
    redis.obey(no_disk).await.unwrap();
    let crowd = come(wishes);
    sleep(REFUSES).await;
    redis.obey(disk).await.unwrap();
    all_served(crowd, "no disk").await;

    let wishes = shop.crowd().await;
    redis.freeze().unwrap();
    let crowd = come(wishes);
    sleep(STANDS).await;
    redis.thaw().unwrap();
    all_served(crowd, "a server that stands still").await;
}
