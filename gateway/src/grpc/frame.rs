//! Frames of gRPC and gRPC-Web: a byte of flags, four bytes of length, and so many bytes of a message.

use super::encoding::Encoding;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use stampede_status::{Problem, Reason};

/// Bytes before each message.
const HEAD_BYTES: usize = 5;
/// Flag of a message that is compressed.
const COMPRESSED: u8 = 1;
/// Flag of the frame of gRPC-Web that has the trailers.
const TRAILERS: u8 = 0x80;
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Returns the one message of a body, of at most `limit` bytes.
pub fn only_message(headers: &HeaderMap, body: &Bytes, limit: usize) -> Result<Bytes, Problem> {
    let encoding = Encoding::of(headers, GRPC_ENCODING)?;
    let Some(&[flags, a, b, c, d]) = body.get(..HEAD_BYTES) else {
        return Err(malformed("the call has no message"));
    };
    let message = body.slice(HEAD_BYTES..);
    if usize::try_from(u32::from_be_bytes([a, b, c, d])) != Ok(message.len()) {
        return Err(malformed("the call has not exactly one message"));
    }
    match (flags, encoding) {
        (0, _) => Ok(message),
        (COMPRESSED, Encoding::Gzip) => encoding.decode(message, limit),
        (COMPRESSED, Encoding::Identity) => Err(malformed("the message is compressed, and nothing says how")),
        _ => Err(malformed("the message has unknown flags")),
    }
}

/// Returns the frame of a message.
pub fn of_message(message: &[u8]) -> Bytes {
    frame(0, message)
}

/// Returns the frame of gRPC-Web that ends an answer.
pub fn of_trailers(trailers: &HeaderMap) -> Bytes {
    let mut text = BytesMut::with_capacity(128);
    for (name, value) in trailers {
        text.put_slice(name.as_str().as_bytes());
        text.put_u8(b':');
        text.put_slice(value.as_bytes());
        text.put_slice(b"\r\n");
    }
    frame(TRAILERS, &text)
}

fn frame(flags: u8, content: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + content.len());
    frame.put_u8(flags);
    frame.put_u32(u32::try_from(content.len()).expect("an answer has some MiB at most"));
    frame.put_slice(content);
    frame.freeze()
}

/// Encodes frames in the text form of gRPC-Web.
pub fn to_text(frames: &[u8]) -> Bytes {
    STANDARD.encode(frames).into()
}

/// Decodes the text form. It may have several parts, each padded by itself.
pub fn of_text(text: &[u8]) -> Result<Bytes, Problem> {
    let mut frames = BytesMut::with_capacity(text.len() / 4 * 3);
    let mut rest = text;
    while !rest.is_empty() {
        // A part ends with the group of four that has padding.
        let padded = rest.iter().position(|byte| *byte == b'=').map_or(rest.len(), |place| (place / 4 + 1) * 4);
        let (part, more) = rest.split_at(padded.min(rest.len()));
        let part = STANDARD.decode(part).map_err(|_| malformed("the body is not in base64 as it says"))?;
        frames.put_slice(&part);
        rest = more;
    }
    Ok(frames.freeze())
}

fn malformed(detail: &str) -> Problem {
    Problem::new(Reason::MalformedMessage, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(encoding: Option<&'static str>, body: &[u8]) -> Result<Bytes, Reason> {
        let encoding = encoding.map(|encoding| (GRPC_ENCODING, HeaderValue::from_static(encoding)));
        let headers: HeaderMap = encoding.into_iter().collect();
        only_message(&headers, &Bytes::copy_from_slice(body), 100).map_err(|problem| problem.reason())
    }

    #[test]
    fn a_body_has_exactly_one_message() {
        assert_eq!(read(None, &[0, 0, 0, 0, 2, 7, 8]), Ok(Bytes::from_static(&[7, 8])));
        assert_eq!(read(Some("gzip"), &[0, 0, 0, 0, 0]), Ok(Bytes::new()));
        for body in
            [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 2, 7], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0, 0xff, 0xff, 0xff, 0xff]]
        {
            assert_eq!(read(None, body), Err(Reason::MalformedMessage), "{body:?}");
        }
        assert_eq!(read(None, &[1, 0, 0, 0, 0]), Err(Reason::MalformedMessage), "nothing says how it is compressed");
        assert_eq!(read(None, &[0x80, 0, 0, 0, 0]), Err(Reason::MalformedMessage), "a caller sends no trailers");
        assert_eq!(read(Some("br"), &[0, 0, 0, 0, 0]), Err(Reason::NotImplemented));
    }

    #[test]
    fn a_text_is_read_in_as_many_parts_as_it_has() {
        let message = of_message(b"hello");
        assert_eq!(of_text(&to_text(&message)).unwrap(), message);
        let two = [to_text(&message[..4]), to_text(&message[4..])].concat();
        assert_eq!(of_text(&two).unwrap(), message);
        for text in [&b"A"[..], b"A===", b"AAAA=", b"????"] {
            assert!(of_text(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn trailers_are_lines_of_a_frame_of_their_own() {
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        assert_eq!(of_trailers(&trailers), &b"\x80\0\0\0\x0fgrpc-status:0\r\n"[..]);
    }
}
