//! The builder's arguments, environment and extra files, exactly as Nix makes them (reference, section 4).

use crate::{
    bytes::{ByteString, Replacements},
    derivation::{Derivation, Kind, to_nix_json},
    hash::{Hash, HashAlgorithm},
    nix32,
    options::Options,
    store_path::{STORE_DIRECTORY, StorePath},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The build directory inside.
pub const BUILD_DIRECTORY: &str = "/build";

/// What the builder is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuilderInputs {
    /// `argv`, with `argv[0]`.
    pub arguments: Vec<ByteString>,
    /// `environ`, sorted by name.
    pub environment: BTreeMap<ByteString, ByteString>,
    /// Files in the build directory by name, mode 0644.
    pub files: BTreeMap<String, ByteString>,
    /// Names of the variables whose values are the caller's.
    pub impure: Vec<ByteString>,
}

/// The caller's environment, as far as derivations may ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandedOut {
    /// What is given to those that ask.
    pub values: BTreeMap<ByteString, ByteString>,
    /// What there is, and is not given.
    pub withheld: BTreeSet<ByteString>,
}

/// Makes the builder's inputs. `outputs` are the paths that the builder will write, `graphs` what `exportReferencesGraph` asked
/// for (see [`crate::reference_graph`]), `cores` goes into `NIX_BUILD_CORES`, `caller` is what there is of the caller's environment.
pub fn builder_inputs(
    derivation: &Derivation,
    options: &Options,
    outputs: &BTreeMap<String, StorePath>,
    graphs: &crate::reference_graph::Graphs,
    cores: u32,
    caller: &HandedOut,
) -> BuilderInputs {
    let mut placeholders = Replacements::default();
    for (name, path) in outputs {
        placeholders.add(placeholder(name), path.to_string());
    }
    let mut files = BTreeMap::new();
    let mut environment: BTreeMap<ByteString, ByteString> = BTreeMap::new();
    let set = |environment: &mut BTreeMap<ByteString, ByteString>, name: &str, value: &str| {
        environment.insert(name.into(), value.into());
    };
    set(&mut environment, "PATH", "/path-not-set");
    set(&mut environment, "HOME", "/homeless-shelter");
    set(&mut environment, "NIX_STORE", STORE_DIRECTORY);
    set(&mut environment, "NIX_BUILD_CORES", &cores.to_string());
    match &derivation.structured_attributes {
        Some(attributes) => {
            let (json, shell) = structured_files(attributes, outputs, graphs);
            files.insert(".attrs.json".to_owned(), placeholders.apply(json.as_bytes()));
            files.insert(".attrs.sh".to_owned(), placeholders.apply(shell.as_bytes()));
            set(&mut environment, "NIX_ATTRS_JSON_FILE", "/build/.attrs.json");
            set(&mut environment, "NIX_ATTRS_SH_FILE", "/build/.attrs.sh");
        }
        None => {
            for (name, value) in &derivation.environment {
                let value = placeholders.apply(value);
                if options.pass_as_file.contains(name) {
                    let digest = Hash::of(HashAlgorithm::Sha256, name);
                    let file = format!(".attr-{}", digest.to_nix32());
                    let mut variable = name.to_vec();
                    variable.extend(b"Path");
                    environment.insert(placeholders.apply(&variable), format!("{BUILD_DIRECTORY}/{file}").into());
                    files.insert(file, value);
                } else {
                    environment.insert(placeholders.apply(name), value);
                }
            }
            for (name, text) in &graphs.plain {
                files.insert(name.clone(), text.clone().into());
            }
        }
    }
    for name in ["NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"] {
        set(&mut environment, name, BUILD_DIRECTORY);
    }
    if derivation.kind() == Kind::Fixed {
        set(&mut environment, "NIX_OUTPUT_CHECKED", "1");
    }
    let mut impure = Vec::new();
    if matches!(derivation.kind(), Kind::Fixed | Kind::Impure) {
        for name in &options.impure_variables {
            match caller.values.get(name) {
                Some(value) => {
                    environment.insert(name.clone(), value.clone());
                    impure.push(name.clone());
                }
                None if caller.withheld.contains(name) => drop(environment.entry(name.clone()).or_default()),
                // Listed and absent is an empty variable, not an unset one.
                None => drop(environment.insert(name.clone(), ByteString::default())),
            }
        }
    }
    set(&mut environment, "NIX_LOG_FD", "2");
    set(&mut environment, "TERM", "xterm-256color");

    let program_name = derivation.builder.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let arguments = std::iter::once(ByteString::from(program_name))
        .chain(derivation.arguments.iter().map(|argument| placeholders.apply(argument)))
        .collect();
    BuilderInputs { arguments, environment, files, impure }
}

