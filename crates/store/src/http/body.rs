//! A download that is read while it arrives, and goes on where the line was cut.

use super::{Attempt, Http, HttpError, Resume, transfer, wait_before};
use crate::cache::Compression;
use reqwest::{Response, StatusCode, header};
use std::{
    fmt,
    io::{self, BufReader, Read},
    time::Duration,
};

/// A body that brought this much since the last failure has shown that the server is there: the tries are counted anew.
const PROGRESS: u64 = 256 * 1024;

/// Told of every try that failed and is followed by another.
pub type OnRetry<'a> = Box<dyn FnMut(&HttpError, Duration) + Send + 'a>;

/// What the server sends, as a reader. A line that is cut is asked for the rest; a server that cannot do that is asked for all of
/// it, and what was read already is passed over.
pub struct HttpBody<'a> {
    http: &'a Http,
    url: String,
    /// `None` until the first answer and after a cut.
    response: Option<Response>,
    piece: Vec<u8>,
    position: usize,
    /// Bytes that were given to the reader or wait in `piece`.
    received: u64,
    /// Bytes of a repeated body that were received before.
    to_skip: u64,
    /// Size of the whole, as far as anybody said.
    expected: Option<u64>,
    validator: Option<header::HeaderValue>,
    /// What the server applied to the contents on their way.
    coding: Option<header::HeaderValue>,
    failures: u32,
    progress: u64,
    is_finished: bool,
    on_retry: OnRetry<'a>,
}

impl fmt::Debug for HttpBody<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpBody").field("url", &self.url).field("received", &self.received).finish()
    }
}

