//! stub
/// One setting in force.
#[derive(Clone)]
pub(super) struct Setting;
