//! The values that metric labels and log fields may take.
//!
//! Each is a closed enum, or a `&'static str` from the `label()` of a closed enum that another room owns; a route's
//! name comes from the configuration. Nothing a sender writes becomes a label, so the number of series is bounded.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::claim::exchange::Outcome;
use crate::claim::record::{Operation, Reply};
use crate::webhook::event::EventKind;

/// A closed enum with a fixed word for each variant.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All of them, in the order of the type.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Where it stands among them.
            #[expect(clippy::as_conversions, reason = "the variants are numbered as they stand")]
            pub const fn place(self) -> usize {
                self as usize
            }

            /// The word in metrics and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(self.label())
            }
        }
    };
}

// Behind the macro that it is written with.
mod http2;
mod malformed;
pub use http2::{Http2Error, Http2Scope};
pub use malformed::Malformed;

words! {
    /// How one copy ended, seen from its sender.
    ///
    /// Every copy that is received ends as exactly one of these, so that, once nothing is in flight,
    /// `received = forwarded + duplicate + collapsed + refused + failed`. Which status the sender saw is another label
    /// ([`StatusClass`]): 4xx under the first three is the backend's own permanent refusal, passed on.
    AnswerResult {
        /// This copy went to the backend, and the sender was told what it said for good: 2xx or a permanent refusal
        /// (or 200 for an unknown outcome under `on_ambiguous = "suppress"`).
        Forwarded = "forwarded",
        /// Answered from a settled record.
        Duplicate = "duplicate",
        /// Waited for another copy and got its final result. One that waited and must try again has failed.
        Collapsed = "collapsed",
        /// Not a webhook that this gateway may accept: neither the store nor the backend was asked.
        Refused = "refused",
        /// Verified, and told to try again (429 or 5xx), whatever the cause.
        Failed = "failed",
    }
}

words! {
    /// The first digit of a status.
    StatusClass {
        /// 1xx, such as 101 to an upgrade.
        Informational = "1xx",
        /// 2xx.
        Success = "2xx",
        /// 3xx.
        Redirection = "3xx",
        /// 4xx.
        ClientError = "4xx",
        /// 5xx, and anything else that a status line might hold.
        ServerError = "5xx",
    }
}

impl StatusClass {
    /// The class of `status`.
    pub const fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

words! {
    /// What a forward came to; [`Outcome`] without its numbers.
    ForwardOutcome {
        /// 2xx.
        Delivered = "delivered",
        /// A permanent refusal.
        Refused = "refused",
        /// A 4xx that says that the backend is set up wrong.
        Misconfigured = "misconfigured",
        /// 429 or 503.
        Overloaded = "overloaded",
        /// Another 5xx, a 3xx, or garbage.
        Failed = "failed",
        /// Nothing was written.
        Unreached = "unreached",
        /// Written, and no answer came.
        Ambiguous = "ambiguous",
    }
}

impl From<Outcome> for ForwardOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Delivered(_) => Self::Delivered,
            Outcome::Refused(_) => Self::Refused,
            Outcome::Misconfigured(_) => Self::Misconfigured,
            Outcome::Overloaded { .. } => Self::Overloaded,
            Outcome::Failed(_) => Self::Failed,
            Outcome::Unreached => Self::Unreached,
            Outcome::Ambiguous => Self::Ambiguous,
        }
    }
}

words! {
    /// What was asked of a store; [`Operation`] without its terms.
    StoreOperation {
        /// The right to forward.
        Claim = "claim",
        /// A record of what the backend said.
        Settle = "settle",
        /// To give the key up.
        Release = "release",
    }
}

impl From<Operation> for StoreOperation {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Claim { .. } => Self::Claim,
            Operation::Settle { .. } => Self::Settle,
            Operation::Release { .. } => Self::Release,
        }
    }
}

/// How many words there are for a store's reply.
pub(super) const REPLIES: usize = 6;

/// Where a reply's word stands among them.
pub(super) const fn reply_place(reply: Reply) -> usize {
    match reply {
        Reply::Won { .. } => 0,
        Reply::Busy { .. } => 1,
        Reply::Duplicate { .. } => 2,
        Reply::Done => 3,
        Reply::AlreadySettled => 4,
        Reply::Fenced => 5,
    }
}

/// The word for a store's reply.
pub const fn reply_label(reply: Reply) -> &'static str {
    match reply {
        Reply::Won { .. } => "won",
        Reply::Busy { .. } => "busy",
        Reply::Duplicate { .. } => "duplicate",
        Reply::Done => "done",
        Reply::AlreadySettled => "already_settled",
        Reply::Fenced => "fenced",
    }
}

words! {
    /// Why a connection was closed before TLS or a request was read from it.
    ConnectionRejection {
        /// `connections_max` are open.
        Total = "total",
        /// `connections_per_source_max` are open from this address.
        Source = "source",
        /// With the PROXY protocol: it comes from no trusted proxy.
        UntrustedProxy = "untrusted_proxy",
        /// It begins with no header of the PROXY protocol, or a malformed one.
        ProxyHeader = "proxy_header",
        /// That header did not come in time.
        ProxyTimeout = "proxy_timeout",
        /// It was closed before that header was complete: so are a balancer's own checks that just connect.
        ProxyClosed = "proxy_closed",
    }
}

