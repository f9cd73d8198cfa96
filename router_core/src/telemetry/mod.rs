//! What happened: counters, histograms and the audit log.

pub mod audit;
pub(crate) mod calendar;
pub mod destinations;
pub mod log;
pub(crate) mod mapped;
pub mod metrics;
