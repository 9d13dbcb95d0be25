//! `fodder build`

use crate::{
    arguments::{BuildArguments, InputArguments, SandboxArguments},
    diagnose::Failure,
    interrupts,
    network_words::tell_network,
    progress::{Progress, Ticker},
    store_verbs::open_or_create,
    words::{harmless, is_terminal, print_json, print_line, print_note},
};
use fodder_build::{
    BuildOutcome, BuildRequest, ProfileChoice, RecordingRequest, Status, exit_code,
    load::{self, LoadRequest, Loaded},
};
use fodder_model::{
    checks::Violation,
    derivation::{Derivation, aterm},
    network_policy::NetworkPolicy,
    plan::{NetworkMode, Settings},
    profile,
    sandbox::Weakening,
    store_path::StorePath,
};
use fodder_sandbox::{Helper, Sandbox};
use fodder_store::Store;
use std::path::{Path, PathBuf};

/// Where the store is when nobody says.
pub(crate) fn store_root(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(root) = given {
        return std::path::absolute(root)
            .map_err(|error| Failure::new(format!("error: store '{}': {error}", root.display()), 1));
    }
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    from("XDG_DATA_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("fodder"))
        .ok_or_else(|| {
            Failure::new("error: neither XDG_DATA_HOME nor HOME says where the store is", 1)
                .with_hint("name it with --store DIR")
        })
}

/// The store below ours, whose valid paths count as valid: the machine's own, or the one that was named.
fn host_store(input: &InputArguments) -> Result<Option<Store>, Failure> {
    let Some(root) = &input.host_store else { return Ok(machines_own_store()) };
    if root.as_os_str() == "none" {
        return Ok(None);
    }
    if !root.join("nix/var/nix/db/schema").exists() {
        return Err(Failure::new(format!("error: there is no store in '{}'", root.display()), 1)
            .with_hint("--host-store names the directory that holds 'nix/store'; `--host-store none` does without"));
    }
    Ok(Some(Store::open_existing_read_only(root)?))
}

/// The store and the one below it, to look at; nothing is created.
pub(crate) fn open_to_look(root: &Path, input: &InputArguments) -> Result<Option<Store>, Failure> {
    let lower = host_store(input)?;
    Ok(match (Store::open_existing_read_only(root), lower) {
        (Ok(store), Some(lower)) => Some(store.with_lower(lower)),
        (Ok(store), None) => Some(store),
        (Err(_), lower) => lower,
    })
}

/// Nothing where there is none, where it cannot be read, or where somebody could have made it who is neither root nor us.
fn machines_own_store() -> Option<Store> {
    use std::os::unix::fs::MetadataExt;
    let ours = rustix::process::geteuid().as_raw();
    let is_trusted =
        |path: &str| std::fs::symlink_metadata(path).is_ok_and(|status| is_trusted(status.uid(), status.mode(), ours));
    if !["/nix", "/nix/store", "/nix/var/nix/db"].into_iter().all(is_trusted) {
        return None;
    }
    Store::open_existing_read_only(Path::new("/")).ok()
}

/// Whether a directory is only in the hands of root or of ours.
fn is_trusted(owner: u32, mode: u32, ours: u32) -> bool {
    [0, ours].contains(&owner) && mode & 0o002 == 0
}

/// Reads the input; derivations that it does not hold are looked for in the store.
pub(crate) fn load(input: &InputArguments, store: Option<&Store>) -> Result<Loaded, Failure> {
    let request = LoadRequest { wanted: input.derivation.as_deref(), system: fodder_build::host::system() };
    let mut find = |path: &StorePath| -> Option<Derivation> {
        let text = std::fs::read(store?.real_path(path)).ok()?;
        aterm::parse(path.name().strip_suffix(".drv")?, &text).ok()
    };
    Ok(load::load(&input.file, &request, &mut find)?)
}

/// What was asked for.
pub(crate) fn request(arguments: &SandboxArguments) -> Result<BuildRequest, Failure> {
    let SandboxArguments {
        profile,
        network,
        allow,
        deny,
        allow_loopback,
        ca_file,
        allow_path,
        allow_env,
        unsafe_host_network,
        allow_nested_namespaces,
        allow_socketcall,
        cores,
        limit: _,
        timeout: _,
        max_silent_time: _,
        max_build_log_size: _,
        hashed_mirrors,
        netrc_file,
        self_references,
        offline,
        record,
        replay,
        caches,
    } = arguments;
    let profile = match profile.as_deref() {
        None => None,
        Some(name) if profile::NAMES.contains(&name) => Some(ProfileChoice::Named(name.to_owned())),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::new(format!("error: cannot read the profile '{file}': {error}"), 2)
                    .with_hint(format!("known profiles are {}; anything else is a file", profile::NAMES.join(" and ")))
            })?;
            Some(ProfileChoice::Text { name: file.to_owned(), text })
        }
    };
    Ok(BuildRequest {
        settings: Settings {
            cores: *cores,
            limits: arguments.limits(),
            network: if *unsafe_host_network { Some(NetworkMode::Host) } else { network.map(Into::into) },
            network_policy: NetworkPolicy {
                allow: allow.clone(),
                deny: deny.clone(),
                loopback_ports: allow_loopback.iter().copied().collect(),
                only: Vec::new(),
            },
            extra_paths: allow_path.clone(),
            environment: allow_env.iter().map(|name| name.as_str().into()).collect(),
            hashed_mirrors: hashed_mirrors.clone(),
            self_references: (*self_references).into(),
            allowed: [
                (*allow_nested_namespaces, Weakening::NestedNamespaces),
                (*allow_socketcall, Weakening::Socketcall),
            ]
            .into_iter()
            .filter_map(|(asked, weakening)| asked.then_some(weakening))
            .collect(),
            ..Settings::default()
        },
        profile,
        ca_file: ca_file.clone(),
        netrc_file: netrc_file.clone(),
        rebuild: false,
        keep_failed: false,
        offline: *offline,
        max_jobs: 1,
        keep_going: false,
        substitution: caches.substitution(),
        recording: match (record, replay) {
            (Some(file), _) => Some(RecordingRequest::Record(file.clone())),
            (None, Some(file)) => Some(RecordingRequest::Replay(file.clone())),
            (None, None) => None,
        },
    })
}

