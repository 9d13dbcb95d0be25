//! What decompressors do not watch themselves: what follows their end, and how much comes of how little.

use super::MEMORY_LIMIT;
use liblzma::{bufread::XzDecoder, stream::Stream};
use std::{
    cell::Cell,
    io::{self, BufRead, Read},
    rc::Rc,
};

/// So much may come of anything, in bytes.
pub(super) const FREE: u64 = 256 << 20;

/// Beyond that, so many times what went in. Sources shrink to a fifth, logs to a hundredth; zeros to a thousandth with gzip, and to a
/// forty-thousandth with others.
pub(super) const RATIO: u64 = 250;

/// Counts what is taken from it.
pub(super) struct Measured<R> {
    input: R,
    consumed: Rc<Cell<u64>>,
}

impl<R> Measured<R> {
    pub(super) fn new(input: R) -> (Self, Rc<Cell<u64>>) {
        let consumed = Rc::new(Cell::new(0));
        (Measured { input, consumed: Rc::clone(&consumed) }, consumed)
    }

    fn count(&self, count: usize) {
        self.consumed.set(self.consumed.get() + count as u64);
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.count(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Measured<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.count(count);
    }
}

/// Stops when too much comes of what was taken.
pub(super) struct Limited<R> {
    output: R,
    produced: u64,
    consumed: Rc<Cell<u64>>,
}

impl<R> Limited<R> {
    pub(super) fn new(output: R, consumed: Rc<Cell<u64>>) -> Self {
        Limited { output, produced: 0, consumed }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.output.read(buffer)?;
        self.produced += count as u64;
        let allowed = self.consumed.get().saturating_mul(RATIO).saturating_add(FREE);
        match self.produced <= allowed {
            true => Ok(count),
            false => Err(io::Error::other(format!(
                "a few bytes become very many: {} so far, of {}; only {RATIO} times as many are unpacked",
                self.produced,
                self.consumed.get()
            ))),
        }
    }
}

/// The oldest format of lzma, whose decoder stops at its end and leaves what follows.
pub(super) struct Ending<R: BufRead>(pub(super) XzDecoder<R>);

impl<R: BufRead> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "something follows the end of the compressed stream"))
            }
            count => Ok(count),
        }
    }
}

/// Lzip in members, each with a decoder of its own: the one for all of them takes up to three bytes of what follows the last one.
pub(super) struct Members<R: BufRead>(Option<XzDecoder<R>>);

impl<R: BufRead> Members<R> {
    pub(super) fn new(input: R) -> io::Result<Self> {
        Ok(Members(Some(XzDecoder::new_stream(input, Stream::new_lzip_decoder(MEMORY_LIMIT, 0)?))))
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = self.0.as_mut().filter(|_| !buffer.is_empty()) {
            match decoder.read(buffer)? {
                0 => {
                    let Some(mut input) = self.0.take().map(XzDecoder::into_inner) else { break };
                    if !input.fill_buf()?.is_empty() {
                        *self = Members::new(input)?;
                    }
                }
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}
