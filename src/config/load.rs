//! The only reader of files and of the environment.
//!
//! Order of precedence: flags, environment, file, `--dev`, defaults. What a setting means is left to `raw`, what does
//! not fit together to `checks`.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use toml::Spanned;
use toml::de::DeTable;
use zeroize::Zeroizing;

use super::environment::Environment;
use super::problem::{Document, Fault, Place, Problem, Problems, Reveal};
use super::reader::{Files, Finished, Layers, Origin, Reader, Sensitivity};
use super::{Config, checks, problem, raw};

/// What the variables that concern the configuration begin with.
const PREFIXES: [&str; 4] = ["ONCEHOOK_", "LIVEKIT_", "WEBHOOK_", "REDIS_URL"];

/// No file of a configuration is larger.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What `--dev` says, where nobody else says anything. The key of `--dev` is in `checks`: it counts only if there is no
/// other.
const DEV: [(&str, &str); 6] = [
    ("listen.address", "127.0.0.1:8443"),
    ("tls.enabled", "false"),
    ("tls.self_signed", "true"),
    // Where `oncehook listen` is, unless it is told otherwise.
    ("upstream.backend", "http://127.0.0.1:8080/webhook"),
    ("log.format", "text"),
    ("shutdown.drain_delay", "0s"),
];

/// Where a configuration comes from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration file, if there is one. Paths in it are relative to its folder.
    pub file: Option<PathBuf>,
    /// The environment; see [`environment`]. It may hold secrets: there is no `Debug`.
    pub environment: Environment,
    /// The command line.
    pub overrides: Overrides,
}

/// What the command line says. Values are as typed: they are checked together with all others. The URL of a store may
/// hold a password: there is no `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen ADDRESS`
    pub listen: Option<String>,
    /// `--backend URL`: of every route that names none.
    pub backend: Option<String>,
    /// `--store memory` or `--store redis://…`
    pub store: Option<String>,
    /// `--dev`: defaults for trials. Key `devkey`, secret `secret` if there are no other ones; 127.0.0.1, plain HTTP,
    /// memory, text log. `ONCEHOOK_TLS__ENABLED=true` makes it HTTPS with a self-signed certificate.
    pub dev: bool,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is wrong: all errors.
    #[error("{0}")]
    Invalid(Problems),
}

/// A file that a configuration is made from, as it was when it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct InputFile {
    /// The key that names it; empty for the configuration file.
    pub(super) key: String,
    pub(super) path: PathBuf,
    /// `None` if it cannot be read. There is no `Debug`: the file may be a short secret.
    pub(super) digest: Option<[u8; 32]>,
}

impl InputFile {
    pub(super) fn look(key: &str, path: &Path) -> Self {
        // A pipe could be read only once, and by nobody else then.
        let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let digest = if regular { digest(path).ok() } else { None };
        Self { key: key.to_owned(), path: path.to_owned(), digest }
    }

    /// Where it is, as it is named: perhaps behind symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds something else now, whatever its links and times say.
    pub fn has_changed(&self) -> bool {
        Self::look(&self.key, &self.path) != *self
    }
}

fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room(&file)));
    file.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(Sha256::digest(bytes.as_slice()).into())
}

/// Reads and checks everything.
pub fn load(sources: &Sources) -> Result<Config, LoadError> {
    load_watched(sources).0
}

/// The same, and the files that say what the result is: it changes only if one of them does.
pub fn load_watched(sources: &Sources) -> (Result<Config, LoadError>, Vec<InputFile>) {
    let mut inputs: Vec<_> = sources.file.iter().map(|file| InputFile::look("", file)).collect();
    let result = read_all(sources, &mut inputs);
    (result, inputs)
}

fn read_all(sources: &Sources, inputs: &mut Vec<InputFile>) -> Result<Config, LoadError> {
    let document = sources.file.as_deref().map(document).transpose()?;
    let text = document.as_ref().map(|document| Arc::clone(&document.text)).unwrap_or_default();
    let tree = parse(document.as_ref(), &text).map_err(LoadError::Invalid)?;
    let folder = sources.file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let mut reader =
        Reader::new(layers(sources), Files::Read(folder), document, Some(tree.get_ref()));
    let raw = reader.read(raw::config);
    let config = checks::config(&mut reader, raw);
    reader.unknown_variables();
    if let Some(file) = &sources.file {
        inline_secrets(&mut reader, file);
    }
    let Finished { problems, settings, inputs: named, secrets, .. } = reader.finish();
    inputs.extend(named);
    let (errors, warnings) = problems.into_iter().partition::<Vec<_>, _>(Problem::is_error);
    if let Some(errors) = Problems::new(errors) {
        return Err(LoadError::Invalid(errors));
    }
    let (warnings, inputs) = (problem::ordered(warnings), inputs.clone());
    Ok(Config { warnings, settings, inputs, secrets, ..config })
}

/// Checks a part of a configuration file, such as an example in a page: keys, types and values, but not whether it is
/// complete, nor the files that it names.
pub fn check_fragment(name: &str, text: &str) -> Result<(), Problems> {
    let document = Document { name: name.into(), text: Arc::new(Zeroizing::new(text.to_owned())) };
    let tree = parse(Some(&document), text)?;
    let mut reader =
        Reader::new(Layers::default(), Files::Skip, Some(document), Some(tree.get_ref()));
    drop(reader.read(raw::config));
    Problems::new(reader.finish().problems).map_or(Ok(()), Err)
}

