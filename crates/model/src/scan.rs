//! Finding references: any 32 consecutive bytes that equal the hash part of a candidate.
//!
//! Nothing around the match is looked at (`aaa<hash>bbb` is a reference), as in Nix. A file's contents, its name and a link's
//! target are scanned each for itself; in a NAR they are separated by bytes that are no base-32 letters, so the result is that
//! of scanning the NAR.

use crate::{
    nix32,
    store_path::{HASH_PART_LENGTH, StorePath},
};
use std::collections::{BTreeSet, HashMap};

const WINDOW: usize = HASH_PART_LENGTH;

type HashPart = [u8; WINDOW];

/// Letters of base-32.
const IS_LETTER: [bool; 256] = {
    let mut table = [false; 256];
    let letters = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut index = 0;
    while index < letters.len() {
        table[letters[index] as usize] = true;
        index += 1;
    }
    table
};

/// Paths to look for.
#[derive(Clone, Debug)]
pub struct Candidates {
    by_hash_part: HashMap<HashPart, Vec<StorePath>>,
    /// One bit for every two leading bytes that some candidate begins with: most base-32 text stops here.
    leading: Vec<u64>,
}

impl Candidates {
    /// Prepares a search for these paths.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a StorePath>) -> Self {
        let mut candidates = Candidates { by_hash_part: HashMap::new(), leading: vec![0; 1024] };
        for path in paths {
            let mut part = [0; WINDOW];
            part.copy_from_slice(path.hash_part().as_bytes());
            let index = leading_index(&part);
            candidates.leading[index / 64] |= 1 << (index % 64);
            candidates.by_hash_part.entry(part).or_default().push(path.clone());
        }
        candidates
    }

    fn find(&self, window: &[u8]) -> Option<&[StorePath]> {
        let index = leading_index(window);
        if self.leading[index / 64] & (1 << (index % 64)) == 0 {
            return None;
        }
        self.by_hash_part.get(window).map(Vec::as_slice)
    }

    /// Calls `hit` with the offset in `data` and the paths of every match.
    fn search(&self, data: &[u8], mut hit: impl FnMut(usize, &[StorePath])) {
        // `good` bytes from `start` on are known letters. The last byte of a window is looked at first: a foreign byte there
        // skips the whole window.
        let (mut start, mut good) = (0, 0);
        while let Some(window) = data.get(start..start + WINDOW) {
            match (good..WINDOW).rev().find(|index| !IS_LETTER[usize::from(window[*index])]) {
                Some(foreign) => {
                    start += foreign + 1;
                    good = WINDOW - 1 - foreign;
                }
                None => {
                    if let Some(paths) = self.find(window) {
                        hit(start, paths);
                    }
                    start += 1;
                    good = WINDOW - 1;
                }
            }
        }
    }
}

fn leading_index(window: &[u8]) -> usize {
    usize::from(window[0]) << 8 | usize::from(window[1])
}

/// A match: where in the stream, and which path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Bytes from the beginning of the stream to the first letter of the hash part.
    pub offset: u64,
    /// The candidate.
    pub path: StorePath,
}

/// A search through one stream, given in pieces of any size.
pub struct Scan<'a> {
    candidates: &'a Candidates,
    /// The last 31 bytes seen: a match may begin in one piece and end in the next.
    tail: Vec<u8>,
    seen: u64,
}

impl<'a> Scan<'a> {
    /// Starts a stream.
    pub fn new(candidates: &'a Candidates) -> Self {
        Scan { candidates, tail: Vec::with_capacity(2 * WINDOW), seen: 0 }
    }

    /// Searches the next piece and reports every match that ends in it.
    pub fn feed(&mut self, data: &[u8], mut hit: impl FnMut(Hit)) {
        if self.candidates.by_hash_part.is_empty() {
            return;
        }
        let mut report = |base: u64, offset: usize, paths: &[StorePath]| {
            for path in paths {
                hit(Hit { offset: base + offset as u64, path: path.clone() });
            }
        };
        let carried = self.tail.len();
        self.tail.extend(&data[..data.len().min(WINDOW - 1)]);
        let base = self.seen - carried as u64;
        self.candidates.search(&self.tail, |offset, paths| report(base, offset, paths));
        self.candidates.search(data, |offset, paths| report(self.seen, offset, paths));
        if data.len() >= WINDOW - 1 {
            self.tail.clear();
            self.tail.extend(&data[data.len() - (WINDOW - 1)..]);
        } else {
            let excess = self.tail.len().saturating_sub(WINDOW - 1);
            self.tail.drain(..excess);
        }
        self.seen += data.len() as u64;
    }
}

