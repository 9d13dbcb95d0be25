//! `.drv` files: the ATerm text whose hash names a derivation.

use super::{Derivation, DerivationError, DerivationParts, Output, STRUCTURED_KEY, StructuredAttributes};
use crate::{
    bytes::ByteString,
    content_address::{ContentAddress, ContentMethod},
    hash::{Hash, HashAlgorithm, HashError},
    json::InputError,
    store_path::{StorePath, StorePathError},
};
use std::collections::{BTreeMap, BTreeSet};

/// Writes a derivation as the text of its `.drv` file.
pub fn write(derivation: &Derivation) -> Vec<u8> {
    let inputs =
        derivation.input_derivations.iter().map(|(path, outputs)| (path.to_string(), outputs.clone())).collect();
    write_with(derivation, &inputs, false)
}

/// Writes a derivation with other keys for its inputs and, if asked, without its output paths: the text whose hash
/// becomes store paths (see [`super::paths`]).
pub(super) fn write_with(
    derivation: &Derivation,
    inputs: &BTreeMap<String, BTreeSet<String>>,
    mask_outputs: bool,
) -> Vec<u8> {
    let mut text = b"Derive(".to_vec();
    list(&mut text, &derivation.outputs, |text, (name, output)| {
        let (path, algorithm, hash) = output_fields(derivation, name, output, mask_outputs);
        tuple(text, &[name.as_bytes(), path.as_bytes(), algorithm.as_bytes(), hash.as_bytes()]);
    });
    text.push(b',');
    list(&mut text, inputs, |text, (key, outputs)| {
        text.push(b'(');
        string(text, key.as_bytes());
        text.push(b',');
        list(text, outputs, |text, output| string(text, output.as_bytes()));
        text.push(b')');
    });
    text.push(b',');
    list(&mut text, &derivation.input_sources, |text, path| string(text, path.to_string().as_bytes()));
    text.push(b',');
    string(&mut text, derivation.system.as_bytes());
    text.push(b',');
    string(&mut text, &derivation.builder);
    text.push(b',');
    list(&mut text, &derivation.arguments, |text, argument| string(text, argument));
    text.push(b',');
    list(&mut text, &derivation.environment_with_structured(), |text, (name, value)| {
        let is_output = name.as_str().is_some_and(|name| derivation.outputs.contains_key(name));
        tuple(text, &[name, if mask_outputs && is_output { b"" } else { value }]);
    });
    text.push(b')');
    text
}

fn output_fields(derivation: &Derivation, name: &str, output: &Output, mask: bool) -> (String, String, String) {
    let none = String::new;
    match output {
        Output::InputAddressed { path } => (if mask { none() } else { path.to_string() }, none(), none()),
        Output::Deferred => (none(), none(), none()),
        Output::Fixed { content } => {
            let path = content.store_path(&derivation.output_path_name(name));
            let algorithm = format!("{}{}", content.method.prefix(), content.hash.algorithm());
            (path.map(|path| path.to_string()).unwrap_or_default(), algorithm, content.hash.to_base16())
        }
        Output::Floating { method, algorithm } => (none(), format!("{}{algorithm}", method.prefix()), none()),
        Output::Impure { method, algorithm } => {
            (none(), format!("{}{algorithm}", method.prefix()), "impure".to_owned())
        }
    }
}

fn list<T>(text: &mut Vec<u8>, elements: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    text.push(b'[');
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        write(text, element);
    }
    text.push(b']');
}

fn tuple(text: &mut Vec<u8>, fields: &[&[u8]]) {
    text.push(b'(');
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        string(text, field);
    }
    text.push(b')');
}

fn string(text: &mut Vec<u8>, bytes: &[u8]) {
    text.push(b'"');
    for byte in bytes {
        match byte {
            b'"' => text.extend(b"\\\""),
            b'\\' => text.extend(b"\\\\"),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            byte => text.push(*byte),
        }
    }
    text.push(b'"');
}

