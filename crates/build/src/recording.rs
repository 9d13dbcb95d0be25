//! Recording a build, and building from a recording: what is between the request and the gateway's tap.

use crate::{BuildRequest, error::BuildError, host};
use fodder_gateway::{
    Ledger,
    record::{Player, Recorder, Tap},
};
use fodder_model::{
    bytes::ByteString,
    host::Certificates,
    plan::{BuildPlan, ExtraPath, NetworkMode},
    reference_graph::Input,
    store_path::{STORE_DIRECTORY, StorePath},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where the `cacert` of nixpkgs has its bundle, which its fetchers use instead of the machine's.
const BUNDLE_IN_INPUT: &str = "etc/ssl/certs/ca-bundle.crt";

/// What is to become of a build's exchanges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordingRequest {
    /// Keep them in this file.
    Record(PathBuf),
    /// Answer them from this file, and call nobody.
    Replay(PathBuf),
}

/// What became of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordingReport {
    /// The recording.
    pub file: PathBuf,
    /// Whether it answered; else it was made.
    pub is_replay: bool,
    /// How many requests were answered.
    pub exchanges: u64,
    /// What the build asked for and is not in the recording that should have answered.
    pub missing: Vec<String>,
    /// What went through and cannot be recorded.
    pub not_recorded: Vec<String>,
}

/// The tap of one build.
pub(crate) fn open(request: &BuildRequest) -> Result<Tap, BuildError> {
    match &request.recording {
        None => Ok(Tap::None),
        Some(RecordingRequest::Record(file)) => {
            let bundle = host::certificate_bundle(request.ca_file.as_deref())?;
            Ok(Tap::Record(Arc::new(Recorder::create(file, &bundle)?)))
        }
        Some(RecordingRequest::Replay(file)) => Ok(Tap::Replay(Arc::new(Player::open(file)?))),
    }
}

/// The request of a build whose bundle has the tap's authority as well, in a file of the scratch directory.
pub(crate) fn with_authority(
    request: &BuildRequest,
    tap: &Tap,
    scratch: &Path,
    inputs: &BTreeMap<StorePath, Input>,
) -> Result<BuildRequest, BuildError> {
    let mut request = request.clone();
    let certificate = match tap {
        Tap::None => return Ok(request),
        Tap::Record(recorder) => recorder.certificate(),
        Tap::Replay(player) => {
            request.settings.answered_ports.extend(player.loopback_ports());
            player.certificate()
        }
    };
    let write = |name: &str, mut bundle: Vec<u8>| {
        bundle.push(b'\n');
        bundle.extend_from_slice(certificate.as_bytes());
        let path = scratch.join(name);
        std::fs::write(&path, bundle).map_err(|source| BuildError::Write { path: path.clone(), source })?;
        Ok::<_, BuildError>(path)
    };
    let bundle = host::certificate_bundle(request.ca_file.as_deref())?;
    request.ca_file = Some(write("ca-certificates-with-recording.crt", bundle)?);
    for (path, input) in inputs {
        let Some(bundle) = bundle_in(input) else { continue };
        let source = write(&format!("{}-with-recording.crt", path.base_name()), bundle)?;
        let target = format!("{path}/{BUNDLE_IN_INPUT}");
        let source = ByteString::from(source.as_path());
        request.settings.own_paths.push(ExtraPath { target, source, optional: false });
    }
    Ok(request)
}

/// A bundle that an input brings along.
fn bundle_in(input: &Input) -> Option<Vec<u8>> {
    let root = std::fs::canonicalize(input.real_path.as_path()).ok()?;
    let file = std::fs::canonicalize(root.join(BUNDLE_IN_INPUT)).ok()?;
    // Only the input's own.
    (file.starts_with(&root) && file.is_file()).then(|| std::fs::read(file).ok())?
}

