//! Sandbox profiles.
#![no_main]

use fodder_model::profile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(profile) = profile::parse("x", text) else { return };
    for entry in &profile.entries {
        let path = entry.path();
        assert!(path.starts_with('/') && !path.split('/').any(|part| part == ".."));
        assert!(!entry.why.trim().is_empty());
    }
});
