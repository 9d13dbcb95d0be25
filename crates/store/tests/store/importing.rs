//! Objects that come as a NAR from somewhere else.

use crate::lab::{Lab, NOW, some_path};
use fodder_model::{
    content_address::{ContentAddress, ContentMethod},
    hash::{Hash, HashAlgorithm},
    store_path::StorePath,
};
use fodder_store::{ImportProblem, PathInfo, Realisation, Store, StoreError, Unpacked, dump};
use std::collections::{BTreeMap, BTreeSet};

/// The NAR of a file, and what a cache would say about it under this path.
fn archive(lab: &Lab, path: &StorePath, contents: &str) -> (Vec<u8>, PathInfo) {
    let (nar, nar_size) = dump(&lab.file("source", contents), Vec::new()).unwrap();
    let info = PathInfo {
        path: path.clone(),
        nar_hash: Hash::of(HashAlgorithm::Sha256, &nar),
        nar_size,
        references: BTreeSet::new(),
        deriver: None,
        registration_time: NOW,
        ultimate: false,
        signatures: vec!["test-1:plyWpi4bP0C".to_owned()],
        content_address: None,
    };
    (nar, info)
}

fn add(store: &Store, info: &PathInfo, nar: &[u8]) -> Result<(PathInfo, bool), StoreError> {
    store.add_nar(info, |_| {}, || Ok::<_, StoreError>(nar))
}

/// Refused, and nothing of it is anywhere.
fn refused(lab: &Lab, info: &PathInfo, nar: &[u8]) -> String {
    let store = lab.store();
    let before = lab.objects();
    let error = add(&store, info, nar).unwrap_err();
    assert!(!store.is_valid(&info.path).unwrap());
    assert_eq!(lab.objects(), before);
    assert!(lab.scratch().is_empty());
    fodder_store::chain(&error)
}

#[test]
fn an_object_arrives_with_all_that_was_said_about_it() {
    let lab = Lab::new();
    let store = lab.store();
    let (nar, info) = archive(&lab, &some_path("arrived"), "contents");
    assert_eq!(add(&store, &info, &nar).unwrap(), (info.clone(), true));
    assert_eq!(store.query(&info.path).unwrap(), Some(info.clone()));
    assert_eq!(std::fs::read(store.real_path(&info.path)).unwrap(), b"contents");
    let again = store.add_nar(&info, |_| {}, || -> Result<&[u8], StoreError> { panic!("it is there already") });
    assert_eq!(again.unwrap(), (info.clone(), false));
    assert!(lab.scratch().is_empty());
    assert_eq!(lab.objects(), [info.path.base_name()]);
    lab.verify();
}

#[test]
fn another_object_than_was_promised_is_refused_in_the_words_of_nix() {
    let lab = Lab::new();
    let path = some_path("promised");
    let (nar, info) = archive(&lab, &path, "contents");
    let (other, _) = archive(&lab, &path, "CONTENTS");
    let specified = info.nar_hash.to_nix32();
    let got = Hash::of(HashAlgorithm::Sha256, &other).to_nix32();
    let expected =
        format!("hash mismatch importing path '{path}';\n  specified: sha256:{specified}\n  got:       sha256:{got}");
    assert_eq!(refused(&lab, &info, &other), expected);
    let larger = PathInfo { nar_size: info.nar_size + 8, ..info.clone() };
    let message = refused(&lab, &larger, &nar);
    assert!(message.starts_with("size mismatch importing path '"), "{message}");
    let smaller = PathInfo { nar_size: info.nar_size - 8, ..info.clone() };
    let message = refused(&lab, &smaller, &nar);
    assert_eq!(
        message,
        format!("size mismatch importing path '{path}';\n  specified: {}\n  got:       more", info.nar_size - 8)
    );
    let message = refused(&lab, &info, &nar[..nar.len() / 2]);
    assert!(message.contains("bad archive: it ends after"), "{message}");
}

#[test]
fn references_come_first() {
    let lab = Lab::new();
    let (nar, info) = archive(&lab, &some_path("referrer"), "contents");
    let info = PathInfo { references: BTreeSet::from([some_path("absent")]), ..info };
    assert!(refused(&lab, &info, &nar).contains("which is not valid"));
}

