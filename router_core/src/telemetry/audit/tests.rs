use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::telemetry::mapped::mix;

/// 2026-01-02T03:04:05.678Z.
const NOW_MS: u64 = 1_767_323_045_678;
const DAY_MS: u64 = 86_400_000;
const FIRST_DAY: &str = "2026-01-02.jsonl";

fn record(n: u64) -> Record<'static> {
    Record {
        ts_ms: NOW_MS,
        agent: "agent",
        action: "inference:chat_completions:gpt-4o",
        decision: "allow",
        rule: "inference-policy/tokenBudget.dailyTokens",
        decision_id: n,
        trace_id: "t-1",
        policy: "sha256:ab",
        model: "gpt-4o",
        provider: "azure",
        status: 200,
        input_tokens: 12,
        output_tokens: 34,
        estimated: true,
        latency_us: 5678,
        first_byte_us: 910,
        sent_bytes: 1112,
        received_bytes: 131_415,
        address: "93.184.216.34",
        reason: "allowlist",
        attempts: 2,
        end: "complete",
    }
}

fn log_of(dir: &TempDir, records: impl IntoIterator<Item = Record<'static>>) {
    let audit = Audit::open(Some(dir.path()), "box").unwrap();
    records.into_iter().for_each(|record| audit.append(&record));
}

fn lines(dir: &TempDir) -> Vec<Value> {
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    names.sort();
    let text: String = names.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sound(dir: &TempDir) -> Report {
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.broken, None, "{report:?}");
    report
}

fn sha(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

#[test]
fn writes_the_references_members_and_ours() {
    let dir = tempfile::tempdir().unwrap();
    log_of(&dir, [record(0xabc), Record { ts_ms: NOW_MS, decision: "deny", ..Record::default() }]);
    let lines = lines(&dir);
    let hash = sha("0|2026-01-02T03:04:05Z|agent|inference:chat_completions:gpt-4o|allow|");
    let mut first = lines[0].clone();
    let record_hash = first.as_object_mut().unwrap().remove("record_hash").unwrap();
    assert_eq!(
        first,
        json!({
            "sandbox": "box", "seq": 0, "ts": "2026-01-02T03:04:05Z", "agent_id": "agent",
            "action": "inference:chat_completions:gpt-4o", "decision": "allow", "prev_hash": "", "hash": hash,
            "call": {
                "at": "2026-01-02T03:04:05.678Z", "decision_id": "0000000000000abc", "trace_id": "t-1",
                "reason": "allowlist", "rule": "inference-policy/tokenBudget.dailyTokens", "policy": "sha256:ab", "model": "gpt-4o",
                "provider": "azure", "address": "93.184.216.34", "end": "complete", "status": 200,
                "input_tokens": 12, "output_tokens": 34, "latency_us": 5678, "first_byte_us": 910, "attempts": 2,
                "sent_bytes": 1112, "received_bytes": 131_415, "estimated": true,
            },
        })
    );
    // The documented construction, over the line's own bytes.
    let text = fs::read_to_string(dir.path().join(FIRST_DAY)).unwrap();
    let bodies: Vec<&str> = text.lines().map(|line| line.split_once(",\"record_hash\"").unwrap().0).collect();
    assert_eq!(record_hash, sha(bodies[0]));
    assert_eq!(lines[1]["record_hash"], sha(&format!("{}{}", sha(bodies[0]), bodies[1])));
    assert_eq!(lines[1]["prev_hash"], hash);
    assert_eq!(lines[1]["call"], json!({"at": "2026-01-02T03:04:05.678Z"}));
    assert!(text.contains("\"provider\":\"azure\",\"address\":\"93.184.216.34\","), "beside the provider");
    assert!(!text.contains(": ") && !text.contains(", "), "lines are compact");
}

#[test]
fn files_and_spool_are_private() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let audit = Audit::open(Some(&dir), "box").unwrap();
    audit.append(&record(1));
    audit.flush().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join(FIRST_DAY)), mode(&dir.join("spool"))), (0o700, 0o600, 0o600));
}

#[test]
fn without_a_directory_it_only_counts() {
    let audit = Audit::open(None, "box").unwrap();
    audit.append(&record(1));
    audit.flush().unwrap();
    assert_eq!((audit.appended(), audit.dropped()), (1, 0));
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _audit = Audit::open(Some(dir.path()), "box").unwrap();
    let refused = Audit::open(Some(dir.path()), "box").unwrap_err();
    assert!(refused.detail().contains("in use by another process"), "{refused}");
}

