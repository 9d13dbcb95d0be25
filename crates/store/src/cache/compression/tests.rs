use super::*;

fn compressed(compression: Compression, data: &[u8]) -> Vec<u8> {
    let mut writer = compression.writer(Vec::new()).unwrap();
    writer.write_all(data).unwrap();
    writer.finish().unwrap()
}

fn read(compression: Compression, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    compression.reader(data)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn every_compression_is_undone_and_notices_a_cut() {
    let data: Vec<u8> = (0..200_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
    for compression in Compression::ALL.into_iter().filter(|compression| *compression != Compression::Lzip) {
        assert_eq!(Compression::parse(compression.name()), Some(compression));
        let bytes = compressed(compression, &data);
        assert!(read(compression, &bytes).unwrap() == data, "{compression:?}");
        if compression != Compression::None {
            assert!(bytes.len() < data.len());
            let cut = read(compression, &bytes[..bytes.len() / 2]);
            assert!(cut.is_err(), "{compression:?}");
        }
    }
    assert_eq!(Compression::parse("lzop"), None);
}

#[test]
fn archives_in_parts_are_one() {
    use Compression::{Bzip2, Gzip, Xz, Zstd};
    for compression in [Xz, Bzip2, Gzip, Zstd] {
        let bytes = [compressed(compression, b"one "), compressed(compression, b"two")].concat();
        assert_eq!(read(compression, &bytes).unwrap(), b"one two", "{compression:?}");
    }
    let (_, lzip) = all(b"one ").pop().unwrap();
    assert_eq!(read(Compression::Lzip, &lzip.repeat(3)).unwrap(), b"one one one ");
}

/// Everything that can be read, compressed; lzip is made of what lzma makes.
fn all(data: &[u8]) -> Vec<(Compression, Vec<u8>)> {
    let mut all: Vec<_> = Compression::ALL
        .into_iter()
        .filter(|compression| ![Compression::None, Compression::Lzip].contains(compression))
        .map(|compression| (compression, compressed(compression, data)))
        .collect();
    // Lzip's header, with a dictionary of 8 MiB; then a stream without lzma's header of 13 bytes; then what is known at the end.
    let lzma = compressed(Compression::Lzma, data);
    let mut lzip = b"LZIP\x01\x17".to_vec();
    lzip.extend(&lzma[13..]);
    let mut checksum = flate2::Crc::new();
    checksum.update(data);
    lzip.extend(checksum.sum().to_le_bytes());
    lzip.extend((data.len() as u64).to_le_bytes());
    lzip.extend((lzip.len() as u64 + 8).to_le_bytes());
    all.push((Compression::Lzip, lzip));
    all
}

/// Attack: PARSE-15. Layer: decompressors that look behind their end.
#[test]
fn nothing_may_follow_a_compressed_stream() {
    for (compression, bytes) in all(b"hello, hello, hello") {
        assert_eq!(read(compression, &bytes).unwrap(), b"hello, hello, hello", "{compression:?}");
        for junk in [
            &b"x"[..],
            b"junk that is longer than any header could be",
            &[0; 7],
            &[0xff; 100],
            b"L",
            b"LZ",
            b"LZIx",
            b"LZIP\x01",
            b"BZ",
            b"\x1f\x8b",
        ] {
            let result = read(compression, &[&bytes[..], junk].concat());
            assert!(result.is_err(), "{compression:?} {junk:?}");
        }
    }
}

#[test]
fn a_stream_that_ends_anywhere_too_early_is_an_error() {
    for (compression, bytes) in all(b"hello, hello, hello") {
        // An empty file is no stream at all to gzip's and bzip2's readers of several.
        for length in 1..bytes.len() {
            assert!(read(compression, &bytes[..length]).is_err(), "{compression:?} {length}");
        }
    }
}

/// Attack: PARSE-12, CVE-2022-36114. Layer: ratio limit of decompression.
#[test]
fn a_few_bytes_that_become_very_many_are_an_error_that_comes_early() {
    let zeros = vec![0; 1 << 20];
    // bzip2 and gzip are slow at this; their streams in several parts are quickly made.
    for compression in [Compression::Xz, Compression::Gzip, Compression::Bzip2, Compression::Zstd, Compression::Brotli]
    {
        let bytes = match compression {
            Compression::Brotli => {
                let mut writer = compression.writer(Vec::new()).unwrap();
                (0..400).try_for_each(|_| writer.write_all(&zeros)).unwrap();
                writer.finish().unwrap()
            }
            Compression::None
            | Compression::Xz
            | Compression::Bzip2
            | Compression::Gzip
            | Compression::Zstd
            | Compression::Lzma
            | Compression::Lzip => compressed(compression, &zeros).repeat(2000),
        };
        assert!(bytes.len() < 3 << 20, "{compression:?}: {}", bytes.len());
        let mut input = compression.cautious_reader(&bytes[..]).unwrap();
        let mut total = 0_u64;
        let mut buffer = vec![0; 1 << 20];
        let error = loop {
            match input.read(&mut buffer) {
                Ok(0) => panic!("{compression:?}: {total} bytes came of {}", bytes.len()),
                Ok(count) => total += count as u64,
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("a few bytes become very many"), "{compression:?}: {error}");
        assert!(total <= limits::FREE + limits::RATIO * bytes.len() as u64, "{compression:?}: {total}");
    }
}

#[test]
fn what_shrinks_well_is_no_reason_to_refuse() {
    let text: Vec<u8> = (0..4_000_000_u32).flat_map(|number| ((number / 100) as u16).to_le_bytes()).collect();
    for compression in [Compression::Xz, Compression::Gzip, Compression::Zstd] {
        let bytes = compressed(compression, &text);
        let mut whole = Vec::new();
        compression.cautious_reader(&bytes[..]).unwrap().read_to_end(&mut whole).unwrap();
        assert!(whole == text);
    }
}

/// Headers that ask for gigabytes. The checks come before the memory is taken.
///
/// Attack: PARSE-13. Layer: memory limits of decompressors.
#[test]
fn a_header_that_asks_for_gigabytes_is_an_error() {
    // xz: the size of the dictionary in the block's header, whose checksum is made anew.
    let mut xz = compressed(Compression::Xz, b"hello");
    let header = 12..12 + (usize::from(xz[12]) + 1) * 4;
    let properties = header.start + 4;
    assert_eq!(xz[properties - 2..properties], [0x21, 1]);
    xz[properties] = 40;
    let mut checksum = flate2::Crc::new();
    checksum.update(&xz[header.start..header.end - 4]);
    xz[header.end - 4..header.end].copy_from_slice(&checksum.sum().to_le_bytes());
    // lzma: the same, without any checksum.
    let mut lzma = compressed(Compression::Lzma, b"hello");
    lzma[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    // lzip: 512 MiB, its largest.
    let (_, mut lzip) = all(b"hello").pop().unwrap();
    lzip[5] = 29;
    // zstd: a window of 256 MiB, and one of terabytes.
    let zstd = |window: u8| [&b"\x28\xb5\x2f\xfd\x00"[..], &[window], b"\x29\0\0hello"].concat();
    assert_eq!(read(Compression::Zstd, &zstd((27 - 10) << 3)).unwrap(), b"hello");
    for (compression, bytes, words) in [
        (Compression::Xz, xz, "memory"),
        (Compression::Lzma, lzma, "memory"),
        (Compression::Lzip, lzip, "memory"),
        (Compression::Zstd, zstd((28 - 10) << 3), "too much memory"),
        (Compression::Zstd, zstd(0xff), "too much memory"),
        (Compression::Brotli, vec![0x11, 30, 0, 0, 0], "large window"),
        (Compression::Brotli, vec![0x91, 30, 0, 0, 0], "large window"),
    ] {
        let error = read(compression, &bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{compression:?}: {error}");
    }
}
