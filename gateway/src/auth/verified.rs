//! Caches the claims of verified tokens, so that the next request of a buyer costs a hash and not another verification.
//!
//! Tokens are keyed by their hash; the token itself is not kept. Only immutable facts are cached: the caller checks
//! expiry and revocation each time.

use super::access_token::Claims;
use sha2::{Digest, Sha256};
use stampede_vocab::Timestamp;
use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Size of a generation. There are two: a token that was not used while one filled up is evicted.
const GENERATION: usize = 8_192;

/// Longer texts are not ours, and are not hashed.
const LONGEST_BYTES: usize = 1_024;

/// SHA-256 of a token.
type Hash = [u8; 32];

/// The claims of tokens that were verified before.
#[derive(Default)]
pub struct Verified {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Hash, Arc<Claims>>,
    old: HashMap<Hash, Arc<Claims>>,
}

impl Verified {
    /// Returns the claims of this token, if it was verified before and has not expired since; else those that `verify`
    /// returns.
    pub fn claims<E>(&self, token: &str, verify: impl FnOnce() -> Result<Claims, E>) -> Result<Arc<Claims>, E> {
        if token.len() > LONGEST_BYTES {
            return verify().map(Arc::new);
        }
        let hash = Hash::from(Sha256::digest(token.as_bytes()));
        let now_s = Timestamp::now().micros() / 1_000_000;
        if let Some(claims) = self.lock().find(&hash).filter(|claims| now_s < claims.exp) {
            return Ok(claims);
        }
        let claims = Arc::new(verify()?);
        self.lock().insert(hash, Arc::clone(&claims));
        Ok(claims)
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        // No holder of the lock can leave it half changed.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn find(&mut self, hash: &Hash) -> Option<Arc<Claims>> {
        if let Some(claims) = self.young.get(hash) {
            return Some(Arc::clone(claims));
        }
        let claims = self.old.remove(hash)?;
        self.insert(*hash, Arc::clone(&claims));
        Some(claims)
    }

    fn insert(&mut self, hash: Hash, claims: Arc<Claims>) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(hash, claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn claims(exp: i64) -> Claims {
        let text = |text: &str| text.to_owned();
        let family = Some(text("f1"));
        Claims { sub: text("usr_1"), role: text("buyer"), iat: 0, exp, iss: text("stampede"), jti: text("1"), family }
    }

    /// Returns whether the token had to be verified.
    fn is_verified_anew(verified: &Verified, token: &str, exp: i64) -> bool {
        let mut anew = false;
        let found: Result<_, Infallible> = verified.claims(token, || {
            anew = true;
            Ok(claims(exp))
        });
        assert_eq!(found.as_deref(), Ok(&claims(exp)));
        anew
    }

    #[test]
    fn a_token_is_verified_once_until_it_expires() {
        let verified = Verified::default();
        for (token, exp, anew) in [
            ("good", 4_000_000_000, true),
            ("good", 4_000_000_000, false),
            ("other", 4_000_000_000, true),
            ("expired", 1_000, true),
            ("expired", 1_000, true),
        ] {
            assert_eq!(is_verified_anew(&verified, token, exp), anew, "{token}");
        }
        let long = "x".repeat(LONGEST_BYTES + 1);
        assert!(is_verified_anew(&verified, &long, 4_000_000_000));
        assert!(is_verified_anew(&verified, &long, 4_000_000_000), "it is not kept");
    }

    #[test]
    fn what_was_refused_is_not_remembered() {
        let verified = Verified::default();
        assert_eq!(verified.claims("forged", || Err("no")), Err("no"));
        assert!(is_verified_anew(&verified, "forged", 4_000_000_000));
    }

    #[test]
    fn only_so_many_are_remembered_and_those_in_use_stay() {
        let verified = Verified::default();
        assert!(is_verified_anew(&verified, "in use", 4_000_000_000));
        for number in 0..3 * GENERATION {
            assert!(is_verified_anew(&verified, &number.to_string(), 4_000_000_000), "{number}");
            assert!(!is_verified_anew(&verified, "in use", 4_000_000_000), "{number}");
        }
        let kept = verified.lock();
        assert!(kept.young.len() + kept.old.len() <= 2 * GENERATION);
        drop(kept);
        assert!(is_verified_anew(&verified, "0", 4_000_000_000), "nobody asked for it");
    }
}