/// Reads a `.drv` file. The name is not in the file: it is the store path's, without `.drv`.
pub fn parse(name: &str, text: &[u8]) -> Result<Derivation, InputError> {
    let mut reader = Reader { text, at: 0 };
    if text.starts_with(b"DrvWithVersion(") {
        return Err(reader
            .error("derivations with dynamic outputs are not supported ('DrvWithVersion')")
            .with_hint("build the derivation that makes this one first, and pass its result"));
    }
    if !text.starts_with(b"Derive(") {
        return Err(reader.error("derivation does not start with 'Derive' or 'DrvWithVersion'"));
    }
    reader.at = "Derive(".len();
    let outputs = reader.map(|reader| {
        reader.expect(b'(')?;
        let start = reader.at;
        let name = reader.text_string()?;
        let mut rest = [String::new(), String::new(), String::new()];
        for field in &mut rest {
            reader.expect(b',')?;
            *field = reader.text_string()?;
        }
        reader.expect(b')')?;
        Ok((name, (start, rest)))
    })?;
    reader.expect(b',')?;
    let input_derivations = reader.map(|reader| {
        reader.expect(b'(')?;
        let path = reader.store_path()?;
        reader.expect(b',')?;
        let outputs = reader.map(|reader| Ok((reader.text_string()?, ())))?;
        reader.expect(b')')?;
        Ok((path, outputs.into_keys().collect()))
    })?;
    reader.expect(b',')?;
    let input_sources = reader.map(|reader| Ok((reader.store_path()?, ())))?;
    reader.expect(b',')?;
    let system = reader.text_string()?;
    reader.expect(b',')?;
    let builder = reader.byte_string()?;
    reader.expect(b',')?;
    let arguments = reader.list(Reader::byte_string)?;
    reader.expect(b',')?;
    let mut environment: BTreeMap<ByteString, ByteString> = reader.map(|reader| {
        reader.expect(b'(')?;
        let name = reader.byte_string()?;
        reader.expect(b',')?;
        let value = reader.byte_string()?;
        reader.expect(b')')?;
        Ok((name, value))
    })?;
    reader.expect(b')')?;
    if reader.at != text.len() {
        return Err(reader.error("the file goes on after the derivation's last ')'"));
    }

    let mut kinds = BTreeMap::new();
    for (output_name, (start, [path, algorithm, hash])) in outputs {
        let place = Reader { text, at: start };
        let output =
            output(name, &output_name, &path, &algorithm, &hash).map_err(|problem| place.error(problem.to_string()))?;
        kinds.insert(output_name, output);
    }
    let structured_attributes = take_structured(&mut environment).map_err(|message| reader.error(message))?;
    Derivation::new(DerivationParts {
        name: name.to_owned(),
        outputs: kinds,
        input_sources: input_sources.into_keys().collect(),
        input_derivations,
        system,
        builder,
        arguments,
        environment,
        structured_attributes,
    })
    .map_err(|error: DerivationError| Reader { text, at: 0 }.error(error.to_string()))
}

/// Takes the structured attributes out of an environment that carries them under [`STRUCTURED_KEY`].
pub(super) fn take_structured(
    environment: &mut BTreeMap<ByteString, ByteString>,
) -> Result<Option<StructuredAttributes>, String> {
    let key = ByteString::from(STRUCTURED_KEY);
    environment.remove(&key).map(|text| StructuredAttributes::parse(&text)).transpose()
}

/// Why the fields of an output do not make one.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputFieldError {
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Path(#[from] StorePathError),
    #[error("{0} derivation output should not specify output path")]
    UnexpectedPath(&'static str),
    #[error(
        "derivation output '{output}' has path '{path}', which does not match its content address; expected '{expected}'"
    )]
    OtherPath { output: String, path: String, expected: StorePath },
}

