//! The RPC handlers: check the caller, convert the request, call the use case, convert the answer. They decide nothing.

use super::convert;
use crate::usecase::{FindPayments, HandleWebhook};
use stampede_chassis::Identity;
use stampede_proto::payment::v1::{self as proto, payment_service_server::PaymentService};
use tonic::{Request, Response, Status};

/// The use cases behind the RPCs.
pub struct PaymentRpc {
    pub find: FindPayments,
    /// Handles notices of the provider.
    pub webhook: HandleWebhook,
}

#[tonic::async_trait]
impl PaymentService for PaymentRpc {
    async fn get_payment(
        &self,
        request: Request<proto::GetPaymentRequest>,
    ) -> Result<Response<proto::GetPaymentResponse>, Status> {
        let owner = Identity::of(&request)?.owner()?;
        let id = convert::payment_id(&request.get_ref().payment_id)?;
        let payment = self.find.get(id, owner).await?;
        Ok(Response::new(proto::GetPaymentResponse { payment: Some(convert::payment(payment)) }))
    }

    async fn list_payments(
        &self,
        request: Request<proto::ListPaymentsRequest>,
    ) -> Result<Response<proto::ListPaymentsResponse>, Status> {
        let owner = Identity::of(&request)?.owner()?;
        let (order, paging) = convert::listing(owner, request.get_ref())?;
        let page = match order {
            Some(order) => self.find.list_of_order(order, owner).await?,
            None => self.find.list(owner, paging).await?,
        };
        Ok(Response::new(convert::page(page)))
    }

    async fn handle_webhook(
        &self,
        request: Request<proto::HandleWebhookRequest>,
    ) -> Result<Response<proto::HandleWebhookResponse>, Status> {
        let proto::HandleWebhookRequest { payload, signature } = request.get_ref();
        self.webhook.run(payload, signature).await?;
        Ok(Response::new(proto::HandleWebhookResponse {}))
    }
}
