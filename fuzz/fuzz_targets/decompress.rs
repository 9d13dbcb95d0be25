//! Compressed streams.
#![no_main]

use fodder_store::Compression;
use std::io::Read;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let names = ["xz", "bzip2", "gzip", "zstd", "br", "lzma", "lzip"];
    let compression = Compression::parse(names[usize::from(*first) % names.len()]).expect("a compression");
    let Ok(input) = compression.cautious_reader(data) else { return };
    // What comes is not kept, and a mebibyte is enough.
    let _ = std::io::copy(&mut input.take(1 << 20), &mut std::io::sink());
});
