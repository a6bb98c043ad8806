//! How an event's JSON lies in the store: its ids as bytes in front, so that what is left of two events of a kind is
//! nearly the same text, which the store's compression takes away.
//!
//! ```text
//! 00  JSON as it is
//! 01  count  count × 16 bytes  count × 8 bytes   text          (a count each: of 16-byte and of 8-byte values)
//!
//! in the text: 01 n  value n of 16 bytes as a UUID         {"requestId":"<01><10>","spanId":"<03><10>", …
//!              02 n  value n of 16 bytes as 32 hex digits
//!              03 n  value n of 8 bytes as 16 hex digits   n is counted from FIRST
//! ```
//!
//! Valid JSON has no byte below 32 but white space, and text with those marks is kept as it is.

/// Values of one kind at most: a list of ids is text for the compression like any other.
const MAX_VALUES: usize = 64;

/// Numbers of values begin here: above the marks, and at no letter that means something to a reader of a dump.
const FIRST: u8 = 128;

const PLAIN: u8 = 0;
const PACKED: u8 = 1;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

const UUID: u8 = 1;
const HEX_32: u8 = 2;
const HEX_16: u8 = 3;

/// What a byte is to [`pack`]: a lower-case hex digit, a mark, or neither.
const KIND: [u8; 256] = {
    let mut kind = [OTHER; 256];
    let mut at = 0;
    while at < DIGITS.len() {
        kind[DIGITS[at] as usize] = DIGIT;
        at += 1;
    }
    (kind[UUID as usize], kind[HEX_32 as usize], kind[HEX_16 as usize]) = (MARK, MARK, MARK);
    kind
};
const OTHER: u8 = 0;
const DIGIT: u8 = 1;
const MARK: u8 = 2;

/// The ids of a text, each once.
#[derive(Default)]
struct Values {
    long: Vec<[u8; 16]>,
    short: Vec<[u8; 8]>,
}

/// Makes the stored form of a JSON text.
pub(super) fn pack(json: &str) -> Vec<u8> {
    let bytes = json.as_bytes();
    let mut values = Values::default();
    let mut text = Vec::with_capacity(bytes.len());
    // what is copied as it is begins at `from`; every event's bytes pass here, so one look in a table says what each is
    let mut from = 0;
    let mut at = 0;
    while let Some(skipped) = bytes[at..].iter().position(|byte| KIND[usize::from(*byte)] != OTHER) {
        let run = at + skipped;
        if KIND[usize::from(bytes[run])] == MARK {
            return plain(bytes);
        }
        let after = bytes[run..].iter().position(|byte| KIND[usize::from(*byte)] != DIGIT);
        at = after.map_or(bytes.len(), |digits| run + digits);
        let kind = match at - run {
            8 if bytes.get(at) == Some(&b'-') => UUID,
            32 => HEX_32,
            16 => HEX_16,
            _ => continue,
        };
        if let Some((number, end)) = values.take(kind, &bytes[run..]) {
            text.extend_from_slice(&bytes[from..run]);
            text.extend_from_slice(&[kind, number]);
            at = run + end;
            from = at;
        }
    }
    if values.long.is_empty() && values.short.is_empty() {
        return plain(bytes);
    }
    text.extend_from_slice(&bytes[from..]);
    let mut packed = Vec::with_capacity(3 + 16 * values.long.len() + 8 * values.short.len() + text.len());
    packed.extend_from_slice(&[PACKED, values.long.len() as u8, values.short.len() as u8]);
    values.long.iter().for_each(|value| packed.extend_from_slice(value));
    values.short.iter().for_each(|value| packed.extend_from_slice(value));
    packed.extend_from_slice(&text);
    packed
}

/// The JSON text of a stored form; `None` where it is damaged.
pub(super) fn unpack(packed: &[u8]) -> Option<String> {
    let (kind, rest) = packed.split_first()?;
    match *kind {
        PLAIN => return Some(std::str::from_utf8(rest).ok()?.to_owned()),
        PACKED => {}
        _ => return None,
    }
    let ([long, short], rest) = rest.split_first_chunk()?;
    let (long, rest) = rest.split_at_checked(16 * usize::from(*long))?;
    let (short, text) = rest.split_at_checked(8 * usize::from(*short))?;
    let mut json = Vec::with_capacity(text.len() + 4 * long.len() + 2 * short.len());
    let mut text = text.iter();
    while let Some(byte) = text.next() {
        if !(UUID..=HEX_16).contains(byte) {
            json.push(*byte);
            continue;
        }
        let number = usize::from(text.next()?.checked_sub(FIRST)?);
        let value = if *byte == HEX_16 { short.chunks(8).nth(number)? } else { long.chunks(16).nth(number)? };
        for (at, part) in value.iter().enumerate() {
            if *byte == UUID && matches!(at, 4 | 6 | 8 | 10) {
                json.push(b'-');
            }
            json.extend_from_slice(&[DIGITS[usize::from(part >> 4)], DIGITS[usize::from(part & 15)]]);
        }
    }
    String::from_utf8(json).ok()
}

