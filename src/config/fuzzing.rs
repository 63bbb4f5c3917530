//! For `fuzz/`: reads and checks a configuration as `load` does, without looking at any file.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::environment::Environment;
use super::problem::{Document, Problem, Problems};
use super::reader::{Files, Finished, Layers, Reader};
use super::{Config, checks, load, raw, show};

/// What `check --show` would print for a file called `name` that holds `text`, or everything that is wrong with it.
pub fn check(name: &str, text: &str, environment: Environment) -> Result<String, Problems> {
    let document = Document { name: name.into(), text: Arc::new(Zeroizing::new(text.to_owned())) };
    let tree = load::parse(Some(&document), text)?;
    let layers = Layers { environment, ..Layers::default() };
    let mut reader = Reader::new(layers, Files::Skip, Some(document), Some(tree.get_ref()));
    let raw = reader.read(raw::config);
    let config = checks::config(&mut reader, raw);
    reader.unknown_variables();
    let Finished { problems, settings, .. } = reader.finish();
    let (errors, _) = problems.into_iter().partition::<Vec<_>, _>(Problem::is_error);
    let shown = Config { settings, ..config };
    Problems::new(errors).map_or_else(|| Ok(show(&shown)), Err)
}
