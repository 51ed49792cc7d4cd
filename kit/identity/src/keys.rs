//! The keys of a mesh: the first signs, all verify, so that keys can be rotated while the mesh runs.

use crate::{CALL_LIFE_S, Claim, Scope, User, claim::Unsigned, hex};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// Shortest key in bytes: as long as the hash.
const SHORTEST: usize = 32;
/// Most keys: a next, a present and a previous one, and one spare. Each costs a forged entry a hash.
const MAX_KEYS: usize = 4;
/// Longest remaining validity of an entry for one method, in seconds: twice its lifetime, for a clock that is ahead.
const LONGEST_CALL_S: i64 = 2 * CALL_LIFE_S;
/// Domain separation: the same secret may make other codes elsewhere.
const DOMAIN: &[u8] = b"stampede mesh identity\0";

/// An invalid secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// There is no key, or there are too many.
    #[error("the mesh secret has {0} keys, one a line, and needs 1 to 4")]
    Count(usize),
    /// A key is too short to be safe.
    #[error("a key of the mesh secret has {0} bytes and needs at least 32: make one with `openssl rand -hex 32`")]
    TooShort(usize),
}

/// A user id that cannot be signed, since its text would parse as another user or as more than one part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a user")]
pub struct NoUserId(String);

/// Why an entry is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is malformed.
    #[error("it cannot be read")]
    Unreadable,
    /// No key has signed it, or it was signed for another method.
    #[error("its signature does not hold for this method")]
    Forged,
    /// It has expired.
    #[error("it has expired")]
    Expired,
    /// It is for one method, but valid for longer than any process signs.
    #[error("it holds for longer than one for one method may")]
    TooLong,
}

/// The keys; the first one signs.
#[derive(Clone)]
pub struct Keys(Vec<Hmac<Sha256>>);

impl Keys {
    /// Parses a secret of one key a line. Skips empty lines.
    pub fn parse(secret: &str) -> Result<Self, KeysError> {
        let lines: Vec<&str> = secret.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() || lines.len() > MAX_KEYS {
            return Err(KeysError::Count(lines.len()));
        }
        if let Some(short) = lines.iter().find(|line| line.len() < SHORTEST) {
            return Err(KeysError::TooShort(short.len()));
        }
        let keyed =
            |line: &&str| Hmac::<Sha256>::new_from_slice(line.as_bytes()).expect("HMAC takes a key of any length");
        Ok(Self(lines.iter().map(keyed).collect()))
    }

    /// Signs a claim until a time, in seconds since the epoch. Fails for a user id that would not parse back: one that
    /// is empty, is `*`, or has a dot.
    pub fn sign(&self, claim: Claim<'_>, scope: Scope<'_>, until_s: i64) -> Result<String, NoUserId> {
        if let User::One(id) = claim.user
            && !claim.user.is_read_as_written()
        {
            return Err(NoUserId(id.to_owned()));
        }
        let key = self.0.first().expect("there is a key");
        let path = match scope {
            Scope::Method(path) => Some(path),
            Scope::All => None,
        };
        let mut entry = Unsigned { claim, until_s, all_methods: path.is_none() }.text();
        let code = code(key, &entry, path).finalize().into_bytes();
        entry.push('.');
        hex::push(&mut entry, &code);
        Ok(entry)
    }

    /// Verifies an entry for a call of the method with this path, at this time in seconds since the epoch. Returns its
    /// claim.
    pub fn verify<'e>(&self, entry: &'e str, path: &str, now_s: i64) -> Result<Claim<'e>, Refusal> {
        let (text, signature) = entry.rsplit_once('.').ok_or(Refusal::Unreadable)?;
        let unsigned = Unsigned::parse(text).ok_or(Refusal::Unreadable)?;
        let signature = hex::read(signature).ok_or(Refusal::Unreadable)?;
        let path = (!unsigned.all_methods).then_some(path);
        // Compared in constant time.
        if !self.0.iter().any(|key| code(key, text, path).verify_slice(&signature).is_ok()) {
            return Err(Refusal::Forged);
        }
        if unsigned.until_s < now_s {
            return Err(Refusal::Expired);
        }
        if !unsigned.all_methods && unsigned.until_s > now_s.saturating_add(LONGEST_CALL_S) {
            return Err(Refusal::TooLong);
        }
        Ok(unsigned.claim)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