#[test]
fn records_reach_the_file_without_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Some(dir.path()), "box").unwrap();
    for round in 1..=3 {
        audit.append(&record(round));
        let deadline = Instant::now() + std::time::Duration::from_secs(20);
        while lines(&dir).len() < usize::try_from(round).unwrap() {
            assert!(Instant::now() < deadline, "the writer sleeps");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
fn the_chain_continues_over_restarts_and_days() {
    let dir = tempfile::tempdir().unwrap();
    log_of(&dir, (0..3).map(record));
    log_of(&dir, []);
    log_of(&dir, (3..5).map(|n| Record { ts_ms: NOW_MS + DAY_MS, ..record(n) }));
    // A clock that steps back does not reopen the old day: the files' order is the chain's.
    log_of(&dir, [record(5), Record { ts_ms: NOW_MS + 40 * DAY_MS, ..record(6) }, record(7)]);
    let report = sound(&dir);
    assert_eq!((report.files, report.records, report.lost), (3, 8, 0));
    assert_eq!((report.first_seq, report.last_seq), (Some(0), Some(7)));
    assert_eq!(report.first_ts.as_deref(), Some("2026-01-02T03:04:05Z"));
    assert!(dir.path().join("2026-02-11.jsonl").exists());
    assert_eq!(lines(&dir)[7]["record_hash"], report.head);
    let ids: Vec<u64> = lines(&dir).iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..8).collect::<Vec<_>>());
}

#[test]
fn old_files_may_go_and_the_rest_still_verifies() {
    let dir = tempfile::tempdir().unwrap();
    log_of(&dir, (0..6).map(|n| Record { ts_ms: NOW_MS + n / 2 * DAY_MS, ..record(n) }));
    fs::remove_file(dir.path().join(FIRST_DAY)).unwrap();
    let report = sound(&dir);
    assert_eq!((report.first_seq, report.records), (Some(2), 4));
    // The first line that is left is held by its own `prev_record`.
    let path = dir.path().join("2026-01-03.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"input_tokens\":12", "\"input_tokens\":11", 1)).unwrap();
    assert_eq!(verify(dir.path()).unwrap().broken.unwrap().fault, Fault::Hash);
    fs::write(&path, text).unwrap();
    // A file missing in the middle is no retention.
    log_of(&dir, [Record { ts_ms: NOW_MS + 9 * DAY_MS, ..record(6) }]);
    fs::remove_file(dir.path().join("2026-01-04.jsonl")).unwrap();
    let broken = verify(dir.path()).unwrap().broken.unwrap();
    assert_eq!((broken.file.as_str(), broken.line), ("2026-01-11.jsonl", 1));
    assert_eq!(broken.fault, Fault::Gap { expected: 4, got: 6 });
}

#[test]
fn an_emptied_directory_goes_on_counting() {
    let dir = tempfile::tempdir().unwrap();
    log_of(&dir, (0..3).map(record));
    fs::remove_file(dir.path().join(FIRST_DAY)).unwrap();
    log_of(&dir, [record(3)]);
    let report = sound(&dir);
    assert_eq!((report.first_seq, report.records, report.lost), (Some(3), 1, 0));
    // Without the spool there is nothing to go by.
    fs::remove_file(dir.path().join("spool")).unwrap();
    log_of(&dir, [record(4)]);
    assert_eq!(sound(&dir).last_seq, Some(4));
}

#[test]
fn every_changed_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    log_of(
        &dir,
        (0..4).map(|n| Record { ts_ms: NOW_MS + n / 2 * DAY_MS, action: "a\"\\\u{1}ü", ..record(n) }),
    );
    for name in [FIRST_DAY, "2026-01-03.jsonl"] {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= u8::try_from(1 + at * 7 % 255).unwrap();
            fs::write(&path, &bytes).unwrap();
            let report = verify(dir.path()).unwrap();
            assert!(report.broken.is_some(), "byte {at} of {name}: {}", String::from_utf8_lossy(&bytes));
        }
        fs::write(&path, &whole).unwrap();
    }
    sound(&dir);
}

