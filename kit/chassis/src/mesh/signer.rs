//! Signs the user and role of the calls of this process.

use super::Trust;
use crate::identity::{ROLE_METADATA, USER_METADATA};
use http::{HeaderMap, HeaderValue};
use stampede_identity::{CALL_LIFE_S, Caller, Claim, IDENTITY_METADATA, Role, Scope, User};
use stampede_status::Problem;
use stampede_vocab::Timestamp;

/// Signs the user and role of the calls of one process.
#[derive(Clone, Debug)]
pub struct Signer {
    trust: Trust,
    caller: Caller,
}

impl Signer {
    pub(super) fn new(trust: Trust, caller: Caller) -> Signer {
        Signer { trust, caller }
    }

    /// Replaces the role and the user in the headers of a call by a signed entry. Without a role, the call gets that of
    /// a service if `on_own_behalf` is set, and no rights otherwise.
    ///
    /// An entry is valid for this method alone. Signatures are not cached: one takes a microsecond.
    pub(crate) fn sign(&self, headers: &mut HeaderMap, path: &str, on_own_behalf: bool) -> Result<(), Problem> {
        if on_own_behalf && !headers.contains_key(ROLE_METADATA) {
            headers.insert(ROLE_METADATA, HeaderValue::from_static(Role::Service.as_str()));
        }
        let Trust::Signed(keys) = &self.trust else { return Ok(()) };
        let (role, user) = (headers.remove(ROLE_METADATA), headers.remove(USER_METADATA));
        let claim = Claim {
            caller: self.caller,
            // An unknown role has no rights.
            role: role.as_ref().and_then(|role| role.to_str().ok()?.parse().ok()),
            user: match &user {
                Some(user) => User::One(user.to_str().map_err(Problem::internal_error)?),
                None => User::Nobody,
            },
        };
        let until_s = now_s() + CALL_LIFE_S;
        let entry = keys.sign(claim, Scope::Method(path), until_s).map_err(Problem::internal_error)?;
        let mut entry = HeaderValue::try_from(entry).map_err(Problem::internal_error)?;
        // Kept out of logs, and out of the HPACK table of the connection, where it would only evict other headers.
        entry.set_sensitive(true);
        headers.insert(IDENTITY_METADATA, entry);
        Ok(())
    }
}

/// Seconds since the epoch.
pub(crate) fn now_s() -> i64 {
    Timestamp::now().micros() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_identity::Keys;
    use stampede_vocab::{Process, Service};
    use std::sync::Arc;

    const PATH: &str = "/a.B/C";

    fn keys() -> Arc<Keys> {
        Arc::new(Keys::parse("a secret of the tests, 32 bytes or more").unwrap())
    }

    fn signed(headers: &HeaderMap) -> Claim<'_> {
        assert!(!headers.contains_key(ROLE_METADATA) && !headers.contains_key(USER_METADATA), "{headers:?}");
        assert!(headers[IDENTITY_METADATA].is_sensitive());
        keys().verify(headers[IDENTITY_METADATA].to_str().unwrap(), PATH, now_s()).unwrap()
    }

    #[test]
    fn a_call_is_made_for_whom_it_says_and_by_the_service_only_where_that_is_asked_for() {
        let signer = Signer::new(Trust::Signed(keys()), Service::Order.into());
        let mut headers = HeaderMap::new();
        signer.sign(&mut headers, PATH, true).unwrap();
        let own = Claim { caller: Service::Order.into(), role: Some(Role::Service), user: User::Nobody };
        assert_eq!(signed(&headers), own);
        let mut headers = HeaderMap::new();
        signer.sign(&mut headers, PATH, false).unwrap();
        assert_eq!(signed(&headers), Claim { role: None, ..own });
        let mut headers = HeaderMap::new();
        headers.insert(USER_METADATA, HeaderValue::from_static("usr_1"));
        headers.insert(ROLE_METADATA, HeaderValue::from_static("buyer"));
        signer.sign(&mut headers, PATH, true).unwrap();
        assert_eq!(signed(&headers), Claim { role: Some(Role::Buyer), user: User::One("usr_1"), ..own });
    }

    #[test]
    fn a_user_that_would_be_read_as_another_kind_is_not_signed_for() {
        let signer = Signer::new(Trust::Signed(keys()), Process::Gateway.into());
        for user in ["", "*", "usr_1.x"] {
            let mut headers = HeaderMap::new();
            headers.insert(USER_METADATA, HeaderValue::from_str(user).unwrap());
            headers.insert(ROLE_METADATA, HeaderValue::from_static("buyer"));
            assert!(signer.sign(&mut headers, PATH, false).is_err(), "{user:?}");
        }
    }

    #[test]
    fn a_mesh_that_believes_everybody_says_it_in_plain() {
        let signer = Signer::new(Trust::Insecure, Process::Gateway.into());
        let mut headers = HeaderMap::new();
        signer.sign(&mut headers, PATH, false).unwrap();
        assert!(headers.is_empty());
        signer.sign(&mut headers, PATH, true).unwrap();
        assert_eq!(headers[ROLE_METADATA], "service");
    }
}
