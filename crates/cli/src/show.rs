//! `fodder show`

use crate::{
    arguments::{ShowArguments, ShowFormat},
    build::{load, open_to_look, store_root},
    diagnose::Failure,
    words::{print_bytes, print_json, print_line},
};
use fodder_model::derivation::{aterm, json};
use std::io::IsTerminal;

pub(crate) fn show(arguments: &ShowArguments) -> Result<u8, Failure> {
    let ShowArguments { input, format } = arguments;
    let root = store_root(input.store.as_deref())?;
    let store = open_to_look(&root, input)?;
    let loaded = load(input, store.as_ref())?;
    match format {
        ShowFormat::Json => {
            let set = [(loaded.path.clone(), loaded.derivation.clone())].into();
            let text = json::write_set(&set);
            if std::io::stdout().is_terminal() {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
                print_json(&serde_json::to_string_pretty(&value).unwrap_or(text));
            } else {
                print_json(&text);
            }
        }
        ShowFormat::Aterm => {
            print_bytes(&aterm::write(&loaded.derivation)).map_err(|error| Failure::output(&error))?;
        }
        ShowFormat::Path => print_line(&loaded.path.to_string()),
        ShowFormat::Outputs => {
            for (name, path) in loaded.derivation.known_output_paths() {
                match path {
                    Some(path) => print_line(&path.to_string()),
                    None => print_line(&format!("{name}: known when it is built")),
                }
            }
        }
    }
    Ok(0)
}
