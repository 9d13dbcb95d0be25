//! The header of a member: 512 bytes, numbers in octal.

use super::{BLOCK, extension::Extension};

/// What is used of a header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) size: u64,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    File { executable: bool },
    Directory,
    Symlink,
    HardLink,
    Extension(Extension),
    Unsupported(&'static str),
}

impl Header {
    pub(super) fn read(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        let field = |from: usize, length: usize| &block[from..from + length];
        let expected = number(field(148, 8)).ok_or("the checksum is not a number")?;
        // The checksum's own field counts as blanks.
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        if sum != expected {
            return Err("the checksum is another");
        }
        let prefix = match field(257, 8) {
            b"ustar\x0000" => text(field(345, 155)),
            // GNU's own, and the oldest, have other fields there.
            b"ustar  \0" | b"\0\0\0\0\0\0\0\0" => b"",
            _ => return Err("this is another format"),
        };
        let name = text(field(0, 100));
        let path = if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() };
        let mode = number(field(100, 8)).ok_or("the mode is not a number")?;
        let kind = match block[156] {
            0 | b'0' | b'7' => Kind::File { executable: mode & 0o100 != 0 },
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Directory,
            b'x' => Kind::Extension(Extension::Records),
            b'g' => Kind::Extension(Extension::GlobalRecords),
            b'L' => Kind::Extension(Extension::LongPath),
            b'K' => Kind::Extension(Extension::LongTarget),
            b'3' | b'4' => Kind::Unsupported("a device"),
            b'6' => Kind::Unsupported("a pipe"),
            b'S' => Kind::Unsupported("a sparse file"),
            _ => Kind::Unsupported("of an unknown type"),
        };
        let size = number(field(124, 12)).ok_or("the size is not a number")?;
        Ok(Header { path, target: text(field(157, 100)).to_vec(), size, kind })
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits between blanks, or GNU's binary form; at most what a file can be long.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, digits @ ..] = field {
        let value =
            digits.iter().try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add(u64::from(*byte)))?;
        return (value <= i64::MAX.unsigned_abs()).then_some(value);
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return None;
    }
    // Twelve octal digits are 36 bits.
    digits.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'7' => Some(value * 8 + u64::from(byte - b'0')),
        _ => None,
    })
}
