//! `.drv` files.
#![no_main]

use fodder_model::derivation::aterm;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(derivation) = aterm::parse("name", data) else { return };
    let text = aterm::write(&derivation);
    let again = aterm::parse("name", &text).expect("what was written");
    assert_eq!(again, derivation);
    assert_eq!(aterm::write(&again), text);
});
