//! Callers' identities, signed as the processes of a mesh sign them.

use stampede_identity::{Caller, Claim, IDENTITY_METADATA, Keys, Role, Scope, User};
use stampede_vocab::{Process, Service, Timestamp, UserId};
use std::sync::LazyLock;
use tonic::{Request, metadata::AsciiMetadataValue};

/// Secret by which the processes of a test authenticate each other.
pub const MESH_SECRET: &str = "a mesh secret of the tests, 32 bytes or more";
/// Validity of the signatures: longer than a test.
const LIFE_S: i64 = 3_600;

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::parse(MESH_SECRET).expect("it is long enough"));

/// A new buyer.
pub fn buyer() -> UserId {
    UserId::random()
}

/// `message` as sent by this buyer, through the gateway.
pub fn as_buyer<T>(user: UserId, message: T) -> Request<T> {
    by(Process::Gateway, Some(Role::Buyer), Some(user), message)
}

/// `message` as sent by an operator.
pub fn as_operator<T>(message: T) -> Request<T> {
    let user = UserId::try_from_bytes(&[7; 16]).expect("16 bytes");
    by(Caller::Operator, Some(Role::Operator), Some(user), message)
}

/// `message` as sent by the order service.
pub fn as_order_service<T>(message: T) -> Request<T> {
    by(Service::Order, Some(Role::Service), None, message)
}

/// `message` as sent by the inventory service.
pub fn as_inventory_service<T>(message: T) -> Request<T> {
    by(Service::Inventory, Some(Role::Service), None, message)
}

/// Returns the metadata entry that identifies a caller, for any method. The caller, the role and the user may be any.
pub fn signed_identity(caller: impl Into<Caller>, role: Option<Role>, user: Option<UserId>) -> String {
    sign(&KEYS, caller.into(), role, user)
}

/// The same signed with a secret that the mesh does not know.
pub fn forged_identity(caller: impl Into<Caller>, role: Option<Role>, user: Option<UserId>) -> String {
    let keys = Keys::parse("a secret of somebody else, 32 bytes or more").expect("it is long enough");
    sign(&keys, caller.into(), role, user)
}

fn sign(keys: &Keys, caller: Caller, role: Option<Role>, user: Option<UserId>) -> String {
    let user = user.map(|user| user.to_string());
    let user = user.as_deref().map_or(User::Nobody, User::One);
    let until_s = Timestamp::now().micros() / 1_000_000 + LIFE_S;
    keys.sign(Claim { caller, role, user }, Scope::All, until_s).expect("an id has no dot")
}

fn by<T>(caller: impl Into<Caller>, role: Option<Role>, user: Option<UserId>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let entry: AsciiMetadataValue = signed_identity(caller, role, user).parse().expect("an entry is ASCII");
    request.metadata_mut().insert(IDENTITY_METADATA, entry);
    request
}
