//! The fields of an encoded message, one after the other, as far as answers have them.

/// The value of a field, before its type is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw<'b> {
    /// A number, a boolean or an enum.
    Varint(u64),
    /// A text, a message or packed numbers.
    Bytes(&'b [u8]),
    /// Four or eight bytes, which are not read here.
    Fixed,
}

/// Reads the next field, with its number; `None` if it cannot be read.
pub fn next<'b>(rest: &mut &'b [u8]) -> Option<(u32, Raw<'b>)> {
    // A larger one is refused by every reader, also for an unknown field.
    let tag = u32::try_from(varint(rest)?).ok()?;
    let raw = match tag & 7 {
        0 => Raw::Varint(varint(rest)?),
        1 => take(rest, 8).map(|_| Raw::Fixed)?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Raw::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Raw::Fixed)?,
        _ => return None,
    };
    let number = tag >> 3;
    (number > 0).then_some((number, raw))
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, more) = rest.split_at_checked(count)?;
    *rest = more;
    Some(taken)
}

/// Reads seven bits a byte, the lowest first; the highest bit says that there is more.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..10 {
        let byte = take(rest, 1)?[0];
        if place == 9 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut bytes: &[u8]) -> Option<Vec<(u32, Raw<'_>)>> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            fields.push(next(&mut bytes)?);
        }
        Some(fields)
    }

    #[test]
    fn fields_are_taken_off_one_by_one() {
        assert_eq!(all(&[0x08, 0xac, 0x02, 0x12, 1, b'a']), Some(vec![(1, Raw::Varint(300)), (2, Raw::Bytes(b"a"))]));
        assert_eq!(
            all(&[0x0d, 1, 2, 3, 4, 0x09, 1, 2, 3, 4, 5, 6, 7, 8]),
            Some(vec![(1, Raw::Fixed), (1, Raw::Fixed)])
        );
        let minus_one = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(all(&minus_one), Some(vec![(1, Raw::Varint(u64::MAX))]));
    }

    #[test]
    fn what_breaks_off_or_is_no_field_is_not_read() {
        let endless = [0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        let too_large = [0x88, 0x80, 0x80, 0x80, 0x10, 0];
        let no_fields: [&[u8]; 9] =
            [&[0x08], &[0x12, 2, 0], &[0x0d, 1], &[0x09, 1], &[0x0b], &[0x00, 0], &endless, &too_large, &[0xff; 4]];
        for bytes in no_fields {
            assert_eq!(all(bytes), None, "{bytes:?}");
        }
    }
}
