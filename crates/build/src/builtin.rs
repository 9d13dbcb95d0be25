//! Builders that are part of this program. They run as PID 1 of the same sandbox as any other builder, with the attributes in the
//! environment; what they print goes to the build log.

use fodder_model::bytes::ByteString;
use fodder_sandbox::InternalProgram;
use fodder_store::{Http, HttpSettings, Proxies};
use std::{
    fs::{File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
};

/// What [`fodder_sandbox::dispatch_helper_with`] must be given.
pub const INTERNAL_PROGRAMS: &[InternalProgram] = &[InternalProgram { name: "builtin:fetchurl", run: fetchurl }];

/// How often a download is tried; Nix's default.
const ATTEMPTS: u32 = 5;

type Environment = [(ByteString, ByteString)];

fn fetchurl(environment: &Environment) -> i32 {
    match try_fetchurl(environment) {
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

fn value<'a>(environment: &'a Environment, name: &str) -> Option<&'a ByteString> {
    environment.iter().find(|(found, _)| *found == *name).map(|(_, value)| value)
}

fn text(environment: &Environment, name: &str) -> String {
    value(environment, name).map(ToString::to_string).unwrap_or_default()
}

fn try_fetchurl(environment: &Environment) -> Result<(), String> {
    let attribute = |name: &str| value(environment, name).ok_or_else(|| format!("attribute '{name}' missing"));
    let (url, out) = (attribute("url")?.to_string(), attribute("out")?);
    if text(environment, "unpack") == "1" {
        return Err("'builtin:fetchurl' with 'unpack' is not supported yet".to_owned());
    }
    let either = |lower: &str| {
        let found = text(environment, lower);
        if found.is_empty() { text(environment, &lower.to_uppercase()) } else { found }
    };
    let bundle = fodder_model::short_form::CERTIFICATE_BUNDLE;
    let certificates = std::fs::read(bundle).map_err(|error| format!("cannot read '{bundle}': {error}"))?;
    let proxies = Proxies {
        http: either("http_proxy"),
        https: either("https_proxy"),
        all: either("all_proxy"),
        except: either("no_proxy"),
    };
    let http =
        Http::new(&HttpSettings { certificates, attempts: ATTEMPTS, proxies }).map_err(|error| error.to_string())?;
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(out.as_path())
        .map_err(|error| format!("cannot create '{out}': {error}"))?;
    say(&format!("downloading '{url}'"));
    http.download(&url, &mut file, &mut |error, wait| {
        say(&format!("warning: {error}; retrying in {} ms", wait.as_millis()));
    })
    .map_err(|error| crate::chain(&error))?;
    if text(environment, "executable") == "1" {
        file.set_permissions(Permissions::from_mode(0o755))
            .map_err(|error| format!("cannot make '{out}' executable: {error}"))?;
    }
    Ok(())
}
