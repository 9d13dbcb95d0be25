//! Errors for people: what, where, and what to do. The exit code follows from the kind.

use crate::words::{harmless, is_terminal, print_note, print_styled_note};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use fodder_build::{BuildError, chain, load::LoadError};
use fodder_model::{harmless::is_deceptive, json::InputError, plan::PlanError};
use std::path::Path;

/// Longest line of an input that is shown around an error, in bytes.
const SHOWN_LINE_LIMIT: usize = 400;

/// Why there is no result.
pub(crate) struct Failure {
    text: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A failure in these words, of which some may be somebody else's.
    pub(crate) fn new(text: impl AsRef<str>, code: u8) -> Self {
        Failure { text: harmless_lines(text.as_ref()), hint: None, code }
    }

    pub(crate) fn with_hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(harmless_lines(hint.as_ref()));
        self
    }

    fn with_hint_of(self, error: &InputError) -> Self {
        match &error.hint {
            Some(hint) => self.with_hint(hint),
            None => self,
        }
    }

    pub(crate) fn output(error: &std::io::Error) -> Self {
        Failure::new(format!("error: cannot write the output: {error}"), 1)
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// The message without markup, for JSON.
    pub(crate) fn message(&self) -> &str {
        self.text.strip_prefix("error: ").unwrap_or(&self.text)
    }

    /// Prints it and gives the exit code.
    pub(crate) fn print(self) -> u8 {
        // Its parts were made harmless; what was rendered has colours of our own.
        print_styled_note(&self.text);
        if let Some(hint) = self.hint {
            print_note(&format!("hint: {hint}"));
        }
        self.code
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Input { path, text, error } => input(&path, &text, &error),
            LoadError::Read { .. } => Failure::new(format!("error: {}", chain(&error)), 1),
            LoadError::SeveralRoots { .. } => {
                Failure::new(format!("error: {error}"), 2).with_hint("name the one to build after FILE")
            }
            LoadError::NoSuchDerivation { .. } => {
                Failure::new(format!("error: {error}"), 2).with_hint("give its name, its base name, or its full path")
            }
            LoadError::Paths(fodder_model::derivation::paths::PathsError::MissingDerivation { .. }) => {
                Failure::new(format!("error: {error}"), 100).with_hint(
                    "print the file again with `nix derivation show -r`, which adds the derivations it depends on",
                )
            }
            LoadError::Paths(_) | LoadError::Source { .. } => Failure::new(format!("error: {}", chain(&error)), 100),
        }
    }
}

/// Shows the place, as compilers do.
fn input(path: &Path, text: &[u8], error: &InputError) -> Failure {
    let (line, column) = error.line_and_column(text);
    let name = harmless(path.as_os_str().as_encoded_bytes());
    let shown_path = format!("{name}:{line}:{column}");
    let title = harmless(error.to_string().as_bytes());
    let line_start = text[..error.span.start.min(text.len())]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1);
    let line_end = text[line_start..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| line_start + end);
    let source = String::from_utf8_lossy(&text[line_start..line_end]).into_owned();
    if source.len() > SHOWN_LINE_LIMIT || source.is_empty() || source.chars().any(|c| is_deceptive(c) && c != '\t') {
        return Failure::new(format!("error: {title}\n --> {shown_path}"), 100).with_hint_of(error);
    }
    // Spans count bytes of the file; the shown line is what is left of it as text, and a span may end within a character.
    let in_line = |offset: usize| {
        let end = offset.clamp(line_start, line_end);
        let mut position = String::from_utf8_lossy(&text[line_start..end]).len().min(source.len());
        while !source.is_char_boundary(position) {
            position -= 1;
        }
        position
    };
    let start = in_line(error.span.start);
    let end = in_line(error.span.end).max(start);
    let snippet = Snippet::source(source.as_str())
        .line_start(line)
        .path(name)
        .annotation(AnnotationKind::Primary.span(start..end));
    let report = [Group::with_title(Level::ERROR.primary_title(title.as_str())).element(snippet)];
    let renderer = if is_terminal() { Renderer::styled() } else { Renderer::plain() };
    // The parts are harmless; what is rendered has colours of our own.
    Failure { text: renderer.render(&report).to_string(), hint: None, code: 100 }.with_hint_of(error)
}

fn harmless_lines(text: &str) -> String {
    text.lines().map(|line| harmless(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let text = format!("error: {}", chain(&error));
        match &error {
            BuildError::Sandbox(sandbox) => {
                let failure = Failure::new(text, 125);
                match sandbox.remedy() {
                    Some(remedy) => failure.with_hint(remedy),
                    None => failure,
                }
            }
            BuildError::Plan(PlanError::NetworkNotDeclared { .. }) => Failure::new(text, 2)
                .with_hint("declare an 'outputHash' (an empty one to be told it), or leave --network out"),
            BuildError::Plan(PlanError::NoCertificates) => {
                Failure::new(text, 125).with_hint("name a bundle with --ca-file")
            }
            BuildError::NoGateway { .. } => Failure::new(text, 2)
                .with_hint("only the derivation that is named is recorded; name the one that downloads"),
            BuildError::Plan(_) | BuildError::Profile(_) | BuildError::Gateway(_) => Failure::new(text, 125),
            BuildError::Store(fodder_store::StoreError::NoBuildUser { .. }) => {
                Failure::new(text, 125).with_hint("run fodder as an ordinary user of this container instead of as root")
            }
            BuildError::Store(_)
            | BuildError::Cache(_)
            | BuildError::Recording(_)
            | BuildError::Inspect(_)
            | BuildError::Read { .. }
            | BuildError::Write { .. }
            | BuildError::Cancelled => Failure::new(text, 1),
        }
    }
}

impl From<fodder_store::StoreError> for Failure {
    fn from(error: fodder_store::StoreError) -> Self {
        BuildError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: LOG-2. Layer: the words of a failure are harmless before they are printed as they are.
    #[test]
    fn words_of_others_in_a_failure_are_harmless() {
        let failure = Failure::new("error: a\u{1b}[2J\nb", 1).with_hint("c\u{1b}[31m\u{202e}\nd");
        assert_eq!(failure.text, "error: a\\u{1b}[2J\nb");
        assert_eq!(failure.hint.as_deref(), Some("c\\u{202e}\nd"));
    }

    /// Attack: LOG-2. Layer: the name of a file, and the line of it that is shown.
    #[test]
    fn an_input_is_shown_only_where_that_does_no_harm() {
        let text_of = |name: &str, line: &str| {
            let error = InputError { span: 0..1, path: String::new(), message: "wrong".to_owned(), hint: None };
            input(Path::new(name), line.as_bytes(), &error).text
        };
        assert!(text_of("file", "{\tplain}").contains("plain}"));
        let named = text_of("a\u{1b}[2J\nerror: forged", "{plain}");
        assert!(named.contains("plain}") && named.contains("a\\u{1b}[2J\\nerror: forged"), "{named:?}");
        for hostile in ["{\u{1b}[2J", "{\u{202e}", "{\u{7f}", "{\r"] {
            assert_eq!(text_of("file", hostile), "error: wrong\n --> file:1:1", "{hostile:?}");
        }
        // No line is longer than it helps.
        assert!(text_of("file", &"x".repeat(SHOWN_LINE_LIMIT)).contains("xxx"));
        assert_eq!(text_of("file", &"x".repeat(SHOWN_LINE_LIMIT + 1)), "error: wrong\n --> file:1:1");
    }
}