/// A plan says where its bundle is from; and without a gateway there is nothing to record.
pub(crate) fn adapt(plan: &mut BuildPlan, tap: &Tap, request: &BuildRequest) -> Result<(), BuildError> {
    let what = match tap {
        Tap::None => return Ok(()),
        Tap::Record(_) => "record",
        Tap::Replay(_) => "replay",
    };
    if plan.network.mode != NetworkMode::Gateway {
        return Err(BuildError::NoGateway { derivation: plan.derivation.clone(), what, why: plan.network.why.clone() });
    }
    if let Some(Certificates { path: _, origin }) = &mut plan.certificates {
        let usual = host::certificates(request.ca_file.as_deref())?;
        *origin = format!("{}, and an authority for this {what}", usual.unwrap_or_default());
    }
    for (path, reason) in &mut plan.reasons {
        if path.starts_with(STORE_DIRECTORY) && path.ends_with(BUNDLE_IN_INPUT) {
            *reason = format!("a bundle of an input, and an authority for this {what}");
        }
    }
    Ok(())
}

/// After the build: writes the recording, or says what the replay lacked.
pub(crate) fn close(
    tap: &Tap,
    request: &BuildRequest,
    derivation: &str,
    ledger: &Ledger,
) -> Result<Option<RecordingReport>, BuildError> {
    let file = match &request.recording {
        None => return Ok(None),
        Some(RecordingRequest::Record(file) | RecordingRequest::Replay(file)) => file.clone(),
    };
    Ok(match tap {
        Tap::None => None,
        Tap::Record(recorder) => {
            let recording = recorder.finish(derivation, &ledger.names)?;
            Some(RecordingReport {
                file,
                is_replay: false,
                exchanges: recording.exchanges.len() as u64,
                missing: Vec::new(),
                not_recorded: recording.not_recorded.into_iter().collect(),
            })
        }
        Tap::Replay(player) => Some(RecordingReport {
            file,
            is_replay: true,
            exchanges: player.answered(),
            missing: player.missing(),
            not_recorded: Vec::new(),
        }),
    })
}

/// What the reader should know about it.
pub(crate) fn notes(report: &RecordingReport, tap: &Tap, derivation: &str) -> Vec<String> {
    let RecordingReport { file, is_replay: _, exchanges, missing: _, not_recorded } = report;
    let file = ByteString::from(file.as_path());
    let mut notes = Vec::new();
    match tap {
        Tap::None => {}
        Tap::Record(_) => notes.push(format!("recorded {exchanges} exchanges in '{file}'")),
        Tap::Replay(player) => {
            notes.push(format!("{exchanges} requests were answered from '{file}', and nobody was called"));
            if player.derivation() != derivation {
                notes.push(format!("what was recorded was another derivation, '{}'", player.derivation()));
            }
        }
    }
    notes.extend(not_recorded.iter().map(|what| format!("not recorded: {what}")));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use fodder_model::{
        hash::{Hash, HashAlgorithm},
        reference_graph::InputShape,
        sandbox::BindKind,
    };

    /// An input is whatever somebody has built; the bundle that is read for it must be its own.
    ///
    /// Attack: FS-7 (a link out of an input). Layer: only what is in the input is read.
    #[test]
    fn the_bundle_of_an_input_is_in_that_input() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = |name: &str| {
            let root = directory.path().join(name);
            std::fs::create_dir_all(root.join("etc/ssl/certs")).unwrap();
            let input = Input {
                references: Default::default(),
                nar_hash: Hash::zero(HashAlgorithm::Sha256),
                nar_size: 0,
                content_address: None,
                real_path: ByteString::from(root.as_path()),
                shape: InputShape::Mountable(BindKind::Directory),
            };
            (root.join(BUNDLE_IN_INPUT), move || bundle_in(&input))
        };
        let (own, found) = bundle("own");
        std::fs::write(own.with_file_name("real"), "own").unwrap();
        std::os::unix::fs::symlink("real", &own).unwrap();
        assert_eq!(found().as_deref(), Some(&b"own"[..]));
        let secret = directory.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let (hostile, found) = bundle("hostile");
        std::os::unix::fs::symlink(&secret, hostile).unwrap();
        assert_eq!(found(), None);
    }
}
