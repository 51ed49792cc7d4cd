//! Every RPC with every role, at the gateway and on the port of its service, and with the ids of somebody else. The
//! RPCs are those of the contracts: a new one fails here until it has a policy.

use crate::{
    calls::{Caller, Ports, Rpc, rpcs},
    sale::{LONG, Sale, fresh, stampede_reason},
};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use stampede_proto::{
    coupon::v1::CouponState, inventory::v1::ReserveRequest, order::v1::OrderState, payment::v1::ListPaymentsRequest,
    r#type::v1::Access,
};
use stampede_testkit::{Mesh, MeshBuilder, Process, Service, World, as_buyer, as_order_service, buyer};
use std::process::Command;
use tonic::{Code, Status};

/// The callers that an RPC is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Everybody, with or without an identity.
    Anybody,
    /// Buyers for what is their own, and operators.
    Owner,
    Operator,
    /// These processes alone, each for itself, and nobody outside.
    Only(&'static [&'static str]),
}

use Policy::{Anybody, Only, Operator, Owner};

const POLICIES: [(&str, Policy); 32] = [
    ("event.CreateEvent", Operator),
    ("event.GetEvent", Anybody),
    ("event.ListEvents", Anybody),
    ("event.RescheduleEvent", Operator),
    ("event.CancelEvent", Operator),
    ("event.WatchEvents", Anybody),
    ("coupon.CreateCampaign", Operator),
    ("coupon.GetCampaign", Anybody),
    ("coupon.ListCampaigns", Anybody),
    ("coupon.ClaimCoupon", Owner),
    ("coupon.GetCoupon", Owner),
    ("coupon.ListCoupons", Owner),
    ("coupon.HoldCoupons", Only(&["order"])),
    ("coupon.ReleaseCoupon", Only(&["order"])),
    ("inventory.StageStock", Only(&["event", "operator"])),
    ("inventory.Reserve", Only(&["order"])),
    ("inventory.Release", Only(&["order"])),
    ("inventory.GetStock", Anybody),
    ("inventory.WatchStock", Anybody),
    ("inventory.Reconcile", Operator),
    ("order.PlaceOrder", Owner),
    ("order.GetOrder", Owner),
    ("order.ListOrders", Owner),
    ("order.PayOrder", Owner),
    ("order.CancelOrder", Owner),
    ("order.RefundOrder", Operator),
    ("order.WatchOrder", Owner),
    ("order.GetCancellation", Operator),
    ("order.LookUpOrders", Only(&["coupon", "inventory"])),
    ("payment.GetPayment", Owner),
    ("payment.ListPayments", Owner),
    ("payment.HandleWebhook", Anybody),
];

impl Policy {
    fn of(rpc: &Rpc) -> Self {
        let found = POLICIES.iter().find(|(name, _)| *name == rpc.name);
        found.unwrap_or_else(|| panic!("{} has no policy: say in POLICIES whom it is for", rpc.name)).1
    }

    /// The access that the contract must declare, which the gateway applies.
    fn access(self) -> Access {
        match self {
            Anybody => Access::Public,
            Owner => Access::Authenticated,
            Operator => Access::Operator,
            Only(_) => Access::Unspecified,
        }
    }

    /// The callers that the contract must declare.
    fn callers(self) -> &'static [&'static str] {
        match self {
            Only(callers) => callers,
            Anybody | Owner | Operator => &[],
        }
    }

    /// Whether a service admits a caller with this metadata.
    fn lets_in(self, caller: &Caller) -> bool {
        match self {
            // Invalid metadata are refused even where none are needed.
            Anybody => !matches!(caller, Caller::Forged),
            Owner => matches!(caller, Caller::Buyer(_) | Caller::Operator),
            Operator => matches!(caller, Caller::Operator),
            Only(callers) => caller.name().is_some_and(|name| callers.contains(&name)),
        }
    }

    /// Whether the gateway admits a token of this role; `""` is no token, and any unknown role an invalid one.
    fn admits(self, role: &str) -> bool {
        match self {
            Anybody => true,
            Owner => matches!(role, "buyer" | "operator"),
            Operator => role == "operator",
            Only(_) => false,
        }
    }
}

/// Whether the refusal is for the caller, and not for the request.
fn is_refusal(reason: &str) -> bool {
    matches!(reason, "UNAUTHENTICATED" | "PERMISSION_DENIED" | "TOKEN_EXPIRED")
}

