//! LiveKit's webhook format: signature, event, key. The only room that knows it. Pure.

pub mod event;
