//! Queries for names.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = fodder_gateway::is_query(data);
});
