//! Archives on their way to the disk, with a canary beside them.
#![no_main]

use fodder_model::hash::{Hash, HashAlgorithm};
use std::{ffi::OsStr, fs::File, os::fd::AsFd};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Restored and dumped again it is the same, and nothing else on the disk has changed.
    let place = fodder_fuzz::Place::new();
    let out = File::open(place.out()).expect("a directory");
    let mut input = data;
    if let Ok((hash, size)) = fodder_store::restore(&mut input, out.as_fd(), OsStr::new("object")) {
        let archive = &data[..data.len() - input.len()];
        assert_eq!((hash, size), (Hash::of(HashAlgorithm::Sha256, archive), archive.len() as u64));
        assert_eq!(fodder_store::dump(&place.out().join("object"), Vec::new()).expect("a tree").0, archive);
    }
    place.check();
});
