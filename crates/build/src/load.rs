//! From a file to a derivation: which of the two inputs it is, is seen from what it holds.

mod place;

use fodder_model::{
    derivation::{
        Derivation, aterm,
        json::{self as derivation_json, Generation},
        paths::{self, DerivationSet},
    },
    json::{self, InputError},
    limits::LimitSettings,
    options::{self, Options},
    short_form::{self, FileNetwork, ShortForm, Tool},
    store_path::StorePath,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Largest input that is read, in bytes. A closure of nixpkgs' largest packages takes a tenth of it.
const INPUT_SIZE_LIMIT: u64 = 1 << 30;

/// What a file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputFormat {
    /// JSON as `nix derivation show` prints it.
    DerivationJson(Generation),
    /// A `.drv` file.
    Aterm,
    /// The short form.
    ShortForm,
}

/// A file to be copied to the store before the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceToAdd {
    /// On the host.
    pub file: PathBuf,
    /// Name of the store object.
    pub name: String,
    /// Where it will be.
    pub path: StorePath,
}

/// A derivation with all that was around it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the file was.
    pub format: InputFormat,
    /// What to build.
    pub derivation: Derivation,
    /// Its path.
    pub path: StorePath,
    /// Its options.
    pub options: Options,
    /// All derivations of the file, by the paths that the file uses.
    pub set: Arc<DerivationSet>,
    /// Profile that the file asks for, or that its format implies.
    pub profile: String,
    /// What a short form says about its network.
    pub network: FileNetwork,
    /// Limits that a short form sets itself.
    pub limits: LimitSettings,
    /// Tools that a short form asks for.
    pub tools: Vec<Tool>,
    /// Sources of a short form.
    pub sources: Vec<SourceToAdd>,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read '{}'", crate::inspect::shown(path))]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It is wrong at a place.
    #[error("{error}")]
    Input {
        /// Which file.
        path: PathBuf,
        /// Its text, to show the place.
        text: Vec<u8>,
        /// What is wrong and where.
        error: Box<InputError>,
    },
    /// It holds several derivations that nothing depends on.
    #[error("the file holds {} derivations that nothing else in it needs: {}", roots.len(), roots.join(", "))]
    SeveralRoots {
        /// Their paths.
        roots: Vec<String>,
    },
    /// The derivation named is not in the file.
    #[error("the file holds no derivation '{wanted}'")]
    NoSuchDerivation {
        /// What was asked for.
        wanted: String,
    },
    /// Output paths are not what they should be.
    #[error(transparent)]
    Paths(#[from] paths::PathsError),
    /// A source of a short form.
    #[error("source '{}'", fodder_model::harmless::harmless(path))]
    Source {
        /// As written.
        path: String,
        /// Why not.
        source: fodder_store::StoreError,
    },
}

/// What to do when a file leaves a choice.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest<'a> {
    /// Name or path of the derivation to build when the file holds several.
    pub wanted: Option<&'a str>,
    /// Platform for short forms that name none.
    pub system: &'a str,
}

/// Reads a file, `-` for standard input. `find` gives input derivations that the file does not hold (from a store).
pub fn load(
    file: &Path,
    request: &LoadRequest<'_>,
    find: &mut dyn FnMut(&StorePath) -> Option<Derivation>,
) -> Result<Loaded, LoadError> {
    let text = read(file)?;
    let at = |error: InputError| LoadError::Input { path: file.to_owned(), text: text.clone(), error: Box::new(error) };
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(at(whole("the file begins with a byte order mark, which is no part of JSON")
            .with_hint("save it as UTF-8 without one")));
    }
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_none() {
        return Err(at(whole("the file is empty").with_hint("expected JSON, or the text of a .drv file")));
    }
    if first != Some(&b'{') {
        let derivation = aterm::parse(&aterm_name(file), &text).map_err(|error| match first {
            Some(b'D') => at(error),
            _ => at(error.with_hint("expected JSON that begins with '{', or a .drv file that begins with 'Derive('")),
        })?;
        let path = paths::derivation_path(&derivation).map_err(paths::PathsError::from)?;
        let set = [(path.clone(), derivation)].into();
        return finish(InputFormat::Aterm, path, set, find)
            .map_err(|error| place::in_aterm(error, file, &text))
            .and_then(|loaded| with_options(loaded, at));
    }
    let root = json::parse(&text).map_err(at)?;
    if derivation_json::recognises(&root) {
        let (generation, set) = derivation_json::read(&root).map_err(at)?;
        let path = choose(&set, request.wanted)?;
        return finish(InputFormat::DerivationJson(generation), path, set, find)
            .map_err(|error| place::in_json(error, file, &text, &root))
            .and_then(|loaded| with_options(loaded, at));
    }
    if !short_form::recognises(&root) {
        return Err(at(root
            .error("this is neither a derivation as `nix derivation show` prints it nor a short form")
            .with_hint("a short form has at least 'name' and a phase; see docs/short-form.md")));
    }
    let form = short_form::read(&root).map_err(at)?;
    let directory = if file == Path::new("-") { Path::new(".") } else { file.parent().unwrap_or(Path::new(".")) };
    let (derivation, sources) = desugar(&form, directory, request.system, at)?;
    let path = paths::derivation_path(&derivation).map_err(paths::PathsError::from)?;
    let mut loaded = finish(InputFormat::ShortForm, path.clone(), [(path, derivation)].into(), find)?;
    loaded.network = form.network;
    loaded.limits = form.limits;
    loaded.profile = form.profile.unwrap_or_else(|| "host-tools".to_owned());
    loaded.tools = form.tools;
    loaded.sources = sources;
    with_options(loaded, at)
}

