//! Store paths, hashes, content addresses, keys.
#![no_main]

use fodder_model::{content_address::ContentAddress, hash::Hash, signature::PublicKey, store_path::StorePath};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(path) = StorePath::from_full_path(text) {
        assert_eq!(path.to_string(), text);
        let (hash, name) = (path.hash_part(), path.name());
        assert_eq!(text, format!("/nix/store/{hash}-{name}"));
        // The grammar, written a second time.
        assert!(hash.len() == 32 && hash.bytes().all(|byte| b"0123456789abcdfghijklmnpqrsvwxyz".contains(&byte)));
        assert!((1..=211).contains(&name.len()));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte)));
        assert!(name != "." && name != ".." && !name.starts_with(".-") && !name.starts_with("..-"));
    }
    if let Ok(hash) = Hash::parse_any(text, None) {
        assert_eq!(Hash::parse_any(&hash.to_sri(), None), Ok(hash));
        assert_eq!(Hash::parse_any(&hash.to_nix32(), Some(hash.algorithm())), Ok(hash));
        assert_eq!(Hash::parse_any(&hash.to_base16(), Some(hash.algorithm())), Ok(hash));
    }
    if let Ok(address) = ContentAddress::parse(text) {
        assert_eq!(ContentAddress::parse(&address.to_string()), Ok(address));
    }
    if let Ok(key) = PublicKey::parse(text) {
        let _ = key.verifies("text", text);
    }
});
