//! Composition root: Config -> rooms -> tasks -> drain.
