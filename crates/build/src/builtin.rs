//! Builders that are part of this program. They run as PID 1 of the same sandbox as any other builder, with the attributes in the
//! environment; what they print goes to the build log.

mod buildenv;
mod fetchurl;
mod unpack_channel;

use fodder_model::bytes::ByteString;
use fodder_sandbox::InternalProgram;
use std::{io::Write, path::Path};

/// What [`fodder_sandbox::dispatch_helper_with`] must be given.
pub const INTERNAL_PROGRAMS: &[InternalProgram] = &[
    InternalProgram { name: "builtin:buildenv", run: |environment| report(buildenv::run(&Attributes(environment))) },
    InternalProgram { name: "builtin:fetchurl", run: |environment| report(fetchurl::run(&Attributes(environment))) },
    InternalProgram {
        name: "builtin:unpack-channel",
        run: |environment| report(unpack_channel::run(&Attributes(environment))),
    },
];

/// The builder's environment, which holds the derivation's attributes.
struct Attributes<'a>(&'a [(ByteString, ByteString)]);

impl Attributes<'_> {
    fn find(&self, name: &str) -> Option<&ByteString> {
        self.0.iter().find(|(found, _)| *found == *name).map(|(_, value)| value)
    }

    /// One that must be there. The words are Nix's.
    fn required(&self, name: &str) -> Result<&ByteString, String> {
        self.find(name).ok_or_else(|| format!("attribute '{name}' missing"))
    }

    fn text(&self, name: &str) -> String {
        self.find(name).map(ToString::to_string).unwrap_or_default()
    }

    fn is_set(&self, name: &str) -> bool {
        self.find(name).is_some_and(|value| *value == *"1")
    }
}

fn report(result: Result<(), String>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(message) => {
            say(&format!("error: {message}"));
            1
        }
    }
}

/// Standard error is the build log here.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// An error of the system's with what was being done to what.
fn failed<'a>(doing: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> String + 'a {
    move |error| format!("cannot {doing} '{}': {error}", path.display())
}
