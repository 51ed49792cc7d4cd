//! The HTTP interface: reads requests, has them processed, waits if a card is slow, and answers.

use crate::{
    card::{Card, RefundEnd},
    config::Config,
    failure::Failure,
    fate::Fates,
    processor::{ChargeOrder, Processed, Processor, RefundOrder},
    records::{Charge, ChargeStatus, Refund, RefundStatus},
    webhook::{Notice, Notifier},
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::QueryRejection},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

const MAX_BODY_BYTES: usize = 16 * 1024;
const MAX_KEY_CHARS: usize = 255;
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// The state that all requests share.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub processor: Arc<Processor>,
    pub notifier: Notifier,
    pub config: Arc<Config>,
    /// The faults of the seeded mode; `None` in any other.
    pub fates: Option<Arc<Fates>>,
    pub stop: CancellationToken,
}

/// Returns the routes, with as many requests at once as the configuration allows.
pub(crate) fn router(api: ApiState) -> Router {
    let slots = Arc::new(Semaphore::new(api.config.max_requests_in_flight));
    Router::new()
        .route("/v1/charges", post(create_charge).get(list_charges))
        .route("/v1/charges/{id}", get(get_charge))
        .route("/v1/charges/by-key/{key}", get(get_charge_by_key))
        .route("/v1/refunds", post(create_refund).get(list_refunds))
        .route("/v1/refunds/by-key/{key}", get(get_refund_by_key))
        .layer(middleware::from_fn_with_state(slots, bounded))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(api)
}

async fn bounded(
    State(slots): State<Arc<Semaphore>>,
    request: axum::extract::Request,
    next: middleware::Next,
) -> Response {
    match slots.try_acquire() {
        Ok(slot) => {
            let response = next.run(request).await;
            drop(slot);
            response
        }
        Err(_) => Failure::Busy.into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateCharge {
    amount_minor: i64,
    currency: String,
    payment_method: String,
}

async fn create_charge(State(api): State<ApiState>, headers: HeaderMap, body: Bytes) -> Result<Response, Failure> {
    let mut order = charge_order(&headers, &body)?;
    if let Some(fates) = &api.fates {
        fates.meet(&order.key).await?;
        order.card = fates.card(order.card, &order.key);
    }
    match api.processor.charge(&order) {
        Ok(Processed::New(charge)) => {
            api.follow_up(&charge, order.card).await;
            Ok(answer_charge(&charge))
        }
        Ok(Processed::Repeat(charge)) => Ok(answer_charge(&charge)),
        Err(Failure::Lost) => {
            sleep(api.config.slow()).await;
            Err(Failure::Lost)
        }
        Err(failure) => Err(failure),
    }
}

impl ApiState {
    /// Runs the effects of a new charge before it is answered.
    async fn follow_up(&self, charge: &Charge, card: Card) {
        self.notifier.notify(Notice::of_charge(charge));
        match card {
            Card::TimeoutCaptured => sleep(self.config.slow()).await,
            Card::Late => self.capture_later(charge.id.clone()),
            Card::Ok
            | Card::Declined
            | Card::InsufficientFunds
            | Card::Expired
            | Card::TimeoutLost
            | Card::RefundLate
            | Card::RefundFailed => {}
        }
    }

    /// Captures a pending charge when its time has come; after the next start if the sandbox stops before.
    pub(crate) fn capture_later(&self, charge_id: String) {
        let api = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = sleep(api.config.late()) => {}
                () = api.stop.cancelled() => return,
            }
            match api.processor.capture(&charge_id) {
                Ok(charge) => api.notifier.notify(Notice::of_charge(&charge)),
                Err(failure) => tracing::error!(charge.id = charge_id, error.cause = %failure, "not captured"),
            }
        });
    }

    /// Returns the end of a refund: by the card of its charge, or in the seeded mode by its fate.
    fn refund_end(&self, charge_id: &str, key: &str) -> RefundEnd {
        let card = self.processor.read(|records| Card::parse(&records.charge(charge_id)?.payment_method));
        let asked = card.map_or(RefundEnd::AtOnce, Card::refund_end);
        self.fates.as_ref().map_or(asked, |fates| fates.refund_end(asked, key))
    }

    /// Runs the effects of a new refund before it is answered.
    fn follow_up_refund(&self, refund: &Refund) {
        self.notifier.notify(Notice::of_refund(refund));
        if refund.status == RefundStatus::Pending {
            self.end_refund_later(refund);
        }
    }

    /// Ends a pending refund when its time has come; after the next start if the sandbox stops before.
    pub(crate) fn end_refund_later(&self, refund: &Refund) {
        let (api, refund_id) = (self.clone(), refund.id.clone());
        let status = match self.refund_end(&refund.charge_id, &refund.key) {
            RefundEnd::AtOnce | RefundEnd::Late => RefundStatus::Refunded,
            RefundEnd::Failed => RefundStatus::Failed,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = sleep(api.config.late()) => {}
                () = api.stop.cancelled() => return,
            }
            match api.processor.end_refund(&refund_id, status) {
                Ok(refund) => api.notifier.notify(Notice::of_refund(&refund)),
                Err(failure) => tracing::error!(refund.id = refund_id, error.cause = %failure, "refund not ended"),
            }
        });
    }
}

