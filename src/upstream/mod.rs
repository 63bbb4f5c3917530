//! The backend: connections, header rules, classification of outcomes.