#[test]
fn moved_removed_doubled_and_torn_lines_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    log_of(&dir, (0..5).map(record));
    let path = dir.path().join(FIRST_DAY);
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let fault = |order: &[usize]| {
        let text: String = order.iter().map(|n| lines[*n]).collect();
        fs::write(&path, text).unwrap();
        verify(dir.path()).unwrap().broken.map(|found| (found.line, found.fault))
    };
    assert_eq!(fault(&[0, 1, 2, 3, 4]), None);
    assert_eq!(fault(&[0, 1, 3, 4]), Some((3, Fault::Gap { expected: 2, got: 3 })));
    assert_eq!(fault(&[0, 2, 1, 3, 4]), Some((2, Fault::Gap { expected: 1, got: 2 })));
    assert_eq!(fault(&[0, 1, 1, 2]), Some((3, Fault::Order { expected: 2, got: 1 })));
    // Beginning later looks like another log to all but the line itself, which names what it followed.
    assert_eq!(fault(&[1, 2]), Some((1, Fault::Hash)));
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let broken = verify(dir.path()).unwrap().broken.unwrap();
    assert_eq!((broken.line, broken.fault), (5, Fault::Torn));
    fs::write(&path, "x".repeat(200_000)).unwrap();
    assert_eq!(verify(dir.path()).unwrap().broken.unwrap().fault, Fault::Unreadable);
}

#[test]
fn a_torn_last_line_is_cut_off_and_its_loss_is_told() {
    let dir = tempfile::tempdir().unwrap();
    log_of(&dir, (0..3).map(record));
    let path = dir.path().join(FIRST_DAY);
    let whole = fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let spool = fs::read(dir.path().join("spool")).unwrap();
    for cut in (last..whole.len()).step_by(29).chain([whole.len() - 2, whole.len() - 1]) {
        fs::write(&path, &whole[..cut]).unwrap();
        fs::write(dir.path().join("spool"), &spool).unwrap();
        log_of(&dir, [record(3)]);
        let report = sound(&dir);
        assert_eq!((report.records, report.lost, report.last_seq), (4, 1, Some(3)), "cut at {cut}");
    }
    assert_eq!(lines(&dir)[2]["action"], "audit:lost");
    assert_eq!(lines(&dir)[2]["call"]["lost"], 1);
}

#[test]
fn a_log_of_the_reference_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let hash = sha("0|2026-01-01T00:00:00Z|a|b|allow|");
    let line = json!({"sandbox": "box", "seq": 0, "ts": "2026-01-01T00:00:00Z", "agent_id": "a", "action": "b",
        "decision": "allow", "prev_hash": "", "hash": hash});
    fs::write(dir.path().join("2026-01-01.jsonl"), format!("{line}\n")).unwrap();
    log_of(&dir, [record(1)]);
    assert_eq!((sound(&dir).records, &lines(&dir)[1]["prev_hash"]), (2, &json!(hash)));
    // A line of ours cannot pass for one of the reference.
    log_of(&dir, [record(2)]);
    let path = dir.path().join(FIRST_DAY);
    let text = fs::read_to_string(&path).unwrap();
    let (body, _) = text.trim_end().rsplit_once(",\"call\"").unwrap();
    fs::write(&path, format!("{body}}}\n")).unwrap();
    assert_eq!(verify(dir.path()).unwrap().broken.unwrap().fault, Fault::Hash);
}

#[test]
fn opening_reads_only_the_end_of_a_long_log() {
    let dir = tempfile::tempdir().unwrap();
    log_of(&dir, [record(0)]);
    let path = dir.path().join(FIRST_DAY);
    let line = fs::read(&path).unwrap();
    // 8 GiB of nothing before the last line: reading it all would take seconds and fail.
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8 << 30).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"\n").unwrap();
    file.write_all(&line).unwrap();
    let before = Instant::now();
    let audit = Audit::open(Some(dir.path()), "box").unwrap();
    assert!(before.elapsed().as_secs() < 2);
    audit.append(&record(1));
    audit.flush().unwrap();
    let mut tail = vec![0; 4096];
    let end = fs::metadata(&path).unwrap().len();
    std::os::unix::fs::FileExt::read_exact_at(&fs::File::open(&path).unwrap(), &mut tail, end - 4096)
        .unwrap();
    assert!(String::from_utf8_lossy(&tail).contains("\"seq\":1,"));
}

