//! The short form.
#![no_main]

use fodder_model::{derivation::aterm, json::parse, short_form};
use std::collections::BTreeMap;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(root) = parse(data) else { return };
    let _ = short_form::recognises(&root);
    let Ok(form) = short_form::read(&root) else { return };
    let setup = short_form::setup_script_path();
    let paths: BTreeMap<_, _> = form.sources.iter().map(|source| (source.path.clone(), setup.clone())).collect();
    let Ok(derivation) = short_form::desugar(&form, &paths, &setup, "x86_64-linux") else { return };
    let again = aterm::parse(&derivation.name, &aterm::write(&derivation)).expect("what was written");
    assert_eq!(again, derivation);
    // Sugar: whatever a file says, its network is asked for by no environment variable.
    assert_eq!(derivation.fixed_content().is_some(), again.fixed_content().is_some());
});