/// The request's headers within a stored form, without the ids in them: alike for requests of one kind of client.
pub(super) fn headers(packed: &[u8]) -> &[u8] {
    const BEGIN: &[u8] = b"\"headers\":{";
    let Some(from) = memchr::memmem::find(packed, BEGIN) else { return &[] };
    let rest = &packed[from + BEGIN.len()..];
    &rest[..memchr::memchr(b'}', rest).unwrap_or(rest.len())]
}

fn plain(json: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(1 + json.len());
    packed.push(PLAIN);
    packed.extend_from_slice(json);
    packed
}

/// Only lower case: what is unpacked must be what was packed.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl Values {
    /// The number of the value at the start of `bytes` and how long its text is; `None` where there is none, or no room.
    fn take(&mut self, kind: u8, bytes: &[u8]) -> Option<(u8, usize)> {
        let (number, end) = match kind {
            HEX_16 => {
                let (value, end) = read::<8>(bytes, false)?;
                (number_of(&mut self.short, value)?, end)
            }
            _ => {
                let (value, end) = read::<16>(bytes, kind == UUID)?;
                (number_of(&mut self.long, value)?, end)
            }
        };
        Some((FIRST + u8::try_from(number).ok()?, end))
    }
}

/// The place of a value, which is added if it is new.
fn number_of<T: PartialEq>(values: &mut Vec<T>, value: T) -> Option<usize> {
    if let Some(number) = values.iter().position(|known| *known == value) {
        return Some(number);
    }
    (values.len() < MAX_VALUES).then(|| {
        values.push(value);
        values.len() - 1
    })
}

/// `N` bytes of hex digits, and how long they are as text.
fn read<const N: usize>(text: &[u8], hyphens: bool) -> Option<([u8; N], usize)> {
    let mut value = [0; N];
    let mut at = 0;
    for (index, byte) in value.iter_mut().enumerate() {
        if hyphens && matches!(index, 4 | 6 | 8 | 10) {
            if text.get(at) != Some(&b'-') {
                return None;
            }
            at += 1;
        }
        *byte = digit(*text.get(at)?)? << 4 | digit(*text.get(at + 1)?)?;
        at += 2;
    }
    Some((value, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6";
    const HEX: &str = "cdb08456d8a74d5393c2a5e3f01f56d6";

    #[test]
    fn ids_become_bytes_and_come_back() {
        let json = format!(
            r#"{{"requestId":"{ID}","h":"00-{HEX}-b7ad6b7169203331-01","spanId":"b7ad6b7169203331","n":1234567890123456}}"#
        );
        let packed = pack(&json);
        assert_eq!(packed[..3], [PACKED, 1, 2]);
        assert_eq!(packed.len(), json.len() + 3 + 16 + 2 * 8 - 34 - 30 - 3 * 14);
        assert_eq!(unpack(&packed).as_deref(), Some(json.as_str()));
    }

    #[test]
    fn any_text_comes_back() {
        let many: String = (0..200_u128).map(|at| format!("{:032x}", at * at)).collect::<Vec<_>>().join("\",\"");
        for text in [
            "",
            "{}",
            "\u{1}\u{2} no JSON",
            "cdb08456",
            "cdb08456-",
            "cdb08456-d8a7-4d53-93c2-a5e3f01f56d",
            "cdb08456-d8a7-4d53-93c2_a5e3f01f56d6",
            &ID.to_uppercase(),
            &format!("{ID}{ID}"),
            &format!("{ID}0"),
            &format!("0{ID}"),
            &format!("é{HEX}é"),
            &format!("{HEX}{HEX}"),
            &format!("[\"{many}\"]"),
        ] {
            assert_eq!(unpack(&pack(text)).as_deref(), Some(text));
        }
    }

    #[test]
    fn damage_is_told() {
        let packed = pack(&format!("\"{ID}\""));
        for end in 0..3 + 16 {
            assert_eq!(unpack(&packed[..end]), None);
        }
        assert_eq!(unpack(&[2, 0]), None);
        assert_eq!(unpack(&[PACKED, 0, 0, UUID, FIRST]), None);
        assert_eq!(unpack(&[PACKED, 0, 0, UUID]), None);
        assert_eq!(unpack(&[PACKED, 0, 0, UUID, 1]), None);
    }
}