#[test]
fn a_disk_that_refuses_costs_records_only_when_the_spool_is_full_and_says_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Some(dir.path()), "box").unwrap();
    audit.append(&record(0));
    audit.flush().unwrap();
    // The next day's file cannot be opened.
    let next_day = dir.path().join("2026-01-03.jsonl");
    fs::create_dir(&next_day).unwrap();
    let later = |n| Record { ts_ms: NOW_MS + DAY_MS, ..record(n) };
    audit.append(&later(1));
    assert!(audit.flush().is_err());
    assert_eq!(audit.dropped(), 0);
    (2..=5000).for_each(|n| audit.append(&later(n)));
    let dropped = audit.dropped();
    assert!(dropped > 0 && dropped < 2500, "{dropped}");
    fs::remove_dir(&next_day).unwrap();
    audit.flush().unwrap();
    audit.append(&later(5001));
    audit.flush().unwrap();
    let report = sound(&dir);
    assert_eq!((report.lost, report.records), (dropped, 5002 - dropped + 1));
    assert_eq!((report.last_seq, audit.appended(), audit.dropped()), (Some(5001), 5002, dropped));
}

#[test]
fn a_write_that_fails_half_way_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log::Log::open(dir.path(), "box").unwrap();
    log.chain.next = Some(0);
    let staged = |seq| spool::Staged { seq, record: record(seq) };
    assert!(log.render(&staged(0)).unwrap());
    log.write().unwrap();
    // What a full disk does: some bytes arrive, then the write fails.
    log.fail_next_write();
    assert!(log.render(&staged(1)).unwrap());
    assert!(log.write().is_err());
    assert!(log.render(&staged(1)).unwrap());
    log.write().unwrap();
    assert_eq!((sound(&dir).records, lines(&dir).len()), (2, 2));
}

#[test]
fn a_file_that_was_removed_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Some(dir.path()), "box").unwrap();
    let write = |n| {
        audit.append(&record(n));
        audit.flush().unwrap();
    };
    write(0);
    fs::remove_file(dir.path().join(FIRST_DAY)).unwrap();
    // The removed file takes what comes until it is noticed at the next sync.
    write(1);
    write(2);
    write(3);
    let report = sound(&dir);
    assert_eq!((report.first_seq, report.last_seq), (Some(2), Some(3)));
}

#[test]
fn light_traffic_stays_on_the_first_pages_of_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Some(dir.path()), "box").unwrap();
    for n in 0..50 {
        (0..5).for_each(|_| audit.append(&record(n)));
        audit.flush().unwrap();
    }
    assert_eq!(sound(&dir).records, 250);
    assert!(fs::read(dir.path().join("spool")).unwrap()[16 * 1024..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_spool_that_someone_wrote_into_costs_what_was_staged_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Some(dir.path()), "box").unwrap();
    audit.append(&record(0));
    audit.flush().unwrap();
    let spool = OpenOptions::new().write(true).open(dir.path().join("spool")).unwrap();
    audit.append(&record(1));
    std::os::unix::fs::FileExt::write_all_at(&spool, &vec![0xff; 65_536], 4096).unwrap();
    let _ = audit.flush();
    audit.append(&record(2));
    audit.flush().unwrap();
    let report = sound(&dir);
    assert_eq!(report.last_seq, Some(2));
    assert_eq!(report.lost, audit.dropped());
}

#[test]
fn threads_append_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Some(dir.path()), "box").unwrap();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let audit = &audit;
            scope.spawn(move || (0..500).for_each(|n| audit.append(&record(1 + worker * 1000 + n))));
        }
    });
    audit.flush().unwrap();
    assert_eq!((sound(&dir).records, audit.dropped()), (4000, 0));
    let ids: BTreeSet<String> =
        lines(&dir).iter().map(|line| line["call"]["decision_id"].to_string()).collect();
    assert_eq!(ids.len(), 4000);
}

