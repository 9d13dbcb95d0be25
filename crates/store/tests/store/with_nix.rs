//! Real Nix reads what we wrote, and we read what it wrote.

use crate::lab::{Lab, NOW, some_path};
use fodder_model::store_path::StorePath;
use fodder_store::{PathInfo, Registration, Store, StoreError};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

fn set<const N: usize>(paths: [&StorePath; N]) -> BTreeSet<StorePath> {
    paths.into_iter().cloned().collect()
}

#[test]
fn nix_reads_our_database() {
    let lab = Lab::new();
    let store = lab.store();
    let source = store.add_source("source.txt", &lab.file("f", "hello"), NOW).unwrap();
    let one = store.add_text("one", b"one", &set([&source.path]), NOW).unwrap();
    let two = store.add_text("two", b"two", &set([&source.path, &one.path]), NOW).unwrap();
    drop(store);
    lab.verify();

    let full = |path: &StorePath| path.to_string();
    assert_eq!(lab.nix(&["--query", "--references", &full(&one.path)]), [full(&source.path)]);
    assert_eq!(lab.nix(&["--query", "--referrers", &full(&one.path)]), [full(&two.path)]);
    let mut closure = lab.nix(&["--query", "--requisites", &full(&two.path)]);
    closure.sort();
    let mut expected = [full(&source.path), full(&one.path), full(&two.path)];
    expected.sort();
    assert_eq!(closure, expected);
    assert_eq!(lab.nix(&["--query", "--hash", &full(&two.path)]), [format!("sha256:{}", two.nar_hash.to_nix32())]);
    assert_eq!(lab.nix(&["--query", "--size", &full(&two.path)]), [two.nar_size.to_string()]);
}