pub(crate) fn build(arguments: &BuildArguments) -> Result<u8, Failure> {
    match try_build(arguments) {
        Err(failure) if arguments.json => {
            match interrupts::is_interrupted() {
                true => print_failure(&Failure::new(interrupts::WORDS, interrupts::CODE)),
                false => print_failure(&failure),
            }
            Err(failure)
        }
        result => result,
    }
}

/// The JSON of a run that had no outcome: the fields of one, as far as there is something to say.
pub(crate) fn print_failure(failure: &Failure) {
    let status = if failure.code() == 100 { Status::InputRejected } else { Status::MiscFailure };
    let object = serde_json::json!({
        "version": 1, "success": false, "status": status, "errorMsg": failure.message(), "drvPath": null, "outputs": {},
        "hash": null, "isolation": null, "network": null, "limits": null, "logFile": null, "startTime": null, "stopTime": null,
        "cpuUser": null, "cpuSystem": null,
    });
    print_json(&object.to_string());
}

fn try_build(arguments: &BuildArguments) -> Result<u8, Failure> {
    let BuildArguments {
        input,
        sandbox,
        rebuild,
        keep_failed,
        print_build_logs,
        out_link,
        no_link,
        json,
        max_jobs,
        keep_going,
    } = arguments;
    let mut request = request(sandbox)?;
    request.rebuild = *rebuild;
    request.keep_failed = *keep_failed;
    request.max_jobs = *max_jobs;
    request.keep_going = *keep_going;
    let mut store = open_or_create(&store_root(input.store.as_deref())?)?;
    if let Some(lower) = host_store(input)? {
        store = store.with_lower(lower);
    }
    let loaded = load(input, Some(&store))?;
    let runner = Helper::current_exe().and_then(Sandbox::new).map_err(fodder_build::BuildError::from)?;
    interrupts::watch_over(runner.canceller());
    let progress = Ticker::start(Progress::new(is_terminal() && !json, *print_build_logs));
    let outcome = fodder_build::build_with_dependencies(&loaded, &store, &runner, &request, &mut |path, event| {
        interrupts::observe(&event);
        progress.observe(path, &event);
    });
    progress.finish();
    let outcome = outcome?;
    outcome.dependencies.iter().for_each(tell);
    tell(&outcome);
    if outcome.success && !no_link {
        link(&outcome, &store, out_link.as_deref().unwrap_or(Path::new("result")));
    }
    if *json {
        let text = serde_json::to_string(&outcome)
            .map_err(|error| Failure::new(format!("error: cannot write the result: {error}"), 1))?;
        print_json(&text);
    } else {
        for output in outcome.outputs.values() {
            print_line(&output.path.to_string());
        }
    }
    Ok(exit_code(&outcome))
}