fn read(file: &Path) -> Result<Vec<u8>, LoadError> {
    let at = |source| LoadError::Read { path: file.to_owned(), source };
    let input: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(at)?)
    };
    all_of(input, INPUT_SIZE_LIMIT).map_err(at)
}

/// All bytes, unless there are more than so many.
fn all_of(input: impl std::io::Read, limit: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    input.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(std::io::Error::other(format!("it is larger than {limit} bytes"))),
        false => Ok(bytes),
    }
}

/// An error at the beginning of a file.
fn whole(message: &str) -> InputError {
    InputError { span: 0..0, path: String::new(), message: message.to_owned(), hint: None }
}

/// The name of a derivation is that of its store path; a file elsewhere is taken to be called like it.
fn aterm_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.strip_suffix(".drv").unwrap_or(&name).to_owned();
    match StorePath::from_base_name(&name) {
        Ok(path) => path.name().to_owned(),
        Err(_) => name,
    }
}

fn choose(set: &DerivationSet, wanted: Option<&str>) -> Result<StorePath, LoadError> {
    if let Some(wanted) = wanted {
        let is_it = |path: &StorePath, derivation: &Derivation| {
            path.to_string() == wanted || path.base_name() == wanted || derivation.name == wanted
        };
        let mut found = set.iter().filter(|(path, derivation)| is_it(path, derivation)).map(|(path, _)| path.clone());
        return match (found.next(), found.next()) {
            (Some(path), None) => Ok(path),
            _ => Err(LoadError::NoSuchDerivation { wanted: wanted.to_owned() }),
        };
    }
    let mut roots: Vec<&StorePath> = set
        .keys()
        .filter(|path| !set.values().any(|derivation| derivation.input_derivations.contains_key(*path)))
        .collect();
    match (roots.pop(), roots.is_empty()) {
        (Some(root), true) => Ok(root.clone()),
        (last, _) => {
            roots.extend(last);
            Err(LoadError::SeveralRoots { roots: roots.iter().map(ToString::to_string).collect() })
        }
    }
}

fn finish(
    format: InputFormat,
    declared: StorePath,
    mut set: DerivationSet,
    find: &mut dyn FnMut(&StorePath) -> Option<Derivation>,
) -> Result<Loaded, LoadError> {
    let derivation = set[&declared].clone();
    let mut open: Vec<StorePath> = derivation.input_derivations.keys().cloned().collect();
    while let Some(path) = open.pop() {
        if !set.contains_key(&path)
            && let Some(input) = find(&path)
        {
            open.extend(input.input_derivations.keys().cloned());
            set.insert(path, input);
        }
    }
    paths::check(&derivation, &set)?;
    let path = paths::derivation_path(&derivation).map_err(paths::PathsError::from)?;
    let mut notes = Vec::new();
    if path != declared {
        notes
            .push(format!("the file calls this derivation '{declared}', but it was changed since and is now '{path}'"));
    }
    Ok(Loaded {
        format,
        derivation,
        path,
        options: Options::default(),
        set: Arc::new(set),
        profile: "nix".to_owned(),
        network: FileNetwork::default(),
        limits: LimitSettings::new(),
        tools: Vec::new(),
        sources: Vec::new(),
        notes,
    })
}

fn with_options(mut loaded: Loaded, at: impl Fn(InputError) -> LoadError) -> Result<Loaded, LoadError> {
    loaded.options = options::read(&loaded.derivation).map_err(|error| {
        at(InputError {
            span: 0..0,
            path: String::new(),
            message: format!("while parsing derivation '{}': {error}", loaded.path),
            hint: None,
        })
    })?;
    Ok(loaded)
}

fn desugar(
    form: &ShortForm,
    directory: &Path,
    system: &str,
    at: impl Fn(InputError) -> LoadError,
) -> Result<(Derivation, Vec<SourceToAdd>), LoadError> {
    let mut to_add = Vec::new();
    let mut paths = BTreeMap::new();
    for source in &form.sources {
        let file = directory.join(&source.path);
        let error = |message: String| {
            at(InputError { span: source.span.clone(), path: source.json_path.clone(), message, hint: None })
        };
        // A name is needed even for '.' and '..'; the last component of anything else is its own, link or not.
        let named = match file.file_name() {
            Some(_) if !source.path.ends_with('.') => file.clone(),
            _ => file.canonicalize().map_err(|problem| error(format!("source '{}': {problem}", source.path)))?,
        };
        let name = named.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (path, _, _) = fodder_store::source_path(&name, &named)
            .map_err(|problem| error(format!("source '{}': {}", source.path, crate::chain(&problem))))?;
        paths.insert(source.path.clone(), path.clone());
        to_add.push(SourceToAdd { file: named, name, path });
    }
    let setup = short_form::setup_script_path();
    short_form::desugar(form, &paths, &setup, system).map_err(&at).map(|derivation| (derivation, to_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: DRV-6 (a file without an end). Layer: limit on the size of a file.
    #[test]
    fn a_file_without_an_end_is_not_read_to_its_end() {
        assert_eq!(all_of(&b"abc"[..], 3).unwrap(), b"abc");
        assert_eq!(all_of(&b"abc"[..], 2).unwrap_err().to_string(), "it is larger than 2 bytes");
        assert!(all_of(std::io::repeat(0), 1 << 20).is_err());
    }
}