/// The text that stands for an output's path before it is known: `/<nix32 of sha256("nix-output:<name>")>`.
pub fn placeholder(output: &str) -> String {
    format!("/{}", nix32::encode(Hash::of(HashAlgorithm::Sha256, format!("nix-output:{output}").as_bytes()).digest()))
}

fn structured_files(
    attributes: &serde_json::Map<String, Value>,
    outputs: &BTreeMap<String, StorePath>,
    graphs: &crate::reference_graph::Graphs,
) -> (String, String) {
    let mut attributes = attributes.clone();
    attributes.extend(graphs.structured.clone());
    let outputs = outputs.iter().map(|(name, path)| (name.clone(), Value::from(path.to_string()))).collect();
    attributes.insert("outputs".to_owned(), Value::Object(outputs));
    let shell: String = attributes
        .iter()
        .filter(|(name, _)| is_shell_name(name))
        .filter_map(|(name, value)| declaration(name, value))
        .collect();
    (to_nix_json(&Value::Object(attributes)), shell)
}

fn is_shell_name(name: &str) -> bool {
    name.starts_with(|character: char| character.is_ascii_alphabetic() || character == '_')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

fn declaration(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Array(elements) => {
            let words: Option<String> = elements.iter().map(|element| Some(scalar(element)? + " ")).collect();
            Some(format!("declare -a {name}=({})\n", words?))
        }
        Value::Object(members) => {
            let words: Option<String> =
                members.iter().map(|(key, value)| Some(format!("[{}]={} ", quote(key), scalar(value)?))).collect();
            Some(format!("declare -A {name}=({})\n", words?))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Some(format!("declare {name}={}\n", scalar(value)?))
        }
    }
}

/// A number is shown when it is integral as a 32-bit float, and then as a 32-bit integer made of it directly: integers keep their
/// low bits, doubles out of range become the most negative one (x86's cvttsd2si).
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(quote(text)),
        Value::Null => Some("''".to_owned()),
        Value::Bool(truth) => Some(if *truth { "1" } else { "" }.to_owned()),
        Value::Number(number) => {
            // As in Nix, an infinity is its own ceiling: doubles that no 32-bit float holds are shown.
            let float = number.as_f64()? as f32;
            if float.ceil() != float {
                return None;
            }
            let integer = match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(integer), _, _) => integer as i32,
                (None, Some(integer), _) => integer as i32,
                (None, None, Some(double)) if double.abs() < 2147483648.0 => double as i32,
                (None, None, _) => i32::MIN,
            };
            Some(integer.to_string())
        }
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Values that a real Nix wrote (reference, sections 3.4 and 4.5).
    #[test]
    fn shell_declarations_agree_with_nix() {
        for (value, expected) in [
            (json!(3), Some("declare k=3\n")),
            (json!(3000000000u64), Some("declare k=-1294967296\n")),
            (json!(2.0), Some("declare k=2\n")),
            (json!(1.00000001), Some("declare k=1\n")),
            (json!(16777217.5), Some("declare k=16777217\n")),
            (json!(1.5), None),
            (json!([1.5]), None),
            (json!(null), Some("declare k=''\n")),
            (json!(true), Some("declare k=1\n")),
            (json!(false), Some("declare k=\n")),
            (json!([]), Some("declare -a k=()\n")),
            (json!({}), Some("declare -A k=()\n")),
            (json!(["a", "b c", 3, true, null]), Some("declare -a k=('a' 'b c' 3 1 '' )\n")),
            (
                json!({"b": false, "n": null, "x": "1", "y z": "w'"}),
                Some("declare -A k=(['b']= ['n']='' ['x']='1' ['y z']='w'\\''' )\n"),
            ),
            (json!([["a"]]), None),
        ] {
            assert_eq!(declaration("k", &value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn placeholders_agree_with_nix() {
        assert_eq!(placeholder("out"), "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9");
        assert_eq!(placeholder("dev"), "/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz");
    }
}
