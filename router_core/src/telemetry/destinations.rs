//! Destinations that agents asked for: what learn mode saw, and what was blocked.

mod blocked;
mod learned;

pub use blocked::{Blocked, BlockedRow};
pub use learned::{Learned, LearnedRow, Seen};
