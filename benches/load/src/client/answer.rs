//! One answer, read as it arrives: head, framing, stamps, and whether it is the same as all others.

use super::plan::Plan;
use super::report::Report;
use crate::args::Fallible;
use crate::http::{self, Body};

/// Bytes of one answer compared with the first; what lies behind is only counted.
const COMPARED_BYTES: usize = 1 << 20;

/// Digits of a stamp, and the number they cannot reach.
const STAMP_DIGITS: u8 = 16;
const STAMP_MODULUS: u64 = 10_u64.pow(STAMP_DIGITS as u32);

/// The first good answer, its stamps blanked: what every other has to be equal to.
#[derive(Debug, Default)]
pub struct Reference {
    /// Empty until there is one.
    pub bytes: Vec<u8>,
}

/// The answer being read on one connection.
#[derive(Debug, Default)]
pub struct Answer {
    head: Vec<u8>,
    body: Option<Body>,
    status: u16,
    touched: bool,
    payload: Payload,
}

/// Whether the answer is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More bytes have to come.
    More,
    /// That was the end.
    Done,
}

#[derive(Debug, Default)]
struct Payload {
    scan: Scan,
    /// Stamped events seen, and the latest stamp.
    events: u32,
    last: u64,
    disordered: bool,
    /// Payload bytes so far.
    len: usize,
    check: Check,
    collected: Vec<u8>,
    differs: bool,
}

/// What becomes of payload bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Kept whole: there is no reference yet, or the answer is a refusal.
    #[default]
    Collect,
    /// Compared with the reference as they come.
    Compare,
    /// Only counted.
    Count,
}

/// Finds ` @` and sixteen digits, wherever the bytes are split.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Scan {
    #[default]
    Seek,
    Space,
    Digits(u8, u64),
}

impl Answer {
    /// Begins anew.
    pub fn expect(&mut self, plan: &Plan, reference: &Reference) {
        let check = match (plan.hold, reference.bytes.is_empty()) {
            (true, _) => Check::Count,
            (false, true) => Check::Collect,
            (false, false) => Check::Compare,
        };
        self.head.clear();
        (self.body, self.status, self.touched) = (None, 0, false);
        self.payload = Payload { check, ..Payload::default() };
    }

    /// True while not one byte has come.
    pub fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Takes the bytes of one read, made at `now`, of a call begun at `began`.
    pub fn feed(
        &mut self,
        bytes: &mut [u8],
        now: u64,
        began: u64,
        report: &mut Report,
        reference: &Reference,
    ) -> Fallible<Step> {
        self.touched = true;
        let mut rest = bytes;
        if self.body.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(rest);
            let Some(len) = http::head_len(&self.head) else { return Ok(Step::More) };
            self.head.truncate(len);
            self.status = http::status(&self.head);
            if self.status / 100 != 2 {
                self.payload.check = Check::Collect;
            }
            self.body = Some(Body::of(&self.head)?);
            rest = rest.get_mut(len - before..).unwrap_or_default();
        }
        let (payload, Some(body)) = (&mut self.payload, &mut self.body) else { return Ok(Step::More) };
        let used = body.feed(rest, &mut |piece| payload.take(piece, now, began, report, reference));
        if used < rest.len() {
            return Err("bytes behind the end of the answer".into());
        }
        Ok(if body.is_done() { Step::Done } else { Step::More })
    }

    /// Judges a complete answer.
    pub fn settle(&mut self, plan: &Plan, reference: &mut Reference, report: &mut Report) {
        let payload = &mut self.payload;
        if self.status / 100 != 2 {
            report.refused(self.status, &payload.collected);
            return;
        }
        report.disordered += u64::from(payload.disordered);
        report.incomplete += u64::from(plan.tokens > 0 && payload.events != plan.tokens);
        report.differing += u64::from(match payload.check {
            Check::Count => false,
            Check::Collect if reference.bytes.is_empty() => {
                reference.bytes = std::mem::take(&mut payload.collected);
                false
            }
            Check::Collect => payload.collected != reference.bytes,
            Check::Compare => payload.differs || payload.len.min(COMPARED_BYTES) != reference.bytes.len(),
        });
    }
}

impl Payload {
    fn take(&mut self, piece: &mut [u8], now: u64, began: u64, report: &mut Report, reference: &Reference) {
        let mut at = 0;
        while let Some(end) = self.scan.run(piece, &mut at) {
            self.event(end, now, began, report);
        }
        let end = (self.len + piece.len()).min(COMPARED_BYTES);
        let compared = piece.get(..end.saturating_sub(self.len)).unwrap_or_default();
        match self.check {
            Check::Collect => self.collected.extend_from_slice(compared),
            Check::Compare if compared.is_empty() => {}
            Check::Compare => self.differs |= reference.bytes.get(self.len..end) != Some(compared),
            Check::Count => {}
        }
        self.len += piece.len();
        report.bytes += piece.len() as u64;
    }

