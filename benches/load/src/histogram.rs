//! Latencies by logarithmic buckets: constant memory, and an error that does not matter.

/// Buckets an octave is divided into. The time to first token is 25 ms and a proxy adds a tenth of one to it:
/// a bucket has to be a few microseconds there.
const STEPS: u64 = 4096;

/// Octaves above the first `STEPS` nanoseconds: enough for any time that fits.
const OCTAVES: u64 = 54;

/// A histogram of nanoseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
    late: u64,
}

/// Above this an event counts as late: 10 ms, a quarter of the delayed-acknowledgement stall it looks for.
const LATE_NS: u64 = 10_000_000;

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self { counts: vec![0; (STEPS * OCTAVES) as usize], total: 0, max: 0, late: 0 }
    }

    /// Counts one value.
    pub fn record(&mut self, ns: u64) {
        if let Some(count) = self.counts.get_mut(bucket(ns)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(ns);
        self.late += u64::from(ns > LATE_NS);
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value below which the share `q` of all values lies, in microseconds; 0 when there are none.
    pub fn quantile_us(&self, q: f64) -> f64 {
        let rank = (q * self.total as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return middle(index).min(self.max) as f64 / 1e3;
            }
        }
        0.0
    }

    /// The summary as a JSON object; latencies in microseconds.
    pub fn json(&self) -> String {
        format!(
            "{{\"n\":{},\"p50\":{:.1},\"p90\":{:.1},\"p99\":{:.1},\"p999\":{:.1},\"max\":{:.1},\"late\":{}}}",
            self.total,
            self.quantile_us(0.5),
            self.quantile_us(0.9),
            self.quantile_us(0.99),
            self.quantile_us(0.999),
            self.max as f64 / 1e3,
            self.late
        )
    }
}

/// Values below `STEPS` have a bucket each; every octave above has `STEPS` of them.
fn bucket(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let octave = ns.ilog2() - STEPS.ilog2();
    (u64::from(octave) * STEPS + (ns >> octave)) as usize
}

fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let octave = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS) << octave) + (1 << octave) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_quantiles_within_a_thousandth() {
        let mut histogram = Histogram::new();
        (1..=100_000).for_each(|us| histogram.record(us * 1_000));
        for (q, expected) in [(0.5, 50_000.0), (0.99, 99_000.0), (1.0, 100_000.0)] {
            let got = histogram.quantile_us(q);
            assert!((got - expected).abs() < expected * 0.001, "{q}: {got}");
        }
        assert_eq!(histogram.total(), 100_000);
        assert!(histogram.json().contains("\"late\":90000"));
    }

    #[test]
    fn puts_every_value_into_a_bucket_that_holds_it() {
        for ns in (0..20_000).chain([u64::from(u32::MAX), 1 << 40, u64::MAX / 4]) {
            let error = middle(bucket(ns)).abs_diff(ns) as f64;
            assert!(error <= ns as f64 / STEPS as f64, "{ns}");
        }
        assert!(Histogram::new().quantile_us(0.5) == 0.0);
    }
}