/// The text says whether a path follows, so no entry for one method equals one for all.
fn code(key: &Hmac<Sha256>, text: &str, path: Option<&str>) -> Hmac<Sha256> {
    let mut code = key.clone();
    code.update(DOMAIN);
    code.update(text.as_bytes());
    if let Some(path) = path {
        code.update(b"\n");
        code.update(path.as_bytes());
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Caller, Role};
    use stampede_vocab::Service;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "another secret of thirty-two bytes";
    const PATH: &str = "/stampede.order.v1.OrderService/GetOrder";

    fn buyer(user: &str) -> Claim<'_> {
        Claim { caller: Caller::from(stampede_vocab::Process::Gateway), role: Some(Role::Buyer), user: User::One(user) }
    }

    fn keys(secret: &str) -> Keys {
        Keys::parse(secret).unwrap()
    }

    #[test]
    fn every_claim_comes_back_as_it_was_signed() {
        let keys = keys(ONE);
        let service = Claim { caller: Service::Order.into(), role: Some(Role::Service), user: User::Nobody };
        let anybody = Claim { user: User::Any, ..buyer("") };
        let anonymous = Claim { role: None, user: User::Nobody, ..buyer("") };
        let operator = Claim { caller: Caller::Operator, role: Some(Role::Operator), user: User::One("usr_2") };
        for claim in [buyer("usr_1"), service, anybody, anonymous, operator] {
            for scope in [Scope::Method(PATH), Scope::All] {
                assert_eq!(keys.verify(&keys.sign(claim, scope, 100).unwrap(), PATH, 100), Ok(claim));
            }
        }
    }

    #[test]
    fn an_entry_holds_for_its_method_and_its_time() {
        let keys = keys(ONE);
        let entry = keys.sign(buyer("usr_1"), Scope::Method(PATH), 100).unwrap();
        assert_eq!(keys.verify(&entry, "/stampede.order.v1.OrderService/PayOrder", 50), Err(Refusal::Forged));
        assert_eq!(keys.verify(&entry, PATH, 101), Err(Refusal::Expired));
        let of_all = keys.sign(buyer("usr_1"), Scope::All, 100).unwrap();
        assert_eq!(keys.verify(&of_all, "/any.Service/Method", 50), Ok(buyer("usr_1")));
        assert_eq!(keys.verify(&entry.replace("method", "all"), PATH, 50), Err(Refusal::Forged));
    }

    #[test]
    fn an_entry_for_one_method_is_for_a_short_time() {
        let keys = keys(ONE);
        let verified = |scope: Scope<'_>, until_s: i64| {
            let entry = keys.sign(buyer("usr_1"), scope, until_s).unwrap();
            keys.verify(&entry, PATH, 100).map(|_| ())
        };
        assert!(verified(Scope::Method(PATH), 100 + LONGEST_CALL_S).is_ok());
        assert_eq!(verified(Scope::Method(PATH), 101 + LONGEST_CALL_S), Err(Refusal::TooLong));
        assert_eq!(verified(Scope::Method(PATH), i64::MAX), Err(Refusal::TooLong));
        assert!(verified(Scope::All, 101 + LONGEST_CALL_S).is_ok());
    }

    #[test]
    fn what_is_no_id_is_not_signed() {
        let keys = keys(ONE);
        for id in ["", "*", "usr.1", ".", "usr_1.900.all"] {
            assert_eq!(keys.sign(buyer(id), Scope::All, 100), Err(NoUserId(id.to_owned())), "{id:?}");
        }
        for id in ["usr_1", "**", "anonymous"] {
            let entry = keys.sign(buyer(id), Scope::All, 100).unwrap();
            assert_eq!(keys.verify(&entry, PATH, 100), Ok(buyer(id)), "{id:?}");
        }
    }

    #[test]
    fn what_somebody_changes_is_not_believed() {
        let keys = keys(ONE);
        let entry = keys.sign(buyer("usr_1"), Scope::Method(PATH), 100).unwrap();
        for (from, to) in [
            ("usr_1", "usr_2"),
            ("usr_1", "*"),
            ("buyer", "operator"),
            ("gateway", "order"),
            (".100.", ".900."),
            (".100.", ".100.x."),
            ("1.gateway", "2.gateway"),
        ] {
            assert!(keys.verify(&entry.replacen(from, to, 1), PATH, 50).is_err(), "{from} as {to}");
        }
        for text in ["", ".", "1.gateway.buyer.usr_1.100.method", "a.b.c.d.e.f.g", &entry[..entry.len() - 1]] {
            assert_eq!(keys.verify(text, PATH, 50), Err(Refusal::Unreadable), "{text}");
        }
    }

    #[test]
    fn a_key_is_changed_while_both_are_taken() {
        let signed = |secret: &str| keys(secret).sign(buyer("usr_1"), Scope::Method(PATH), 100).unwrap();
        let (by_old, by_both) = (signed(ONE), signed(&format!("{OTHER}\n\n{ONE}\n")));
        assert!(keys(&format!("{OTHER}\n{ONE}")).verify(&by_old, PATH, 50).is_ok());
        assert!(keys(OTHER).verify(&by_both, PATH, 50).is_ok(), "the first signs");
        assert_eq!(keys(OTHER).verify(&by_old, PATH, 50), Err(Refusal::Forged));
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_no_key_is_shown() {
        assert_eq!(Keys::parse(" \n").unwrap_err(), KeysError::Count(0));
        assert_eq!(Keys::parse(&[ONE; 5].join("\n")).unwrap_err(), KeysError::Count(5));
        assert_eq!(Keys::parse(&format!("{ONE}\nshort")).unwrap_err(), KeysError::TooShort(5));
        assert_eq!(format!("{:?}", keys(ONE)), "Keys(1)");
    }
}