/// This process's environment, as far as it concerns the configuration. A value that is no UTF-8 is read as it can be,
/// and then refused or not by the setting that it is for.
pub fn environment() -> Environment {
    let ours = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let text = |value: OsString| {
        // Moved, not copied, wherever it can be.
        value.into_string().unwrap_or_else(|odd| odd.to_string_lossy().into_owned())
    };
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| ours(name))
        .map(|(name, value)| (name, text(value)))
        .collect()
}

/// Whether a file can be read, and whether too many can; see [`Sensitivity`].
pub(super) fn inspect(path: &Path, sensitivity: Sensitivity) -> Result<Option<Fault>, Fault> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(Fault::new(format!("{} is not a file", path.display())));
    }
    let fault = || {
        Fault::new(format!(
            "all users of this machine may read {}, and it holds secrets",
            path.display()
        ))
        .hint(format!("chmod o= {}", path.display()))
    };
    match sensitivity {
        Sensitivity::Secret if others_may_read(&metadata) => Err(fault()),
        Sensitivity::Key if others_may_read(&metadata) => Ok(Some(fault())),
        Sensitivity::Secret | Sensitivity::Key | Sensitivity::Public => Ok(None),
    }
}

/// Whether others than a file's owner and its group may do anything with it: LiveKit takes no such key file
/// (`ValidateKeys` of `pkg/config/config.go` asks for mode & 0007 to be 0). What is no file, such as a pipe, is not asked.
pub fn open_to_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && others_may_read(&metadata))
}

/// The text of a file, wiped when it is dropped: it may hold secrets.
pub(super) fn text(path: &Path) -> Result<Zeroizing<String>, Fault> {
    read(path).map_err(|error| unreadable(path, &error))
}

/// The secret that a file holds, without the line break at its end.
pub(super) fn secret(path: &Path) -> Result<SecretString, Fault> {
    let text = text(path)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Fault::new(format!("{} is empty", path.display()))),
        secret => Ok(SecretString::from(secret)),
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut file = File::open(path)?;
    let mut text = Zeroizing::new(String::with_capacity(room(&file)));
    let bytes = file.by_ref().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(bytes).is_ok_and(|bytes| bytes <= FILE_BYTES_MAX) {
        Ok(text)
    } else {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"))
    }
}

/// How much to set aside for a file, so that reading it does not move what it holds, and leave a copy behind.
fn room(file: &File) -> usize {
    /// Reading looks for the end with this much to spare.
    const SPARE: u64 = 64;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len()).min(FILE_BYTES_MAX);
    usize::try_from(bytes + SPARE).unwrap_or(0)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault::new(format!("cannot read {}: {error}", path.display()))
}

#[cfg(unix)]
fn others_may_read(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o007 != 0
}

#[cfg(not(unix))]
fn others_may_read(_: &Metadata) -> bool {
    false
}

fn document(file: &Path) -> Result<Document, LoadError> {
    let text =
        read(file).map_err(|source| LoadError::Unreadable { file: file.to_owned(), source })?;
    Ok(Document { name: file.display().to_string().into(), text: Arc::new(text) })
}

/// The file's tree, or all errors of its syntax: what they leave of the tree would only give wrong ones.
pub(super) fn parse<'a>(
    document: Option<&Document>,
    text: &'a str,
) -> Result<Spanned<DeTable<'a>>, Problems> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let told = |error: toml::de::Error| {
        let place = match (error.span(), document) {
            (Some(span), Some(document)) => document.place(span, Reveal::Key),
            (_, document) => {
                Place::Whole(document.map(|document| document.name.to_string()).unwrap_or_default())
            }
        };
        Problem::error(place, Fault::new(format!("this is not TOML: {}", error.message())))
    };
    Problems::new(errors.into_iter().map(told).collect()).map_or(Ok(tree), Err)
}

fn layers(sources: &Sources) -> Layers {
    let Overrides { listen, backend, store, dev } = &sources.overrides;
    let mut flags = Vec::new();
    flags.extend(listen.clone().map(|text| ("listen.address", "--listen", text.into())));
    flags.extend(backend.clone().map(|text| ("upstream.backend", "--backend", text.into())));
    if let Some(store) = store.clone() {
        if store.contains("://") {
            flags.push(("store.kind", "--store", "redis".to_owned().into()));
            flags.push(("store.redis.url", "--store", store.into()));
        } else {
            flags.push(("store.kind", "--store", store.into()));
        }
    }
    Layers {
        flags,
        environment: sources.environment.clone(),
        dev: if *dev { DEV.to_vec() } else { Vec::new() },
    }
}

/// A configuration file that holds a secret is one itself.
fn inline_secrets(reader: &mut Reader<'_>, file: &Path) {
    let inline = reader
        .settings()
        .find(|setting| setting.is_secret() && matches!(setting.origin, Origin::File(_)));
    let Some(place) = inline.and_then(|setting| setting.place.clone()) else { return };
    if std::fs::metadata(file).is_ok_and(|metadata| others_may_read(&metadata)) {
        let fault = Fault::new("all users of this machine may read this secret");
        reader.warning(
            place,
            fault.hint(format!(
                "chmod o= {}, or move the secret to a file of its own",
                file.display()
            )),
        );
    }
}
