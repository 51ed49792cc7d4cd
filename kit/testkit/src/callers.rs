//! The identity of the caller, as the gateway forwards it.

use stampede_vocab::UserId;
use tonic::{Request, metadata::AsciiMetadataValue};

/// A buyer that nobody has seen before.
pub fn buyer() -> UserId {
    UserId::random()
}

/// `message` as sent by this buyer.
pub fn as_buyer<T>(user: UserId, message: T) -> Request<T> {
    with_identity(user, "buyer", message)
}

/// `message` as sent by an operator.
pub fn as_operator<T>(message: T) -> Request<T> {
    with_identity(UserId::try_from_bytes(&[7; 16]).expect("16 bytes"), "operator", message)
}

/// `message` as sent by another service.
pub fn as_service<T>(message: T) -> Request<T> {
    with_identity(UserId::try_from_bytes(&[0; 16]).expect("16 bytes"), "service", message)
}

fn with_identity<T>(user: UserId, role: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let user: AsciiMetadataValue = user.to_string().parse().expect("an id is ASCII");
    request.metadata_mut().insert("x-stampede-user", user);
    request.metadata_mut().insert("x-stampede-role", AsciiMetadataValue::from_static(role));
    request
}
