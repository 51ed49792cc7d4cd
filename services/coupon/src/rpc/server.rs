//! The RPC handlers: check the caller, convert the request, call the use case, convert the answer. They decide nothing.

use super::convert;
use crate::usecase::{ClaimCoupon, CreateCampaign, FindCampaigns, FindCoupons, HoldCoupons, ReleaseCoupon};
use stampede_chassis::Identity;
use stampede_proto::coupon::v1::{self as proto, coupon_service_server::CouponService};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The use cases behind the RPCs.
pub struct CouponRpc {
    pub create: CreateCampaign,
    pub claim: ClaimCoupon,
    pub campaigns: FindCampaigns,
    pub coupons: FindCoupons,
    pub hold: HoldCoupons,
    pub release: ReleaseCoupon,
}

#[tonic::async_trait]
impl CouponService for CouponRpc {
    async fn create_campaign(
        &self,
        request: Request<proto::CreateCampaignRequest>,
    ) -> Result<Response<proto::CreateCampaignResponse>, Status> {
        let operator = Identity::of(&request)?;
        operator.require_operator()?;
        let caller = operator.user()?;
        let request = request.into_inner();
        let request_id = convert::request_id(&request.request_id)?;
        let created = self.create.run(caller, request_id, convert::terms(request)?).await?;
        let found = self.campaigns.count(Arc::new(created)).await?;
        Ok(Response::new(proto::CreateCampaignResponse { campaign: Some(convert::campaign(&found)) }))
    }

    async fn get_campaign(
        &self,
        request: Request<proto::GetCampaignRequest>,
    ) -> Result<Response<proto::GetCampaignResponse>, Status> {
        let id = convert::campaign_id(&request.get_ref().campaign_id)?;
        let found = self.campaigns.get(id).await?;
        Ok(Response::new(proto::GetCampaignResponse { campaign: Some(convert::campaign(&found)) }))
    }

    async fn list_campaigns(
        &self,
        request: Request<proto::ListCampaignsRequest>,
    ) -> Result<Response<proto::ListCampaignsResponse>, Status> {
        let page = self.campaigns.list(convert::campaigns(request.get_ref())?).await?;
        Ok(Response::new(convert::campaign_page(&page)))
    }

    async fn claim_coupon(
        &self,
        request: Request<proto::ClaimCouponRequest>,
    ) -> Result<Response<proto::ClaimCouponResponse>, Status> {
        let user = Identity::of(&request)?.user()?;
        let claimed = self.claim.run(convert::claim(user, request.get_ref())?).await?;
        Ok(Response::new(proto::ClaimCouponResponse { coupon: Some(convert::coupon(&claimed)) }))
    }

    async fn get_coupon(
        &self,
        request: Request<proto::GetCouponRequest>,
    ) -> Result<Response<proto::GetCouponResponse>, Status> {
        let owner = Identity::of(&request)?.owner()?;
        let id = convert::coupon_id(&request.get_ref().coupon_id)?;
        let found = self.coupons.get(id, owner).await?;
        Ok(Response::new(proto::GetCouponResponse { coupon: Some(convert::coupon(&found)) }))
    }

    async fn list_coupons(
        &self,
        request: Request<proto::ListCouponsRequest>,
    ) -> Result<Response<proto::ListCouponsResponse>, Status> {
        let (list, paging) = convert::coupons(&Identity::of(&request)?, request.get_ref())?;
        let page = self.coupons.list(list, paging).await?;
        Ok(Response::new(convert::coupon_page(&page)))
    }

    async fn hold_coupons(
        &self,
        request: Request<proto::HoldCouponsRequest>,
    ) -> Result<Response<proto::HoldCouponsResponse>, Status> {
        Identity::of(&request)?.require_service()?;
        let held = self.hold.run(convert::hold_requests(request.get_ref())?).await?;
        let results = held.iter().map(|held| convert::hold_result(held.as_ref().ok())).collect();
        Ok(Response::new(proto::HoldCouponsResponse { results }))
    }

    async fn release_coupon(
        &self,
        request: Request<proto::ReleaseCouponRequest>,
    ) -> Result<Response<proto::ReleaseCouponResponse>, Status> {
        Identity::of(&request)?.require_service()?;
        self.release.run(convert::released(request.get_ref())?).await?;
        Ok(Response::new(proto::ReleaseCouponResponse {}))
    }
}