/// Adds the references in a text (a name, a link's target) to a set.
pub fn scan_text(candidates: &Candidates, text: &[u8], found: &mut BTreeSet<StorePath>) {
    candidates.search(text, |_, paths| found.extend(paths.iter().cloned()));
}

/// Every store path that a text spells out in full, `/nix/store/<hash part>-<name>`, whether or not it is a candidate, with its
/// offset. For looking at outputs whose inputs are not known.
pub fn spelled_out(text: &[u8]) -> Vec<(usize, StorePath)> {
    const PREFIX: &[u8] = b"/nix/store/";
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(position) = text[at..].windows(PREFIX.len()).position(|window| window == PREFIX) {
        let start = at + position + PREFIX.len();
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
        let length = text[start..].iter().take_while(|byte| is_name(byte)).count();
        if let Ok(base) = std::str::from_utf8(&text[start..start + length])
            && base.bytes().take(WINDOW).all(nix32::is_digit)
            && let Ok(path) = StorePath::from_base_name(base)
        {
            found.push((start, path));
        }
        at = start;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(letter: char) -> StorePath {
        StorePath::from_base_name(&format!("{}{}-x", "0".repeat(31), letter)).unwrap()
    }

    fn hits(candidates: &Candidates, pieces: &[&[u8]]) -> Vec<Hit> {
        let mut found = Vec::new();
        let mut scan = Scan::new(candidates);
        for piece in pieces {
            scan.feed(piece, |hit| found.push(hit));
        }
        found.sort_by(|a, b| (a.offset, &a.path).cmp(&(b.offset, &b.path)));
        found
    }

    #[test]
    fn a_match_needs_no_surroundings_but_every_byte() {
        let candidates = Candidates::new([&path('a')]);
        let part = path('a').hash_part().to_owned();
        let one = |text: String| hits(&candidates, &[text.as_bytes()]).len();
        assert_eq!(one(format!("aaa{part}bbb")), 1);
        assert_eq!(one(format!("/foo/{part}")), 1);
        assert_eq!(one(part.replace('a', "A")), 0);
        assert_eq!(one(format!("{} {}", &part[..16], &part[16..])), 0);
        assert_eq!(
            one(format!("0{part}")),
            1,
            "31 zeroes and the letter, found although the window before is good, too"
        );
    }

    proptest! {
        /// Any cutting into pieces finds exactly what a naive search finds.
        #[test]
        fn pieces_do_not_matter(
            text in proptest::collection::vec(prop_oneof![Just(b'0'), Just(b'a'), Just(b'b'), Just(b'/'), Just(b'e')], 0..200),
            plants in proptest::collection::vec((0usize..200, prop_oneof![Just('a'), Just('b')]), 0..4),
            cuts in proptest::collection::vec(0usize..240, 0..6),
        ) {
            let mut text = text;
            for (at, letter) in plants {
                let at = at.min(text.len());
                text.splice(at..at, path(letter).hash_part().bytes());
            }
            let candidates = Candidates::new([&path('a'), &path('b')]);
            let mut expected = Vec::new();
            for (offset, window) in text.windows(WINDOW).enumerate() {
                for letter in ['a', 'b'] {
                    if window == path(letter).hash_part().as_bytes() {
                        expected.push(Hit { offset: offset as u64, path: path(letter) });
                    }
                }
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(hits(&candidates, &pieces), expected);
        }
    }

    #[test]
    fn spelled_out_paths_are_found_with_their_offsets() {
        let text = b"x=/nix/store/k6acb82mmxnvhglc719q86vxnamq9rcl-dep.txt/bin:/nix/store/short:/nix/store/k6acb82mmxnvhglc719q86vxnamq9rcl-y";
        let found = spelled_out(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].0, found[0].1.name()), (13, "dep.txt"));
        assert_eq!(found[1].1.name(), "y");
    }
}