#[test]
fn a_content_address_is_believed_when_path_and_contents_follow_from_it() {
    let lab = Lab::new();
    let store = lab.store();
    let contents = "self-describing";
    let none = BTreeSet::new();
    for method in [ContentMethod::Flat, ContentMethod::Nar, ContentMethod::Text, ContentMethod::Git] {
        for algorithm in HashAlgorithm::ALL.into_iter().filter(|algorithm| method.allows(*algorithm)) {
            let (nar, info) = archive(&lab, &some_path("any"), contents);
            let hash = match method {
                ContentMethod::Flat | ContentMethod::Text => Hash::of(algorithm, contents.as_bytes()),
                ContentMethod::Nar => Hash::of(algorithm, &nar),
                ContentMethod::Git => Hash::of(algorithm, format!("blob {}\0{contents}", contents.len()).as_bytes()),
            };
            let address = ContentAddress { method, hash };
            let path = address.store_path(&format!("{}-{algorithm}", method.name())).unwrap();
            let info = PathInfo { path, content_address: Some(address.to_string()), ..info };
            // The path is right and the contents are others, which hash and size do not notice.
            let (other, others) = archive(&lab, &info.path, "SELF-DESCRIBING");
            let wrong = PathInfo { nar_hash: others.nar_hash, ..info.clone() };
            let message = refused(&lab, &wrong, &other);
            assert!(message.starts_with("ca hash mismatch importing path '"), "{message}");
            // The contents are right and the path is another.
            let elsewhere = PathInfo { path: some_path("elsewhere"), ..info.clone() };
            let message = refused(&lab, &elsewhere, &nar);
            assert!(message.ends_with("claims to be content-addressed but isn't"), "{message}");
            add(&store, &info, &nar).unwrap();
        }
    }
    // References change the path of a text, and a file that is hashed flat has no place for them.
    let text = store.add_text("referred", b"x", &none, NOW).unwrap();
    let (nar, info) = archive(&lab, &some_path("any"), contents);
    let hash = Hash::of(HashAlgorithm::Sha256, contents.as_bytes());
    let references = BTreeSet::from([text.path]);
    let flat = ContentAddress { method: ContentMethod::Flat, hash };
    let path = flat.store_path("with-reference").unwrap();
    let info = PathInfo { references: references.clone(), ..info };
    let wrong = PathInfo { path, content_address: Some(flat.to_string()), ..info.clone() };
    assert!(refused(&lab, &wrong, &nar).ends_with("claims to be content-addressed but isn't"));
    let path = StorePath::of_text("with-reference", contents.as_bytes(), &references).unwrap();
    let address = ContentAddress { method: ContentMethod::Text, hash };
    add(&store, &PathInfo { path, content_address: Some(address.to_string()), ..info }, &nar).unwrap();
    // Not for the distribution's Nix to verify: it knows neither BLAKE3 nor git hashes.
}

/// Vector of the reference, section 3.9, which Nix 2.34 computed.
#[test]
fn a_content_address_of_an_object_that_refers_to_itself_is_recomputed() {
    let lab = Lab::new();
    let store = lab.store();
    let path = StorePath::from_base_name("hvcr5dwz9v3f4srmnq37s32bm9zckjmc-caself").unwrap();
    let (nar, info) = archive(&lab, &path, &format!("self {path} and {path}\n"));
    let info = PathInfo {
        references: BTreeSet::from([path.clone()]),
        content_address: Some("fixed:r:sha256:1blzfhd1bnnllkqkvb9lza4nfn8fg84ng8h8dnr8zs631a6g2frl".to_owned()),
        ..info
    };
    let (other, others) = archive(&lab, &path, &format!("SELF {path} and {path}\n"));
    let message = refused(&lab, &PathInfo { nar_hash: others.nar_hash, ..info.clone() }, &other);
    assert!(message.starts_with("ca hash mismatch importing path '"), "{message}");
    add(&store, &info, &nar).unwrap();
    lab.verify();
}

#[test]
fn a_derivation_arrives_with_its_outputs() {
    let lab = Lab::new();
    let store = lab.store();
    let output = some_path("simple");
    let text = format!(
        "Derive([(\"out\",\"{output}\",\"\",\"\")],[],[],\"x86_64-linux\",\"/bin/sh\",[],[(\"out\",\"{output}\")])"
    );
    let path = StorePath::of_text("simple.drv", text.as_bytes(), &BTreeSet::new()).unwrap();
    let (nar, info) = archive(&lab, &path, &text);
    add(&store, &info, &nar).unwrap();
    assert_eq!(store.derivation_outputs(&path).unwrap(), BTreeMap::from([("out".to_owned(), output)]));
    let (nar, info) = archive(&lab, &some_path("broken.drv"), "Derive(");
    assert!(refused(&lab, &info, &nar).contains("it is not a derivation"));
}

#[test]
fn an_object_can_come_before_what_is_known_about_it() {
    let lab = Lab::new();
    let store = lab.store();
    let (mut stream, info) = archive(&lab, &some_path("first"), "contents");
    stream.extend(b"trailer");
    let mut input = &stream[..];
    let unpacked = Unpacked::read(&store, &mut input, u64::MAX).unwrap();
    assert_eq!(input, b"trailer");
    assert_eq!((unpacked.nar_hash(), unpacked.nar_size()), (info.nar_hash, info.nar_size));
    assert_eq!(store.add_unpacked(unpacked, &info).unwrap(), (info.clone(), true));
    assert!(lab.scratch().is_empty());
    lab.verify();
}

