//! Derivations as JSON.
#![no_main]

use fodder_model::{
    derivation::{aterm, json},
    json::parse,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Whatever is read is written so that it is read as the same, in both formats.
    let Ok(root) = parse(data) else { return };
    let Ok((_, set)) = json::read(&root) else { return };
    for derivation in set.values() {
        let text = aterm::write(derivation);
        assert_eq!(&aterm::parse(&derivation.name, &text).expect("what was written"), derivation);
    }
    // Bytes that are no text have no place in JSON.
    let is_text =
        |derivation: &fodder_model::derivation::Derivation| std::str::from_utf8(&aterm::write(derivation)).is_ok();
    if set.values().all(is_text) {
        let written = json::write_set(&set);
        let (_, again) = json::read(&parse(written.as_bytes()).expect("what was written")).expect("what was written");
        assert_eq!(again.keys().collect::<Vec<_>>(), set.keys().collect::<Vec<_>>());
        for (path, derivation) in &set {
            assert_eq!(aterm::write(&again[path]), aterm::write(derivation));
        }
    }
});
