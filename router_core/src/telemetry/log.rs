//! Structured logs on standard error: one JSON object (or one plain line) per event.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::error::{Error, Kind, Result};

/// Starts logging for the process. A second call changes nothing.
///
/// # Errors
/// `RUST_LOG` is not a list of levels and `target=level` pairs.
pub fn init(filter: &str, json: bool) -> Result<()> {
    // The crate's events are named after the product, whatever the crate is called.
    let filter = filter.replace("kars=", "router_core=");
    let targets: Targets = filter.parse().map_err(|e| {
        Error::new(Kind::Config, format!("RUST_LOG={filter:?}: {e}; it takes a level or target=level pairs"))
    })?;
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // A test that starts several engines in one process keeps the first subscriber.
    let _ = if json {
        registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init()
    } else {
        registry.with(layer).try_init()
    };
    Ok(())
}