async fn get_charge_by_key(State(api): State<ApiState>, Path(key): Path<String>) -> Result<Json<Charge>, Failure> {
    let found = api.processor.read(|records| records.charge_by_key(&key).cloned());
    found.map(Json).ok_or(Failure::ChargeNotFound)
}

async fn get_charge(State(api): State<ApiState>, Path(id): Path<String>) -> Result<Json<Charge>, Failure> {
    let found = api.processor.read(|records| records.charge(&id).cloned());
    found.map(Json).ok_or(Failure::ChargeNotFound)
}

async fn get_refund_by_key(State(api): State<ApiState>, Path(key): Path<String>) -> Result<Json<Refund>, Failure> {
    let found = api.processor.read(|records| records.refund_by_key(&key).cloned());
    found.map(Json).ok_or(Failure::RefundNotFound)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateRefund {
    charge_id: String,
    amount_minor: i64,
}

async fn create_refund(State(api): State<ApiState>, headers: HeaderMap, body: Bytes) -> Result<Response, Failure> {
    let request: CreateRefund = parse(&body)?;
    let key = idempotency_key(&headers)?;
    let order = RefundOrder {
        end: api.refund_end(&request.charge_id, &key),
        key,
        charge_id: request.charge_id,
        amount_minor: positive(request.amount_minor)?,
    };
    if let Some(fates) = &api.fates {
        fates.meet(&order.key).await?;
        fates.lose_refund(&order.key).await?;
    }
    let refund = match api.processor.refund(&order)? {
        Processed::New(refund) => {
            api.follow_up_refund(&refund);
            if let Some(fates) = &api.fates {
                fates.answer_refund(&order.key).await;
            }
            refund
        }
        Processed::Repeat(refund) => refund,
    };
    Ok(answer_refund(&refund))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    after: Option<String>,
    limit: Option<usize>,
}

type MaybePage = Result<Query<PageQuery>, QueryRejection>;

async fn list_charges(State(api): State<ApiState>, page: MaybePage) -> Result<Json<Value>, Failure> {
    let (after, limit) = page_of(page)?;
    api.processor.read(|records| {
        let rest = records.charges_after(after.as_deref()).ok_or_else(no_such_start)?;
        Ok(page_json("charges", rest, limit, |charge| json!(charge)))
    })
}

async fn list_refunds(State(api): State<ApiState>, page: MaybePage) -> Result<Json<Value>, Failure> {
    let (after, limit) = page_of(page)?;
    api.processor.read(|records| {
        let rest = records.refunds_after(after.as_deref()).ok_or_else(no_such_start)?;
        Ok(page_json("refunds", rest, limit, |refund| json!(refund)))
    })
}

fn page_of(page: MaybePage) -> Result<(Option<String>, usize), Failure> {
    let Query(page) = page.map_err(|rejection| Failure::Malformed(rejection.body_text()))?;
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Failure::Invalid(format!("limit must be 1 to {MAX_LIMIT}")));
    }
    Ok((page.after, limit))
}

fn no_such_start() -> Failure {
    Failure::Invalid("after must be an id out of the list".to_owned())
}

fn page_json<T: Serialize>(name: &str, rest: &[T], limit: usize, row: fn(&T) -> Value) -> Json<Value> {
    let rows: Vec<Value> = rest.iter().take(limit).map(row).collect();
    Json(json!({name: rows, "has_more": rest.len() > limit}))
}

fn answer_refund(refund: &Refund) -> Response {
    let status = if refund.status == RefundStatus::Pending { StatusCode::ACCEPTED } else { StatusCode::OK };
    (status, Json(refund)).into_response()
}

fn answer_charge(charge: &Charge) -> Response {
    let declined = charge.decline_code.as_deref().unwrap_or_default();
    match charge.status {
        ChargeStatus::Captured => Json(charge).into_response(),
        ChargeStatus::Pending => (StatusCode::ACCEPTED, Json(charge)).into_response(),
        ChargeStatus::Declined => {
            let error = json!({"code": declined, "message": "the card was declined"});
            let body = json!({"error": error, "charge": charge});
            (StatusCode::PAYMENT_REQUIRED, Json(body)).into_response()
        }
    }
}

fn charge_order(headers: &HeaderMap, body: &[u8]) -> Result<ChargeOrder, Failure> {
    let request: CreateCharge = parse(body)?;
    let Some(card) = Card::parse(&request.payment_method) else {
        return Err(Failure::UnknownPaymentMethod);
    };
    let currency_fits = request.currency.len() == 3 && request.currency.bytes().all(|byte| byte.is_ascii_uppercase());
    if !currency_fits {
        return Err(Failure::Invalid("currency must be three capital letters".to_owned()));
    }
    Ok(ChargeOrder {
        key: idempotency_key(headers)?,
        amount_minor: positive(request.amount_minor)?,
        currency: request.currency,
        payment_method: request.payment_method,
        card,
    })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Malformed(error.to_string()))
}

fn positive(amount_minor: i64) -> Result<i64, Failure> {
    if amount_minor > 0 {
        Ok(amount_minor)
    } else {
        Err(Failure::Invalid("amount_minor must be more than zero".to_owned()))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Failure> {
    let key = headers.get("idempotency-key").ok_or(Failure::MissingKey)?;
    let key = key.to_str().map_err(|_| Failure::MissingKey)?;
    if key.is_empty() || key.len() > MAX_KEY_CHARS || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::MissingKey);
    }
    Ok(key.to_owned())
}
