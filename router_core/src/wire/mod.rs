//! Sans-IO parsers: bytes in, events out. They never see a socket, a clock or a policy.

pub mod address;
pub mod authority;
pub mod body;
#[cfg(any(test, feature = "fuzzing"))]
pub mod checks;
#[cfg(test)]
mod corpus;
pub mod edit;
pub mod head;
mod members;
pub mod request;
mod scan;
mod skip;
pub mod sni;
pub mod sse;
pub mod usage;