impl Http {
    /// Begins a download; returns when the server has answered. `expected` is the size that the file has, if that is known: an
    /// end before it is a cut line.
    pub fn open<'a>(
        &'a self,
        url: &str,
        expected: Option<u64>,
        on_retry: OnRetry<'a>,
    ) -> Result<HttpBody<'a>, HttpError> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(HttpError::Scheme { url: url.to_owned() });
        }
        let mut body = HttpBody {
            http: self,
            url: url.to_owned(),
            response: None,
            piece: Vec::new(),
            position: 0,
            received: 0,
            to_skip: 0,
            expected,
            validator: None,
            coding: None,
            failures: 0,
            progress: 0,
            is_finished: false,
            on_retry,
        };
        body.connect()?;
        Ok(body)
    }

    /// Downloads a small file; `None` when the server says that there is none, or that it is not for us, which is how some
    /// servers say it.
    pub fn get(&self, url: &str, limit: usize, on_retry: OnRetry<'_>) -> Result<Option<Vec<u8>>, HttpError> {
        let body = match self.open(url, None, on_retry) {
            Ok(body) => body,
            Err(HttpError::Status { status: 401 | 403 | 404 | 410, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        let read = body.decoded()?.take(limit as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| failure(url, error))?;
        if bytes.len() > limit { Err(HttpError::TooLarge { url: url.to_owned(), limit }) } else { Ok(Some(bytes)) }
    }
}

/// What went wrong while a body was read.
pub(super) fn failure(url: &str, error: io::Error) -> HttpError {
    match error.downcast::<HttpError>() {
        Ok(error) => error,
        Err(error) => HttpError::Transfer { url: url.to_owned(), reason: error.to_string() },
    }
}

impl<'a> HttpBody<'a> {
    /// The contents, without the encoding that the server applied to them.
    pub(super) fn decoded(self) -> Result<Box<dyn Read + 'a>, HttpError> {
        let coding = self.coding.as_ref().map_or(b"".as_slice(), |value| value.as_bytes()).to_ascii_lowercase();
        let compression = match coding.as_slice() {
            b"" | b"identity" | b"none" => Compression::None,
            b"gzip" | b"x-gzip" => Compression::Gzip,
            b"br" => Compression::Brotli,
            b"zstd" => Compression::Zstd,
            b"xz" => Compression::Xz,
            b"bzip2" => Compression::Bzip2,
            _ => {
                let reason = format!("the server encoded it as '{}'", coding.escape_ascii());
                return Err(HttpError::Transfer { url: self.url, reason });
            }
        };
        let url = self.url.clone();
        compression.cautious_reader(BufReader::new(self)).map_err(|error| failure(&url, error))
    }
}

impl HttpBody<'_> {
    /// Gets an answer that continues what was received, if need be after some tries.
    fn connect(&mut self) -> Result<(), HttpError> {
        loop {
            let resume =
                (self.received > 0).then(|| Resume { offset: self.received, validator: self.validator.clone() });
            let answered = self.http.runtime.block_on(self.http.respond(&self.url, resume.as_ref()));
            match answered {
                Ok(response) => return self.accept(response),
                // The body ended without a length exactly where the file ends.
                Err(Attempt::Final(HttpError::Status { status: 416, .. }))
                    if self.expected.is_none() && resume.is_some() =>
                {
                    self.is_finished = true;
                    return Ok(());
                }
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Transient(error, asked)) => self.wait(error, asked)?,
            }
        }
    }

    /// Takes a response as the continuation.
    fn accept(&mut self, response: Response) -> Result<(), HttpError> {
        let changed = |what: &str| HttpError::Transfer {
            url: self.url.clone(),
            reason: format!("the line was cut, and meanwhile {what}"),
        };
        let headers = response.headers();
        let validator = strong_validator(headers);
        if self.received > 0 {
            if self.validator.is_some() && validator.is_some() && validator != self.validator {
                return Err(changed("the file on the server changed"));
            }
            if response.status() == StatusCode::PARTIAL_CONTENT {
                let start = headers.get(header::CONTENT_RANGE).and_then(|value| range_start(value.to_str().ok()?));
                if start != Some(self.received) {
                    return Err(changed("the server went on at another place than it was asked for"));
                }
                self.to_skip = 0;
            } else {
                self.to_skip = self.received;
            }
        } else {
            self.coding = headers.get(header::CONTENT_ENCODING).cloned();
            if let Some(length) = response.content_length() {
                self.expected.get_or_insert(length);
            }
        }
        self.validator = self.validator.take().or(validator);
        self.response = Some(response);
        Ok(())
    }

    /// After a failure: waits before the next try, or gives up.
    fn wait(&mut self, error: HttpError, asked: Option<u64>) -> Result<(), HttpError> {
        if self.progress >= PROGRESS {
            self.failures = 0;
        }
        self.progress = 0;
        self.failures += 1;
        if self.failures >= self.http.attempts {
            return Err(error);
        }
        let wait = wait_before(self.failures, asked);
        (self.on_retry)(&error, wait);
        std::thread::sleep(wait);
        Ok(())
    }

    /// Gets the next piece; an empty one at the end.
    fn fill(&mut self) -> Result<(), HttpError> {
        while !self.is_finished {
            let Some(response) = &mut self.response else {
                self.connect()?;
                continue;
            };
            let error = match self.http.runtime.block_on(response.chunk()) {
                Ok(Some(piece)) => {
                    let skipped = usize::try_from(self.to_skip).unwrap_or(usize::MAX).min(piece.len());
                    self.to_skip -= skipped as u64;
                    let fresh = (piece.len() - skipped) as u64;
                    if fresh == 0 {
                        continue;
                    }
                    self.piece.clear();
                    self.piece.extend_from_slice(&piece[skipped..]);
                    self.position = 0;
                    self.received += fresh;
                    self.progress += fresh;
                    return Ok(());
                }
                Ok(None) if self.expected.is_none_or(|expected| self.received >= expected) && self.to_skip == 0 => {
                    self.is_finished = true;
                    return Ok(());
                }
                Ok(None) => HttpError::Transfer {
                    url: self.url.clone(),
                    reason: format!("the line was cut after {} bytes", self.received),
                },
                Err(error) => transfer(&self.url, &error),
            };
            self.response = None;
            self.wait(error, None)?;
        }
        Ok(())
    }
}

impl Read for HttpBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.piece.len() {
            self.piece.clear();
            self.position = 0;
            self.fill().map_err(io::Error::other)?;
        }
        let count = buffer.len().min(self.piece.len() - self.position);
        buffer[..count].copy_from_slice(&self.piece[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

/// What tells versions of a file apart to the byte (RFC 9110, section 8.8).
fn strong_validator(headers: &header::HeaderMap) -> Option<header::HeaderValue> {
    let tag = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    tag.or_else(|| headers.get(header::LAST_MODIFIED)).cloned()
}

/// The first byte of `bytes 100-199/200`.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}
