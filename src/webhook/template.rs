//! The operator's own identity: a template such as `{createdAt}:{event}`. What becomes of a webhook without one of its
//! fields is left to [`super::key`].

use std::fmt;
use std::str::FromStr;

use super::field::Field;

/// The longest template.
pub const TEMPLATE_BYTES_MAX: usize = 512;

/// A text with fields in braces, at least one.
///
/// The values are compared one by one, and not as the text that the template would make: `{room.name}:{event}` cannot
/// take a room called `a:b` for a room called `a`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    text: String,
    fields: Vec<Field>,
}

/// Why a text is no template. Says what to do about it, too: it is read by whoever wrote the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Neither a word that is an identity, nor a template.
    #[error(
        "`{0}` is no identity; hint: write event, id, or a template such as {{createdAt}}:{{event}}"
    )]
    NoField(String),
    /// A brace has no counterpart.
    #[error("a brace is open or closed without its counterpart; hint: write fields as {{event}}")]
    Brace,
    /// The field is not one of [`Field::ALL`].
    #[error("unknown field `{path}`; hint: {}", .near.map_or_else(known, |near| format!("did you mean `{near}`?")))]
    UnknownField {
        /// As it was written.
        path: String,
        /// The known one that looks like it.
        near: Option<&'static str>,
    },
    /// More than [`TEMPLATE_BYTES_MAX`].
    #[error("the template is longer than 512 bytes; hint: name each field once")]
    TooLong,
}

fn known() -> String {
    format!("the fields are {}", Field::ALL.map(Field::path).join(", "))
}

impl Template {
    /// Its fields, in its order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong);
        }
        let mut fields = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (path, after) = after.split_once('}').ok_or(TemplateError::Brace)?;
            if before.contains('}') || path.contains('{') {
                return Err(TemplateError::Brace);
            }
            fields.push(
                path.parse()
                    .map_err(|near| TemplateError::UnknownField { path: path.to_owned(), near })?,
            );
            rest = after;
        }
        if rest.contains('}') {
            return Err(TemplateError::Brace);
        }
        if fields.is_empty() {
            return Err(TemplateError::NoField(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), fields })
    }
}