words! {
    /// Why a TLS handshake failed.
    TlsFailure {
        /// It was not done in time.
        Timeout = "timeout",
        /// The peer left in the middle of it.
        Closed = "closed",
        /// The peer does not trust the certificate.
        Untrusted = "untrusted",
        /// There is no version, suite or group in common.
        Incompatible = "incompatible",
        /// What came is no TLS: plain HTTP, or a scanner.
        NotTls = "not_tls",
        /// It asked for a name that no certificate has, or for none, and `tls.strict_sni` is on.
        UnknownName = "unknown_name",
        /// It showed no client certificate.
        NoClientCertificate = "no_client_certificate",
        /// It showed one that no known authority has signed, or that is for something else.
        ClientUntrusted = "client_untrusted",
        /// It showed one whose time is over.
        ClientExpired = "client_expired",
        /// It showed one that has been revoked.
        ClientRevoked = "client_revoked",
        /// Nobody knows whether it has been revoked: there is no list of its authority, or its time is over.
        RevocationUnknown = "revocation_unknown",
        /// The peer broke the protocol.
        Protocol = "protocol",
    }
}

words! {
    /// How a connection ended after it was admitted (and had shaken hands).
    ConnectionEnd {
        /// Either side closed it in good order.
        Closed = "closed",
        /// Its request head did not come in time.
        HeadTimeout = "head_timeout",
        /// No request came for longer than it may rest.
        IdleTimeout = "idle_timeout",
        /// Its peer took nothing of an answer for longer than it may.
        AnswerTimeout = "answer_timeout",
        /// HTTP/2: its peer sent too many frames that carry nothing.
        Flood = "flood",
        /// It broke, or the peer broke HTTP.
        Error = "error",
        /// The service panicked.
        Panic = "panic",
        /// It was still open when the patience of the shutdown ended.
        Killed = "killed",
    }
}

words! {
    /// Why somebody may not see a page of the admin listener.
    AdminRefusal {
        /// No token was shown.
        NoToken = "no_token",
        /// Another one was.
        WrongToken = "wrong_token",
        /// No client certificate was shown.
        NoClientCertificate = "no_client_certificate",
        /// There was no TLS handshake, for whatever reason; a bad client certificate is one.
        Handshake = "handshake",
    }
}

words! {
    /// What came of reading the configuration again.
    ReloadResult {
        /// It holds now.
        Applied = "applied",
        /// It says what held before.
        Unchanged = "unchanged",
        /// It cannot be used: what held before still does.
        Rejected = "rejected",
    }
}

/// The name of a route: a bounded set, made from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RouteName(pub(super) Arc<str>);

impl EncodeLabelValue for RouteName {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(&self.0)
    }
}

/// The kind of an event, or that of a body which was refused before it could be trusted to name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct EventLabel(pub(super) Option<EventKind>);

impl EventLabel {
    /// How many there are.
    pub(super) const COUNT: usize = EventKind::ALL.len() + 1;

    /// Where it stands among them.
    #[expect(clippy::as_conversions, reason = "the kinds are numbered as they stand")]
    pub(super) fn place(self) -> usize {
        self.0.map_or(EventKind::ALL.len(), |kind| kind as usize)
    }
}

impl EncodeLabelValue for EventLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.map_or("unverified", EventKind::name))
    }
}

macro_rules! label_sets {
    ($($name:ident { $($field:ident: $kind:ty),+ })+) => {
        $(#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $field: $kind),+ })+
    };
}

label_sets! {
    RouteSet { route: RouteName }
    Received { route: RouteName, event: EventLabel }
    Answered { route: RouteName, result: AnswerResult, class: StatusClass }
    Refusal { route: RouteName, reason: &'static str }
    Forward { route: RouteName, outcome: ForwardOutcome }
    Store { operation: StoreOperation, result: &'static str }
    StoreTime { operation: StoreOperation }
    Basis { basis: &'static str }
    Rejection { reason: ConnectionRejection }
    TlsFailed { reason: TlsFailure }
    Ended { reason: ConnectionEnd }
    Http2 { scope: Http2Scope, code: Http2Error }
    MalformedRequest { reason: Malformed }
    Relay { class: StatusClass }
    Admin { reason: AdminRefusal }
    Reload { result: ReloadResult }
    Certificate { name: Arc<str> }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_belongs_to_the_class_of_its_first_digit() {
        assert_eq!(StatusClass::of(101).label(), "1xx");
        assert_eq!(StatusClass::of(204).label(), "2xx");
        assert_eq!(StatusClass::of(302).label(), "3xx");
        assert_eq!(StatusClass::of(499).label(), "4xx");
        assert_eq!(StatusClass::of(999).label(), "5xx");
    }
}
