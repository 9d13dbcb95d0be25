//! Where in a file a wrong path stands. Paths are checked on the derivation, which has forgotten the text it was read from.

use super::LoadError;
use fodder_model::{
    derivation::paths::PathsError,
    json::{InputError, Node, Value},
};
use std::path::Path;

/// What to do about a path that does not follow from its derivation.
const HINT: &str = "paths follow from everything else in a derivation: print it again after a change, or put the change into \
                    the Nix expression";

/// What to do about a copy of a `.drv` file.
const NAME_HINT: &str = "a .drv file does not hold its own name: call the file as it is called in the store";

/// Gives a wrong path of a JSON derivation its place, so that it can be shown.
pub(super) fn in_json(error: LoadError, file: &Path, text: &[u8], root: &Node) -> LoadError {
    let LoadError::Paths(problem) = &error else { return error };
    let Some((given, below)) = offender(problem) else { return error };
    match find(root, &given, &below) {
        Some(node) => input(file, text, node.error(problem.to_string())),
        None => error,
    }
}

/// The same for a `.drv` file.
pub(super) fn in_aterm(error: LoadError, file: &Path, text: &[u8]) -> LoadError {
    let LoadError::Paths(problem) = &error else { return error };
    let Some((given, below)) = offender(problem) else { return error };
    let mut places = text.windows(given.len()).enumerate().filter(|(_, window)| *window == given.as_bytes());
    // Outputs stand at the beginning and variables at the end.
    let place = if below.starts_with(".env.") { places.next_back() } else { places.next() };
    let Some((start, _)) = place else { return error };
    let error = InputError {
        span: start..start + given.len(),
        path: String::new(),
        message: problem.to_string(),
        hint: is_renamed(problem).then(|| NAME_HINT.to_owned()),
    };
    input(file, text, error)
}

/// Whether it is the name that makes the difference.
fn is_renamed(problem: &PathsError) -> bool {
    match problem {
        PathsError::OtherOutput { given, expected } => given.name() != expected.name(),
        PathsError::OtherVariable { .. }
        | PathsError::MissingVariable { .. }
        | PathsError::MissingDerivation { .. }
        | PathsError::MissingOutput { .. }
        | PathsError::Cycle { .. }
        | PathsError::Path(_) => false,
    }
}

fn input(file: &Path, text: &[u8], mut error: InputError) -> LoadError {
    error.hint.get_or_insert_with(|| HINT.to_owned());
    let error = Box::new(error);
    LoadError::Input { path: file.to_owned(), text: text.to_owned(), error }
}

/// The text that is wrong, and the end of the JSON path that it stands at.
fn offender(problem: &PathsError) -> Option<(String, String)> {
    match problem {
        PathsError::OtherOutput { given, expected: _ } => Some((given.to_string(), ".path".to_owned())),
        PathsError::OtherVariable { name, given, expected: _ } => {
            Some((given.as_str()?.to_owned(), format!(".env.{name}")))
        }
        PathsError::MissingVariable { .. }
        | PathsError::MissingDerivation { .. }
        | PathsError::MissingOutput { .. }
        | PathsError::Cycle { .. }
        | PathsError::Path(_) => None,
    }
}

/// The first string that is this text, or the base name of it, as newer generations write paths.
fn find<'a>(node: &'a Node, text: &str, below: &str) -> Option<&'a Node> {
    match &node.value {
        Value::String(found) => {
            let is_it = found == text || text.strip_prefix("/nix/store/") == Some(found);
            (is_it && node.path.to_string().ends_with(below)).then_some(node)
        }
        Value::Array(items) => items.iter().find_map(|item| find(item, text, below)),
        Value::Object(members) => members.iter().find_map(|member| find(&member.node, text, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
