//! Hostile input is refused, and nothing else suffers: corpora as data, against real gateways.

mod http1;
mod http2;
