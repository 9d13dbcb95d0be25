//! What the flags mean.

use super::world::{OWN, PUBLIC, World, entry};
use serde_json::json;

const OTHER: &str = "203.0.113.5";

fn world() -> World {
    let mut world = World::new();
    world.names = json!({ "a.example": [PUBLIC], "deep.b.example": [OTHER], "b.example": ["203.0.113.6"] });
    world.hello.extend([(OTHER, 80), (OTHER, 8321), ("203.0.113.6", 80), (OWN, 80)]);
    world
}

/// Which of the calls are let through with these flags.
#[track_caller]
fn reached(flags: &[&str], expected: &[&str]) -> serde_json::Value {
    const CALLS: &str = "
reached = []
for host, port in ('a.example', 80), ('a.example', 8321), ('deep.b.example', 80), ('deep.b.example', 8321), ('b.example', 80), ('192.0.2.2', 80):
    if call(host, port).startswith('hello'): reached.append(f'{host}:{port}')
say('reached', *reached)";
    let (said, result) = world().says(CALLS, flags);
    assert_eq!(said, [[&["reached"], expected].concat().join(" ")], "{flags:?} {result:#}");
    result
}

#[test]
fn everybody_but_this_machine_may_be_called_unless_somebody_is_named() {
    let all = ["a.example:80", "a.example:8321", "deep.b.example:80", "deep.b.example:8321", "b.example:80"];
    reached(&[], &all);
    reached(&["--allow", "*"], &all);
    // An address of this machine is allowed in addition.
    let own = [&all[..], &["192.0.2.2:80"]].concat();
    reached(&["--allow", OWN], &own);
    reached(&["--allow", "192.0.2.2:80"], &own);
    reached(&["--allow", "192.0.2.2:81"], &all);
}

#[test]
fn only_who_is_named_may_be_called() {
    reached(&["--allow", "a.example"], &["a.example:80", "a.example:8321"]);
    reached(&["--allow", "A.Example:80"], &["a.example:80"]);
    reached(&["--allow", "*.b.example"], &["deep.b.example:80", "deep.b.example:8321"]);
    reached(&["--allow", "*.b.example:80", "--allow", "b.example"], &["deep.b.example:80", "b.example:80"]);
    // Names may be asked for when only addresses are named.
    reached(&["--allow", "203.0.113.0/24"], &["deep.b.example:80", "deep.b.example:8321", "b.example:80"]);
    reached(&["--allow", "203.0.113.5"], &["deep.b.example:80", "deep.b.example:8321"]);
    reached(&["--allow", "203.0.113.5:8321"], &["deep.b.example:8321"]);
}

#[test]
fn what_is_denied_stays_denied() {
    reached(&["--deny", "*"], &[]);
    reached(&["--deny", "*", "--allow", "a.example"], &[]);
    reached(&["--deny", "*:8321"], &["a.example:80", "deep.b.example:80", "b.example:80"]);
    reached(&["--deny", "*.b.example"], &["a.example:80", "a.example:8321", "b.example:80"]);
    reached(&["--deny", "203.0.113.0/24"], &["a.example:80", "a.example:8321"]);
    reached(&["--deny", "192.0.2.2", "--allow", OWN, "--allow", "b.example"], &["b.example:80"]);
}

