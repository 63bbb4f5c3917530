//! The commands, one file each.

mod capture;
pub mod credentials;
mod explain;
pub mod sign;
pub mod verify;
