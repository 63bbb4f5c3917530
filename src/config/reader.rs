//! What is known of a configuration while it is read: its sources, what was found in which, and what is wrong with it.
//! Problems are collected, never stopped at.
//!
//! Finding a key's value is left to `section`; what keys there are to `raw`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::changes::Secrets;
use super::environment::Environment;
use super::load::{self, InputFile};
use super::problem::{Document, Fault, Place, Problem, Reveal};
use super::section::{Entry, Section};
use super::show::Key;

/// What has been read so far.
pub(super) struct Reader<'a> {
    layers: Layers,
    document: Option<Document>,
    files: Files,
    problems: Vec<Problem>,
    settings: Vec<Setting>,
    schema: Vec<Key>,
    variables: BTreeSet<String>,
    inputs: Vec<InputFile>,
    secrets: Secrets,
    doubtful: Vec<String>,
    root: Option<&'a DeTable<'a>>,
}

/// Everything but the file: path of a key and what it says.
#[derive(Default)]
pub(super) struct Layers {
    pub(super) flags: Vec<(&'static str, &'static str, Zeroizing<String>)>,
    pub(super) environment: Environment,
    pub(super) dev: Vec<(&'static str, &'static str)>,
}

/// Whether the files that a configuration names are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// They are; a relative path that the configuration file names begins in this folder.
    Read(PathBuf),
    /// They are not: only the text is checked, or the schema wanted.
    Skip,
}

/// What becomes of the secrecy of a file that others may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sensitivity {
    /// Nothing: it is no secret.
    Public,
    /// A warning: a private key, or a file with more than secrets in it, that other software mounts as it likes.
    Key,
    /// An error, as with LiveKit's own key file.
    Secret,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    Dev,
    File(Span),
    Variable(String),
    Flag(&'static str),
}

/// Bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

/// All that was found.
pub(super) struct Finished {
    pub(super) problems: Vec<Problem>,
    pub(super) settings: Vec<Setting>,
    pub(super) schema: Vec<Key>,
    pub(super) inputs: Vec<InputFile>,
    pub(super) secrets: Secrets,
}

/// One setting in force.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// As in `claim.lease`; elements of arrays are numbered: `route[0].path`.
    pub(super) path: String,
    /// As in `[claim]`; empty for keys before the first section.
    pub(super) header: String,
    /// Which element of which array the header is for; equal headers of two elements differ here.
    pub(super) section: String,
    pub(super) name: String,
    /// As TOML; never a secret.
    pub(super) value: String,
    pub(super) origin: Origin,
    /// Where that is, if it is neither default nor `--dev`.
    pub(super) place: Option<Place>,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

impl Setting {
    /// Whether its value stands there in the clear, and is not shown.
    pub(super) fn is_secret(&self) -> bool {
        self.value.contains("<redacted>")
    }
}

