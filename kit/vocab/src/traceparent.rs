//! A position in a trace: the header `traceparent` of W3C Trace Context.

use std::fmt;

/// Length of the fields that every version begins with.
const LEN: usize = 55;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The trace that work is part of, and the span that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl Traceparent {
    /// Returns the start of a new trace, which is not sampled.
    pub fn random() -> Self {
        // Zero is invalid.
        Self { trace_id: rand::random::<u128>().max(1), span_id: rand::random::<u64>().max(1), flags: 0 }
    }

    /// Parses the header; `None` if it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let (known, more) = text.split_at_checked(LEN)?;
        let [version, trace_id, span_id, flags] = fields(known)?;
        // Later versions may have more fields, after another dash.
        let is_whole = more.is_empty() || version != "00" && more.starts_with('-');
        let read = Self {
            trace_id: u128::from_str_radix(hex(trace_id, 32)?, 16).ok()?,
            span_id: u64::from_str_radix(hex(span_id, 16)?, 16).ok()?,
            flags: u8::from_str_radix(hex(flags, 2)?, 16).ok()?,
        };
        let names_a_span = hex(version, 2)? != "ff" && read.trace_id != 0 && read.span_id != 0;
        (is_whole && names_a_span).then_some(read)
    }

    /// Returns the trace id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        String::from_utf8(digits::<32>(self.trace_id).into()).expect("digits are ASCII")
    }
}

/// In the format of the header.
impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text: [u8; LEN] = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&digits::<32>(self.trace_id));
        text[36..52].copy_from_slice(&digits::<16>(self.span_id.into()));
        text[53..].copy_from_slice(&digits::<2>(self.flags.into()));
        f.write_str(std::str::from_utf8(&text).expect("digits and dashes are ASCII"))
    }
}

/// Returns the lowest hexadecimal digits of a number. Every call of the mesh has 50 of them, so no formatter is used.
fn digits<const N: usize>(number: u128) -> [u8; N] {
    std::array::from_fn(|at| DIGITS[(number >> (4 * (N - 1 - at))) as usize & 0xf])
}

fn fields(text: &str) -> Option<[&str; 4]> {
    let mut fields = text.split('-');
    let all = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    fields.next().is_none().then_some(all)
}

/// Returns the text if it has so many lower-case hexadecimal digits.
fn hex(text: &str, len: usize) -> Option<&str> {
    (text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_reads_back() {
        let read = Traceparent::parse(HEADER).unwrap();
        assert_eq!((read.to_string().as_str(), read.trace_id().as_str()), (HEADER, &HEADER[3..35]));
        let newer = HEADER.replacen("00", "01", 1) + "-more";
        assert_eq!(Traceparent::parse(&newer), Some(read), "a newer version begins like ours");
    }

    #[test]
    fn what_names_no_trace_is_none() {
        let long = format!("{HEADER}-more");
        let (no_trace, no_span) = (
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        );
        let (version, upper) = (HEADER.replacen("00", "ff", 1), HEADER.to_uppercase());
        let sign = HEADER.replacen("-b7", "-+7", 1);
        for text in ["", "00-xyz", &HEADER[1..], &long, no_trace, no_span, &version, &upper, &sign, &"é".repeat(40)] {
            assert_eq!(Traceparent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_new_trace_is_one_of_its_own_and_not_sampled() {
        let new = Traceparent::random();
        assert_eq!(Traceparent::parse(&new.to_string()), Some(new));
        assert_ne!(Traceparent::random().trace_id(), new.trace_id());
        assert!(new.to_string().ends_with("-00"));
    }
}
