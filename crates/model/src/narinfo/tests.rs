use super::*;
use crate::content_address::ContentMethod;
use proptest::prelude::*;

/// As `nix copy --to file://…` of Nix 2.34 wrote it.
const WRITTEN: &str = "\
StorePath: /nix/store/kg6md52mmhk7p6ncw3brkqyvsjz0yqs2-dep2
URL: nar/1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq.nar.xz
Compression: xz
FileHash: sha256:1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq
FileSize: 200
NarHash: sha256:0xx0qxaris04a806ibxf9jw92ddj2c1lnnvx7frjidz3rab6gp1q
NarSize: 168
References: k6acb82mmxnvhglc719q86vxnamq9rcl-dep.txt
Deriver: cmjw9zscdp39w299jrjwiik9c1xr39p2-simple.drv
Sig: test-1:plyWpi4bP0C/nQRM42FJPw4Gr+C60DW8PwpnS7mqNRpeThFxizRc0i5WIk4AYiRUEMygm/LVYiLDIPk0Aq9tCg==
";

fn message(text: &str) -> String {
    NarInfo::parse(text, "x.narinfo").unwrap_err().to_string()
}

#[test]
fn what_nix_wrote_is_read_and_written_again_to_the_byte() {
    let info = NarInfo::parse(WRITTEN, "x.narinfo").unwrap();
    assert_eq!(info.to_string(), WRITTEN);
    let key = PublicKey::parse("test-1:k+yGiTOGZfBbzu91mrysM5895ibA9ygOevV8SjG+x0Y=").unwrap();
    assert!(info.is_signed_by(std::slice::from_ref(&key)));
    assert!(!info.is_signed_by(&[]));
    let changed = NarInfo { references: BTreeSet::new(), ..info };
    assert!(!changed.is_signed_by(&[key]));
}

#[test]
fn corrupt_files_are_named_with_line_and_reason() {
    for (from, to, reason) in [
        ("StorePath: /nix/store/kg6md52mmhk7p6ncw3brkqyvsjz0yqs2-dep2\n", "", "StorePath missing"),
        ("URL: nar", "Address: nar", "URL missing"),
        ("nar/1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq.nar.xz", "", "URL missing"),
        (
            "NarHash: sha256:0xx0qxaris04a806ibxf9jw92ddj2c1lnnvx7frjidz3rab6gp1q",
            "NarHash: sha1:00000000000000000000000000000000",
            "the NarHash is a sha1, not a sha256 at line 6",
        ),
        ("NarHash", "Hash", "NarHash missing"),
        ("NarSize: 168", "NarSize: 0", "NarSize missing or zero"),
        ("NarSize: 168", "NarSize: -168", "invalid NarSize at line 7"),
        ("NarSize: 168", "NarSize: 99999999999999999999", "invalid NarSize at line 7"),
        ("FileSize: 200", "FileSize: x", "invalid FileSize at line 5"),
        ("FileHash: sha256:", "FileHash: ", "bad hash at line 4"),
        ("NarHash: sha256:0", "NarHash: sha256:z", "bad hash at line 6"),
        ("Compression: xz", "Compression", "expecting ':' at line 3"),
        ("Aq9tCg==\n", "Aq9tCg==", "expecting '\\n' at line 10"),
        ("NarSize: 168\n", "NarSize: 168\nNarSize: 168\n", "extra NarSize at line 8"),
        ("Deriver: ", "References: \nDeriver: ", "extra References at line 9"),
        ("Deriver: ", "CA: fixed:nonsense\nDeriver: ", "'fixed:nonsense' is not a content address at line 9"),
    ] {
        assert!(WRITTEN.contains(from), "{from}");
        let text = WRITTEN.replacen(from, to, 1);
        assert_eq!(message(&text), format!("NAR info file 'x.narinfo' is corrupt: {reason}"));
    }
    for (from, to) in [("/nix/store/kg", "/gnu/store/kg"), ("k6acb82m", "../../../"), ("Deriver: c", "Deriver: /c")] {
        assert!(message(&WRITTEN.replacen(from, to, 1)).contains(" at line "));
    }
}

