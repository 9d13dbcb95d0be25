//! Rewriting: an output that was built at a scratch path becomes one at the path that its contents give it, and its hash must not
//! depend on which scratch path that was.

use crate::{
    hash::{Hash, HashAlgorithm, Hasher},
    store_path::{HASH_PART_LENGTH, StorePath},
};
use serde::Serialize;
use std::io::{self, Write};

/// How a self-reference counts in the hash of contents that hold it. The path of an object that mentions itself depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelfReferences {
    /// Every place where one stands is hashed as well: Nix up to 2.16, and from 2.35 on.
    #[default]
    WithPositions,
    /// Only that something stands there: Nix 2.17 to 2.34.
    WithoutPositions,
}

type HashPart = [u8; HASH_PART_LENGTH];

/// Replaces hash parts in a stream by others; the length of the stream stays as it is.
pub struct Rewriter<W> {
    output: W,
    replacements: Vec<(HashPart, HashPart)>,
    /// What was taken and not written yet: a hash part may begin in it.
    pending: Vec<u8>,
    /// Bytes written so far.
    written: u64,
    positions: Vec<u64>,
}

impl<W: Write> Rewriter<W> {
    /// Starts a stream. Each path's hash part becomes that of the path beside it.
    pub fn new<'a>(output: W, replacements: impl IntoIterator<Item = (&'a StorePath, &'a StorePath)>) -> Self {
        let pairs = replacements.into_iter().map(|(from, to)| (hash_part(from), hash_part(to)));
        Self::with(output, pairs.filter(|(from, to)| from != to).collect())
    }

    /// Starts a stream in which a path's hash part becomes NUL bytes.
    fn blanking(output: W, path: &StorePath) -> Self {
        Self::with(output, vec![(hash_part(path), [0; HASH_PART_LENGTH])])
    }

    fn with(output: W, replacements: Vec<(HashPart, HashPart)>) -> Self {
        Rewriter { output, replacements, pending: Vec::new(), written: 0, positions: Vec::new() }
    }

    /// Ends the stream; also gives the offsets at which something was replaced.
    pub fn finish(mut self) -> io::Result<(W, Vec<u64>)> {
        self.output.write_all(&self.pending)?;
        Ok((self.output, self.positions))
    }
}

impl<W: Write> Write for Rewriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(data);
        let mut at = 0;
        while let Some(window) = self.pending.get(at..at + HASH_PART_LENGTH) {
            match self.replacements.iter().find(|(from, _)| from == window) {
                Some((_, to)) => {
                    self.pending[at..at + HASH_PART_LENGTH].copy_from_slice(to);
                    self.positions.push(self.written + at as u64);
                    at += HASH_PART_LENGTH;
                }
                None => at += 1,
            }
        }
        self.output.write_all(&self.pending[..at])?;
        self.written += at as u64;
        self.pending.drain(..at);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

fn hash_part(path: &StorePath) -> HashPart {
    let mut part = [0; HASH_PART_LENGTH];
    part.copy_from_slice(path.hash_part().as_bytes());
    part
}

/// The hash of a stream in which a path's own hash part does not count (reference, section 3.9).
pub struct HashModulo(Rewriter<Hasher>);

/// The hash by either rule; the same where the stream does not mention its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuloHashes {
    with_positions: Hash,
    without_positions: Hash,
}

impl ModuloHashes {
    /// The one by this rule.
    pub fn by(&self, rule: SelfReferences) -> Hash {
        match rule {
            SelfReferences::WithPositions => self.with_positions,
            SelfReferences::WithoutPositions => self.without_positions,
        }
    }
}

impl HashModulo {
    /// Starts a stream that may mention `path`.
    pub fn new(algorithm: HashAlgorithm, path: &StorePath) -> Self {
        HashModulo(Rewriter::blanking(Hasher::new(algorithm), path))
    }

    /// The hashes.
    pub fn finish(self) -> io::Result<ModuloHashes> {
        let (mut hasher, positions) = self.0.finish()?;
        let without_positions = hasher.clone().finish();
        for position in positions {
            hasher.update(format!("|{position}").as_bytes());
        }
        Ok(ModuloHashes { with_positions: hasher.finish(), without_positions })
    }
}

impl Write for HashModulo {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{content_address::ContentMethod, nar::Writer};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn path(letter: char, name: &str) -> StorePath {
        StorePath::from_base_name(&format!("{}-{name}", letter.to_string().repeat(32))).unwrap()
    }

    /// The vector of the reference, section 3.9: the file `self P and P`, where P is its own path, by both rules.
    #[test]
    fn the_path_of_a_file_that_mentions_itself_agrees_with_nix() {
        let scratch = path('z', "caself");
        let contents = format!("self {scratch} and {scratch}\n");
        for (rule, expected) in [
            (SelfReferences::WithoutPositions, "hvcr5dwz9v3f4srmnq37s32bm9zckjmc-caself"),
            (SelfReferences::WithPositions, "z6m1b3ph77q383vvxafz4wi4bc5wjr7g-caself"),
        ] {
            let mut nar = Writer::new(HashModulo::new(HashAlgorithm::Sha256, &scratch));
            nar.file(false, contents.len() as u64).unwrap();
            nar.contents(contents.as_bytes()).unwrap();
            let hash = nar.finish().unwrap().0.finish().unwrap().by(rule);
            let address = crate::content_address::ContentAddress { method: ContentMethod::Nar, hash };
            let found = address.store_path_with_references("caself", &BTreeSet::new(), true).unwrap();
            assert_eq!(found.base_name(), expected, "{rule:?}");
        }
    }

    proptest! {
        /// However a stream is cut, every hash part is replaced, and nothing else.
        #[test]
        fn pieces_do_not_matter(
            text in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'/')], 0..120),
            plants in proptest::collection::vec((0usize..120, prop_oneof![Just('c'), Just('d')]), 0..4),
            cuts in proptest::collection::vec(0usize..300, 0..8),
        ) {
            let mut text = text;
            for (at, letter) in plants {
                let at = at.min(text.len());
                text.splice(at..at, letter.to_string().repeat(32).bytes());
            }
            let (c, d, x, y) = (path('c', "c"), path('d', "d"), path('x', "x"), path('y', "y"));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut rewriter = Rewriter::new(Vec::new(), [(&c, &x), (&d, &y)]);
            for pair in cuts.windows(2) {
                rewriter.write_all(&text[pair[0]..pair[1]]).unwrap();
            }
            let (result, positions) = rewriter.finish().unwrap();
            let whole = String::from_utf8(text).unwrap();
            let expected = whole.replace(&"c".repeat(32), &"x".repeat(32)).replace(&"d".repeat(32), &"y".repeat(32));
            let count = whole.matches(&"c".repeat(32)).count() + whole.matches(&"d".repeat(32)).count();
            prop_assert_eq!(String::from_utf8(result).unwrap(), expected);
            prop_assert_eq!(positions.len(), count);
        }
    }
}
