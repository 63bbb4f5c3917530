//! Why a request was refused for its form. What is told of it is left to `gateway::answer`.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

words! {
    /// Why a request was refused before anybody looked at what it asks for: it breaks HTTP, or two readers could read
    /// it in two ways.
    Malformed {
        /// The request line is none (RFC 9112, §3).
        RequestLine = "request_line",
        /// Another version than HTTP/1.0 and HTTP/1.1.
        Version = "version",
        /// The target is no URI, or has a fragment (RFC 9112, §3.2).
        Target = "target",
        /// It is longer than it may be.
        TargetTooLong = "target_too_long",
        /// The head is larger than it may be.
        HeadTooLarge = "head_too_large",
        /// The head has more fields than it may have.
        TooManyFields = "too_many_fields",
        /// A line ends without CR (RFC 9112, §2.2).
        BareLineFeed = "bare_line_feed",
        /// A field goes on in the next line, or white space comes before the first (RFC 9112, §5.2 and §2.2).
        FoldedField = "folded_field",
        /// A field's name is no token, or there is none (RFC 9112, §5.1).
        FieldName = "field_name",
        /// A field's value has a control character, or in HTTP/2 white space around it (RFC 9110, §5.5; RFC 9113, §8.2.1).
        FieldValue = "field_value",
        /// `Content-Length` is not one plain number (RFC 9112, §6.3).
        ContentLength = "content_length",
        /// `Transfer-Encoding` is not `chunked` and nothing else, or comes with HTTP/1.0 (RFC 9112, §6.1).
        TransferEncoding = "transfer_encoding",
        /// `Transfer-Encoding` and `Content-Length` (RFC 9112, §6.1).
        LengthAndEncoding = "length_and_encoding",
        /// A chunked body is none (RFC 9112, §7.1).
        Chunk = "chunk",
        /// A method with small letters: methods are case-sensitive, and some backends are not (RFC 9110, §9.1).
        Method = "method",
        /// CONNECT or TRACE, which nobody serves here.
        MethodUnserved = "method_unserved",
        /// The target names no path (RFC 9112, §3.2.3 and §3.2.4).
        TargetForm = "target_form",
        /// Another scheme than the connection's.
        Scheme = "scheme",
        /// The target names another host than `Host` (RFC 9112, §3.2.2; RFC 9113, §8.3.1).
        AuthorityMismatch = "authority_mismatch",
        /// No `Host` (RFC 9112, §3.2).
        HostMissing = "host_missing",
        /// More than one.
        HostRepeated = "host_repeated",
        /// It is not one host and port.
        HostInvalid = "host_invalid",
        /// A path that some backends would read as a webhook path, and the gateway does not.
        DisguisedPath = "disguised_path",
        /// A field with `_` that some backends could not tell from one that the gateway answers for.
        UnderscoreTwin = "underscore_twin",
        /// Another expectation than 100-continue (RFC 9110, §10.1.1).
        Expectation = "expectation",
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for Malformed {}
