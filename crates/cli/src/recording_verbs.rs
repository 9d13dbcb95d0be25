//! `fodder recording …`: looking at recordings, without building anything.

use crate::{
    diagnose::Failure,
    words::{harmless, print_json, print_line},
};
use clap::Subcommand;
use fodder_gateway::record;
use fodder_model::recording::{Change, Difference, Exchange, Recording, Response, differences};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(crate) enum RecordingVerb {
    /// List what was asked for and answered.
    Show {
        /// Recording.
        file: PathBuf,
        /// Print the recording itself.
        #[arg(long)]
        json: bool,
    },
    /// Compare two recordings: which address changed, appeared, vanished. Exit code 1 if any did.
    Diff {
        /// The first recording.
        before: PathBuf,
        /// The second one.
        after: PathBuf,
        /// Print the differences as one JSON array.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn recording(verb: &RecordingVerb) -> Result<u8, Failure> {
    match verb {
        RecordingVerb::Show { file, json } => {
            let recording = read(file)?;
            if *json {
                print_json(recording.write().trim_end());
            } else {
                show(&recording);
            }
            Ok(0)
        }
        RecordingVerb::Diff { before, after, json } => {
            let found = differences(&read(before)?, &read(after)?);
            if *json {
                let text = serde_json::to_string(&found)
                    .map_err(|error| Failure::new(format!("error: cannot write the differences: {error}"), 2))?;
                print_line(&text);
            } else {
                found.iter().for_each(tell);
            }
            Ok(u8::from(!found.is_empty()))
        }
    }
}

/// 1 means "different", so what cannot be read is 2.
fn read(file: &Path) -> Result<Recording, Failure> {
    record::read(file).map_err(|error| Failure::new(format!("error: {}", fodder_build::chain(&error)), 2))
}

fn show(recording: &Recording) {
    let Recording { version: _, derivation, salt: _, names, hosts, loopback_ports: _, exchanges, not_recorded } =
        recording;
    print_line(&harmless(derivation.as_bytes()));
    for (number, Exchange { request, response }) in exchanges.iter().enumerate() {
        let range = request.headers.iter().find(|(name, _)| name == "range");
        let range = range.map(|(_, range)| format!(" ({range})")).unwrap_or_default();
        let answer = match response {
            None => "no answer".to_owned(),
            Some(Response { status, reason: _, headers, body, complete, trailers: _ }) => {
                let to = headers.iter().find(|(name, _)| name == "location");
                let to = to.map(|(_, to)| format!(" to {to}")).unwrap_or_default();
                let cut = if *complete { "" } else { ", cut" };
                format!("{status}{to}, {} bytes{cut}, sha256 {}", body.size, body.sha256)
            }
        };
        let line = format!("{:4}  {} {}{range}", number + 1, request.method, request.url);
        print_line(&harmless(line.as_bytes()));
        print_line(&harmless(format!("      {answer}").as_bytes()));
    }
    for (host, how) in hosts.iter().filter(|(_, how)| how.kind == fodder_model::recording::HostKind::Unreachable) {
        let _ = how;
        print_line(&harmless(format!("not reached: {host}").as_bytes()));
    }
    for (name, _) in names.iter().filter(|(_, exists)| !**exists) {
        print_line(&harmless(format!("no such name: {name}").as_bytes()));
    }
    for what in not_recorded {
        print_line(&harmless(format!("not recorded: {what}").as_bytes()));
    }
}

fn tell(difference: &Difference) {
    let Difference { method, url, range, change, details } = difference;
    let word = match change {
        Change::Changed => "changed ",
        Change::Appeared => "appeared",
        Change::Vanished => "vanished",
    };
    let range = range.as_ref().map(|range| format!(" ({range})")).unwrap_or_default();
    print_line(&harmless(format!("{word}  {method} {url}{range}").as_bytes()));
    for detail in details {
        print_line(&harmless(format!("          {detail}").as_bytes()));
    }
}
