//! The handlers: who calls, what is asked, which usecase answers. A buyer sees only their own coupons.

use crate::{
    domain::{EndedOrder, OrderEnd},
    rpc::convert,
    usecase::{
        ClaimCoupon, CreateCampaign, FindCampaigns, FindCoupons, HoldCoupons, IssuedCampaign, ReleaseCoupon, Viewer,
    },
};
use stampede_chassis::{Identity, Role};
use stampede_proto::coupon::v1::{self as proto, coupon_service_server::CouponService};
use stampede_status::{Problem, Reason};
use stampede_vocab::{CampaignId, PageSize, PageToken, Timestamp, UserId};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// The service as callers see it.
#[derive(Clone)]
pub struct CouponRpc {
    /// CreateCampaign.
    pub create_campaign: CreateCampaign,
    /// ClaimCoupon.
    pub claim_coupon: ClaimCoupon,
    /// GetCampaign and ListCampaigns.
    pub find_campaigns: FindCampaigns,
    /// GetCoupon and ListCoupons.
    pub find_coupons: FindCoupons,
    /// HoldCoupons.
    pub hold_coupons: HoldCoupons,
    /// ReleaseCoupon.
    pub release_coupon: ReleaseCoupon,
}

#[tonic::async_trait]
impl CouponService for CouponRpc {
    async fn create_campaign(
        &self,
        request: Request<proto::CreateCampaignRequest>,
    ) -> Result<Response<proto::CreateCampaignResponse>, Status> {
        answer(self.create(request).await)
    }

    async fn get_campaign(
        &self,
        request: Request<proto::GetCampaignRequest>,
    ) -> Result<Response<proto::GetCampaignResponse>, Status> {
        answer(self.campaign(&request.into_inner()).await)
    }

    async fn list_campaigns(
        &self,
        request: Request<proto::ListCampaignsRequest>,
    ) -> Result<Response<proto::ListCampaignsResponse>, Status> {
        answer(self.campaigns(&request.into_inner()).await)
    }

    async fn claim_coupon(
        &self,
        request: Request<proto::ClaimCouponRequest>,
    ) -> Result<Response<proto::ClaimCouponResponse>, Status> {
        answer(self.claim(&request).await)
    }

    async fn get_coupon(
        &self,
        request: Request<proto::GetCouponRequest>,
    ) -> Result<Response<proto::GetCouponResponse>, Status> {
        answer(self.coupon(&request).await)
    }

    async fn list_coupons(
        &self,
        request: Request<proto::ListCouponsRequest>,
    ) -> Result<Response<proto::ListCouponsResponse>, Status> {
        answer(self.coupons(&request).await)
    }

    async fn hold_coupons(
        &self,
        request: Request<proto::HoldCouponsRequest>,
    ) -> Result<Response<proto::HoldCouponsResponse>, Status> {
        answer(self.hold(&request).await)
    }

    async fn release_coupon(
        &self,
        request: Request<proto::ReleaseCouponRequest>,
    ) -> Result<Response<proto::ReleaseCouponResponse>, Status> {
        answer(self.release(&request).await)
    }
}

impl CouponRpc {
    async fn create(
        &self,
        request: Request<proto::CreateCampaignRequest>,
    ) -> Result<proto::CreateCampaignResponse, Problem> {
        let identity = Identity::of(&request)?;
        identity.require_operator()?;
        let caller = convert::caller(&identity)?;
        let request = request.into_inner();
        let request_id = convert::request_id(&request.request_id)?;
        let created = self.create_campaign.create(caller, request_id, convert::terms(request)?).await?;
        let found = self.find_campaigns.count(Arc::new(created)).await?;
        Ok(proto::CreateCampaignResponse { campaign: Some(convert::campaign(&found)) })
    }

    async fn campaign(&self, request: &proto::GetCampaignRequest) -> Result<proto::GetCampaignResponse, Problem> {
        let id: CampaignId = convert::id("campaign_id", &request.campaign_id)?;
        let missing = || Problem::new(Reason::CampaignNotFound, "there is no such campaign").field("campaign_id");
        let found = self.find_campaigns.get(id).await?.ok_or_else(missing)?;
        Ok(proto::GetCampaignResponse { campaign: Some(convert::campaign(&found)) })
    }

    async fn campaigns(&self, request: &proto::ListCampaignsRequest) -> Result<proto::ListCampaignsResponse, Problem> {
        let paging = Paging::parse("campaigns".to_owned(), request.page_size, &request.page_token)?;
        let page = self.find_campaigns.newest(paging.after_time(), paging.limit()).await?;
        let position = |last: &IssuedCampaign| (last.campaign.created_at.micros(), last.campaign.id.uuid());
        let (page, next_page_token) = paging.cut(page, position);
        Ok(proto::ListCampaignsResponse { campaigns: page.iter().map(convert::campaign).collect(), next_page_token })
    }

    async fn claim(&self, request: &Request<proto::ClaimCouponRequest>) -> Result<proto::ClaimCouponResponse, Problem> {
        let user_id = convert::caller(&Identity::of(request)?)?;
        let claimed = self.claim_coupon.claim(convert::claim(user_id, request.get_ref())?).await?;
        Ok(proto::ClaimCouponResponse { coupon: Some(convert::coupon(&claimed)) })
    }

