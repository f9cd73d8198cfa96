//! What is in force now, and what the controller is told about it.

mod status;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::policy::egress::Egress;
use crate::policy::inference::Inference;

pub use status::{DeploymentHealth, Status};

/// Every policy in force at one moment. A call takes one and keeps it to its end.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// The inference policy; `None` before the first one and after its mount went away.
    pub inference: Option<Arc<Inference>>,
    /// The digest of `inference`'s bytes (`sha256:…`), empty without one.
    pub inference_digest: String,
    /// The egress lists; `None` before the first allowlist and after its mount went away.
    pub egress: Option<Arc<Egress>>,
    /// The digest of the allowlist's bytes, empty without one.
    pub egress_digest: String,
    /// Counts the snapshots of this process, from 1; 0 is the empty one at the start.
    pub generation: u64,
}

/// Holds the snapshot in force; readers never wait.
#[derive(Debug, Default)]
pub struct Handle {
    current: ArcSwap<Snapshot>,
}

impl Handle {
    /// Starts with a snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(snapshot) }
    }

    /// The snapshot in force. The guard is cheap and meant for one decision, not across an `await`.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The snapshot in force, to be kept for as long as a call lives.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts a snapshot in force. Calls under way keep theirs.
    pub fn store(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }

    /// Puts an inference policy (or none) in force under the next generation, which it gives.
    /// One writer at a time: the policy watcher.
    pub fn replace_inference(&self, policy: Option<(Arc<Inference>, String)>) -> u64 {
        let (inference, inference_digest) = policy.map_or((None, String::new()), |(p, d)| (Some(p), d));
        self.replace(|snapshot| {
            snapshot.inference = inference;
            snapshot.inference_digest = inference_digest;
        })
    }

    /// Likewise for the egress lists.
    pub fn replace_egress(&self, lists: Option<(Arc<Egress>, String)>) -> u64 {
        let (egress, egress_digest) = lists.map_or((None, String::new()), |(p, d)| (Some(p), d));
        self.replace(|snapshot| {
            snapshot.egress = egress;
            snapshot.egress_digest = egress_digest;
        })
    }

    fn replace(&self, change: impl FnOnce(&mut Snapshot)) -> u64 {
        let mut next = Snapshot::clone(&self.load());
        next.generation += 1;
        change(&mut next);
        let generation = next.generation;
        self.store(next);
        generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps)] // Given where a policy is optional.
    fn policy(text: &str) -> Option<(Arc<Inference>, String)> {
        Some((Arc::new(Inference::compile(text.as_bytes()).unwrap()), format!("sha256:{}", text.len())))
    }

    #[test]
    fn a_call_keeps_its_snapshot_while_a_new_one_takes_force() {
        let handle = Handle::default();
        assert!(handle.load().inference.is_none() && handle.load().generation == 0);
        assert_eq!(handle.replace_inference(policy("{}")), 1);
        let held = handle.load_full();
        assert_eq!(handle.replace_inference(policy(r#"{"models":{"deny":["*"]}}"#)), 2);
        let allows =
            |snapshot: &Snapshot| snapshot.inference.as_ref().is_some_and(|p| p.model("m").allowed());
        assert!(allows(&held) && held.generation == 1);
        assert!(!allows(&handle.load()));
        assert_eq!(handle.replace_inference(None), 3);
        assert!(handle.load().inference.is_none() && handle.load().inference_digest.is_empty());
    }

    #[test]
    fn snapshots_cross_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Snapshot>();
        shared::<Handle>();
        shared::<Status>();
        shared::<crate::policy::provider::Provider>();
        shared::<crate::policy::health::Health>();
    }
}