    fn event(&mut self, stamp: u64, now: u64, began: u64, report: &mut Report) {
        let latency = (now + STAMP_MODULUS - stamp) % STAMP_MODULUS;
        if self.events == 0 {
            report.first_event.record(now - began);
        } else {
            report.event.record(latency);
        }
        self.disordered |= stamp <= self.last;
        self.last = stamp;
        self.events += 1;
    }
}

impl Scan {
    /// Runs on from `at` to the end of the next stamp and returns it; blanks its digits on the way.
    fn run(&mut self, piece: &mut [u8], at: &mut usize) -> Option<u64> {
        loop {
            if *self == Self::Seek {
                let rest = piece.get(*at..)?;
                let Some(mark) = memchr::memchr(b'@', rest) else {
                    *at = piece.len();
                    *self = if rest.last() == Some(&b' ') { Self::Space } else { Self::Seek };
                    return None;
                };
                let spaced = mark.checked_sub(1).and_then(|before| rest.get(before)) == Some(&b' ');
                *at += mark + 1;
                *self = if spaced { Self::Digits(0, 0) } else { Self::Seek };
                continue;
            }
            let byte = piece.get_mut(*at)?;
            match (*self, *byte) {
                (Self::Space, b'@') => *self = Self::Digits(0, 0),
                (Self::Digits(count, value), digit @ b'0'..=b'9') => {
                    *byte = b'0';
                    *at += 1;
                    let value = value * 10 + u64::from(digit - b'0');
                    if count + 1 == STAMP_DIGITS {
                        *self = Self::Seek;
                        return Some(value);
                    }
                    *self = Self::Digits(count + 1, value);
                    continue;
                }
                _ => {
                    *self = Self::Seek;
                    continue;
                }
            }
            *at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"c":"mail@x @1 @0000000000000123"} "@" @0000000000000456 @"#;

    fn scan(pieces: &[&str]) -> (Vec<u64>, String) {
        let (mut scan, mut stamps, mut blanked) = (Scan::Seek, Vec::new(), String::new());
        for piece in pieces {
            let (mut bytes, mut at) = (piece.as_bytes().to_vec(), 0);
            while let Some(stamp) = scan.run(&mut bytes, &mut at) {
                stamps.push(stamp);
            }
            assert_eq!(at, bytes.len());
            blanked.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        (stamps, blanked)
    }

    #[test]
    fn finds_and_blanks_stamps_however_the_bytes_are_split() {
        let (stamps, blanked) = scan(&[TEXT]);
        assert_eq!(stamps, [123, 456]);
        assert!(blanked.contains("@0000000000000000\"") && !blanked.contains("456"));
        for first in 0..=TEXT.len() {
            for second in first..=TEXT.len() {
                let pieces = [&TEXT[..first], &TEXT[first..second], &TEXT[second..]];
                assert_eq!(scan(&pieces), (stamps.clone(), blanked.clone()), "{pieces:?}");
            }
        }
    }

    #[test]
    fn notices_a_lost_a_doubled_and_a_changed_event() {
        let answer = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let good = "a @0000000000000001 b @0000000000000002";
        let plan = plan();
        for (body, counts) in [
            (good, [0, 0, 0]),
            ("a @0000000000000001 b", [0, 1, 1]),
            ("a @0000000000000002 b @0000000000000001", [1, 0, 0]),
            ("a @0000000000000001 b @0000000000000001", [1, 0, 0]),
            ("a @0000000000000001 c @0000000000000002", [0, 0, 1]),
        ] {
            let (mut reference, mut report, mut read) =
                (Reference::default(), Report::new(0), Answer::default());
            for text in [good, body] {
                read.expect(&plan, &reference);
                let mut bytes = answer(text).into_bytes();
                assert_eq!(read.feed(&mut bytes, 9, 0, &mut report, &reference).unwrap(), Step::Done);
                read.settle(&plan, &mut reference, &mut report);
            }
            assert_eq!([report.disordered, report.incomplete, report.differing], counts, "{body}");
        }
    }

    fn plan() -> Plan {
        let words = ["--port", "1", "--tokens", "2"].map(str::to_owned).to_vec();
        Plan::from_args(crate::args::Args::new(words)).unwrap()
    }
}
