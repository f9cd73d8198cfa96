//! The data plane of kars: everything that touches bytes on the hot path.
//!
//! Rooms, bottom floor first; a room names only rooms below it (`tests/rust/layers.rs` checks):
//! `error limits ids` < `wire | crypto | telemetry` < `policy | net` < `gate` < `proxy` < `engine`.

pub mod error;
pub mod ids;
pub mod limits;
pub mod settings;

pub mod telemetry;
pub mod wire;

pub mod net;
pub mod policy;

pub mod gate;

pub mod proxy;

pub mod engine;
