//! JSON as protobuf's canonical mapping (protojson) reads it: for each field whether it is absent, there once, or no use.
//!
//! serde's derive gives up a whole document for one member of the wrong type; here such a member spoils only itself,
//! so that the next step of identification still finds what it needs. Which fields there are is left to
//! [`super::event`].

use std::borrow::Cow;

use super::content::Content;
use super::json::{self, Malformed, Value};

/// What reads a body.
pub(super) type Reader<'a> = json::Reader<'a, Content>;

/// What was found of one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// Not there.
    #[default]
    Absent,
    /// `null`: protojson sets nothing, but the field was mentioned.
    Null,
    /// Once, with a value of its type.
    Once(T),
    /// More than once (under either name), or with a value of another type.
    Unusable,
}

impl<T> Found<T> {
    pub(super) fn once(self) -> Option<T> {
        match self {
            Self::Once(value) => Some(value),
            Self::Absent | Self::Null | Self::Unusable => None,
        }
    }

    pub(super) fn as_ref(&self) -> Found<&T> {
        match self {
            Self::Absent => Found::Absent,
            Self::Null => Found::Null,
            Self::Once(value) => Found::Once(value),
            Self::Unusable => Found::Unusable,
        }
    }

    /// Reads the value of the member whose name has just been read. A second one makes the field unusable, as Go's
    /// `protojson/decode.go` refuses it, `null` or not.
    pub(super) fn read<'a>(&mut self, reader: &mut Reader<'a>) -> Result<(), Malformed>
    where
        T: Member<'a>,
    {
        let found = Self::value(reader)?;
        *self = match self {
            Self::Absent => found,
            Self::Null | Self::Once(_) | Self::Unusable => Self::Unusable,
        };
        Ok(())
    }

    fn value<'a>(reader: &mut Reader<'a>) -> Result<Self, Malformed>
    where
        T: Member<'a>,
    {
        let value = match reader.value()? {
            Value::Null => return Ok(Self::Null),
            Value::Bool | Value::Array => None,
            // 1.0 is an integer to protojson, but nobody writes one so, and a float cannot tell two large ones apart.
            Value::Number(number) => number.as_i64().and_then(T::from_number),
            Value::Text(text) => T::from_text(text),
            Value::Object => T::from_object(reader)?,
        };
        Ok(value.map_or(Self::Unusable, Self::Once))
    }
}

impl<'a, T> Found<&'a T> {
    /// The field of a message that may itself not be there.
    pub(super) fn then<U>(self, field: impl FnOnce(&'a T) -> &'a Found<U>) -> Found<&'a U> {
        match self {
            Self::Absent => Found::Absent,
            Self::Null => Found::Null,
            Self::Once(message) => field(message).as_ref(),
            Self::Unusable => Found::Unusable,
        }
    }
}

/// A type that a field may have. What it cannot be made of makes the field unusable.
pub(super) trait Member<'a>: Sized {
    fn from_text(_text: Cow<'a, str>) -> Option<Self> {
        None
    }

    fn from_number(_number: i64) -> Option<Self> {
        None
    }

    /// Reads all members.
    fn from_object(reader: &mut Reader<'a>) -> Result<Option<Self>, Malformed> {
        let mut first = true;
        while reader.member(&mut first)?.is_some() {
            reader.skip()?;
        }
        Ok(None)
    }
}

impl<'a> Member<'a> for Cow<'a, str> {
    fn from_text(text: Cow<'a, str>) -> Option<Self> {
        Some(text)
    }
}

/// An `int64` is written as a string and may come as a number; an `int32` the other way round.
impl<'a> Member<'a> for i64 {
    fn from_text(text: Cow<'a, str>) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(&text);
        // "+1", "01" and "-0" are not what protojson writes; two texts must not be one number.
        let canonical = match digits.as_bytes() {
            [b'0'] => text.len() == 1,
            [b'1'..=b'9', ..] => true,
            _ => false,
        };
        if canonical { text.parse().ok() } else { None }
    }

    fn from_number(number: i64) -> Option<Self> {
        Some(number)
    }
}

/// An enum's value, by its number or by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    Number(i64),
    Name(Cow<'a, str>),
}

impl<'a> Member<'a> for Named<'a> {
    fn from_text(text: Cow<'a, str>) -> Option<Self> {
        if text.is_empty() { None } else { Some(Self::Name(text)) }
    }

    fn from_number(number: i64) -> Option<Self> {
        Some(Self::Number(number))
    }
}

/// A whole document that is one message, and what its copies should agree on; `None` if it is none.
pub(super) fn read<'a, T: Member<'a>>(json: &'a [u8]) -> Option<(T, Content)> {
    let mut reader = Reader::new(json, Content::default());
    let found = Found::value(&mut reader).ok()?;
    let content = reader.end().ok()?;
    found.once().map(|message| (message, content))
}

/// Declares a message: its fields, each with the names that protojson accepts for it.
macro_rules! message {
    ($life:lifetime, $(#[$doc:meta])* $name:ident $(<$own:lifetime>)? {
        $($field:ident: $type:ty = $first:literal $(| $second:literal)?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name $(<$own>)? {
            $(pub(super) $field: $crate::webhook::protojson::Found<$type>,)*
        }

        impl<$life> $crate::webhook::protojson::Member<$life> for $name $(<$own>)? {
            fn from_object(
                reader: &mut $crate::webhook::protojson::Reader<$life>,
            ) -> Result<Option<Self>, $crate::webhook::json::Malformed> {
                let mut this = Self::default();
                let mut first = true;
                while let Some(name) = reader.member(&mut first)? {
                    match &*name {
                        $($first $(| $second)? => this.$field.read(reader)?,)*
                        _ => reader.skip()?,
                    }
                }
                Ok(Some(this))
            }
        }
    };
}
pub(super) use message;
