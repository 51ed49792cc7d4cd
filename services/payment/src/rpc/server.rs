//! `stampede.payment.v1.PaymentService`: reads the request, calls one usecase, writes the answer.

use crate::{rpc::convert, usecase::Payments};
use stampede_chassis::Identity;
use stampede_proto::payment::v1::{self as proto, payment_service_server::PaymentService};
use stampede_vocab::PageSize;
use tonic::{Request, Response, Status};

/// The service behind its contract.
pub struct PaymentApi {
    payments: Payments,
}

impl PaymentApi {
    /// Answers with these payments.
    pub fn new(payments: Payments) -> Self {
        Self { payments }
    }
}

#[tonic::async_trait]
impl PaymentService for PaymentApi {
    async fn get_payment(
        &self,
        request: Request<proto::GetPaymentRequest>,
    ) -> Result<Response<proto::GetPaymentResponse>, Status> {
        let viewer = convert::viewer(&Identity::of(&request)?)?;
        let id = convert::payment_id(&request.get_ref().payment_id).map_err(convert::invalid)?;
        let payment = self.payments.get(viewer, id).await.map_err(convert::problem)?;
        Ok(Response::new(proto::GetPaymentResponse { payment: Some(convert::payment(payment)) }))
    }

    async fn list_payments(
        &self,
        request: Request<proto::ListPaymentsRequest>,
    ) -> Result<Response<proto::ListPaymentsResponse>, Status> {
        let viewer = convert::viewer(&Identity::of(&request)?)?;
        let request = request.into_inner();
        let size = PageSize::parse(request.page_size).map_err(convert::invalid)?;
        let order = convert::order_filter(&request.order_id).map_err(convert::invalid)?;
        let list = convert::list_name(viewer, order);
        let after = convert::page_token(&list, &request.page_token)?;
        let page = match order {
            Some(order_id) => self.payments.list_of_order(viewer, order_id).await,
            None => self.payments.list(viewer, after, size).await,
        };
        Ok(Response::new(convert::page(&list, page.map_err(convert::problem)?)))
    }

    async fn handle_webhook(
        &self,
        request: Request<proto::HandleWebhookRequest>,
    ) -> Result<Response<proto::HandleWebhookResponse>, Status> {
        let proto::HandleWebhookRequest { payload, signature } = request.into_inner();
        self.payments.handle_webhook(&payload, &signature).await.map_err(convert::problem)?;
        Ok(Response::new(proto::HandleWebhookResponse {}))
    }
}
