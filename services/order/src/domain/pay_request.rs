//! Payment requests of buyers.

use sha2::{Digest, Sha256};
use stampede_vocab::{Fingerprint, RequestId};

/// A payment request. The payment method is not stored, only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayRequest {
    /// The buyer's idempotency key.
    pub id: RequestId,
    /// Hash of the payment method, the rest of the request.
    pub fingerprint: Fingerprint,
}

impl PayRequest {
    /// Returns a payment request with this key, for the card or wallet of this token.
    pub fn new(id: RequestId, method: &str) -> Self {
        Self { id, fingerprint: Fingerprint::new(Sha256::digest(method).into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_tells_one_method_from_another() {
        let request = |method| PayRequest::new(RequestId::parse("p").unwrap(), method);
        assert_eq!(request("pm_1"), request("pm_1"));
        assert_ne!(request("pm_1").fingerprint, request("pm_2").fingerprint);
    }
}