/// The flag that the result names is one that works.
#[test]
fn a_refusal_names_a_flag_that_works() {
    let world = world();
    let call = format!("say(call('{OTHER}', 80)); say(call('{OWN}', 80))");
    let (said, result) = world.says(&call, &["--allow", "a.example"]);
    assert_eq!(said, ["ECONNRESET"; 2]);
    let mut flags = vec!["--allow", "a.example"];
    for address in [OTHER, OWN] {
        let entry = entry(&result, address, 80);
        assert_eq!(entry["verdict"], "refused-by-policy");
        assert!(entry["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{entry:#}");
        flags.extend(entry["flag"].as_str().expect("a flag").split(' '));
    }
    let (said, _) = world.says(&call, &flags);
    assert_eq!(said, [format!("hello from {OTHER} 80"), format!("hello from {OWN} 80")]);
}

/// Attack: NET-8. Layer: the ledger.
#[test]
fn the_result_says_who_was_called_with_how_much_and_when() {
    let (said, result) = world().says("for _ in range(3): say(call('a.example', 80))", &[]);
    assert_eq!(said.len(), 3);
    let entry = entry(&result, PUBLIC, 80);
    let hello = format!("hello from {PUBLIC} 80\n").len();
    assert_eq!(entry["names"], json!(["a.example"]));
    assert_eq!(entry["connections"], 3);
    assert_eq!((&entry["bytesIn"], &entry["bytesOut"]), (&json!(3 * hello), &json!(0)));
    let time = |field: &str| entry[field].as_u64().expect("a time");
    assert!(time("firstTime") <= time("lastTime") && time("firstTime") > 1_700_000_000_000, "{entry:#}");
}

#[test]
fn flags_that_name_nobody_are_refused() {
    let world = World::new();
    for (flag, value) in [
        ("--allow", ""),
        ("--allow", "http://a.example"),
        ("--allow", "a.example:0"),
        ("--allow", "a.example:65536"),
        ("--allow", "1.2.3.4/33"),
        ("--deny", "a*.example"),
        ("--allow-loopback", "0"),
        ("--allow-loopback", "x"),
    ] {
        let run = world.lab.fodder(&["build", flag, value, "absent.json"]);
        assert_eq!(run.code, 2, "{flag} {value}: {run:?}");
    }
}

/// What curl says of each host, from a short form with these settings.
fn codes(settings: serde_json::Value, profile: Option<&str>, flags: &[&str]) -> Vec<String> {
    let world = world();
    // Bash's own way to call; the servers say hello and nothing more.
    let call = |host: &str| {
        let hello = format!("exec 3<>/dev/tcp/{host}/80 && head -c 5 <&3 | grep -q hello");
        format!("if timeout 5 bash -c '{hello}' 2>/dev/null; then echo reached {host}; else echo lost {host}; fi")
    };
    let form = json!({
        "name": "form", "dontUnpack": true, "outputHash": "", "outputHashMode": "recursive",
        "fodder": settings, "buildPhase": [call("a.example"), call("b.example"), call("192.0.2.2"), "mkdir $out"],
    });
    let mut arguments = flags.to_vec();
    if let Some(text) = profile {
        world.lab.write("profile.toml", text);
        arguments.extend(["--profile", "profile.toml"]);
    }
    let run = world.build_form(&form, &arguments);
    let said = run.stderr.lines().filter_map(|line| line.strip_prefix("form> reached ")).map(str::to_owned).collect();
    assert!(run.stderr.contains("form> lost") || run.stderr.contains("form> reached"), "{run:?}");
    said
}

#[test]
fn a_file_can_say_who_may_not_be_called_and_nothing_more() {
    assert_eq!(codes(json!({}), None, &[]), ["a.example", "b.example"]);
    assert_eq!(codes(json!({"network": {"allow": ["b.example"]}}), None, &[]), ["b.example"]);
    assert_eq!(codes(json!({"network": {"deny": ["b.example"]}}), None, &[]), ["a.example"]);
    assert_eq!(codes(json!({"network": {"mode": "none"}}), None, &[]), [""; 0]);
    // It cannot open this machine, and not what the person has not allowed.
    assert_eq!(codes(json!({"network": {"allow": ["192.0.2.2", "*"]}}), None, &[]), ["a.example", "b.example"]);
    assert_eq!(codes(json!({"network": {"allow": ["b.example"]}}), None, &["--allow", "a.example"]), [""; 0]);
    for (network, words) in [
        (json!({"mode": "host"}), "a file cannot ask for the network 'host'"),
        (json!({"allowLoopback": [80]}), "unknown setting 'allowLoopback'"),
        (json!({"allow": ["http://x"]}), "is not HOST or HOST:PORT"),
    ] {
        let lab = crate::lab::Lab::new();
        lab.write("form.json", json!({"name": "x", "buildPhase": "true", "fodder": {"network": network}}).to_string());
        let run = lab.build(&["form.json"]);
        assert_eq!(run.code, 100, "{}", run.stderr);
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
}

#[test]
fn a_profile_can_say_who_may_be_called() {
    let profile = |network: &str| format!("extends = \"host-tools\"\n[network]\nwhy = \"a test\"\n{network}\n");
    let own = profile("allow = [\"192.0.2.2\"]");
    assert_eq!(codes(json!({}), Some(&own), &[]), ["a.example", "b.example", "192.0.2.2"]);
    assert_eq!(codes(json!({}), Some(&profile("allow = [\"a.example\"]")), &[]), ["a.example"]);
    assert_eq!(codes(json!({}), Some(&profile("deny = [\"a.example\"]")), &[]), ["b.example"]);
    assert_eq!(codes(json!({}), Some(&profile("mode = \"none\"")), &[]), [""; 0]);
    assert_eq!(
        codes(json!({}), Some(&profile("mode = \"none\"")), &["--network", "gateway"]),
        ["a.example", "b.example"]
    );
}
