//! Performs what the claim protocol decides: store, wait, forward.
