//! Hostile input is refused, and nothing else suffers: corpora as data, against real gateways.

mod backends;
mod backends_relayed;
mod bodies;
mod http1;
mod http2;
mod leaks;
mod stage;
mod tokens;
