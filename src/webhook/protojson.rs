//! JSON as protobuf's canonical mapping (protojson) reads it: for each field whether it is absent, there once, or no use.
//!
//! serde's derive gives up a whole document for one member of the wrong type; here such a member spoils only itself,
//! so that the next step of identification still finds what it needs. Which fields there are is left to
//! [`super::event`].

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

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
    pub(super) fn read<'de, A: MapAccess<'de>>(&mut self, members: &mut A) -> Result<(), A::Error>
    where
        T: Member<'de>,
    {
        let found = members.next_value::<Self>()?;
        *self = match self {
            Self::Absent => found,
            Self::Null | Self::Once(_) | Self::Unusable => Self::Unusable,
        };
        Ok(())
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
pub(super) trait Member<'de>: Sized {
    fn from_text(_text: Cow<'de, str>) -> Option<Self> {
        None
    }

    fn from_number(_number: i64) -> Option<Self> {
        None
    }

    /// Reads all members.
    fn from_object<A: MapAccess<'de>>(mut members: A) -> Result<Option<Self>, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl<'de> Member<'de> for Cow<'de, str> {
    fn from_text(text: Cow<'de, str>) -> Option<Self> {
        Some(text)
    }
}

/// An `int64` is written as a string and may come as a number; an `int32` the other way round.
impl<'de> Member<'de> for i64 {
    fn from_text(text: Cow<'de, str>) -> Option<Self> {
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

impl<'de> Member<'de> for Named<'de> {
    fn from_text(text: Cow<'de, str>) -> Option<Self> {
        if text.is_empty() { None } else { Some(Self::Name(text)) }
    }

    fn from_number(number: i64) -> Option<Self> {
        Some(Self::Number(number))
    }
}

impl<'de, T: Member<'de>> Deserialize<'de> for Found<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}

/// Takes a value of any type. What is of no use is skipped by `IgnoredAny`, for which `serde_json` keeps a stack of its
/// own (`ignore_value`): no input is too deep.
struct Any<T>(PhantomData<T>);

impl<'de, T: Member<'de>> Visitor<'de> for Any<T> {
    type Value = Found<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Found::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Found::Unusable)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(found(T::from_number(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(found(i64::try_from(number).ok().and_then(T::from_number)))
    }

    /// 1.0 is an integer to protojson, but nobody writes one so, and a float cannot tell two large ones apart.
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Found::Unusable)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(found(T::from_text(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(found(T::from_text(Cow::Owned(text.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Unusable)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        T::from_object(members).map(found)
    }
}

fn found<T>(value: Option<T>) -> Found<T> {
    value.map_or(Found::Unusable, Found::Once)
}

/// A whole document that is one message; `None` if it is none.
pub(super) fn read<'a, T: Member<'a>>(json: &'a [u8]) -> Option<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = Found::deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    found.once()
}

/// A member's name.
#[derive(serde::Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

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
            fn from_object<A: serde::de::MapAccess<$life>>(
                mut members: A,
            ) -> Result<Option<Self>, A::Error> {
                let mut this = Self::default();
                while let Some(name) = members.next_key::<$crate::webhook::protojson::Name<'_>>()? {
                    match &*name.0 {
                        $($first $(| $second)? => this.$field.read(&mut members)?,)*
                        _ => members.next_value::<serde::de::IgnoredAny>().map(drop)?,
                    }
                }
                Ok(Some(this))
            }
        }
    };
}
pub(super) use message;