impl Origin {
    /// Which of two goes first: the higher one.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::Dev => 1,
            Self::File(_) => 2,
            Self::Variable(_) => 3,
            Self::Flag(_) => 4,
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        layers: Layers,
        files: Files,
        document: Option<Document>,
        root: Option<&'a DeTable<'a>>,
    ) -> Self {
        Self {
            layers,
            document,
            files,
            problems: Vec::new(),
            settings: Vec::new(),
            schema: Vec::new(),
            variables: BTreeSet::new(),
            inputs: Vec::new(),
            secrets: Secrets::default(),
            doubtful: Vec::new(),
            root,
        }
    }

    /// Reads the whole file with `read`.
    pub(super) fn read<R>(&mut self, read: impl FnOnce(&mut Section<'_, 'a>) -> R) -> R {
        let root = self.root;
        Section::run(self, Entry { table: root, span: None, path: "", named: "", header: "" }, read)
    }

    pub(super) const fn files(&self) -> &Files {
        &self.files
    }

    /// The value of a variable that is no key's own, and that it is known.
    pub(super) fn variable(&mut self, name: &str) -> Option<Zeroizing<String>> {
        self.variables.insert(name.to_owned());
        self.layers.environment.text(name)
    }

    pub(super) fn flag(&self, path: &str) -> Option<(&'static str, Zeroizing<String>)> {
        let flag = self.layers.flags.iter().find(|(of, ..)| *of == path);
        flag.map(|(_, flag, text)| (*flag, text.clone()))
    }

    pub(super) fn dev(&self, path: &str) -> Option<&'static str> {
        self.layers.dev.iter().find(|(of, _)| *of == path).map(|(_, text)| *text)
    }

    /// Whether there is nothing to read, and only the keys are wanted.
    pub(super) fn is_schema_only(&self) -> bool {
        self.root.is_none() && self.files == Files::Skip
    }

    pub(super) fn describe(&mut self, section: &str, name: &str, default: Option<String>) {
        self.schema.push(Key { section: section.to_owned(), name: name.to_owned(), default });
    }

    pub(super) fn record(&mut self, setting: Setting) {
        self.forget(&setting.path);
        self.settings.push(setting);
    }

    pub(super) fn forget(&mut self, path: &str) {
        self.settings.retain(|setting| setting.path != path);
    }

    pub(super) fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter()
    }

    /// Looks at a file that `key` names, and takes note of what that came to; `None` if it cannot be used.
    pub(super) fn judged(
        &mut self,
        key: &str,
        place: &Place,
        (path, sensitivity): (&Path, Sensitivity),
    ) -> Option<()> {
        // Before it is read for its sake: what changes in between is found out later.
        self.inputs.push(InputFile::look(key, path));
        match load::inspect(path, sensitivity) {
            Ok(None) => Some(()),
            Ok(Some(warning)) => {
                self.warning(place.clone(), warning);
                Some(())
            }
            Err(fault) => {
                self.error(place.clone(), fault);
                None
            }
        }
    }

    /// How many errors there are so far.
    pub(super) fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_error()).count()
    }

    /// Whether the settings of `--dev` stand behind all others.
    pub(super) const fn is_dev(&self) -> bool {
        !self.layers.dev.is_empty()
    }

    /// Takes note that something stands for `path` that could not be read: its default stands in.
    pub(super) fn doubt(&mut self, path: String) {
        self.doubtful.push(path);
    }

    /// An error of settings that do not fit together, told at the first that somebody has set. If one of them could not
    /// be read, nobody knows whether they fit.
    pub(super) fn contradiction(&mut self, paths: &[&str], fault: Fault) {
        let doubted = |path: &&str| {
            let rest = self.doubtful.iter().filter_map(|doubtful| doubtful.strip_prefix(*path));
            rest.into_iter().any(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
        };
        if !paths.iter().any(doubted) {
            let place = self.place(paths);
            self.error(place, fault);
        }
    }

    pub(super) fn error(&mut self, place: Place, fault: Fault) {
        self.problems.push(Problem::error(place, fault));
    }

    pub(super) fn warning(&mut self, place: Place, fault: Fault) {
        self.problems.push(Problem::warning(place, fault));
    }

    /// The place of the first of `paths` that somebody has set.
    pub(super) fn place(&self, paths: &[&str]) -> Place {
        let set = |path: &&str| {
            self.settings.iter().find(|setting| setting.path == **path)?.place.clone()
        };
        paths.iter().find_map(set).unwrap_or(Place::Nowhere)
    }

    /// Whether the operator has set it.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.settings
            .iter()
            .any(|setting| setting.path == path && setting.origin.rank() > Origin::Dev.rank())
    }

    pub(super) fn place_of(&self, origin: &Origin, reveal: Reveal) -> Place {
        match (origin, &self.document) {
            (Origin::File(span), Some(document)) => document.place(span.start..span.end, reveal),
            (Origin::Variable(name), _) => Place::Variable(name.clone()),
            (Origin::Flag(name), _) => Place::Flag(name),
            (Origin::Default | Origin::Dev | Origin::File(_), _) => Place::Nowhere,
        }
    }

    /// Variables that are meant for this program and that it does not know.
    pub(super) fn unknown_variables(&mut self) {
        // Kubernetes sets these for a service that is called oncehook.
        let of_kubernetes = |name: &str| {
            name == "ONCEHOOK_PORT"
                || name.starts_with("ONCEHOOK_PORT_")
                || name.starts_with("ONCEHOOK_SERVICE_")
        };
        let known: Vec<&str> = self.variables.iter().map(String::as_str).collect();
        let unknown = self.layers.environment.names().filter(|name| {
            name.starts_with("ONCEHOOK_")
                && *name != "ONCEHOOK_CONFIG"
                && !of_kubernetes(name)
                && !known.contains(&name.as_str())
        });
        let problems: Vec<Problem> = unknown
            .map(|name| {
                let fault = Fault::new("no setting has this variable")
                    .did_you_mean(name, known.iter().copied());
                Problem::error(Place::Variable(name.clone()), fault)
            })
            .collect();
        self.problems.extend(problems);
    }

    /// Takes note that the secret `text` stands at `path`.
    pub(super) fn secret(&mut self, path: String, text: &str) {
        self.secrets.note(path, text);
    }

    pub(super) fn finish(self) -> Finished {
        let Self { problems, settings, schema, inputs, secrets, .. } = self;
        Finished { problems, settings, schema, inputs, secrets }
    }
}
