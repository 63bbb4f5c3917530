//! Why HTTP/2 streams and connections were ended.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

words! {
    /// What ended because of the peer's error.
    Http2Scope {
        /// One stream, by `RST_STREAM`.
        Stream = "stream",
        /// The connection, by GOAWAY.
        Connection = "connection",
    }
}

words! {
    /// Why a stream or a connection was ended, as the peer was told (RFC 9113 §7).
    Http2Error {
        /// It broke the protocol.
        ProtocolError = "protocol_error",
        /// The gateway failed.
        InternalError = "internal_error",
        /// It sent more than it had been granted.
        FlowControlError = "flow_control_error",
        /// It did not acknowledge settings.
        SettingsTimeout = "settings_timeout",
        /// It sent on a stream that it had closed.
        StreamClosed = "stream_closed",
        /// A frame had the wrong size.
        FrameSizeError = "frame_size_error",
        /// It opened more streams than it may.
        RefusedStream = "refused_stream",
        /// Nobody wants the stream any more.
        Cancel = "cancel",
        /// Its header compression cannot be followed.
        CompressionError = "compression_error",
        /// CONNECT came to nothing.
        ConnectError = "connect_error",
        /// It floods.
        EnhanceYourCalm = "enhance_your_calm",
        /// Its TLS is too weak.
        InadequateSecurity = "inadequate_security",
        /// HTTP/1.1 is asked for.
        Http11Required = "http_1_1_required",
        /// A code that RFC 9113 does not know.
        Unknown = "unknown",
    }
}

impl Http2Error {
    /// The error of `code`; `NO_ERROR` is none.
    pub const fn of(code: u32) -> Option<Self> {
        Some(match code {
            0x0 => return None,
            0x1 => Self::ProtocolError,
            0x2 => Self::InternalError,
            0x3 => Self::FlowControlError,
            0x4 => Self::SettingsTimeout,
            0x5 => Self::StreamClosed,
            0x6 => Self::FrameSizeError,
            0x7 => Self::RefusedStream,
            0x8 => Self::Cancel,
            0x9 => Self::CompressionError,
            0xa => Self::ConnectError,
            0xb => Self::EnhanceYourCalm,
            0xc => Self::InadequateSecurity,
            0xd => Self::Http11Required,
            _ => Self::Unknown,
        })
    }
}