    async fn coupon(&self, request: &Request<proto::GetCouponRequest>) -> Result<proto::GetCouponResponse, Problem> {
        let viewer = viewer(&Identity::of(request)?)?;
        let id = convert::id("coupon_id", &request.get_ref().coupon_id)?;
        let missing = || Problem::new(Reason::CouponNotFound, "there is no such coupon").field("coupon_id");
        let found = self.find_coupons.get(viewer, id).await?.ok_or_else(missing)?;
        Ok(proto::GetCouponResponse { coupon: Some(convert::coupon(&found)) })
    }

    async fn coupons(
        &self,
        request: &Request<proto::ListCouponsRequest>,
    ) -> Result<proto::ListCouponsResponse, Problem> {
        let viewer = viewer(&Identity::of(request)?)?;
        let request = request.get_ref();
        let campaign_id = convert::optional_id("campaign_id", &request.campaign_id)?;
        match (viewer, campaign_id) {
            (Viewer::Owner(user_id), campaign_id) => self.coupons_of_user(user_id, campaign_id, request).await,
            (Viewer::Anybody, Some(campaign_id)) => self.coupons_of_campaign(campaign_id, request).await,
            (Viewer::Anybody, None) => Err(Problem::invalid_field("campaign_id", "must be set by an operator")),
        }
    }

    async fn coupons_of_user(
        &self,
        user_id: UserId,
        campaign_id: Option<CampaignId>,
        request: &proto::ListCouponsRequest,
    ) -> Result<proto::ListCouponsResponse, Problem> {
        let list = format!("coupons:{user_id}:{}", request.campaign_id);
        let paging = Paging::parse(list, request.page_size, &request.page_token)?;
        let page = self.find_coupons.newest_of_user(user_id, campaign_id, paging.after_time(), paging.limit()).await?;
        let (page, next_page_token) = paging.cut(page, |(last, _)| (last.created_at.micros(), last.id.uuid()));
        Ok(proto::ListCouponsResponse { coupons: page.iter().map(convert::coupon).collect(), next_page_token })
    }

    async fn coupons_of_campaign(
        &self,
        campaign_id: CampaignId,
        request: &proto::ListCouponsRequest,
    ) -> Result<proto::ListCouponsResponse, Problem> {
        let paging = Paging::parse(format!("ranks:{campaign_id}"), request.page_size, &request.page_token)?;
        let page = self.find_coupons.ranked_of_campaign(campaign_id, paging.after_rank(), paging.limit()).await?;
        let (page, next_page_token) = paging.cut(page, |(last, _)| (i64::from(last.rank), last.id.uuid()));
        Ok(proto::ListCouponsResponse { coupons: page.iter().map(convert::coupon).collect(), next_page_token })
    }

    async fn hold(&self, request: &Request<proto::HoldCouponsRequest>) -> Result<proto::HoldCouponsResponse, Problem> {
        Identity::of(request)?.require_service()?;
        let held = self.hold_coupons.hold(convert::hold_requests(request.get_ref())?).await?;
        Ok(proto::HoldCouponsResponse { results: held.iter().map(convert::hold_result).collect() })
    }

    async fn release(
        &self,
        request: &Request<proto::ReleaseCouponRequest>,
    ) -> Result<proto::ReleaseCouponResponse, Problem> {
        Identity::of(request)?.require_service()?;
        let request = request.get_ref();
        let coupon_id = convert::id("coupon_id", &request.coupon_id)?;
        let order_id = convert::id("order_id", &request.order_id)?;
        let end = OrderEnd::Released { request: convert::fingerprint(&request.request_fingerprint)? };
        self.release_coupon.release(EndedOrder { coupon_id, order_id, end }).await?;
        Ok(proto::ReleaseCouponResponse {})
    }
}

/// One page of one list.
struct Paging {
    list: String,
    size: PageSize,
    after: Option<PageToken>,
}

impl Paging {
    fn parse(list: String, size: i32, token: &str) -> Result<Self, Problem> {
        let size = PageSize::parse(size).map_err(convert::invalid)?;
        let after = PageToken::parse(&list, token).map_err(convert::invalid)?;
        Ok(Self { list, size, after })
    }

    /// One more than the page holds, to tell whether another follows.
    fn limit(&self) -> u32 {
        self.size.get() + 1
    }

    fn after_time(&self) -> Option<(Timestamp, Uuid)> {
        self.after.as_ref().map(|token| (Timestamp::from_micros(token.after), token.id))
    }

    fn after_rank(&self) -> i32 {
        self.after.as_ref().map_or(0, |token| i32::try_from(token.after).unwrap_or(i32::MAX))
    }

    /// The page, and the token of the next; empty if this is the last.
    fn cut<T>(self, mut items: Vec<T>, position: impl Fn(&T) -> (i64, Uuid)) -> (Vec<T>, String) {
        let is_last = items.len() < self.limit() as usize;
        items.truncate(self.size.get() as usize);
        let next = items.last().filter(|_| !is_last).map(|last| {
            let (after, id) = position(last);
            PageToken::new(self.list, after, id).to_string()
        });
        (items, next.unwrap_or_default())
    }
}

fn viewer(identity: &Identity) -> Result<Viewer, Problem> {
    match identity.role {
        Role::Buyer => Ok(Viewer::Owner(convert::caller(identity)?)),
        Role::Operator | Role::Service => Ok(Viewer::Anybody),
    }
}

fn answer<T>(outcome: Result<T, Problem>) -> Result<Response<T>, Status> {
    Ok(Response::new(outcome?))
}
