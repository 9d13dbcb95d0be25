use super::*;

#[test]
fn values_know_where_they_stand() {
    let text = b"{\n  \"outputs\": {\"out\": {\"hash\": 12}},\n  \"a b\": [1, \"\xc3\xa9\", {}]\n}";
    let root = parse(text).unwrap();
    let hash = root.get("outputs").unwrap().get("out").unwrap().get("hash").unwrap();
    assert_eq!(&text[hash.span.clone()], b"12");
    let error = hash.string().unwrap_err();
    assert_eq!(error.line_and_column(text), (2, 31));
    assert_eq!(
        error.to_string(),
        "at $.outputs.out.hash: expected a value of type 'string' but it is of type 'number': 12"
    );
    let last = &root.get("a b").unwrap().array().unwrap()[2];
    assert_eq!((last.path.to_string().as_str(), last.error("").line_and_column(text)), ("$[\"a b\"][2]", (3, 19)));
}

#[test]
fn duplicate_keys_are_errors_at_the_second() {
    let text = br#"{"a": 1, "b": {"x": 1, "\u0078": 2}}"#;
    let error = parse(text).unwrap_err();
    assert_eq!(error.to_string(), "at $.b.x: duplicate key 'x'");
    assert_eq!(error.line_and_column(text), (1, 24));
}

#[test]
fn syntax_errors_have_a_place() {
    let text = b"{\n \"a\": tru\n}";
    let error = parse(text).unwrap_err();
    assert_eq!(error.line_and_column(text).0, 2, "{error:?}");
    assert!(error.message.starts_with("not valid JSON: "), "{error:?}");
    assert!(parse(b"{} x").is_err());
    assert!(parse(b"\xff").is_err());
    assert!(parse(b"").is_err());
}

/// Attack: DRV-6 (depth). Layer: depth limit of the JSON reader.
#[test]
fn nesting_is_limited_and_does_not_exhaust_the_stack() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(parse(deep(100).as_bytes()).is_ok());
    assert!(parse(deep(1000).as_bytes()).unwrap_err().message.contains("128"));
    assert!(parse(deep(1_000_000).as_bytes()).is_err());
    assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
}

/// A text of three megabytes would take a terabyte if every value kept its path as text.
///
/// Attack: DRV-6 (memory). Layer: places that are shared.
#[test]
fn a_long_key_is_kept_once_however_many_values_are_below_it() {
    let text = format!("{{\"{}\":[{}0]}}", "k".repeat(1 << 20), "1,".repeat(1 << 20));
    let root = parse(text.as_bytes()).unwrap();
    let Value::Object(members) = &root.value else { panic!("an object") };
    let last = members[0].node.array().unwrap().last().unwrap();
    let path = last.path.to_string();
    assert!(path.len() < 200 && path.ends_with("[1048576]"), "{path}");
}

/// Attack: DRV-6 (count). Layer: value limit of the JSON reader.
#[test]
fn values_are_counted() {
    let mut levels = Levels { text: "[1,2]", values: VALUE_LIMIT - 2 };
    let raw: &RawValue = serde_json::from_str(levels.text).unwrap();
    let error = levels.node(raw, JsonPath::root(), 0).unwrap_err();
    assert_eq!(error.to_string(), "at $[1]: the text has more than 8388608 values");
}

/// Of a name of a hundred megabytes the comparison alone would take gigabytes.
#[test]
fn a_word_that_nobody_can_have_meant_is_compared_with_nothing() {
    let (long, longer) = ("k".repeat(NEAREST_LIMIT), "k".repeat(NEAREST_LIMIT + 1));
    assert_eq!(nearest(&long, [longer.as_str()]), Some(longer.as_str()));
    assert_eq!(nearest(&longer, [long.as_str()]), None);
}

#[test]
fn a_near_miss_is_recognised_and_a_far_one_is_not() {
    let known = ["buildPhase", "installPhase", "outputHash", "src"];
    assert_eq!(nearest("buildphase", known), Some("buildPhase"));
    assert_eq!(nearest("instalPhase", known), Some("installPhase"));
    assert_eq!(nearest("ouputHash", known), Some("outputHash"));
    assert_eq!(nearest("fooBarBaz", known), None);
}
