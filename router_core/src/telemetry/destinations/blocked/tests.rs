use super::*;

fn hosts(blocked: &Blocked, since: u64) -> Vec<String> {
    blocked.since(since).into_iter().map(|row| row.host).collect()
}

#[test]
fn repeats_count_in_one_row_whatever_the_case_and_dots() {
    let blocked = Blocked::default();
    for (host, now) in [("Evil.com", 10), ("evil.COM.", 20), ("evil.com..", 15)] {
        blocked.record("box", host, 443, now);
    }
    let row = BlockedRow {
        host: "evil.com".into(),
        port: 443,
        source_sandbox: "box".into(),
        count: 3,
        first_seen: 10,
        last_seen: 20,
    };
    assert_eq!(blocked.since(0), [row]);
    blocked.record("box", "evil.com", 80, 20);
    blocked.record("other", "evil.com", 443, 20);
    assert_eq!(blocked.since(0).len(), 3);
}

#[test]
fn addresses_and_markers_are_kept() {
    let blocked = Blocked::default();
    for host in ["1.2.3.4", "[::1]", "<no-sni>", "", "münchen"] {
        blocked.record("box", host, 443, 1);
    }
    assert_eq!(hosts(&blocked, 0), ["münchen", "", "<no-sni>", "[::1]", "1.2.3.4"]);
}

#[test]
fn the_newest_come_first_and_old_ones_only_on_request() {
    let blocked = Blocked::default();
    for (host, now) in [("a", 10), ("b", 20), ("c", 20), ("a", 30)] {
        blocked.record("box", host, 443, now);
    }
    assert_eq!(hosts(&blocked, 0), ["a", "c", "b"]);
    assert_eq!(hosts(&blocked, 20), ["a", "c", "b"]);
    assert_eq!(hosts(&blocked, 21), ["a"]);
    assert!(hosts(&blocked, 31).is_empty());
}

#[test]
fn a_source_adds_a_hundred_rows_a_minute_and_what_it_loses_is_counted() {
    let blocked = Blocked::default();
    let burst = |source: &str, from: u64, now| {
        (from..from + 150).for_each(|n| blocked.record(source, &format!("h{n}.example"), 443, now));
    };
    burst("box", 0, 1000);
    assert_eq!((blocked.since(0).len(), blocked.dropped()), (limits::BLOCKED_NEW_PER_MINUTE, 50));
    // What is there goes on counting, and other sources have rows of their own.
    blocked.record("box", "h0.example", 443, 1001);
    assert_eq!((blocked.since(1001).len(), blocked.dropped()), (1, 50));
    burst("other", 0, 1001);
    assert_eq!((blocked.since(0).len(), blocked.dropped()), (200, 100));
    burst("box", 1000, 1059);
    assert_eq!((blocked.since(0).len(), blocked.dropped()), (200, 250));
    burst("box", 1000, 1060);
    assert_eq!((blocked.since(0).len(), blocked.dropped()), (300, 300));
    // A clock that steps back frees rather than blocks.
    burst("box", 2000, 10);
    assert_eq!((blocked.since(0).len(), blocked.dropped()), (400, 350));
}

#[test]
fn the_oldest_row_leaves_when_the_table_is_full() {
    let blocked = Blocked::default();
    let name = |n: usize| format!("h{n}.example");
    let total = limits::BLOCKED_ROWS + 10;
    for n in 0..total {
        blocked.record("box", &name(n), 443, n as u64);
    }
    assert_eq!(blocked.since(0).len(), limits::BLOCKED_ROWS);
    assert!(!hosts(&blocked, 0).contains(&name(9)) && hosts(&blocked, 0).contains(&name(10)));
    // One that left is a new row when it comes back, and those that stayed are still found.
    let now = total as u64 + 60;
    blocked.record("box", &name(0), 443, now);
    blocked.record("box", &name(500), 443, now);
    let rows = blocked.since(now);
    assert_eq!(
        rows.iter().map(|row| (&*row.host, row.count)).collect::<Vec<_>>(),
        [("h0.example", 1), ("h500.example", 2)]
    );
    assert!(blocked.dropped() == 0 && blocked.since(0).len() == limits::BLOCKED_ROWS);
}

#[test]
fn a_long_host_is_cut_between_characters() {
    let blocked = Blocked::default();
    blocked.record("box", &"ü".repeat(5000), 443, 1);
    assert_eq!(hosts(&blocked, 0), ["ü".repeat(127)]);
}

#[test]
fn threads_that_meet_the_same_hosts_lose_no_count() {
    let blocked = Blocked::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..5000).for_each(|n| blocked.record("box", &format!("h{}", n % 50), 443, 1)));
        }
    });
    let rows = blocked.since(0);
    assert_eq!((rows.len(), rows.iter().map(|row| row.count).sum::<u64>()), (50, 10_000));
}
