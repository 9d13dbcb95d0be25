//! Every way in which an address is protected, and every way in which it may be called after all.

use super::*;

fn policy(allow: &[&str], deny: &[&str], loopback_ports: &[u16]) -> NetworkPolicy {
    let read = |texts: &[&str]| texts.iter().map(|text| Destination::parse(text).unwrap()).collect();
    NetworkPolicy {
        allow: read(allow),
        deny: read(deny),
        loopback_ports: loopback_ports.iter().copied().collect(),
        only: Vec::new(),
    }
}

fn decide(policy: &NetworkPolicy, address: &str, port: u16, names: &[&str]) -> Result<(), String> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let own = ["192.168.7.7".parse().unwrap(), "2001:db8::7".parse().unwrap()].into();
    let call = Call { address: address.parse().unwrap(), port, names: &names };
    policy.decide(&call, &own).map_err(|refusal| refusal.flag.unwrap_or(refusal.reason))
}

#[test]
fn destinations_are_read_and_written() {
    for text in [
        "example.org",
        "example.org:443",
        "*.example.org",
        "*.example.org:80",
        "10.0.0.1",
        "10.0.0.0/8",
        "10.0.0.1:22",
        "10.0.0.0/8:22",
        "2001:db8::1",
        "[2001:db8::1]:443",
        "2001:db8::/32",
        "*",
        "*:443",
        "localhost:1",
    ] {
        assert_eq!(Destination::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(Destination::parse("EXAMPLE.Org.").unwrap().to_string(), "example.org");
    // Addresses that are IPv4 in disguise are IPv4, also in the flag that a refusal names; networks of them are said as such.
    for (text, meant) in
        [("::ffff:10.0.0.1", "10.0.0.1"), ("::cc:c", "0.204.0.12"), ("[64:ff9b::10.0.0.1]:22", "10.0.0.1:22")]
    {
        let destination = Destination::parse(text).unwrap();
        assert_eq!(destination.to_string(), meant);
        assert_eq!(Destination::parse(meant).unwrap(), destination);
    }
    for text in [
        "",
        "::ffff:10.0.0.0/104",
        "10.0.0.0.",
        "64:ff9b::/96",
        ":443",
        "a b",
        "example.org:0",
        "example.org:65536",
        "10.0.0.0/33",
        "*.",
        "a..b",
        "http://x",
        "*x.org",
        "[::1]",
    ] {
        assert!(Destination::parse(text).is_err(), "{text}");
    }
}

#[test]
fn by_default_everybody_may_be_called_but_this_machine_and_its_link() {
    let policy = policy(&[], &[], &[]);
    for address in ["93.184.216.34", "10.1.2.3", "192.168.7.8", "2606:2800::1", "fd12::1", "100.64.0.1"] {
        assert_eq!(decide(&policy, address, 443, &["example.org"]), Ok(()), "{address}");
    }
    for (address, flag) in [
        ("127.0.0.1", "--allow-loopback 443"),
        ("127.8.9.1", "--allow-loopback 443"),
        ("::1", "--allow-loopback 443"),
        ("::ffff:127.0.0.1", "--allow-loopback 443"),
        ("64:ff9b::7f00:1", "--allow-loopback 443"),
        ("2002:7f00:1::", "--allow-loopback 443"),
        ("::127.0.0.1", "--allow-loopback 443"),
        ("169.254.169.254", "--allow 169.254.169.254:443"),
        ("::ffff:169.254.169.254", "--allow 169.254.169.254:443"),
        ("169.254.1.1", "--allow 169.254.1.1:443"),
        ("::ffff:0:169.254.169.254", "--allow 169.254.169.254:443"),
        ("64:ff9b:1::a9fe:a9fe", "--allow 169.254.169.254:443"),
        ("168.63.129.16", "--allow 168.63.129.16:443"),
        ("fd00:ec2::23", "--allow [fd00:ec2::23]:443"),
        ("fd20:ce::254", "--allow [fd20:ce::254]:443"),
        ("fd00:42::42", "--allow [fd00:42::42]:443"),
        ("100.100.100.200", "--allow 100.100.100.200:443"),
        ("192.0.0.192", "--allow 192.0.0.192:443"),
        ("fe80::1", "--allow [fe80::1]:443"),
        ("fd00:ec2::254", "--allow [fd00:ec2::254]:443"),
        ("192.168.7.7", "--allow 192.168.7.7:443"),
        ("2001:db8::7", "--allow [2001:db8::7]:443"),
    ] {
        // Whatever name it was given.
        assert_eq!(decide(&policy, address, 443, &["example.org"]), Err(flag.to_owned()), "{address}");
    }
    for address in ["0.0.0.0", "0.1.2.3", "::", "255.255.255.255", "224.0.0.1", "ff02::1"] {
        assert_eq!(decide(&policy, address, 443, &[]), Err("this is no address of a host".to_owned()), "{address}");
    }
}

#[test]
fn the_flag_that_a_refusal_names_allows_it_and_changes_nothing_else() {
    for address in ["169.254.169.254", "fe80::1", "192.168.7.7"] {
        let flag = decide(&policy(&[], &[], &[]), address, 80, &[]).unwrap_err();
        let lifted = policy(&[flag.strip_prefix("--allow ").unwrap()], &[], &[]);
        assert_eq!(decide(&lifted, address, 80, &[]), Ok(()));
        assert!(decide(&lifted, address, 81, &[]).is_err());
        assert_eq!(decide(&lifted, "93.184.216.34", 80, &[]), Ok(()));
    }
    let loopback = policy(&[], &[], &[8080]);
    assert_eq!(decide(&loopback, "127.0.0.1", 8080, &[]), Ok(()));
    assert_eq!(decide(&loopback, "::1", 8080, &[]), Ok(()));
    assert!(decide(&loopback, "127.0.0.1", 8081, &[]).is_err());
    assert!(decide(&loopback, "192.168.7.7", 8080, &[]).is_err());
}

#[test]
fn naming_a_host_refuses_all_others() {
    let policy = policy(&["example.org:443", "*.example.net", "10.0.0.0/8"], &[], &[]);
    for (address, port, name, is_allowed) in [
        ("1.1.1.1", 443, "example.org", true),
        ("1.1.1.1", 443, "EXAMPLE.ORG.", true),
        ("1.1.1.1", 80, "example.org", false),
        ("1.1.1.1", 443, "www.example.org", false),
        ("1.1.1.1", 9, "a.b.example.net", true),
        ("1.1.1.1", 9, "example.net", false),
        ("1.1.1.1", 9, "notexample.net", false),
        ("10.9.8.7", 9, "anything", true),
        ("1.1.1.1", 443, "other.org", false),
    ] {
        let decision = decide(&policy, address, port, &[name]);
        assert_eq!(decision.is_ok(), is_allowed, "{name}:{port} at {address}: {decision:?}");
    }
    assert_eq!(decide(&policy, "1.1.1.1", 443, &["other.org"]), Err("--allow other.org:443".to_owned()));
    assert_eq!(decide(&policy, "1.1.1.1", 443, &[]), Err("--allow 1.1.1.1:443".to_owned()));
}

/// Rebinding: whoever controls a name can make it lead anywhere.
#[test]
fn a_name_that_is_allowed_does_not_open_this_machine() {
    let policy = policy(&["evil.example", "*"], &[], &[]);
    for address in ["127.0.0.1", "169.254.169.254", "192.168.7.7", "::1"] {
        assert!(decide(&policy, address, 80, &["evil.example"]).is_err(), "{address}");
    }
}

#[test]
fn what_is_denied_stays_denied() {
    let policy = policy(&["example.org", "127.0.0.1"], &["*.example.org", "example.org:80", "127.0.0.0/8"], &[443]);
    assert_eq!(decide(&policy, "1.1.1.1", 443, &["example.org"]), Ok(()));
    assert!(decide(&policy, "1.1.1.1", 80, &["example.org"]).unwrap_err().contains("--deny example.org:80"));
    assert!(decide(&policy, "1.1.1.1", 443, &["x.example.org"]).is_err());
    assert!(decide(&policy, "127.0.0.1", 443, &[]).is_err());
    // Who asks for the address of a name tells its server so.
    let denied = self::policy(&[], &["*.example.org", "example.com:80"], &[]);
    let allow = vec![Destination::parse("example.org").unwrap()];
    let allowed = NetworkPolicy { allow, ..NetworkPolicy::default() };
    assert!(allowed.may_ask("example.org") && !allowed.may_ask("other.org"));
    assert!(!denied.may_ask("secret.example.org") && denied.may_ask("example.org") && denied.may_ask("example.com"));
}

#[test]
fn a_wide_network_lifts_no_protection() {
    for wide in ["0.0.0.0/0", "127.0.0.0/7", "128.0.0.0/1", "168.0.0.0/7", "192.168.0.0/16", "192.168.7.7/24", "::/0"] {
        let policy = policy(&[wide], &[], &[]);
        for address in ["127.0.0.1", "169.254.169.254", "192.168.7.7", "::1", "fe80::1", "fd00:ec2::254"] {
            assert!(decide(&policy, address, 80, &[]).is_err(), "{wide} {address}");
        }
        assert!(decide(&policy, "93.184.216.34", 80, &[]).is_ok() == ["0.0.0.0/0"].contains(&wide), "{wide}");
    }
    // A whole protected network can be meant.
    for (network, address) in
        [("169.254.0.0/16", "169.254.7.7"), ("127.0.0.0/8", "127.9.9.9"), ("fe80::/10", "fe80::7")]
    {
        let policy = policy(&[network], &[], &[]);
        assert_eq!(decide(&policy, address, 80, &[]), Ok(()));
        assert_eq!(decide(&policy, "93.184.216.34", 80, &[]), Ok(()));
    }
}

/// A file can keep a build from calling others; it opens nothing that the person has not opened.
#[test]
fn what_a_file_says_only_takes_away() {
    let only = |texts: &[&str], person: NetworkPolicy| NetworkPolicy {
        only: texts.iter().map(|text| Destination::parse(text).unwrap()).collect(),
        ..person
    };
    let file = only(&["example.org", "127.0.0.1"], policy(&[], &[], &[]));
    assert_eq!(decide(&file, "1.1.1.1", 443, &["example.org"]), Ok(()));
    assert!(decide(&file, "1.1.1.1", 443, &["other.org"]).unwrap_err().contains("the file itself"));
    assert_eq!(decide(&file, "127.0.0.1", 80, &[]), Err("--allow-loopback 80".to_owned()));
    assert!(file.may_ask("example.org") && !file.may_ask("other.org"));
    let both = only(&["example.org"], policy(&["other.org"], &[], &[]));
    assert!(
        decide(&both, "1.1.1.1", 443, &["example.org"]).is_err()
            && decide(&both, "1.1.1.1", 443, &["other.org"]).is_err()
    );
}
