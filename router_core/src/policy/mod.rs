//! Decode, compile, hold: an immutable snapshot behind an atomic handle. Deciding is pure.

pub mod blocklist;
#[cfg(any(test, feature = "fuzzing"))]
pub mod checks;
pub mod digest;
mod document;
pub mod egress;
pub mod health;
pub mod inference;
pub mod mount;
pub mod provider;
pub mod safety;
pub mod snapshot;
