//! Tar archives on their way to the disk, with a canary beside them.
#![no_main]

use std::{fs::File, os::fd::AsFd};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let place = fodder_fuzz::Place::new();
    let out = File::open(place.out()).expect("a directory");
    // Checksums are made right, or nothing would ever get further.
    let _ = fodder_store::unpack_tar(&fodder_fuzz::with_checksums(data)[..], out.as_fd(), place.out());
    place.check();
    let _ = fodder_store::dump(place.out(), std::io::sink());
});