/// Words about an outcome, for people.
fn tell(outcome: &BuildOutcome) {
    for note in &outcome.notes {
        print_note(&format!("note: {}", harmless(note.as_bytes())));
    }
    if outcome.status == Status::AlreadyValid {
        for output in outcome.outputs.values() {
            print_note(&format!("AlreadyValid: '{}' was there before and was not rebuilt; use --rebuild", output.path));
        }
        if outcome.hash.is_some() {
            print_note(
                "note: a fixed output is found by its declared hash alone: if you changed what is fetched, this is the old one",
            );
        }
    }
    if !outcome.error_msg.is_empty() {
        // Continuation lines are indented as Nix does, by the width of "error: ".
        let text = outcome.error_msg.lines().map(|line| harmless(line.as_bytes())).collect::<Vec<_>>();
        print_note(&format!("error: {}", text.join("\n       ")));
    }
    tell_references(outcome);
    if let Some(network) = &outcome.network {
        tell_network(network);
    }
    if let Some(kept) = &outcome.kept {
        print_note(&format!("note: keeping build directory \"{}\"", harmless(kept.as_os_str().as_encoded_bytes())));
    }
}

fn tell_references(outcome: &BuildOutcome) {
    let is_only = outcome.references.iter().all(|hit| hit.output.as_deref() == Some("out"));
    let mut output = None;
    for hit in &outcome.references {
        if !is_only && output != hit.output.as_deref() {
            output = hit.output.as_deref();
            print_note(&format!("       in output '{}':", output.unwrap_or_default()));
        }
        print_note(&format!("       {}", crate::inspect_verbs::hit_line(hit)));
        print_note(&format!("           {}", hit.context.trim()));
    }
    if outcome.references_omitted > 0 {
        let advice = "`fodder refs --to STORE-PATH DIR` lists every place";
        let whereabouts = match &outcome.kept {
            Some(kept) => {
                let directory = kept.join("store");
                format!("{advice} in the output, which is in '{}'", harmless(directory.as_os_str().as_encoded_bytes()))
            }
            None => format!("-K keeps the output, in which {advice}"),
        };
        print_note(&format!("       … and {} more; {whereabouts}", outcome.references_omitted));
    }
    if outcome
        .violations
        .iter()
        .any(|violation| matches!(violation, Violation::FixedRefers { .. } | Violation::NoPlaceForReferences { .. }))
    {
        print_note(
            "hint: a fixed output is moved between machines, so it may not name store paths; remove the mentions above",
        );
        print_note(
            "      (remove-references-to -t PATH FILE, or leave the file out), and restore them in a second derivation",
        );
    }
}

fn link(outcome: &BuildOutcome, store: &Store, link: &Path) {
    for (name, output) in &outcome.outputs {
        let mut path = link.as_os_str().to_owned();
        if name != "out" {
            path.push(format!("-{name}"));
        }
        // A link that cannot be made does not undo a build.
        if let Err(error) = std::path::absolute(&path)
            .map_err(|error| error.to_string())
            .and_then(|path| store.make_out_link(&path, &output.path).map_err(|error| fodder_build::chain(&error)))
        {
            print_note(&format!("warning: no link was made: {}", harmless(error)));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_store_in_the_hands_of_others_is_not_the_machines() {
        for (owner, mode, expected) in [
            (0, 0o40755, true),
            (1000, 0o40755, true),
            (0, 0o41775, true),
            (1001, 0o40755, false),
            (0, 0o41777, false),
            (1000, 0o40757, false),
        ] {
            assert_eq!(super::is_trusted(owner, mode, 1000), expected, "{owner} {mode:o}");
        }
    }
}
