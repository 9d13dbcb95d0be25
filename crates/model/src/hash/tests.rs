//! Vectors from real Nix and from the standards.

use super::*;

const HI_HEX: &str = "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";
const HI_NIX32: &str = "1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq";
const HI_SRI: &str = "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=";

#[test]
fn every_spelling_of_one_digest_reads_the_same() {
    let hash = Hash::of(HashAlgorithm::Sha256, b"hi\n");
    assert_eq!(hash.to_base16(), HI_HEX);
    assert_eq!(hash.to_nix32(), HI_NIX32);
    assert_eq!(hash.to_sri(), HI_SRI);
    let base64 = hash.to_base64();
    for text in [
        HI_SRI.to_owned(),
        format!("sha256:{HI_HEX}"),
        format!("sha256:{HI_NIX32}"),
        format!("sha256:{base64}"),
        format!("sha256:{}", HI_HEX.to_uppercase()),
        format!("{HI_SRI}?foo"),
        HI_SRI.trim_end_matches('=').to_owned(),
    ] {
        assert_eq!(Hash::parse_any(&text, None), Ok(hash), "{text}");
        assert_eq!(Hash::parse_any(&text, Some(HashAlgorithm::Sha256)), Ok(hash), "{text}");
    }
    for bare in [HI_HEX, HI_NIX32, &base64] {
        assert_eq!(Hash::parse_any(bare, Some(HashAlgorithm::Sha256)), Ok(hash), "{bare}");
    }
}

#[test]
fn digests_agree_with_published_vectors() {
    let of = |algorithm, data: &str| Hash::of(algorithm, data.as_bytes());
    assert_eq!(of(HashAlgorithm::Sha256, "").to_nix32(), "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73");
    assert_eq!(of(HashAlgorithm::Sha1, "abc").to_nix32(), "kpcd173cq987hw957sx6m0868wv3x6d9");
    assert_eq!(of(HashAlgorithm::Md5, "abc").to_nix32(), "3jgzhjhz9zjvbb0kyj7jc500ch");
    // FIPS 180-2, appendix C.1, and the BLAKE3 paper's empty input.
    assert!(of(HashAlgorithm::Sha512, "abc").to_base16().starts_with("ddaf35a193617abacc417349ae204131"));
    assert!(of(HashAlgorithm::Blake3, "").to_base16().starts_with("af1349b9f5f9a1a6a0404dea36dcc949"));
}

#[test]
fn errors_use_the_words_people_search_for() {
    let message = |text: &str, expected| Hash::parse_any(text, expected).unwrap_err().to_string();
    assert_eq!(
        message("98ea", Some(HashAlgorithm::Sha256)),
        "hash '98ea' has wrong length for hash algorithm 'sha256'"
    );
    assert_eq!(message("sha256-mOpu", None), "invalid SRI hash 'mOpu', length 3 != expected length 32");
    assert_eq!(message(HI_SRI, Some(HashAlgorithm::Sha1)), format!("hash '{HI_SRI}' should have type 'sha1'"));
    assert_eq!(
        message("98ea", None),
        "hash '98ea' does not include a type, nor is the type otherwise known from context"
    );
    assert_eq!(
        message("foo:98ea", None),
        "unknown hash algorithm 'foo', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'"
    );
    assert_eq!(Hash::parse_sri(HI_HEX).unwrap_err().to_string(), format!("hash '{HI_HEX}' is not SRI"));
    let foreign = "e".repeat(52);
    assert_eq!(
        message(&foreign, Some(HashAlgorithm::Sha256)),
        format!("invalid nix32 hash '{foreign}', length 0 != expected length 32")
    );
}
