//! Health, metrics: own listener, own thread.
