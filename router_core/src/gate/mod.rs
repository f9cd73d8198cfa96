//! The only maker of a permit: identity, rate, budget, policy.

pub mod ledger;
pub mod rate;
