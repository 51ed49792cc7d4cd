//! The signatures of notices: HMAC-SHA256 over a time and the bytes of the body, in the form of the header
//! `Stampede-Signature: t=1767225600,v1=5257a8...`.
//!
//! The time is signed too, against replay of a recorded notice.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use stampede_vocab::Timestamp;
use std::{sync::Arc, time::Duration};

/// Largest difference between the time of a signature and the clock.
const TOLERANCE: Duration = Duration::from_secs(300);
const MAX_HEADER_BYTES: usize = 1_024;
/// Most digits of the time, more than needed.
const MAX_TIME_DIGITS: usize = 12;
/// Most signatures in one header: a provider that changes its secret signs with both.
const MAX_SIGNATURES: usize = 4;

/// The signature does not fit, or is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSignature;

/// The secrets that notices may be signed with. Cheap to clone.
#[derive(Clone)]
pub struct WebhookSecrets(Arc<[String]>);

impl WebhookSecrets {
    /// Accepts notices signed with `secret`, or with `other` during a rotation.
    pub fn new(secret: &str, other: Option<&str>) -> Self {
        Self([secret].into_iter().chain(other).map(str::to_owned).collect())
    }

    /// Verifies that a signature in the header is of this body, by one of the secrets, and that its time is within the
    /// tolerance.
    pub fn verify(&self, body: &str, header: &str, now: Timestamp) -> Result<(), BadSignature> {
        let Header { time, signatures } = Header::parse(header).ok_or(BadSignature)?;
        let matches = |secret: &String| {
            // Computed once for all signatures, since anybody may send a long body with many of them.
            let mac = mac_of(secret, time, body);
            signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
        };
        if is_within_tolerance(time, now) && self.0.iter().any(matches) { Ok(()) } else { Err(BadSignature) }
    }
}

struct Header<'h> {
    /// Seconds since 1970, as they were signed.
    time: &'h str,
    signatures: Vec<Vec<u8>>,
}

impl<'h> Header<'h> {
    /// Parses a header. Ignores parts other than `t` and `v1`, which a provider may add.
    fn parse(header: &'h str) -> Option<Self> {
        if header.len() > MAX_HEADER_BYTES {
            return None;
        }
        let (mut time, mut signatures) = (None, Vec::new());
        for part in header.split(',') {
            match part.trim().split_once('=')? {
                ("t", _) if time.is_some() => return None,
                ("t", seconds) => time = Some(seconds),
                ("v1", _) if signatures.len() == MAX_SIGNATURES => return None,
                ("v1", digits) => signatures.push(hex(digits)?),
                _ => {}
            }
        }
        Some(Self { time: time?, signatures })
    }
}

fn is_within_tolerance(time: &str, now: Timestamp) -> bool {
    let is_number = time.len() <= MAX_TIME_DIGITS && time.bytes().all(|byte| byte.is_ascii_digit());
    let Some(seconds) = is_number.then(|| time.parse::<i64>().ok()).flatten() else { return false };
    let signed_at = Timestamp::from_micros(seconds * 1_000_000);
    now.since(signed_at) <= TOLERANCE && signed_at.since(now) <= TOLERANCE
}

/// Returns the MAC that signatures are compared with, in constant time, so that none can be guessed byte by byte.
fn mac_of(secret: &str, time: &str, body: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    for part in [time, ".", body] {
        mac.update(part.as_bytes());
    }
    mac
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.bytes().map(digit).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const SECRET: &str = "a secret between merchant and provider";
    const BODY: &str = r#"{"type":"charge.captured"}"#;
    const SECONDS: i64 = 1_767_225_600;

    pub fn now() -> Timestamp {
        Timestamp::from_micros(SECONDS * 1_000_000)
    }

    /// The header of a body that is signed now.
    pub fn sign(body: &str) -> String {
        format!("t={SECONDS},v1={}", mac(SECRET, &format!("{SECONDS}.{body}")))
    }

    fn mac(secret: &str, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn secrets() -> WebhookSecrets {
        WebhookSecrets::new(SECRET, None)
    }

    #[test]
    fn the_signature_is_the_well_known_one() {
        // RFC 4231, test case 2, whose text stands for time and body.
        let signature = hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843").unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        mac.update(b"what do ya want for nothing?");
        assert!(mac.verify_slice(&signature).is_ok());
    }

    #[test]
    fn twelve_ways_to_tamper_are_refused() {
        let good = sign(BODY);
        let (time, signature) = good.split_once(",v1=").unwrap();
        let later = SECONDS + 1;
        let table = [
            ("no header", BODY, String::new()),
            ("no signature", BODY, time.to_owned()),
            ("no time", BODY, format!("v1={signature}")),
            ("another body", "{}", good.clone()),
            ("a blank more", "{\"type\":\"charge.captured\"} ", good.clone()),
            ("another time", BODY, good.replace(&SECONDS.to_string(), &later.to_string())),
            ("two times", BODY, format!("t={later},{good}")),
            ("the body alone is signed", BODY, format!("{time},v1={}", mac(SECRET, BODY))),
            ("another secret", BODY, format!("{time},v1={}", mac("guessed", &format!("{SECONDS}.{BODY}")))),
            ("upper case", BODY, format!("{time},v1={}", signature.to_uppercase())),
            ("cut short", BODY, format!("{time},v1={}", &signature[..32])),
            ("another scheme", BODY, format!("{time},v0={signature}")),
            ("bytes too many", BODY, format!("{good}00")),
            ("too long", BODY, format!("{good},x={}", "0".repeat(MAX_HEADER_BYTES))),
            ("too many signatures", BODY, format!("{time}{}", ",v1=00".repeat(MAX_SIGNATURES + 1))),
        ];
        for (way, body, header) in table {
            assert_eq!(secrets().verify(body, &header, now()), Err(BadSignature), "{way}");
        }
        assert_eq!(secrets().verify(BODY, &good, now()), Ok(()));
        assert_eq!(secrets().verify(BODY, &format!("{time}, v0=x, v1=00, v1={signature}"), now()), Ok(()));
    }

    #[test]
    fn a_signature_is_good_for_300_s_around_its_time() {
        let at = |seconds: i64| Timestamp::from_micros((SECONDS + seconds) * 1_000_000);
        for seconds in [-300, 0, 300] {
            assert_eq!(secrets().verify(BODY, &sign(BODY), at(seconds)), Ok(()), "{seconds} s");
        }
        for seconds in [-301, 301, 86_400] {
            assert_eq!(secrets().verify(BODY, &sign(BODY), at(seconds)), Err(BadSignature), "{seconds} s");
        }
        for odd in ["", "-1", "1e9", "9999999999999", "٣"] {
            let header = format!("t={odd},v1={}", mac(SECRET, &format!("{odd}.{BODY}")));
            assert_eq!(secrets().verify(BODY, &header, now()), Err(BadSignature), "{odd}");
        }
    }

    #[test]
    fn both_secrets_count_while_one_takes_the_place_of_the_other() {
        let rotated = WebhookSecrets::new("the next secret", Some(SECRET));
        assert_eq!(rotated.verify(BODY, &sign(BODY), now()), Ok(()));
        let next = format!("t={SECONDS},v1={}", mac("the next secret", &format!("{SECONDS}.{BODY}")));
        assert_eq!(rotated.verify(BODY, &next, now()), Ok(()));
        assert_eq!(secrets().verify(BODY, &next, now()), Err(BadSignature));
    }
}
