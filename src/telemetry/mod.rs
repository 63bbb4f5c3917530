//! Metrics with typed labels, and log set-up.
