//! What is wrong with a configuration, where, and what to do about it.
//!
//! Nothing here may show a secret: a source line is shown only up to the value, unless the caller knows that the value
//! is none. Finding problems is left to the other files.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroizing;

/// What is wrong with one value, before anybody has said where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    message: String,
    hint: Option<String>,
}

/// One thing that is wrong, or looks wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    severity: Severity,
    fault: Fault,
}

/// All errors of one configuration: at least one, those of the file first, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// Whether the configuration can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// No.
    Error,
    /// Yes.
    Warning,
}

/// Where a problem stands. In the order in which problems are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In a file; line and column from 1, in characters.
    File { name: String, line: usize, column: usize, excerpt: Option<Excerpt> },
    /// In a file as a whole.
    Whole(String),
    /// In a variable of the environment.
    Variable(String),
    /// In a flag of the command line.
    Flag(&'static str),
    /// In what is missing everywhere.
    Nowhere,
}

/// The part of a source line that may be shown, and how much of it is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Excerpt {
    shown: String,
    width: usize,
}

/// A file's name and text.
#[derive(Clone)]
pub(super) struct Document {
    pub(super) name: Arc<str>,
    /// It may hold secrets.
    pub(super) text: Arc<Zeroizing<String>>,
}

/// How much of a source line may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reveal {
    /// The key: what follows may be a secret.
    Key,
    /// The value too.
    Value,
}

impl Fault {
    /// A fault. `message` is lower case, without a period, and holds no secret.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with `key` in front.
    pub(super) fn of(mut self, key: &str) -> Self {
        self.message = format!("`{key}`: {}", self.message);
        self
    }

    /// The same, with what was probably meant, if `word` is close to one of `known`.
    pub(super) fn did_you_mean<'a>(
        self,
        word: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        match closest(word, known) {
            Some(close) => self.hint(format!("did you mean `{close}`?")),
            None => self,
        }
    }

    /// Whether it says what to do.
    pub(super) const fn has_hint(&self) -> bool {
        self.hint.is_some()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

impl Problem {
    pub(super) const fn error(place: Place, fault: Fault) -> Self {
        Self { place, severity: Severity::Error, fault }
    }

    pub(super) const fn warning(place: Place, fault: Fault) -> Self {
        Self { place, severity: Severity::Warning, fault }
    }

    pub(super) const fn is_error(&self) -> bool {
        matches!(self.severity, Severity::Error)
    }

    /// What is wrong, without where.
    pub fn message(&self) -> &str {
        &self.fault.message
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.fault.hint.as_deref()
    }

    /// `file:line:column`, the name of the variable or of the flag.
    pub fn place(&self) -> String {
        self.place.to_string()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {severity}: {}", self.place, self.fault.message)?;
        if let Place::File { line, column, excerpt: Some(excerpt), .. } = &self.place {
            let gutter = line.to_string().len();
            write!(f, "\n  {line} | {}", excerpt.shown)?;
            write!(
                f,
                "\n  {:gutter$} | {:indent$}{:^<width$}",
                "",
                "",
                "",
                indent = column - 1,
                width = excerpt.width
            )?;
        }
        match &self.fault.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column, .. } => write!(f, "{name}:{line}:{column}"),
            Self::Whole(name) => f.write_str(name),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(name) => f.write_str(name),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

impl Problems {
    /// `None` if there are none.
    pub(super) fn new(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self(ordered(problems)))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    /// One after the other, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Document {
    /// The place of `span` (bytes of the text), with as much of its line as may be shown.
    pub(super) fn place(&self, span: Range<usize>, reveal: Reveal) -> Place {
        let start = self.text.floor_char_boundary(span.start);
        let (before, _) = self.text.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_text =
            self.text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let in_line = start - line_start
            ..span
                .end
                .saturating_sub(line_start)
                .clamp(start - line_start, line_text.len().max(start - line_start));
        let excerpt = visible(line_text, &in_line, reveal)
            .filter(|shown| shown.chars().count() + 1 >= column);
        let width = line_text.get(in_line).map_or(1, |meant| meant.chars().count().max(1));
        let line = before.matches('\n').count() + 1;
        Place::File {
            name: self.name.to_string(),
            line,
            column,
            excerpt: excerpt.map(|shown| Excerpt {
                width: width.min(shown.chars().count() + 2 - column).max(1),
                shown,
            }),
        }
    }
}

/// In the order in which they are told, each once.
pub(super) fn ordered(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    problems.dedup();
    problems
}

/// What of `line` may be shown. Before a value on the same line there may be other values, after it a comment.
fn visible(line: &str, meant: &Range<usize>, reveal: Reveal) -> Option<String> {
    let before = line.get(..meant.start)?;
    if reveal == Reveal::Value && is_alone(before) {
        return line.get(..meant.end).map(str::to_owned);
    }
    match line.split_once('=') {
        Some((key, _)) => Some(format!("{key}= …")),
        None => line.trim_start().starts_with('[').then(|| line.to_owned()),
    }
}

/// Whether all that stands before a value is its own key, or other elements of its array.
fn is_alone(before: &str) -> bool {
    let (key, rest) = before.split_once('=').unwrap_or((before, ""));
    let array = rest.trim_start().strip_prefix('[');
    !key.contains(['"', '\'', '{', '['])
        && array.map_or(rest.trim().is_empty(), |elements| !elements.contains('{'))
}

/// The one of `known` that `word` was probably meant to be.
pub(super) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near =
        |name: &'a str| (strsim::jaro_winkler(&word.to_lowercase(), &name.to_lowercase()), name);
    let best = known.into_iter().map(near).max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(likeness, _)| *likeness > 0.8).map(|(_, name)| name)
}
