//! `.narinfo` files.
#![no_main]

use fodder_model::narinfo::NarInfo;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(info) = NarInfo::parse(text, "x") else { return };
    assert_eq!(NarInfo::parse(&info.to_string(), "x").as_ref(), Ok(&info));
    let _ = (info.is_content_addressed(), info.fingerprint());
});
