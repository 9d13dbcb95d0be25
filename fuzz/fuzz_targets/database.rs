//! Databases that are somebody else's.
#![no_main]

use fodder_store::Store;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let place = root.join("nix/var/nix/db");
    std::fs::create_dir_all(&place).expect("directories");
    std::fs::create_dir(root.join("nix/store")).expect("a directory");
    std::fs::write(place.join("schema"), "10").expect("a file");
    std::fs::write(place.join("db.sqlite"), data).expect("a file");
    let Ok(store) = Store::open_existing_read_only(root) else { return };
    for path in store.all_paths().unwrap_or_default() {
        let _ = store.query(&path);
        let _ = store.referrers(&path);
        let _ = store.derivation_outputs(&path);
    }
});