#[test]
fn staged_records_are_written_once_when_the_writer_died_first() {
    let dir = tempfile::tempdir().unwrap();
    log_of(&dir, [record(0)]);
    // A process that staged two records, of which one had been written when it died.
    let path = dir.path().join("spool");
    let (mut spool, found) = spool::Spool::open(&path).unwrap();
    assert!(found && spool.is_empty());
    spool.stage(&record(1));
    spool.stage(&record(2));
    drop(spool);
    let staged = fs::read(&path).unwrap();
    log_of(&dir, []);
    assert_eq!(sound(&dir).records, 3);
    let whole = fs::read_to_string(dir.path().join(FIRST_DAY)).unwrap();
    let kept = whole.trim_end().rfind('\n').unwrap() + 1;
    for torn in [0, 1, 100] {
        fs::write(&path, &staged).unwrap();
        fs::write(dir.path().join(FIRST_DAY), &whole[..kept + torn]).unwrap();
        log_of(&dir, []);
        let report = sound(&dir);
        assert_eq!((report.records, report.lost), (3, 0));
        assert_eq!(fs::read_to_string(dir.path().join(FIRST_DAY)).unwrap(), whole);
    }
}

#[test]
fn a_damaged_spool_is_never_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let (mut spool, _) = spool::Spool::open(&path).unwrap();
    assert!((0..3).all(|n| spool.stage(&record(n)) != spool::Placed::Full));
    drop(spool);
    let whole = fs::read(&path).unwrap();
    let used = 4096 + 3 * 400;
    for at in (0..256).step_by(8).chain((4096..used).step_by(11)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        let _ = fs::remove_file(dir.path().join(FIRST_DAY));
        log_of(&dir, [record(9)]);
        let report = sound(&dir);
        assert!(report.records >= 1 && report.records <= 5, "byte {at}: {report:?}");
        assert!(lines(&dir).iter().all(|line| line["agent_id"] == "agent" || line["action"] == "audit:lost"));
    }
}

/// A spool with one record as the layout of `form` has it, made by hand.
fn spool_of_form(form: u64, seq: u64, numbers: &[u64], texts: &[&str]) -> Vec<u8> {
    let mut payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    for text in texts {
        payload.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
        payload.extend(text.as_bytes());
    }
    let length = form << 48 | payload.len() as u64;
    payload.resize(payload.len().next_multiple_of(8), 0);
    let words = payload.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let sum = mix(seq, std::iter::once(length).chain(words));
    let mut file = vec![0; 4096];
    let head = 24 + payload.len() as u64;
    for (word, value) in [(0, u64::from_be_bytes(*b"karsspl1")), (8, 0), (16, head), (24, seq + 1)] {
        file[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }
    for word in [length, seq, sum] {
        file.extend(word.to_le_bytes());
    }
    file.extend(payload);
    file
}

#[test]
fn a_spool_of_an_older_build_is_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let small = 2 << 32 | 200 << 8 | 1;
    let old = spool_of_form(
        0,
        0,
        &[NOW_MS, 0xabc, 12, 34, 5678, 910, small],
        &["agent", "act", "allow", "rule", "t-1", "sha256:ab", "gpt-4o", "azure", "complete"],
    );
    fs::write(dir.path().join("spool"), old).unwrap();
    log_of(&dir, [record(2)]);
    let lines = lines(&dir);
    assert_eq!((sound(&dir).records, sound(&dir).lost), (2, 0));
    assert_eq!((&lines[0]["action"], &lines[0]["call"]["end"]), (&json!("act"), &json!("complete")));
    assert_eq!((&lines[0]["call"]["attempts"], &lines[0]["call"]["sent_bytes"]), (&json!(2), &Value::Null));
    assert_eq!(lines[1]["call"]["sent_bytes"], 1112);
}

#[test]
fn a_spool_of_a_newer_build_costs_what_was_staged_and_its_loss_is_told() {
    let dir = tempfile::tempdir().unwrap();
    log_of(&dir, [record(0)]);
    let newer = spool_of_form(2, 1, &[NOW_MS; 12], &["agent"; 12]);
    fs::write(dir.path().join("spool"), newer).unwrap();
    log_of(&dir, [record(2)]);
    let report = sound(&dir);
    assert_eq!((report.lost, report.last_seq), (1, Some(2)));
}

