//! The claim protocol: who may forward an event, and what a copy is told while somebody else does.
//!
//! Pure: no I/O, no clock, no logging. [`record`] defines what every store does; [`exchange`] decides what one copy
//! does next. The stores, the model checker and the simulation use the same code. Performing the effects is left to
//! `dispatch`.

mod effect;
pub mod exchange;
pub mod record;

#[cfg(test)]
mod exchange_tests;
#[cfg(test)]
mod record_tests;

use std::fmt;

/// The fixed-size identity that the copies of one event share. `webhook` derives it; nothing in it is secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 16]);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// The random id of one attempt to claim: a fencing id, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u128);

/// 64 bits of a digest of the content that copies should agree on; see `webhook::key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u64);

/// What the backend said of an event, once that is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The backend accepted it, with this 2xx status.
    Delivered(u16),
    /// The backend refused it for good, with this 4xx status.
    Refused(u16),
    /// Nobody knows, and the configuration says not to ask again (`on_ambiguous = "suppress"`).
    Unknown,
}

impl Verdict {
    /// One that was read from a store, which anybody may have written to: `None` unless its status is of its kind. The
    /// sender is told that status, and a redirect, say, would lose the event (DESIGN R1).
    pub const fn checked(self) -> Option<Self> {
        match self {
            Self::Delivered(200..=299) | Self::Refused(400..=428 | 430..=499) | Self::Unknown => {
                Some(self)
            }
            Self::Delivered(_) | Self::Refused(_) => None,
        }
    }
}
