//! Recordings, and what is hidden in them.
#![no_main]

use fodder_model::recording::{Answers, Recording, Redactor};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        // What was hidden stays hidden when it is hidden again.
        let redactor = Redactor::new("salt");
        let url = redactor.url(text);
        assert_eq!(redactor.url(&url), url);
    }
    let Ok(recording) = Recording::parse(data) else { return };
    let again = Recording::parse(recording.write().as_bytes()).expect("what was written");
    assert_eq!(again, recording);
    let mut answers = Answers::new(&recording);
    for exchange in &recording.exchanges {
        assert!(answers.next(&exchange.request).is_some_and(|index| index < recording.exchanges.len()));
    }
});