#[test]
fn threads_that_add_one_path_read_one_archive() {
    let lab = Lab::new();
    let store = lab.store();
    let (nar, info) = archive(&lab, &some_path("wanted"), "contents");
    let opened = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let open = || {
                    opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Ok::<_, StoreError>(&nar[..])
                };
                store.add_nar(&info, |_| {}, open).unwrap();
            });
        }
    });
    assert_eq!(opened.into_inner(), 1);
    lab.verify();
}

/// Attack: PARSE-15 (exports). Layer: nothing may follow the end mark.
#[test]
fn an_export_behind_another_is_refused() {
    let lab = Lab::new();
    let store = lab.store();
    let error = store.import(&[0; 16][..], NOW).unwrap_err();
    assert!(error.to_string().contains("goes on after its end mark"), "{error}");
    assert_eq!(store.import(&[0; 8][..], NOW).unwrap(), Vec::new());
    // Neither a count nor a flag is taken for what it is not.
    let path = format!("{}-x", "/nix/store/".to_owned() + &"0".repeat(32));
    let stream = |references: u64, signature: u64| {
        let mut nar = fodder_model::nar::Writer::new(Vec::new());
        nar.symlink(b"t").unwrap();
        let mut bytes = [&1_u64.to_le_bytes()[..], &nar.finish().unwrap().0, &0x4558_494e_u64.to_le_bytes()].concat();
        bytes.extend((path.len() as u64).to_le_bytes());
        bytes.extend(path.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        [references, 0, signature, 0].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes
    };
    for bytes in [stream(u64::MAX, 0), stream(0, 2)] {
        let error = store.import(&bytes[..], NOW).unwrap_err();
        assert!(error.to_string().contains("wrong format"), "{error}");
    }
    let right = stream(0, 0);
    let place = right.windows(path.len()).position(|window| window == path.as_bytes()).unwrap();
    let changed = |offset: usize, byte: u8| {
        let mut bytes = right.clone();
        bytes[offset] = byte;
        store.import(&bytes[..], NOW).unwrap_err().to_string()
    };
    let error = store.import(&[&[2], &right[1..]].concat()[..], NOW).unwrap_err();
    assert!(matches!(error, StoreError::Import { problem: ImportProblem::NotAnExport, .. }), "{error}");
    // Bytes that fill up a text are zero, and no text is longer than a path.
    assert!(changed(place + path.len(), 1).contains("wrong format"));
    assert!(changed(place - 7, 1).contains("wrong format"));
    assert_eq!(store.import(&right[..], NOW).unwrap().len(), 1);
}

/// Attack: a store below ours that lost something. Layer: only what is there counts, and nobody's word for it is taken over.
#[test]
fn what_a_store_below_has_lost_is_not_there_and_what_is_copied_was_not_built_here() {
    let [below, above] = [Lab::new(), Lab::new()];
    let lower = below.store();
    let [kept, lost] = ["kept", "lost"].map(|name| {
        let (nar, info) = archive(&below, &some_path(name), name);
        let info = PathInfo { ultimate: true, ..info };
        add(&lower, &info, &nar).unwrap();
        info
    });
    assert!(lower.query(&kept.path).unwrap().unwrap().ultimate, "the control");
    drop(lower);
    std::fs::remove_file(below.root().join("nix/store").join(lost.path.base_name())).unwrap();
    let store = above.store().with_lower(Store::open_existing_read_only(&below.root()).unwrap());
    assert!(store.query(&kept.path).unwrap().is_some());
    assert_eq!(store.query(&lost.path).unwrap(), None);
    assert!(!store.is_valid(&lost.path).unwrap());
    // Something that refers to it brings it along.
    let (nar, info) = archive(&above, &some_path("top"), &kept.path.to_string());
    add(&store, &PathInfo { references: [kept.path.clone()].into(), ..info }, &nar).unwrap();
    let own = above.store().query(&kept.path).unwrap().unwrap();
    assert_eq!((own.ultimate, own.nar_hash), (false, kept.nar_hash));
}

#[test]
fn an_output_turns_out_to_be_nothing_that_is_not_valid() {
    let lab = Lab::new();
    let store = lab.store();
    let derivation_hash = Hash::of(HashAlgorithm::Sha256, b"derivation");
    let realisation = |path| Realisation { derivation_hash, output: "out".to_owned(), path };
    let missing = realisation(some_path("missing"));
    let error = store.register_realisations(std::slice::from_ref(&missing)).unwrap_err();
    assert!(matches!(error, StoreError::NotValid { path } if path == missing.path));
    let (nar, info) = archive(&lab, &some_path("there"), "contents");
    add(&store, &info, &nar).unwrap();
    store.register_realisations(&[realisation(info.path.clone())]).unwrap();
    assert_eq!(store.realisation(&derivation_hash, "out").unwrap(), Some(info.path));
}
