//! Brotli, undone step by step: the reader of the library reads ahead into a buffer of its own, so that nobody can see whether
//! something follows the end, and it takes the extension to windows of a gigabyte.

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, enc::StandardAlloc};
use std::{
    fmt,
    io::{self, BufRead, Read},
};

/// A stream as RFC 7932 has it, with a window of at most 16 MiB, and nothing behind it.
pub(super) struct Unbrotli<R> {
    input: R,
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    is_over: bool,
}

impl<R> fmt::Debug for Unbrotli<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Unbrotli").field("is_over", &self.is_over).finish()
    }
}

impl<R: BufRead> Unbrotli<R> {
    pub(super) fn new(input: R) -> Self {
        let memory = StandardAlloc::default;
        Unbrotli { input, state: Box::new(BrotliState::new_strict(memory(), memory(), memory())), is_over: false }
    }
}

impl<R: BufRead> Read for Unbrotli<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let invalid = |problem| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        while !self.is_over && !buffer.is_empty() {
            let input = self.input.fill_buf()?;
            let (mut left, mut taken) = (input.len(), 0);
            let (mut room, mut written, mut total) = (buffer.len(), 0, 0);
            let state = &mut *self.state;
            let result = BrotliDecompressStream(
                &mut left,
                &mut taken,
                input,
                &mut room,
                &mut written,
                buffer,
                &mut total,
                state,
            );
            let is_empty = input.is_empty();
            self.input.consume(taken);
            match result {
                BrotliResult::ResultSuccess => {
                    self.is_over = true;
                    if !self.input.fill_buf()?.is_empty() {
                        return invalid("something follows the end of the brotli stream");
                    }
                }
                BrotliResult::ResultFailure => return invalid("this is not brotli, or has a large window"),
                BrotliResult::NeedsMoreInput if is_empty && written == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            }
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }
}