/// Appends until it is killed, telling after each; does nothing in a normal run of the tests.
#[test]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var("KARS_TEST_AUDIT") else { return };
    let audit = Audit::open(Some(dir.as_ref()), "box").unwrap();
    let base: u64 = std::env::var("KARS_TEST_BASE").unwrap().parse().unwrap();
    for n in base.. {
        audit.append(&record(n));
        let mut out = std::io::stdout().lock();
        out.write_all(format!("did {n}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn kill_9_loses_nothing_that_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 1;
    for round in 0..4_u64 {
        let mut child = Command::new("/proc/self/exe")
            .args([
                "--exact",
                "telemetry::audit::tests::child_that_is_killed",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("KARS_TEST_AUDIT", dir.path())
            .env("KARS_TEST_BASE", next.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut read = |last: &mut u64| {
            line.clear();
            let more = out.read_line(&mut line).unwrap() > 0;
            if let Some(n) = line.strip_suffix('\n').and_then(|line| line.strip_prefix("did ")) {
                *last = n.parse().unwrap();
            }
            more
        };
        let mut last = 0;
        while last < next + 200 + 700 * round {
            assert!(read(&mut last), "the child ended early");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while read(&mut last) {}
        log_of(&dir, []);
        let report = sound(&dir);
        assert_eq!(report.lost, 0);
        // The append that the kill met may be there or not.
        assert!([last, last + 1].contains(&report.records), "round {round}: {} of {last}", report.records);
        let ids: Vec<String> =
            lines(&dir).iter().map(|l| l["call"]["decision_id"].as_str().unwrap().into()).collect();
        assert!(ids.iter().enumerate().all(|(at, id)| *id == format!("{:016x}", at + 1)));
        next = report.records + 1;
    }
}

/// Run alone: `cargo test --release -- --ignored the_millionth`.
#[test]
#[ignore = "a timing, and a long one"]
fn the_millionth_append_costs_what_the_first_did() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Some(dir.path()), "box").unwrap();
    let rounds: Vec<_> = (0..10)
        .map(|_| {
            let before = Instant::now();
            (0..100_000).for_each(|n| audit.append(&record(n)));
            before.elapsed()
        })
        .collect();
    assert_eq!(audit.dropped(), 0);
    assert!(rounds[9] < rounds[0] * 4, "{rounds:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Strings come from peers: whatever they hold, a line stays one line, reads back as they were, and verifies.
    #[test]
    fn any_strings_are_kept_whole(texts in prop::collection::vec(any::<String>(), 10), nonsense in "[\"\\\\\n\r\t\0|]{0,20}") {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(Some(dir.path()), &nonsense).unwrap();
        let written = Record {
            ts_ms: NOW_MS,
            agent: &texts[0],
            action: &texts[1],
            decision: &nonsense,
            rule: &texts[3],
            trace_id: &texts[4],
            policy: &texts[5],
            model: &texts[6],
            provider: &texts[7],
            end: &texts[8],
            address: &texts[9],
            ..Record::default()
        };
        audit.append(&written);
        audit.append(&written);
        drop(audit);
        prop_assert_eq!(sound(&dir).records, 2);
        let line = &lines(&dir)[1];
        let call = |name: &str| line["call"][name].as_str().unwrap_or("").to_owned();
        prop_assert_eq!(line["sandbox"].as_str().unwrap(), &nonsense);
        prop_assert_eq!(line["agent_id"].as_str().unwrap(), &texts[0]);
        prop_assert_eq!(line["action"].as_str().unwrap(), &texts[1]);
        prop_assert_eq!(line["decision"].as_str().unwrap(), &nonsense);
        let names = ["rule", "trace_id", "policy", "model", "provider", "end", "address"];
        for (name, text) in names.iter().zip(&texts[3..]) {
            prop_assert_eq!(&call(name), text);
        }
    }

    /// A string too long for a record loses its end, at a character, and nothing else.
    #[test]
    fn long_strings_are_cut_between_characters(text in "[aü€😀\u{1}]{100,700}") {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(Some(dir.path()), "box").unwrap();
        audit.append(&Record { ts_ms: NOW_MS, agent: &text, action: &text, model: &text, end: &text, ..Record::default() });
        drop(audit);
        sound(&dir);
        let line = &lines(&dir)[0];
        let kept = line["agent_id"].as_str().unwrap();
        prop_assert!(text.starts_with(kept));
        prop_assert!(kept.len() == text.len() || (spool::TEXT_BYTES - 3..=spool::TEXT_BYTES).contains(&kept.len()));
        prop_assert_eq!(line["call"]["end"].as_str().unwrap(), kept);
    }
}
