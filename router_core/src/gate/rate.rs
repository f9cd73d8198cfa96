//! The request rate of one sandbox: GCRA, the generic cell rate algorithm (ITU-T I.371), lock-free on one word.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const NANOS_PER_MINUTE: u64 = 60_000_000_000;

/// A rate limit. `per_minute` requests drain evenly; `burst` of them may come at once.
///
/// The state is the theoretical arrival time (TAT): the instant at which the bucket is full again. A request is
/// admitted when it moves the TAT at most `burst` intervals past now.
#[derive(Debug)]
pub struct Rate {
    /// `per_minute << 32 | burst`: one word, so that a reader never sees halves of two settings.
    limits: AtomicU64,
    /// Nanoseconds on the caller's monotonic clock.
    tat: AtomicU64,
}

/// What an admitted request leaves, for the `x-ratelimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Requests the full bucket holds; 0 when there is no limit.
    pub limit: u32,
    /// Requests that would be admitted right now; `u32::MAX` when there is no limit.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    /// Requests the full bucket holds.
    pub limit: u32,
    /// Until the next request would be admitted.
    pub after: Duration,
    /// Until the bucket is full again.
    pub reset: Duration,
}

/// The interval between two requests and how far ahead of now the TAT may run, both in nanoseconds.
#[derive(Clone, Copy)]
struct Pace {
    interval: u64,
    burst: u64,
}

impl Rate {
    /// A full bucket. `per_minute` 0 means no limit; a `burst` of 0 counts as 1.
    pub fn new(per_minute: u32, burst: u32) -> Self {
        Self { limits: AtomicU64::new(pack(per_minute, burst)), tat: AtomicU64::new(0) }
    }

    /// Takes one request at `now_ns` of a monotonic clock. Refusals change nothing.
    pub fn admit(&self, now_ns: u64) -> Result<Remaining, RetryAfter> {
        let Some(pace) = pace(self.limits.load(Relaxed)) else {
            return Ok(Remaining { limit: 0, remaining: u32::MAX, reset: Duration::ZERO });
        };
        let limit = count(pace.burst);
        let window = pace.interval.saturating_mul(pace.burst);
        let mut tat = self.tat.load(Relaxed);
        loop {
            let next = tat.max(now_ns).saturating_add(pace.interval);
            let ahead = next.saturating_sub(now_ns);
            if ahead > window {
                let reset = Duration::from_nanos(tat.saturating_sub(now_ns));
                return Err(RetryAfter { limit, after: Duration::from_nanos(ahead - window), reset });
            }
            match self.tat.compare_exchange_weak(tat, next, Relaxed, Relaxed) {
                Ok(_) => {
                    let remaining = count((window - ahead) / pace.interval);
                    return Ok(Remaining { limit, remaining, reset: Duration::from_nanos(ahead) });
                }
                Err(seen) => tat = seen,
            }
        }
    }

    /// Changes the limits and keeps the requests already counted: what `n` requests had used of the old bucket,
    /// `n` requests have used of the new one, at most all of it. Cheap and without effect when nothing changes.
    pub fn retune(&self, per_minute: u32, burst: u32, now_ns: u64) {
        let new = pack(per_minute, burst);
        let old = self.limits.swap(new, Relaxed);
        if old == new {
            return;
        }
        let used = |tat: u64| match (pace(old), pace(new)) {
            (Some(old), Some(new)) => {
                let ahead = u128::from(tat.saturating_sub(now_ns));
                let scaled = ahead * u128::from(new.interval) / u128::from(old.interval);
                let window = new.interval.saturating_mul(new.burst);
                now_ns.saturating_add(u64::try_from(scaled).unwrap_or(u64::MAX).min(window))
            }
            _ => now_ns,
        };
        // A request that slips in between meets the new limits with the old state: one bucket's error at most.
        let _ = self.tat.fetch_update(Relaxed, Relaxed, |tat| Some(used(tat)));
    }
}

