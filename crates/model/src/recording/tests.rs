use super::*;

fn body(text: &str) -> Body {
    let hash = crate::hash::Hash::of(crate::hash::HashAlgorithm::Sha256, text.as_bytes());
    Body { sha256: hash.to_base16(), size: text.len() as u64 }
}

fn request(url: &str, headers: &[(&str, &str)]) -> Request {
    Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body(""),
    }
}

fn exchange(url: &str, headers: &[(&str, &str)], status: u16, text: &str) -> Exchange {
    let response = Response {
        status,
        reason: None,
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
        body: body(text),
        complete: true,
        trailers: Vec::new(),
    };
    Exchange { request: request(url, headers), response: Some(response) }
}

fn recording(exchanges: Vec<Exchange>) -> Recording {
    Recording {
        version: VERSION,
        derivation: "/nix/store/x.drv".to_owned(),
        salt: "salt".to_owned(),
        names: [("a.test".to_owned(), true)].into(),
        hosts: [("a.test:443".to_owned(), Host { kind: HostKind::Https, http2: true })].into(),
        loopback_ports: [8080].into(),
        exchanges,
        not_recorded: BTreeSet::new(),
    }
}

#[test]
fn what_is_written_is_read() {
    let written = recording(vec![exchange("https://a.test/", &[("range", "bytes=0-1")], 206, "ab")]);
    assert_eq!(Recording::parse(written.write().as_bytes()).unwrap(), written);
}