/// Makes an output of the four fields that ATerm and the JSON generations A to D share.
pub(super) fn output(
    derivation_name: &str,
    name: &str,
    path: &str,
    algorithm: &str,
    hash: &str,
) -> Result<Output, OutputFieldError> {
    if algorithm.is_empty() {
        return Ok(match path {
            "" => Output::Deferred,
            path => Output::InputAddressed { path: StorePath::from_full_path(path)? },
        });
    }
    let (method, algorithm) = ContentMethod::split_prefix(algorithm);
    let algorithm = HashAlgorithm::parse(algorithm)?;
    match (hash, path) {
        ("impure", "") => Ok(Output::Impure { method, algorithm }),
        ("impure", _) => Err(OutputFieldError::UnexpectedPath("impure")),
        ("", "") => Ok(Output::Floating { method, algorithm }),
        ("", _) => Err(OutputFieldError::UnexpectedPath("content-addressing")),
        (hash, path) => {
            let content = ContentAddress { method, hash: Hash::parse_any(hash, Some(algorithm))? };
            let expected = content.store_path(&super::output_path_name(derivation_name, name))?;
            if !path.is_empty() && path != expected.to_string() {
                return Err(OutputFieldError::OtherPath { output: name.to_owned(), path: path.to_owned(), expected });
            }
            Ok(Output::Fixed { content })
        }
    }
}

/// A cursor. Iterative: ATerm as derivations use it nests to a fixed depth.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn error(&self, message: impl Into<String>) -> InputError {
        let start = self.at.min(self.text.len());
        let end = (start + 1).min(self.text.len());
        InputError { span: start..end, path: String::new(), message: message.into(), hint: None }
    }

    fn expect(&mut self, byte: u8) -> Result<(), InputError> {
        if self.text.get(self.at) != Some(&byte) {
            return Err(self.error(format!("expected string '{}'", byte as char)));
        }
        self.at += 1;
        Ok(())
    }

    fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> Result<T, InputError>) -> Result<Vec<T>, InputError> {
        self.expect(b'[')?;
        let mut elements = Vec::new();
        if self.text.get(self.at) == Some(&b']') {
            self.at += 1;
            return Ok(elements);
        }
        loop {
            elements.push(element(self)?);
            match self.text.get(self.at) {
                Some(b',') => self.at += 1,
                _ => {
                    self.expect(b']')?;
                    return Ok(elements);
                }
            }
        }
    }

    /// A list in which each key may be once. Nix keeps the first or the last, and the reader of the file would not know which.
    fn map<K: Ord, V>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(K, V), InputError>,
    ) -> Result<BTreeMap<K, V>, InputError> {
        let mut map = BTreeMap::new();
        self.list(|reader| {
            let start = reader.at;
            let (key, value) = element(reader)?;
            match map.insert(key, value) {
                None => Ok(()),
                Some(_) => {
                    let place = Reader { text: reader.text, at: start };
                    Err(place.error("this is there twice").with_hint("remove one of the two"))
                }
            }
        })?;
        Ok(map)
    }

    fn byte_string(&mut self) -> Result<ByteString, InputError> {
        self.expect(b'"')?;
        let mut bytes = Vec::new();
        loop {
            match self.text.get(self.at) {
                None => return Err(self.error("unterminated string in derivation")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(bytes.into());
                }
                Some(b'\\') => {
                    let Some(escaped) = self.text.get(self.at + 1) else {
                        return Err(self.error("unterminated string in derivation"));
                    };
                    bytes.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        other => *other,
                    });
                    self.at += 2;
                }
                Some(byte) => {
                    bytes.push(*byte);
                    self.at += 1;
                }
            }
        }
    }

    fn text_string(&mut self) -> Result<String, InputError> {
        let start = self.at;
        String::from_utf8(self.byte_string()?.into_vec())
            .map_err(|_| Reader { text: self.text, at: start }.error("this string must be UTF-8"))
    }

    fn store_path(&mut self) -> Result<StorePath, InputError> {
        let start = self.at;
        let text = self.text_string()?;
        StorePath::from_full_path(&text).map_err(|error| Reader { text: self.text, at: start }.error(error.to_string()))
    }
}
