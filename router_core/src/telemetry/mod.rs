//! What happened: counters, histograms and the audit log.

pub mod audit;
pub mod metrics;
