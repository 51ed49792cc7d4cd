//! Compressed messages: gzip is supported, and another encoding is refused with a list of those that are.

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName};
use stampede_status::{Problem, Reason};
use std::io::Read;

/// The supported encodings, as headers list them.
pub const READ: &str = "identity,gzip";

/// The compression of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not compressed.
    Identity,
    Gzip,
}

impl Encoding {
    /// Reads this header. Refuses an encoding that is not supported.
    pub fn of(headers: &HeaderMap, name: HeaderName) -> Result<Self, Problem> {
        match headers.get(name).map(|value| value.to_str().unwrap_or("?")) {
            None | Some("identity") => Ok(Self::Identity),
            Some("gzip") => Ok(Self::Gzip),
            Some(_) => Err(Problem::new(Reason::NotImplemented, format!("the encodings that are read are {READ}"))
                .meta("accept_encoding", READ)),
        }
    }

    /// Decompresses a message, which may have `limit` bytes then.
    pub fn decode(self, message: Bytes, limit: usize) -> Result<Bytes, Problem> {
        match self {
            Self::Identity => Ok(message),
            // By the rules of Connect an empty message is not compressed, whatever the headers say.
            Self::Gzip if message.is_empty() => Ok(message),
            Self::Gzip => gunzip(&message, limit),
        }
    }
}

fn gunzip(message: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut plain = Vec::new();
    let read = GzDecoder::new(message).take(most).read_to_end(&mut plain);
    read.map_err(|_| Problem::new(Reason::MalformedMessage, "the message is not in gzip as it says"))?;
    if plain.len() > limit {
        let detail = format!("the message may have {limit} bytes, once it is no longer compressed");
        return Err(Problem::new(Reason::BodyTooLarge, detail).meta("limit_bytes", limit));
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn a_message_is_decompressed_up_to_the_limit() {
        let plain = vec![7; 1_000];
        assert_eq!(Encoding::Gzip.decode(gzip(&plain), 1_000).unwrap(), plain);
        let bomb = Encoding::Gzip.decode(gzip(&vec![0; 1 << 20]), 1_000).unwrap_err();
        assert_eq!(bomb.reason(), Reason::BodyTooLarge);
        let nonsense = Encoding::Gzip.decode(Bytes::from_static(b"nonsense"), 1_000).unwrap_err();
        assert_eq!(nonsense.reason(), Reason::MalformedMessage);
        assert_eq!(Encoding::Gzip.decode(Bytes::new(), 1_000).unwrap(), "");
    }

    #[test]
    fn an_encoding_that_is_not_read_is_refused_with_those_that_are() {
        let name = HeaderName::from_static("grpc-encoding");
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(name.clone(), http::HeaderValue::from_static(value))]);
            Encoding::of(&headers, name.clone())
        };
        assert_eq!(of("gzip"), Ok(Encoding::Gzip));
        assert_eq!(of("identity"), Ok(Encoding::Identity));
        let refused = of("br").unwrap_err();
        assert_eq!((refused.reason(), refused.metadata()["accept_encoding"].as_str()), (Reason::NotImplemented, READ));
    }
}
