//! The blocklist's sources.
use crate::proxy::worker::Worker;
use std::rc::Rc;
/// Refreshes.
pub async fn refresh(worker: Rc<Worker>) {
    let _ = worker;
}
