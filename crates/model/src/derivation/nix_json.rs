//! Compact JSON as Nix's own library writes it. Derivation hashes depend on every byte of it.

use serde_json::{Value, ser::Formatter};
use std::io;

/// Writes a value as Nix does: no white space, keys sorted, UTF-8 raw, and numbers in nlohmann-json's spelling, which
/// differs from serde_json's for large and small doubles (`1e+15`, `1e-05`; reference, section 4.5).
pub fn to_nix_json(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, NixFormatter);
    let written = serde::Serialize::serialize(value, &mut serializer);
    debug_assert!(written.is_ok(), "a Value always serialises to memory");
    String::from_utf8(bytes).unwrap_or_default()
}

struct NixFormatter;

impl Formatter for NixFormatter {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(double(value).as_bytes())
    }
}

/// Digits that read back the same, decimal while `-4 <= exponent < 15`, else with an exponent of two digits or more.
fn double(value: f64) -> String {
    if value == 0.0 {
        return if value.is_sign_negative() { "-0.0" } else { "0.0" }.to_owned();
    }
    let (digits, last) = super::grisu::digits(value.abs());
    let digits: String = digits.into_iter().map(|digit| char::from(b'0' + digit)).collect();
    let exponent = last + digits.len() as i32 - 1;
    let count = digits.len() as i32;
    let text = if (-4..0).contains(&exponent) {
        format!("0.{}{digits}", "0".repeat((-exponent - 1) as usize))
    } else if (0..15).contains(&exponent) {
        if count <= exponent + 1 {
            format!("{digits}{}.0", "0".repeat((exponent + 1 - count) as usize))
        } else {
            let (whole, fraction) = digits.split_at((exponent + 1) as usize);
            format!("{whole}.{fraction}")
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let fraction = if count > 1 { format!(".{}", &digits[1..]) } else { String::new() };
        format!("{}{fraction}e{sign}{:02}", &digits[..1], exponent.abs())
    };
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_spelled_as_nix_spells_them() {
        for (value, expected) in [
            (1.5, "1.5"),
            (2.0, "2.0"),
            (-0.0, "-0.0"),
            (1e10, "10000000000.0"),
            (1e14, "100000000000000.0"),
            (1e15, "1e+15"),
            (12345678901234567.0, "1.2345678901234568e+16"),
            (123456789012345678.0, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (1e100, "1e+100"),
            (123.456, "123.456"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            // Not the shortest.
            (262.7850122850123, "262.78501228501227"),
            (-2.003485544858745e16, "-2.0034855448587448e+16"),
            (5.136883929598332e75, "5.1368839295983324e+75"),
            (-5.131116597422591e-36, "-5.1311165974225907e-36"),
        ] {
            assert_eq!(double(value), expected);
        }
    }

    #[test]
    fn any_double_reads_back_the_same() {
        let mut bits = 0x1234_5678_9abc_def1_u64;
        for _ in 0..100_000 {
            // Xorshift: the same numbers every time.
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            let value = f64::from_bits(bits);
            if value.is_finite() {
                assert_eq!(double(value).parse::<f64>().map(f64::to_bits), Ok(bits), "{bits:x}");
            }
        }
        assert_eq!(double(5e-324).parse(), Ok(5e-324));
    }

    /// serde_json reads quickly and inexactly unless it is told otherwise (`float_roundtrip`), and the path would be another.
    #[test]
    fn doubles_are_what_was_written() {
        for text in
            ["-14.272727272727273", "9007199254740992.0", "2.2250738585072014e-308", "0.3", "1.7976931348623157e+308"]
        {
            let value: Value = serde_json::from_str(text).expect("a number");
            assert_eq!(value.as_f64(), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn text_is_compact_sorted_and_raw() {
        let value: Value =
            serde_json::from_str("{\"b\": [1, -2, true, null], \"a\": \"é\\u0001\\n/\\u007f\"}").unwrap();
        assert_eq!(to_nix_json(&value), "{\"a\":\"é\\u0001\\n/\u{7f}\",\"b\":[1,-2,true,null]}");
    }
}
