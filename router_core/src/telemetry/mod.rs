//! What happened: counters, histograms and the audit log.

pub mod audit;
pub(crate) mod calendar;
pub(crate) mod mapped;
pub mod log;
pub mod metrics;
