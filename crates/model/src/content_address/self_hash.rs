//! The hash of an object that contains its own path: as if zeros were in the place of the path's hash part.

use crate::{
    hash::{Hash, HashAlgorithm, Hasher},
    store_path::{HASH_PART_LENGTH, StorePath},
};
use std::io::{self, Write};

/// Hashes a serialisation with the hash part of its own path blanked out, wherever it occurs and however it is cut into pieces.
///
/// Nix before 2.17 and since 2.35 also hashes where it occurred; the versions between do not.
pub struct SelfHasher {
    hasher: Hasher,
    needle: Vec<u8>,
    /// The latest bytes, not hashed yet: a hash part may begin in them.
    kept: Vec<u8>,
    /// Offset of the first kept byte.
    offset: u64,
    positions: Vec<u64>,
}

impl SelfHasher {
    /// Starts the hash of the object at `path`.
    pub fn new(algorithm: HashAlgorithm, path: &StorePath) -> Self {
        let needle = path.hash_part().as_bytes().to_vec();
        SelfHasher { hasher: Hasher::new(algorithm), needle, kept: Vec::new(), offset: 0, positions: Vec::new() }
    }

    /// Ends it: the hash with the positions, and the hash without them.
    pub fn finish(mut self) -> (Hash, Hash) {
        self.hasher.update(&self.kept);
        let without = self.hasher.clone().finish();
        for position in &self.positions {
            self.hasher.update(format!("|{position}").as_bytes());
        }
        (self.hasher.finish(), without)
    }
}

impl Write for SelfHasher {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.kept.extend_from_slice(data);
        let mut start = 0;
        while let Some(found) = find(&self.kept[start..], &self.needle) {
            let found = start + found;
            self.positions.push(self.offset + found as u64);
            start = found + HASH_PART_LENGTH;
            self.kept[found..start].fill(0);
        }
        let done = self.kept.len().saturating_sub(HASH_PART_LENGTH - 1);
        self.hasher.update(&self.kept[..done]);
        self.kept.drain(..done);
        self.offset += done as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where `needle` is in `data`.
fn find(data: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut start = 0;
    while let Some(found) = data[start..].iter().position(|byte| *byte == first) {
        if data[start + found..].starts_with(needle) {
            return Some(start + found);
        }
        start += found + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference, section 3.9: the file `self P and P\n` with P its own path, as Nix 2.34 and 2.35 compute it. The
    /// zeros in the place of the path make the hash the same for every P.
    #[test]
    fn both_ways_of_nix_are_known_however_the_input_is_cut() {
        let path = StorePath::from_base_name("hvcr5dwz9v3f4srmnq37s32bm9zckjmc-caself").unwrap();
        let mut nar = crate::nar::Writer::new(Vec::new());
        let text = format!("self {path} and {path}\n");
        nar.file(false, text.len() as u64).unwrap();
        nar.contents(text.as_bytes()).unwrap();
        let (nar, _) = nar.finish().unwrap();
        for size in [1, 2, 31, 32, 33, 1000] {
            let mut hasher = SelfHasher::new(HashAlgorithm::Sha256, &path);
            for piece in nar.chunks(size) {
                hasher.write_all(piece).unwrap();
            }
            assert_eq!(hasher.positions, [112, 167]);
            let (with, without) = hasher.finish();
            assert_eq!(without.to_nix32(), "1blzfhd1bnnllkqkvb9lza4nfn8fg84ng8h8dnr8zs631a6g2frl");
            assert_eq!(with.to_nix32(), "1mkpliv6m6306zcmnmmidifi1vpzdlv8algdi6nan8vzjbbxbbvd");
        }
    }
}
