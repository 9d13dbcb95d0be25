//! The machine's proxy, and builds that know of none.

use super::world::{PUBLIC, World};

const CALLS: &str = "say(call('public.example', 8321)); say(call('behind.example', 80))
say([name for name in os.environ if 'proxy' in name.lower()])";

fn world(environment: &[(&'static str, &'static str)]) -> World {
    let mut world = World::new();
    world.proxy = vec![("192.0.2.80", 3128)];
    world.environment = environment.to_vec();
    world
}

fn connects(world: &World) -> Vec<String> {
    world.asked().into_iter().filter(|line| line.starts_with("CONNECT")).collect()
}

#[test]
fn builds_go_through_the_machines_proxy_without_being_told() {
    for environment in [
        &[("https_proxy", "http://192.0.2.80:3128"), ("http_proxy", "http://192.0.2.80:3128/")][..],
        &[("HTTPS_PROXY", "192.0.2.80:3128"), ("HTTP_PROXY", "192.0.2.80:3128")],
        &[("all_proxy", "http://192.0.2.80:3128")],
    ] {
        let world = world(environment);
        let (said, result) = world.says(CALLS, &[]);
        assert_eq!(said, [format!("hello from {PUBLIC} 8321"), format!("hello from {PUBLIC} 80"), "[]".to_owned()]);
        let expected = ["CONNECT public.example:8321 HTTP/1.1", "CONNECT behind.example:80 HTTP/1.1"];
        assert_eq!(connects(&world), expected, "{environment:?}");
        let hosts = result["network"]["hosts"].as_array().expect("hosts");
        let names: Vec<&str> = hosts.iter().filter_map(|host| host["names"][0].as_str()).collect();
        assert_eq!(names, ["public.example", "behind.example"], "{hosts:#?}");
    }
}

#[test]
fn where_hosts_share_an_address_the_proxy_is_asked_for_the_one_that_was_meant() {
    let mut world = world(&[("all_proxy", "http://192.0.2.80:3128")]);
    world.names = serde_json::json!({ "public.example": [PUBLIC], "also.example": [PUBLIC] });
    world.says(
        "say(call('public.example', 8321)); say(call('also.example', 8321)); say(call('public.example', 8321))",
        &[],
    );
    let expected = ["public", "also", "public"].map(|name| format!("CONNECT {name}.example:8321 HTTP/1.1"));
    assert_eq!(connects(&world), expected);
}

#[test]
fn the_proxy_is_passed_by_where_the_person_says_so() {
    let world = world(&[("all_proxy", "http://192.0.2.80:3128"), ("no_proxy", "other.example,.example")]);
    let (said, _) = world.says("say(call('public.example', 8321))", &[]);
    assert_eq!(said, [format!("hello from {PUBLIC} 8321")]);
    assert!(connects(&world).is_empty());
}

#[test]
fn a_proxy_is_told_its_password_and_the_build_is_not() {
    let world = world(&[("all_proxy", "http://me:s%33cret@192.0.2.80:3128")]);
    let (said, result) = world.says(
        "say(call('public.example', 8321)); say('s3cret' in str(os.environ), 's3cret' in open('/proc/self/mountinfo').read())",
        &[],
    );
    assert_eq!(said, [format!("hello from {PUBLIC} 8321"), "False False".to_owned()]);
    assert_eq!(connects(&world), ["CONNECT public.example:8321 HTTP/1.1 Proxy-Authorization: Basic bWU6czNjcmV0"]);
    assert!(!result.to_string().contains("s3cret") && !result.to_string().contains("s%33cret"), "{result:#}");
}

#[test]
fn what_the_proxy_refuses_is_refused_with_its_words() {
    let world = world(&[("all_proxy", "http://192.0.2.80:3128")]);
    let (said, result) = world.says("say(call('forbidden.example', 8321))", &[]);
    assert_eq!(said, ["ECONNRESET"]);
    let host = &result["network"]["hosts"][0];
    assert_eq!(host["verdict"], "refused", "{host:#}");
    assert!(host["reason"].as_str().is_some_and(|reason| reason.contains("403 Forbidden")), "{host:#}");
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let world = world(&[("all_proxy", "http://192.0.2.80:3129")]);
    let (said, result) = world.says("say(call('public.example', 8321))", &[]);
    assert_eq!(said, ["ECONNRESET"]);
    let host = &result["network"]["hosts"][0];
    assert!(host["reason"].as_str().is_some_and(|reason| reason.contains("192.0.2.80:3129")), "{host:#}");
}

/// The policy is asked about who is called, not about the way there.
#[test]
fn a_proxy_changes_nothing_about_who_may_be_called() {
    let mut world = world(&[("all_proxy", "http://192.0.2.80:3128")]);
    world.names["metadata.example"] = serde_json::json!(["169.254.169.254"]);
    let calls = "say(call('metadata.example', 80)); say(call('169.254.169.254', 80)); say(call('public.example', 80))";
    let (said, _) = world.says(calls, &["--deny", "public.example"]);
    assert_eq!(said[..2], ["ECONNRESET", "ECONNRESET"]);
    assert!(said[2].starts_with("EAI"), "{said:?}");
    assert!(connects(&world).is_empty(), "{:?}", connects(&world));
}