#[test]
fn what_could_not_have_been_written_is_refused() {
    let good = recording(vec![exchange("https://a.test/", &[], 200, "x")]);
    let refused = |change: fn(&mut Recording)| {
        let mut changed = good.clone();
        change(&mut changed);
        Recording::parse(changed.write().as_bytes()).unwrap_err().to_string()
    };
    assert!(refused(|r| r.version = 2).contains("version 2"));
    assert!(
        refused(|r| r.exchanges[0].response.as_mut().unwrap().body.sha256 = "../../etc/passwd".into())
            .contains("64 hexadecimal")
    );
    assert!(refused(|r| r.exchanges[0].request.body.sha256.make_ascii_uppercase()).contains("64 hexadecimal"));
    assert!(refused(|r| r.exchanges[0].response.as_mut().unwrap().status = 100).contains("status"));
    assert!(refused(|r| r.exchanges[0].request.method = "GET /".into()).contains("request"));
    assert!(refused(|r| r.exchanges[0].request.url.push('\n')).contains("request"));
    assert!(refused(|r| r.exchanges[0].request.headers.push(("a b".into(), "x".into()))).contains("request"));
    // Of which nothing is read.
    assert!(matches!(Recording::parse(&vec![0; SIZE_LIMIT + 1]), Err(RecordingError::TooLarge)));
    for (name, value) in [("a\nb", "x"), ("a", "x\r\ny"), ("", "x"), ("a", "\u{100}")] {
        let mut changed = good.clone();
        changed.exchanges[0].response.as_mut().unwrap().headers.push((name.into(), value.into()));
        assert!(Recording::parse(changed.write().as_bytes()).is_err(), "{name:?} {value:?}");
    }
    for text in ["", "{}", "[]", "{\"version\":1}", "null"] {
        assert!(Recording::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn secrets_are_replaced_and_all_else_stays() {
    let redactor = Redactor::new("salt");
    for (url, kept, gone) in [
        ("https://a.test/x?access_token=hunter2&page=2", "page=2", "hunter2"),
        ("https://a.test/x?page=2&X-Amz-Signature=hunter2", "X-Amz-Signature=REDACTED-", "hunter2"),
        ("https://a.test/x?acc%65ss_tok%65n=hunter2", "REDACTED-", "hunter2"),
        ("https://me:hunter2@a.test/x@1?q", "@a.test/x@1?q", "hunter2"),
        ("/x?PASSWORD=hunter2#top", "PASSWORD=REDACTED-", "hunter2"),
        ("https://a.test/x?sig=hunter2;se=1", ";se=1", "hunter2"),
    ] {
        let redacted = redactor.url(url);
        assert!(redacted.contains(kept) && !redacted.contains(gone), "{redacted}");
        assert_eq!(redactor.url(&redacted), redacted, "once is enough");
    }
    for url in ["https://a.test/@scope%2fname?write=true", "https://a.test/a=b?token=&x", "/"] {
        assert_eq!(redactor.url(url), url);
    }
    for (name, value, start) in [
        ("authorization", "Basic hunter2", "Basic REDACTED-"),
        ("authorization", "hunter2", "REDACTED-"),
        ("cookie", "a=hunter2", "REDACTED-"),
        ("x-jfrog-art-api", "hunter2", "REDACTED-"),
        ("x-nobody-knows", "hunter2", "REDACTED-"),
        ("referer", "https://a.test/x?token=hunter2", "https://a.test/x?token=REDACTED-"),
    ] {
        let redacted = redactor.request_header(name, value);
        assert!(redacted.starts_with(start) && !redacted.contains("hunter2"), "{name}: {redacted}");
    }
    assert_eq!(redactor.request_header("range", "bytes=0-1"), "bytes=0-1");
    for (name, value, kept) in [
        ("set-cookie", "id=hunter2; Path=/; HttpOnly", "; Path=/; HttpOnly"),
        ("location", "https://b.test/f?X-Goog-Signature=hunter2&n=1", "&n=1"),
        ("link", "<https://b.test/f?token=hunter2>; rel=\"next\"", ">; rel=\"next\""),
        ("x-auth-token", "hunter2", "REDACTED-"),
    ] {
        let redacted = redactor.response_header(name, value);
        assert!(redacted.contains(kept) && !redacted.contains("hunter2"), "{name}: {redacted}");
    }
    for (name, value) in [("www-authenticate", "Bearer realm=\"https://a.test/token\""), ("etag", "\"a?b\"")] {
        assert_eq!(redactor.response_header(name, value), value);
    }
}

#[test]
fn marks_tell_tokens_apart_and_no_more() {
    let redactor = Redactor::new("salt");
    let mark = |secret: &str| redactor.request_header("cookie", secret);
    assert_eq!(mark("a"), mark("a"));
    assert_ne!(mark("a"), mark("b"));
    assert_ne!(mark("a"), Redactor::new("other").request_header("cookie", "a"));
    assert_eq!(mark("a").len(), "REDACTED-0000".len());
}

#[test]
fn answers_come_in_order_and_the_last_is_repeated() {
    let url = "https://a.test/";
    let recording = recording(vec![
        exchange(url, &[], 503, ""),
        exchange(url, &[("range", "bytes=0-1")], 206, "ab"),
        exchange(url, &[], 200, "abc"),
    ]);
    let mut answers = Answers::new(&recording);
    let plain = request(url, &[("user-agent", "another")]);
    assert_eq!([0; 3].map(|_| answers.next(&plain)), [Some(0), Some(2), Some(2)]);
    assert_eq!(answers.next(&request(url, &[("range", "bytes=0-1")])), Some(1));
    assert_eq!(answers.next(&request(url, &[("range", "bytes=2-3")])), None);
    assert_eq!(answers.next(&request("https://a.test/other", &[])), None);
    let mut posted = plain.clone();
    posted.body = body("x");
    assert_eq!(answers.next(&posted), None, "what was sent counts");
    posted = plain;
    posted.method = "HEAD".to_owned();
    assert_eq!(answers.next(&posted), None);
}

#[test]
fn a_replay_need_not_know_the_secrets_but_they_are_told_apart() {
    let redactor = Redactor::new("salt");
    let with = |token: &str| redactor.url(&format!("https://a.test/?token={token}"));
    let recording = recording(vec![exchange(&with("one"), &[], 200, "1"), exchange(&with("two"), &[], 200, "2")]);
    let mut answers = Answers::new(&recording);
    assert_eq!(answers.next(&request(&with("two"), &[])), Some(1));
    assert_eq!(answers.next(&request(&with("one"), &[])), Some(0));
    assert_eq!(answers.next(&request(&with("another"), &[])), Some(0));
    // Whether there was a password at all is another matter.
    assert_eq!(answers.next(&request(&with("one"), &[("authorization", "Basic REDACTED-0000")])), None);
}

#[test]
fn differences_are_changes_of_answers_and_nothing_else() {
    let redactor = |salt: &str| Redactor::new(salt).url("https://a.test/t?token=x");
    let first = recording(vec![
        exchange("https://a.test/same", &[], 200, "x"),
        exchange("https://a.test/changed", &[], 200, "x"),
        exchange("https://a.test/gone", &[], 200, "x"),
        exchange(&redactor("1"), &[], 200, "x"),
    ]);
    let mut second = recording(vec![
        exchange(&redactor("2"), &[("user-agent", "b")], 200, "x"),
        exchange("https://a.test/new", &[], 404, ""),
        exchange("https://a.test/changed", &[], 200, "yy"),
        exchange("https://a.test/same", &[], 200, "x"),
        exchange("https://a.test/same", &[], 200, "x"),
    ]);
    second.exchanges[3].response.as_mut().unwrap().headers.push(("date".into(), "today".into()));
    assert_eq!(differences(&first, &first), []);
    let found = differences(&first, &second);
    let short: Vec<_> = found.iter().map(|found| (found.url.as_str(), found.change)).collect();
    assert_eq!(
        short,
        [
            ("https://a.test/changed", Change::Changed),
            ("https://a.test/gone", Change::Vanished),
            ("https://a.test/new", Change::Appeared)
        ]
    );
    assert!(found[0].details[0].contains("1 bytes → 2 bytes"), "{found:?}");
}
