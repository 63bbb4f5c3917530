//! Hostile input is refused, and nothing else suffers.

mod leaks;