#[test]
fn our_answers_follow_the_database() {
    let lab = Lab::new();
    let store = lab.store();
    let one = store.add_text("one", b"one", &BTreeSet::new(), NOW).unwrap();
    let two = store.add_text("two", b"two", &set([&one.path]), NOW).unwrap();
    let three = store.add_text("three", b"three", &set([&two.path]), NOW).unwrap();
    assert_eq!(store.query(&two.path).unwrap(), Some(two.clone()));
    assert_eq!(store.referrers(&one.path).unwrap(), set([&two.path]));
    assert_eq!(store.all_paths().unwrap(), set([&one.path, &two.path, &three.path]));
    assert_eq!(store.path_from_hash_part(two.path.hash_part()).unwrap(), Some(two.path.clone()));
    assert_eq!(store.path_from_hash_part(&"0".repeat(32)).unwrap(), None);
    let closure = store.closure([&two.path]).unwrap();
    assert_eq!(closure.into_keys().collect::<BTreeSet<_>>(), set([&one.path, &two.path]));
    let missing = some_path("missing");
    match store.closure([&three.path, &missing]) {
        Err(StoreError::NotValid { path }) => assert_eq!(path, missing),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_derivation_is_known_with_its_outputs() {
    // Vector 3 of the reference: real Nix recomputes these paths when it is asked for the outputs.
    let lab = Lab::new();
    let store = lab.store();
    let source = store.add_text("src.txt", b"hello", &BTreeSet::new(), NOW).unwrap();
    let output = StorePath::from_base_name("01ph28nczfrrl2zmqg1wc2fqv237wxa6-simple").unwrap();
    let contents = format!(
        "Derive([(\"out\",\"{output}\",\"\",\"\")],[],[\"{0}\"],\"x86_64-linux\",\"/bin/sh\",[\"-c\",\"echo hi > $out\"],\
         [(\"builder\",\"/bin/sh\"),(\"name\",\"simple\"),(\"out\",\"{output}\"),(\"src\",\"{0}\"),\
         (\"system\",\"x86_64-linux\")])",
        source.path
    );
    let outputs = BTreeMap::from([("out".to_owned(), output.clone())]);
    let derivation =
        store.add_derivation("simple.drv", contents.as_bytes(), &set([&source.path]), &outputs, NOW).unwrap();
    assert_eq!(derivation.path.base_name(), "cmjw9zscdp39w299jrjwiik9c1xr39p2-simple.drv");
    assert_eq!(store.derivation_outputs(&derivation.path).unwrap(), outputs);
    assert_eq!(store.valid_derivers(&output).unwrap(), set([&derivation.path]));
    lab.verify();
    assert_eq!(lab.nix(&["--query", "--outputs", &derivation.path.to_string()]), [output.to_string()]);

    store.open_log(&derivation.path).unwrap().write_all(b"built\n").unwrap();
    assert!(store.log_path(&derivation.path).ends_with("drvs/cm/jw9zscdp39w299jrjwiik9c1xr39p2-simple.drv"));
    assert_eq!(lab.nix(&["--read-log", &derivation.path.to_string()]), ["built"]);
}

#[test]
fn a_store_of_real_nix_is_ours_to_use() {
    let lab = Lab::new();
    let by_nix = lab.nix(&["--add", lab.file("f", "by nix").to_str().unwrap()]);
    let by_nix = StorePath::from_full_path(&by_nix[0]).unwrap();
    let store = lab.store();
    let info = store.query(&by_nix).unwrap().unwrap();
    assert_eq!((info.nar_size, info.ultimate, info.deriver), (120, false, None));
    assert!(info.content_address.unwrap().starts_with("fixed:r:sha256:"));
    // Both add, both with the store open.
    let by_us = store.add_text("ours", b"x", &set([&by_nix]), NOW).unwrap();
    let later = lab.nix(&["--add", lab.file("g", "later").to_str().unwrap()]);
    assert!(store.is_valid(&StorePath::from_full_path(&later[0]).unwrap()).unwrap());
    assert!(store.is_valid(&by_us.path).unwrap());
    lab.verify();
}

#[test]
fn registration_is_all_or_nothing() {
    let lab = Lab::new();
    let store = lab.store();
    let model = store.add_text("model", b"model", &BTreeSet::new(), NOW).unwrap();
    let entry = |name: &str, references: BTreeSet<StorePath>| {
        Registration::from(PathInfo { path: some_path(name), references, ..model.clone() })
    };
    let (a, b) = (some_path("a"), some_path("b"));
    let missing = some_path("missing");
    let bad = [entry("a", BTreeSet::new()), entry("b", set([&a, &missing]))];
    match store.register(&bad) {
        Err(StoreError::InvalidReference { path, reference }) => assert_eq!((path, reference), (b.clone(), missing)),
        other => panic!("{other:?}"),
    }
    assert!(!store.is_valid(&a).unwrap());
    // A batch may be in any order, refer in circles, to itself, and name a path twice.
    let good = [entry("b", set([&a])), entry("a", set([&a, &b])), entry("b", set([&a]))];
    store.register(&good).unwrap();
    store.register(&good).unwrap();
    assert_eq!(store.query(&a).unwrap().unwrap().references, set([&a, &b]));
    let other_references = [entry("b", BTreeSet::new())];
    assert!(matches!(store.register(&other_references), Err(StoreError::Conflict { .. })));
}

#[test]
fn every_column_survives() {
    let lab = Lab::new();
    let store = lab.store();
    let model = store.add_text("model", b"model", &BTreeSet::new(), NOW).unwrap();
    let info = PathInfo {
        path: some_path("full"),
        deriver: Some(some_path("full.drv")),
        references: set([&model.path]),
        registration_time: 5,
        ultimate: true,
        signatures: vec!["key-1:AAAA".to_owned(), "key-2:BBBB".to_owned()],
        content_address: None,
        ..model
    };
    store.register(&[info.clone().into()]).unwrap();
    let reader = Store::open_existing_read_only(&lab.root()).unwrap();
    assert_eq!(reader.query(&info.path).unwrap(), Some(info.clone()));
    let deriver = lab.nix(&["--query", "--deriver", &info.path.to_string()]);
    assert_eq!(deriver, [info.deriver.unwrap().to_string()]);
}