#[test]
fn every_rpc_has_a_policy_and_the_contract_declares_the_same() {
    let rpcs = rpcs();
    for rpc in &rpcs {
        assert_eq!(rpc.access, Policy::of(rpc).access(), "{}", rpc.name);
        assert_eq!(rpc.callers, Policy::of(rpc).callers(), "{}", rpc.name);
        assert_eq!(rpc.http.is_some(), rpc.access != Access::Unspecified, "{} has a route or no caller", rpc.name);
    }
    for (name, _) in POLICIES {
        assert!(rpcs.iter().any(|rpc| rpc.name == name), "there is no {name} any more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_refuses_every_caller_that_an_rpc_is_not_for() {
    let world = World::prepared().await.unwrap();
    let mesh = Mesh::start(&world).await.unwrap();
    let ports = Ports::of(&mesh).await;
    let outside =
        [Caller::Nobody, Caller::Plain, Caller::Forged, Caller::Anonymous, Caller::Buyer(buyer()), Caller::Operator];
    let inside = Service::ALL.into_iter().flat_map(|service| [Caller::Service(service), Caller::Presuming(service)]);
    let callers: Vec<Caller> = outside.into_iter().chain(inside).collect();
    for rpc in rpcs() {
        for caller in &callers {
            // The empty message: the caller is checked first, so its missing fields are reported to nobody else.
            let outcome = ports.call(&rpc, caller, Vec::new()).await;
            let refused = outcome.as_ref().is_err_and(|status| is_refusal(&stampede_reason(status)));
            assert_eq!(!refused, Policy::of(&rpc).lets_in(caller), "{} by {caller:?}: {outcome:?}", rpc.name);
        }
    }
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_service_without_a_secret_that_is_one_does_not_start() {
    let world = World::prepared().await.unwrap();
    for (secret, reason) in [("short", "at least 32"), ("", "needs 1 to 4")] {
        let mesh = MeshBuilder::default().set(Service::Payment, "STAMPEDE_MESH_SECRET", secret);
        let (code, log) = mesh.launch(&world, Service::Payment).unwrap().ended().await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("--mesh-secret") && log.contains(reason), "{log}");
    }
}

#[tokio::test]
async fn a_key_of_the_mesh_is_changed_while_it_runs() {
    const NEXT: &str = "the next mesh secret of the tests, 32 bytes";
    let world = World::prepared().await.unwrap();
    let both = format!("{NEXT}\n{}", stampede_testkit::MESH_SECRET);
    let mesh = MeshBuilder::default().set(Service::Inventory, "STAMPEDE_MESH_SECRET", both);
    let mesh = mesh.start(&world, [Service::Inventory]).await.unwrap();
    let outcome = mesh.inventory().reserve(as_order_service(ReserveRequest::default())).await;
    let refused = outcome.as_ref().is_err_and(|status| is_refusal(&stampede_reason(status)));
    assert!(!refused, "what the older key has signed is still believed: {outcome:?}");
    mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_refuses_every_token_that_a_route_is_not_for() {
    let world = World::prepared().await.unwrap();
    let mesh = Mesh::start(&world).await.unwrap();
    let tokens = [
        ("", String::new()),
        ("made up", "made.up.token".to_owned()),
        ("buyer", token(&mesh, "buyer")),
        ("operator", token(&mesh, "operator")),
    ];
    for rpc in rpcs() {
        for (role, token) in &tokens {
            let (status, reason) = request(&mesh, &rpc, token).await;
            if rpc.http.is_none() {
                let unknown = (StatusCode::NOT_IMPLEMENTED, "unimplemented".to_owned());
                assert_eq!((status, reason), unknown, "{} can be reached from outside", rpc.name);
                continue;
            }
            assert_ne!(reason, "UNKNOWN_PATH", "{}", rpc.name);
            assert_eq!(!is_refusal(&reason), Policy::of(&rpc).admits(role), "{} by \"{role}\": {reason}", rpc.name);
        }
    }
    mesh.stop().await.unwrap();
}

/// A token as an operator makes it.
pub fn token(mesh: &Mesh, role: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
    let output = command.args(["token", "--role", role, "--auth-secret", mesh.auth_secret()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Asks the gateway for the route, or by Connect where the RPC has none. Returns the status, and the reason of a
/// problem or the code of an error.
async fn request(mesh: &Mesh, rpc: &Rpc, token: &str) -> (StatusCode, String) {
    let (method, path) = rpc.http.clone().unwrap_or_else(|| (http::Method::POST, rpc.path.clone()));
    let uri = format!("{}{path}", mesh.url(Process::Gateway));
    let body = if method == http::Method::POST { "{}" } else { "" };
    let mut request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, "application/json");
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = client.request(request.body(Full::from(body)).unwrap()).await.unwrap();
    let status = answer.status();
    if status.is_success() {
        // It may be a stream, which does not end.
        return (status, String::new());
    }
    let problem = answer.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&problem).unwrap();
    let reason = problem.get("reason").or(problem.get("code"));
    (status, reason.unwrap().as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn things_of_another_user_cannot_be_found() {
    let sale = Sale::open(LONG).await;
    let (owner, stranger) = (buyer(), buyer());
    let coupon = sale.claim(owner).await;
    let order = sale.placed(owner, &[(0, 1)], "").await;
    let bought = sale.bought(owner, &[(0, 1)], "").await;
    let listed = ListPaymentsRequest { order_id: bought.order_id.clone(), ..ListPaymentsRequest::default() };
    let payments = sale.mesh.payment().list_payments(as_buyer(owner, listed)).await.unwrap().into_inner().payments;
    let theirs = Theirs {
        private: vec![
            owner.to_string(),
            order.order_id.clone(),
            bought.order_id,
            coupon.coupon_id.clone(),
            payments[0].payment_id.clone(),
        ],
        ids: [
            ("user_id", owner.to_string()),
            ("order_id", order.order_id.clone()),
            ("coupon_id", coupon.coupon_id.clone()),
            ("payment_id", payments[0].payment_id.clone()),
            ("campaign_id", coupon.campaign_id.clone()),
            ("event_id", sale.event.event_id.clone()),
            ("item_id", sale.event.items[0].item_id.clone()),
            ("payment_method", "pm_card_ok".to_owned()),
        ],
    };
    let ports = Ports::of(&sale.mesh).await;
    let of_owners: Vec<Rpc> = rpcs().into_iter().filter(|rpc| Policy::of(rpc) == Owner).collect();
    for rpc in &of_owners {
        let outcome = ports.call(rpc, &Caller::Buyer(stranger), theirs.request(&rpc.input)).await;
        assert!(theirs.are_hidden_in(&outcome), "{}: {outcome:?}", rpc.name);
    }
    assert_eq!(sale.get(owner, &order).await.state(), OrderState::AwaitingPayment, "a stranger changed it");
    sale.until_coupon(owner, &coupon, CouponState::Issued).await;
    for rpc in &of_owners {
        let outcome = ports.call(rpc, &Caller::Buyer(owner), theirs.request(&rpc.input)).await;
        let found = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok) != Code::NotFound;
        assert!(found, "{} does not find what is the caller's own, so it proves nothing: {outcome:?}", rpc.name);
    }
    sale.mesh.stop().await.unwrap();
}

/// The ids of one buyer.
struct Theirs {
    /// Texts that no answer to anybody else may contain.
    private: Vec<String>,
    /// The values of request fields, by their names.
    ids: [(&'static str, String); 8],
}

impl Theirs {
    /// A request for all of it, as far as the message has fields for it.
    fn request(&self, message: &MessageDescriptor) -> Vec<u8> {
        self.filled(message).encode_to_vec()
    }

    fn filled(&self, message: &MessageDescriptor) -> DynamicMessage {
        let mut filled = DynamicMessage::new(message.clone());
        for field in message.fields() {
            if let Some(value) = self.value(&field) {
                filled.set_field(&field, if field.is_list() { Value::List(vec![value]) } else { value });
            }
        }
        filled
    }

    fn value(&self, field: &FieldDescriptor) -> Option<Value> {
        match (field.kind(), field.name()) {
            (Kind::String, "request_id") => Some(Value::String(fresh())),
            (Kind::String, name) => {
                let known = self.ids.iter().find(|(id, _)| *id == name || format!("{id}s") == name);
                assert!(known.is_some() || !name.contains("_id"), "{name}: say here whose it is");
                known.map(|(_, value)| Value::String(value.clone()))
            }
            (Kind::Int32, "units") => Some(Value::I32(1)),
            (Kind::Message(inner), _) if field.is_list() => Some(Value::Message(self.filled(&inner))),
            _ => None,
        }
    }

    /// Whether nothing of it is in the answer, not even that it exists.
    fn are_hidden_in(&self, outcome: &Result<Vec<u8>, Status>) -> bool {
        match outcome {
            Ok(answer) => {
                let answer = String::from_utf8_lossy(answer);
                !self.private.iter().any(|id| answer.contains(id.as_str()))
            }
            // A filter may name the caller alone, and is refused in the same way for every other user.
            Err(status) => {
                status.code() == Code::NotFound
                    || (status.code() == Code::InvalidArgument && status.message().contains("your own id"))
            }
        }
    }
}
