//! Signs notices: the header `Stampede-Signature: t=<seconds>,v1=<HMAC-SHA256 in lower-case hex>`.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::Write;

/// The header that carries it.
pub(crate) const HEADER: &str = "stampede-signature";

/// Returns the value of the header for a body that is sent at this time, in seconds since 1970.
pub(crate) fn header(secret: &str, seconds: u64, body: &str) -> String {
    format!("t={seconds},v1={}", sign(secret, &format!("{seconds}.{body}")))
}

fn sign(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes every text");
        hex
    })
}
