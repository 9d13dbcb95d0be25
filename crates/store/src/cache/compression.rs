//! The compressions of archives. All of them are undone while the archive arrives, in memory that the input cannot choose.

mod limits;
mod unbrotli;

use limits::{Ending, Limited, Measured, Members};
use std::io::{self, BufRead, BufReader, Read, Write};
use unbrotli::Unbrotli;

/// Most memory that a decompressor may take, in bytes: `xz -9` needs 65 MiB.
const MEMORY_LIMIT: u64 = 256 << 20;

/// Largest window of zstd, as a power of two: 128 MiB, the default of `zstd -19 --long`.
const ZSTD_WINDOW: u32 = 27;

/// The larger of xz's usual levels; Nix uses it too.
const XZ_LEVEL: u32 = 6;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Compression {
    None,
    Xz,
    Bzip2,
    Gzip,
    Zstd,
    Brotli,
    Lzma,
    /// Read, not written: there is no encoder.
    Lzip,
}

/// A compressor that must be ended.
pub(super) enum Compressor<W: Write> {
    None(W),
    Lzma(liblzma::write::XzEncoder<W>),
    Bzip2(bzip2::write::BzEncoder<W>),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Brotli(Box<brotli::CompressorWriter<W>>),
}

impl Compression {
    const ALL: [Compression; 8] = [
        Compression::None,
        Compression::Xz,
        Compression::Bzip2,
        Compression::Gzip,
        Compression::Zstd,
        Compression::Brotli,
        Compression::Lzma,
        Compression::Lzip,
    ];

    /// As narinfos spell it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Xz => "xz",
            Compression::Bzip2 => "bzip2",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Brotli => "br",
            Compression::Lzma => "lzma",
            Compression::Lzip => "lzip",
        }
    }

    /// What file names end in; Nix gives some none.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Compression::None | Compression::Gzip | Compression::Lzma => "",
            Compression::Xz => ".xz",
            Compression::Bzip2 => ".bz2",
            Compression::Zstd => ".zst",
            Compression::Brotli => ".br",
            Compression::Lzip => ".lzip",
        }
    }

    /// Reads the spelling of narinfos.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.name() == name)
    }

    pub(super) fn names() -> String {
        Self::ALL.map(Compression::name).join(", ")
    }

    /// What an archive is compressed with, from its first bytes; brotli and the oldest lzma begin with anything.
    pub fn recognise(beginning: &[u8]) -> Self {
        let signatures: [(&[u8], Compression); 4] = [
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"BZh", Compression::Bzip2),
            (b"\x1f\x8b", Compression::Gzip),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
        ];
        let found = signatures.into_iter().find(|(signature, _)| beginning.starts_with(signature));
        found.map_or(Compression::None, |(_, compression)| compression)
    }

    /// Undoes it. Archives in several parts (frames, streams, members) are one archive; anything else behind the end is an error.
    /// For input of which it is known how much comes of it: somebody else must stop when that has come.
    pub fn reader<'a, R: BufRead + 'a>(self, input: R) -> io::Result<Box<dyn Read + 'a>> {
        let decompressed: Box<dyn Read + 'a> = match self {
            Compression::None => return Ok(Box::new(input)),
            Compression::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY_LIMIT, flags)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Compression::Lzma => {
                let stream = liblzma::stream::Stream::new_lzma_decoder(MEMORY_LIMIT)?;
                Box::new(Ending(liblzma::bufread::XzDecoder::new_stream(input, stream)))
            }
            Compression::Lzip => Box::new(Members::new(input)?),
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
            Compression::Brotli => Box::new(Unbrotli::new(input)),
        };
        // Archives are read in pieces of eight bytes.
        Ok(Box::new(BufReader::with_capacity(64 * 1024, decompressed)))
    }

    /// As [`Compression::reader`], where nobody knows how much comes of it: a few bytes that become terabytes are an error.
    pub fn cautious_reader<'a, R: BufRead + 'a>(self, input: R) -> io::Result<Box<dyn Read + 'a>> {
        if self == Compression::None {
            return Ok(Box::new(input));
        }
        let (input, consumed) = Measured::new(input);
        Ok(Box::new(Limited::new(self.reader(input)?, consumed)))
    }

    /// Applies it.
    pub(super) fn writer<W: Write>(self, output: W) -> io::Result<Compressor<W>> {
        Ok(match self {
            Compression::None => Compressor::None(output),
            Compression::Xz => Compressor::Lzma(liblzma::write::XzEncoder::new(output, XZ_LEVEL)),
            Compression::Lzma => {
                let options = liblzma::stream::LzmaOptions::new_preset(XZ_LEVEL)?;
                let stream = liblzma::stream::Stream::new_lzma_encoder(&options)?;
                Compressor::Lzma(liblzma::write::XzEncoder::new_stream(output, stream))
            }
            Compression::Lzip => return Err(io::Error::other("lzip is only read here; choose another compression")),
            Compression::Bzip2 => Compressor::Bzip2(bzip2::write::BzEncoder::new(output, bzip2::Compression::best())),
            Compression::Gzip => {
                Compressor::Gzip(flate2::write::GzEncoder::new(output, flate2::Compression::default()))
            }
            Compression::Zstd => Compressor::Zstd(zstd::stream::write::Encoder::new(output, 0)?),
            // Its highest level takes a minute for what the others do in a second.
            Compression::Brotli => {
                Compressor::Brotli(Box::new(brotli::CompressorWriter::new(output, 64 * 1024, 6, 22)))
            }
        })
    }
}

impl<W: Write> Compressor<W> {
    /// Writes what is left, and gives the output back.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(output) => Ok(output),
            Compressor::Lzma(encoder) => encoder.finish(),
            Compressor::Bzip2(encoder) => encoder.finish(),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstd(encoder) => encoder.finish(),
            Compressor::Brotli(mut encoder) => {
                encoder.flush()?;
                Ok(encoder.into_inner())
            }
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::None(output) => output.write(data),
            Compressor::Lzma(encoder) => encoder.write(data),
            Compressor::Bzip2(encoder) => encoder.write(data),
            Compressor::Gzip(encoder) => encoder.write(data),
            Compressor::Zstd(encoder) => encoder.write(data),
            Compressor::Brotli(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
