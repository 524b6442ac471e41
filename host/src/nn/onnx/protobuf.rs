//! Protobuf as it is on the wire, field by field.
//!
//! Allocates nothing: what it gives are parts of what it reads. The encoding is
//! that of <https://protobuf.dev/programming-guides/encoding/>.

/// Bytes of the longest varint.
const VARINT_BYTES_MAX: usize = 10;

/// Bytes that are no protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no ONNX file, or a part of one; export it again")]
pub struct Malformed;

/// The fields of a message that are left.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(&'a [u8]);

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    /// Of eight bytes or four.
    Fixed(&'a [u8]),
    /// A text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The number of the next field and what it holds.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => Value::Fixed(self.take(8)?),
            2 => {
                let length = varint(&mut self.0)?;
                Value::Bytes(self.take(usize::try_from(length).map_err(|_| Malformed)?)?)
            }
            5 => Value::Fixed(self.take(4)?),
            // Groups, which no file of today has.
            _ => return Err(Malformed),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed(_) => Err(Malformed),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub(super) fn integer(self) -> Result<i64, Malformed> {
        match self {
            Self::Varint(number) => Ok(number.cast_signed()),
            Self::Bytes(_) | Self::Fixed(_) => Err(Malformed),
        }
    }

    /// Gives each number of a repeated field, packed or not.
    pub(super) fn integers(self, mut each: impl FnMut(i64)) -> Result<(), Malformed> {
        match self {
            Self::Varint(number) => each(number.cast_signed()),
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    each(varint(&mut packed)?.cast_signed());
                }
            }
            Self::Fixed(_) => return Err(Malformed),
        }
        Ok(())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0_u64;
    for place in 0..VARINT_BYTES_MAX {
        let (byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The last byte has one bit to give.
        if place == VARINT_BYTES_MAX - 1 && bits > 1 {
            return Err(Malformed);
        }
        number |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>, Malformed> {
        let mut fields = Fields::of(bytes);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn fields_of_every_wire_type_are_read() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 1, 2, 3, 4];
        let expected =
            [(1, Value::Varint(150)), (2, Value::Bytes(b"hi")), (3, Value::Fixed(&[1, 2, 3, 4]))];
        assert_eq!(all(&bytes).unwrap(), expected);
        let eight = [0x09, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(all(&eight).unwrap(), [(1, Value::Fixed(&[1, 2, 3, 4, 5, 6, 7, 8]))]);
        let minus_one = [0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        let (_, value) = all(&minus_one).unwrap()[0];
        assert_eq!(value.integer(), Ok(-1));
    }

    #[test]
    fn repeated_numbers_may_be_packed() {
        let of = |value: Value<'_>| {
            let mut numbers = Vec::new();
            value.integers(|number| numbers.push(number)).map(|()| numbers)
        };
        assert_eq!(of(Value::Bytes(&[1, 0x96, 1])), Ok(vec![1, 150]));
        assert_eq!(of(Value::Varint(7)), Ok(vec![7]));
        assert_eq!(of(Value::Bytes(&[0x80])), Err(Malformed));
    }

    #[test]
    fn what_ends_too_early_or_is_no_field_is_refused() {
        let too_long = [0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2];
        for bytes in [
            &[0x08][..],
            &[0x12, 5, b'x'],
            &[0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            &[0x0b],
            &[0x0d, 1],
            &too_long,
        ] {
            assert_eq!(all(bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
