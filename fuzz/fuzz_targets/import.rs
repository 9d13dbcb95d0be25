//! Streams of exported paths.
#![no_main]

use fodder_store::Store;
use std::sync::LazyLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static STORE: LazyLock<(tempfile::TempDir, Store)> = LazyLock::new(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&directory.path().join("root")).expect("a store");
        (directory, store)
    });
    let store = &STORE.1;
    if let Ok(paths) = store.import(data, 1) {
        // What came in goes out, and comes in again.
        let mut exported = Vec::new();
        store.export(&paths, &mut exported).expect("valid paths");
        assert_eq!(
            store.import(&exported[..], 1).expect("an export").len(),
            paths.iter().collect::<std::collections::BTreeSet<_>>().len()
        );
    }
});