fn pack(per_minute: u32, burst: u32) -> u64 {
    u64::from(per_minute) << 32 | u64::from(burst.max(1))
}

fn pace(limits: u64) -> Option<Pace> {
    let interval = NANOS_PER_MINUTE.checked_div(limits >> 32)?;
    Some(Pace { interval, burst: limits & u64::from(u32::MAX) })
}

fn count(requests: u64) -> u32 {
    u32::try_from(requests).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn admits_a_burst_then_the_even_rate() {
        let rate = Rate::new(60, 3);
        let t = 5 * SECOND;
        let left: Vec<u32> = (0..3).map(|_| rate.admit(t).unwrap().remaining).collect();
        assert_eq!(left, [2, 1, 0]);
        let refused = rate.admit(t).unwrap_err();
        assert_eq!(
            refused,
            RetryAfter { limit: 3, after: Duration::from_secs(1), reset: Duration::from_secs(3) }
        );
        assert!(rate.admit(t + SECOND - 1).is_err());
        let one = rate.admit(t + SECOND).unwrap();
        assert_eq!((one.limit, one.remaining, one.reset), (3, 0, Duration::from_secs(3)));
        assert_eq!(rate.admit(t + 100 * SECOND).unwrap().remaining, 2);
    }

    #[test]
    fn zero_per_minute_is_no_limit_and_zero_burst_is_one() {
        let free = Rate::new(0, 0);
        assert!((0..1000).all(|_| free.admit(0).unwrap().limit == 0));
        let one = Rate::new(60, 0);
        assert!(one.admit(0).is_ok());
        assert!(one.admit(0).is_err());
    }

    #[test]
    fn a_change_of_limits_keeps_what_was_used() {
        let rate = Rate::new(60, 4);
        for _ in 0..3 {
            rate.admit(SECOND).unwrap();
        }
        rate.retune(60, 4, SECOND);
        assert_eq!(rate.admit(SECOND).unwrap().remaining, 0);
        // Half the rate: still four used; a bucket of six has two left.
        rate.retune(30, 6, SECOND);
        assert_eq!(rate.admit(SECOND).unwrap().remaining, 1);
        // A smaller bucket is empty, not in debt beyond its size.
        rate.retune(30, 2, SECOND);
        assert_eq!(rate.admit(SECOND).unwrap_err().after, Duration::from_secs(2));
        // Lifting the limit forgets; setting one again starts full.
        rate.retune(0, 1, SECOND);
        rate.retune(60, 2, SECOND);
        assert_eq!(rate.admit(SECOND).unwrap().remaining, 1);
    }

    #[test]
    fn threads_together_never_exceed_the_burst() {
        let rate = Rate::new(60, 100);
        let admitted: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| rate.admit(SECOND).is_ok()).count()))
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert_eq!(admitted, 100);
    }

    proptest! {
        /// In any stretch of time `t`, at most `burst + t * rate` requests pass; and one that waited as told passes.
        #[test]
        fn never_admits_more_than_burst_plus_rate(
            per_minute in 1_u32..100_000,
            burst in 1_u32..50,
            steps in prop::collection::vec(0_u64..3 * SECOND, 1..200),
        ) {
            let rate = Rate::new(per_minute, burst);
            let interval = NANOS_PER_MINUTE / u64::from(per_minute);
            let mut now = 0;
            let mut passed = VecDeque::new();
            for step in steps {
                now += step;
                match rate.admit(now) {
                    Ok(left) => {
                        prop_assert!(left.remaining < burst);
                        passed.push_back(now);
                    }
                    Err(wait) => {
                        now += u64::try_from(wait.after.as_nanos()).unwrap();
                        prop_assert!(rate.admit(now).is_ok());
                        passed.push_back(now);
                    }
                }
                while passed.len() > usize::try_from(burst).unwrap() {
                    let first = passed.pop_front().unwrap();
                    prop_assert!(now - first >= interval);
                }
            }
        }
    }
}