#[test]
fn what_may_be_missing_has_the_meaning_that_nix_gives_it() {
    let sparse: String = WRITTEN
        .lines()
        .filter(|line| ["StorePath", "URL", "NarHash", "NarSize"].iter().any(|name| line.starts_with(name)))
        .map(|line| format!("{line}\n"))
        .chain(["Deriver: unknown-deriver\n".to_owned(), "FutureField: x:y\n".to_owned()])
        .collect();
    let info = NarInfo::parse(&sparse, "x").unwrap();
    assert_eq!((info.compression.as_str(), info.file_size, info.file_hash, info.deriver), ("bzip2", 0, None, None));
    assert!(info.references.is_empty() && info.signatures.is_empty());
}

#[test]
fn a_content_address_must_give_the_path() {
    let hash = Hash::of(HashAlgorithm::Sha256, b"hi\n");
    let address = ContentAddress { method: ContentMethod::Flat, hash };
    let info = NarInfo::parse(WRITTEN, "x").unwrap();
    let good = NarInfo {
        path: address.store_path("fodflat").unwrap(),
        references: BTreeSet::new(),
        content_address: Some(address),
        ..info.clone()
    };
    assert!(good.is_content_addressed());
    assert!(!NarInfo { references: info.references.clone(), ..good.clone() }.is_content_addressed());
    assert!(!NarInfo { path: info.path.clone(), ..good.clone() }.is_content_addressed());
    assert!(!NarInfo { content_address: None, ..good }.is_content_addressed());
}

fn store_path() -> impl Strategy<Value = StorePath> {
    ("[0-9a-df-np-su-z]{32}", "[a-z0-9+._?=-]{1,20}").prop_filter_map("a name that no path has", |(hash, name)| {
        StorePath::from_base_name(&format!("{hash}-{name}").replace(['e', 'o', 't', 'u'], "0")).ok()
    })
}

prop_compose! {
    fn narinfo()(
        path in store_path(),
        url in "[a-z0-9/.]{1,40}",
        compression in "(none|xz|zstd|br)",
        digests in any::<([u8; 32], Option<[u8; 32]>)>(),
        file_size in any::<u64>(),
        nar_size in 1..u64::MAX,
        references in proptest::collection::btree_set(store_path(), 0..5),
        deriver in proptest::option::of(store_path()),
        signatures in proptest::collection::btree_set("[a-z0-9.-]{1,10}:[A-Za-z0-9+/]{86}==", 0..3),
        method in proptest::option::of(proptest::sample::select(vec![ContentMethod::Flat, ContentMethod::Nar, ContentMethod::Text])),
    ) -> NarInfo {
        let hash = |digest: &[u8; 32]| Hash::from_digest(HashAlgorithm::Sha256, digest).unwrap();
        let nar_hash = hash(&digests.0);
        NarInfo {
            path, url, compression, file_size, nar_size, nar_hash, references, deriver, signatures,
            file_hash: digests.1.as_ref().map(hash),
            content_address: method.map(|method| ContentAddress { method, hash: nar_hash }),
        }
    }
}

proptest! {
    #[test]
    fn every_narinfo_survives_being_written_and_read(info in narinfo()) {
        prop_assert_eq!(NarInfo::parse(&info.to_string(), "x"), Ok(info));
    }

    #[test]
    fn no_text_panics(text in ".*") {
        let _ = NarInfo::parse(&text, "x");
    }

    #[test]
    fn a_damaged_narinfo_is_refused_or_means_what_it_says(info in narinfo(), position in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = info.to_string().into_bytes();
        let position = position % bytes.len();
        bytes[position] = byte;
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(read) = NarInfo::parse(&text, "x")
        {
            prop_assert_eq!(NarInfo::parse(&read.to_string(), "x"), Ok(read));
        }
    }
}
