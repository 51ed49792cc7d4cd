//! Refuses compressed requests: a few bytes could become many, and messages of the mesh are small. The answer names the
//! accepted encodings, as the protocol wants it, so that the caller can send the request again.

use http::{HeaderValue, Request, Response};
use stampede_status::{Problem, Reason};
use tonic::{Status, body::Body};

/// Encoding of the messages of a request.
const ENCODING: &str = "grpc-encoding";
/// Accepted encodings.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// Uncompressed: the only accepted encoding.
const IDENTITY: &str = "identity";

/// Returns the refusal of a compressed request; `None` for any other.
pub(crate) fn refusal(request: &Request<Body>) -> Option<Response<Body>> {
    let encoding = request.headers().get(ENCODING)?;
    if encoding == IDENTITY {
        return None;
    }
    let detail = "a compressed request is not read: send it with the grpc-encoding identity";
    let mut answer: Response<Body> = Status::from(Problem::new(Reason::NotImplemented, detail)).into_http();
    answer.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(IDENTITY));
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encoding: &str) -> Request<Body> {
        Request::builder().header(ENCODING, encoding).body(Body::empty()).unwrap()
    }

    #[test]
    fn what_is_compressed_is_refused_with_what_is_read() {
        assert!(refusal(&Request::new(Body::empty())).is_none());
        assert!(refusal(&encoded("identity")).is_none());
        for encoding in ["gzip", "deflate", "zstd", "made-up"] {
            let answer = refusal(&encoded(encoding)).unwrap();
            assert_eq!(answer.headers()["grpc-status"], "12", "12 is UNIMPLEMENTED");
            assert_eq!(answer.headers()[ACCEPT_ENCODING], "identity");
        }
    }
}
