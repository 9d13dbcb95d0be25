//! Nix's base-32: 32 letters without `e o t u`, most significant digit first, no padding.
//! Described in the Nix manual ("Nix32 encoding"); own code because crates accept non-canonical top digits.

const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Value of each byte as a digit, 255 for bytes that are not digits.
const DIGIT: [u8; 256] = {
    let mut table = [255; 256];
    let mut digit = 0;
    while digit < 32 {
        table[ALPHABET[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

/// Number of digits that `bytes` bytes take.
pub const fn encoded_length(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes * 8 - 1) / 5 + 1 }
}

/// Whether `byte` is one of the 32 letters.
pub fn is_digit(byte: u8) -> bool {
    DIGIT[byte as usize] != 255
}

/// Writes `bytes` in nix32.
pub fn encode(bytes: &[u8]) -> String {
    (0..encoded_length(bytes.len()))
        .rev()
        .map(|position| {
            let bit = position * 5;
            let (index, shift) = (bit / 8, bit % 8);
            let low = bytes[index] >> shift;
            let high = bytes.get(index + 1).map_or(0, |byte| ((u16::from(*byte) << (8 - shift)) & 0xff) as u8);
            ALPHABET[usize::from((low | high) & 31)] as char
        })
        .collect()
}

/// Reads nix32 text of exactly `length` bytes. `None` for a foreign letter, a wrong length, or excess bits in the
/// first digit (Nix's own decoder would yield one byte too many there).
pub fn decode(text: &[u8], length: usize) -> Option<Vec<u8>> {
    if text.len() != encoded_length(length) {
        return None;
    }
    let mut bytes = vec![0u8; length];
    for (position, letter) in text.iter().rev().enumerate() {
        let digit = DIGIT[usize::from(*letter)];
        if digit == 255 {
            return None;
        }
        let bit = position * 5;
        let (index, shift) = (bit / 8, bit % 8);
        bytes[index] |= digit << shift;
        let carry = if shift > 3 { digit >> (8 - shift) } else { 0 };
        match bytes.get_mut(index + 1) {
            Some(next) => *next |= carry,
            None if carry != 0 => return None,
            None => {}
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_top_digit_with_excess_bits_is_refused() {
        // 32 bytes are 52 digits; the first may only be 0 or 1.
        let good = format!("1{}", "z".repeat(51));
        let bad = format!("2{}", "z".repeat(51));
        assert!(decode(good.as_bytes(), 32).is_some());
        assert!(decode(bad.as_bytes(), 32).is_none());
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes(), bytes.len()), Some(bytes));
        }
    }
}
