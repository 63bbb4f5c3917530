//! HTTP service of webhook paths: admit, read, verify, key, dispatch, answer.
