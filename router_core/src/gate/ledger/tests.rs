use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// 2026-01-31T22:30:00Z.
const NOW: u64 = 1_769_898_600;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;
const DAILY: Limits = Limits { hourly: 0, daily: 1000, monthly: 0 };

thread_local! {
    /// Stores into a journal that this thread still makes before it is as good as killed.
    static STORES: Cell<u64> = const { Cell::new(u64::MAX) };
}

pub(super) fn dead() -> bool {
    STORES.with(|stores| {
        let left = stores.get();
        stores.set(left.saturating_sub(u64::from(left != u64::MAX)));
        left == 0
    })
}

fn ask(min: u64, max: u64) -> Ask {
    Ask { min, max, share: false }
}

fn memory() -> Ledger {
    Ledger::open(None, "s").unwrap()
}

struct Place {
    _dir: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/token-budgets.json");
        Self { _dir: dir, path }
    }

    fn open(&self) -> Ledger {
        Ledger::open(Some(&self.path), "s").unwrap()
    }

    fn journal(&self) -> PathBuf {
        self.path.with_extension("journal")
    }
}

fn spent(ledger: &Ledger, now: u64) -> [u64; 3] {
    let standing = ledger.standing(now);
    Window::ALL.map(|window| standing.of(window).spent)
}

fn reserved(ledger: &Ledger, now: u64) -> [u64; 3] {
    let standing = ledger.standing(now);
    Window::ALL.map(|window| standing.of(window).reserved)
}

#[test]
fn grants_what_is_asked_up_to_what_is_left() {
    let ledger = memory();
    assert_eq!(ledger.reserve(&ask(10, 600), &DAILY, NOW).unwrap().tokens, 600);
    assert_eq!(ledger.reserve(&ask(10, 600), &DAILY, NOW).unwrap().tokens, 400);
    let short = ledger.reserve(&ask(10, 600), &DAILY, NOW).unwrap_err();
    assert_eq!((short.window, short.limit, short.spent, short.reserved), (Window::Day, 1000, 0, 1000));
    assert!(short.in_flight && !short.crowded);
    // A limit of zero is none, and an ask whose bounds are the wrong way round gets its minimum.
    assert_eq!(ledger.reserve(&ask(10, u64::MAX), &Limits::default(), NOW).unwrap().tokens, u64::MAX);
    assert_eq!(memory().reserve(&ask(10, 1), &DAILY, NOW).unwrap().tokens, 10);
    // Calls that bill nothing pass even when nothing is left.
    assert_eq!(ledger.reserve(&ask(0, 0), &DAILY, NOW).unwrap().tokens, 0);
}

#[test]
fn a_sharing_ask_holds_an_eighth_but_never_a_crumb() {
    let share = |min, max, limit| {
        let limits = Limits { daily: limit, ..Limits::default() };
        memory().reserve(&Ask { min, max, share: true }, &limits, NOW).map(|grant| grant.tokens).ok()
    };
    assert_eq!(share(1, 1_000_000, 80_000), Some(10_000));
    assert_eq!(share(1, 5_000, 80_000), Some(5_000));
    assert_eq!(share(20_000, 1_000_000, 80_000), Some(20_000));
    assert_eq!(share(1, 1_000_000, 4_000), Some(1024));
    assert_eq!(share(1, 1_000_000, 500), Some(500));
    assert_eq!(share(501, 1_000_000, 500), None);
}

#[test]
fn settling_releases_and_charges_once() {
    let ledger = memory();
    let grant = ledger.reserve(&ask(1, 600), &DAILY, NOW).unwrap();
    assert_eq!(reserved(&ledger, NOW), [600; 3]);
    ledger.settle(grant.id, 250, NOW);
    ledger.settle(grant.id, 250, NOW);
    assert_eq!((spent(&ledger, NOW), reserved(&ledger, NOW)), ([250; 3], [0; 3]));
    // The slot has a new tenant; the old name means nothing to it.
    let next = ledger.reserve(&ask(1, 100), &DAILY, NOW).unwrap();
    ledger.settle(grant.id, 999, NOW);
    assert_eq!((spent(&ledger, NOW), reserved(&ledger, NOW)), ([250; 3], [100; 3]));
    // More than was held is charged all the same: it was used.
    ledger.settle(next.id, 5000, NOW);
    assert_eq!(spent(&ledger, NOW), [5250; 3]);
    assert_eq!(ledger.outstanding(), 0);
    assert!(ledger.reserve(&ask(1, 1), &DAILY, NOW).is_err());
}

#[test]
fn names_the_longest_window_that_is_short() {
    let ledger = memory();
    let limits = Limits { hourly: 100, daily: 150, monthly: 1000 };
    let grant = ledger.reserve(&ask(1, 100), &limits, NOW).unwrap();
    let short = ledger.reserve(&ask(1, 1), &limits, NOW).unwrap_err();
    assert_eq!((short.window, short.in_flight), (Window::Hour, true));
    ledger.settle(grant.id, 100, NOW);
    let short = ledger.reserve(&ask(60, 60), &limits, NOW).unwrap_err();
    assert_eq!((short.window, short.limit, short.spent), (Window::Day, 150, 100));
    assert_eq!((short.in_flight, short.resets_in), (false, Duration::from_secs(HOUR + HOUR / 2)));
    let short = ledger.reserve(&ask(50, 50), &limits, NOW).unwrap_err();
    assert_eq!((short.window, short.resets_in), (Window::Hour, Duration::from_secs(HOUR / 2)));
    assert_eq!(ledger.reserve(&ask(50, 99), &limits, NOW + HOUR).unwrap().tokens, 50);
}

#[test]
fn windows_end_on_the_utc_calendar() {
    assert_eq!(Window::ALL.map(Window::name), ["hourly", "daily", "monthly"]);
    // 23:00, 1 February, and 1 March after that.
    let february = NOW + HOUR + HOUR / 2;
    assert_eq!(Window::ALL.map(|w| w.resets_at(NOW)), [NOW + HOUR / 2, february, february]);
    assert_eq!(Window::Month.resets_at(february), february + 28 * DAY);
}

#[test]
fn a_call_is_charged_to_the_windows_it_was_reserved_in() {
    let ledger = memory();
    let before = ledger.reserve(&ask(1, 600), &DAILY, NOW).unwrap();
    let after = NOW + 2 * HOUR;
    assert_eq!(reserved(&ledger, after), [0, 0, 0]);
    let fresh = ledger.reserve(&ask(1, 1000), &DAILY, after).unwrap();
    assert_eq!(fresh.tokens, 1000);
    ledger.settle(before.id, 600, after);
    assert_eq!((spent(&ledger, after), reserved(&ledger, after)), ([0; 3], [1000; 3]));
    // One that straddles only the hour still counts for day and month.
    ledger.settle(fresh.id, 70, after + HOUR);
    assert_eq!(spent(&ledger, after + HOUR), [0, 70, 70]);
}

#[test]
fn a_clock_that_steps_back_grants_nothing_twice() {
    let ledger = memory();
    let grant = ledger.reserve(&ask(1, 1000), &DAILY, NOW + 2 * HOUR).unwrap();
    // Threads read the clock apart: a little before midnight is still the new day.
    assert!(ledger.reserve(&ask(1, 1), &DAILY, NOW + HOUR + HOUR / 2 - 1).is_err());
    // A clock that was wrong by years moves the windows back, with what was spent.
    ledger.settle(grant.id, 900, NOW - 1000 * DAY);
    let past = NOW - 1000 * DAY;
    assert_eq!(spent(&ledger, past), [900; 3]);
    assert_eq!(ledger.reserve(&ask(1, 1000), &DAILY, past).unwrap().tokens, 100);
    assert_eq!(spent(&ledger, past + DAY), [0, 0, 900]);
}

#[test]
fn reservations_are_bounded() {
    let ledger = memory();
    let none = Limits::default();
    let grants: Vec<_> =
        (0..limits::RESERVATIONS).map(|_| ledger.reserve(&ask(1, 1), &none, NOW).unwrap()).collect();
    let full = ledger.reserve(&ask(1, 1), &none, NOW).unwrap_err();
    assert!(full.crowded && full.in_flight);
    ledger.settle(grants[17].id, 0, NOW);
    assert!(ledger.reserve(&ask(1, 1), &none, NOW).is_ok());
}

#[test]
fn a_full_table_comes_back_after_a_crash() {
    let place = Place::new();
    let ledger = place.open();
    for _ in 0..limits::RESERVATIONS {
        let _ = ledger.reserve(&ask(2, 2), &Limits::default(), NOW).unwrap();
    }
    drop(ledger);
    let again = place.open();
    let expected = limits::RESERVATIONS as u64 * 2;
    assert_eq!(
        (again.recovery().recovered as usize, again.recovery().recovered_tokens),
        (limits::RESERVATIONS, expected)
    );
    assert_eq!((spent(&again, NOW), again.outstanding()), ([expected; 3], 0));
}

#[test]
fn counts_and_open_reservations_survive_and_are_charged_at_what_they_held() {
    let place = Place::new();
    let ledger = place.open();
    assert_eq!(ledger.recovery(), &Recovery::default());
    let first = ledger.reserve(&ask(1, 300), &DAILY, NOW).unwrap();
    let _open = ledger.reserve(&ask(1, 200), &DAILY, NOW).unwrap();
    ledger.settle(first.id, 123, NOW);
    ledger.sync().unwrap();
    drop(ledger);
    let again = place.open();
    let expected = Recovery { recovered: 1, recovered_tokens: 200, ..Recovery::default() };
    assert_eq!(again.recovery(), &expected);
    assert_eq!((spent(&again, NOW), reserved(&again, NOW)), ([323; 3], [0; 3]));
    drop(again);
    assert_eq!(place.open().recovery(), &Recovery::default());
    assert_eq!(spent(&place.open(), NOW + HOUR), [0, 323, 323]);
}

#[test]
fn takes_the_references_counts_over_once() {
    let place = Place::new();
    std::fs::create_dir_all(place.path.parent().unwrap()).unwrap();
    // 2026-01-31 is day 739647 from year 1, and month 2026 * 12 + 0.
    let json = r#"{"sandboxes":{"other":{"day_key":1,"daily":1,"month_key":1,"monthly":1},
        "s":{"day_key":739647,"daily":40,"month_key":24312,"monthly":700}}}"#;
    std::fs::write(&place.path, json).unwrap();
    let ledger = place.open();
    assert!(ledger.recovery().imported);
    assert_eq!(spent(&ledger, NOW), [0, 40, 700]);
    assert_eq!(spent(&ledger, NOW + 2 * HOUR), [0, 0, 0]);
    drop(ledger);
    let again = place.open();
    assert_eq!((again.recovery().imported, spent(&again, NOW + 2 * HOUR)), (false, [0, 0, 0]));
}

#[test]
fn an_unreadable_budget_file_is_reported_and_starts_at_zero() {
    let place = Place::new();
    std::fs::create_dir_all(place.path.parent().unwrap()).unwrap();
    std::fs::write(&place.path, "{\"sandboxes\":[]}").unwrap();
    let ledger = place.open();
    assert!(ledger.recovery().warning.as_ref().unwrap().contains("token-budgets.json"));
    assert_eq!(spent(&ledger, NOW), [0; 3]);
}

#[test]
fn refuses_a_journal_in_use_or_of_another_sandbox() {
    let place = Place::new();
    let ledger = place.open();
    let refused = Ledger::open(Some(&place.path), "s").unwrap_err();
    assert!(refused.detail().contains("in use by another process"), "{refused}");
    drop(ledger);
    let refused = Ledger::open(Some(&place.path), "t").unwrap_err();
    assert!(refused.detail().contains("another sandbox"), "{refused}");
}

#[test]
fn the_journal_is_private_and_never_grows() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let ledger = place.open();
    let before = std::fs::metadata(place.journal()).unwrap();
    for _ in 0..10_000 {
        let grant = ledger.reserve(&ask(1, 1), &Limits::default(), NOW).unwrap();
        ledger.settle(grant.id, 1, NOW);
    }
    let after = std::fs::metadata(place.journal()).unwrap();
    assert_eq!((after.len(), after.blocks()), (before.len(), before.blocks()));
    assert_eq!(after.mode() & 0o777, 0o600);
    assert!(
        after.blocks() * 512 >= after.len(),
        "blocks are allocated, so that a full disk cannot fault a store"
    );
}

#[test]
fn any_damage_is_survived_and_big_damage_is_reported() {
    let whole = {
        let place = Place::new();
        let ledger = place.open();
        for _ in 0..3 {
            let grant = ledger.reserve(&ask(1, 100), &DAILY, NOW).unwrap();
            ledger.settle(grant.id, 100, NOW);
        }
        let _open = ledger.reserve(&ask(1, 50), &DAILY, NOW).unwrap();
        drop(ledger);
        std::fs::read(place.journal()).unwrap()
    };
    let reopened = |bytes: &[u8]| {
        let place = Place::new();
        std::fs::create_dir_all(place.path.parent().unwrap()).unwrap();
        std::fs::write(place.journal(), bytes).unwrap();
        let ledger = place.open();
        let result = (ledger.recovery().warning.is_some(), spent(&ledger, NOW)[1]);
        assert_eq!(ledger.reserve(&ask(1, 1), &Limits::default(), NOW).unwrap().tokens, 1);
        assert_eq!(place.journal().with_extension("journal.corrupt").exists(), result.0);
        result
    };
    assert_eq!(reopened(&whole), (false, 350));
    assert_eq!(reopened(&[]), (false, 0));
    assert_eq!(reopened(&whole[..2000]), (true, 0));
    assert_eq!(reopened(&vec![0xff; whole.len()]), (true, 0));
    // One copy of the counts damaged: the other one stands, at most one settlement behind.
    for at in [64 * 8, 96 * 8] {
        let mut bytes = whole.clone();
        bytes[at + 8] ^= 1;
        let (warned, spent) = reopened(&bytes);
        assert!(!warned && (250..=350).contains(&spent), "{spent}");
    }
    // Both: nothing to go by.
    let mut bytes = whole;
    bytes[64 * 8] ^= 1;
    bytes[96 * 8] ^= 1;
    assert_eq!(reopened(&bytes), (true, 0));
}

/// The n-th operation of a fixed script of reserves and settles.
fn step(ledger: &Ledger, held: &mut Vec<Grant>, n: u64) {
    if n % 5 < 3 {
        held.push(ledger.reserve(&ask(1, 10 + n % 7), &Limits::default(), NOW).unwrap());
    } else if !held.is_empty() {
        let grant = held.remove((n % 3) as usize % held.len());
        ledger.settle(grant.id, n % 13, NOW);
    }
}

/// What the month has cost after the script's first `n` operations and a restart.
fn script_cost(n: u64) -> u64 {
    let (ledger, mut held) = (memory(), Vec::new());
    (0..n).for_each(|n| step(&ledger, &mut held, n));
    let month = ledger.standing(NOW).month;
    month.spent + month.reserved
}

#[test]
fn dying_between_any_two_stores_loses_nothing_and_charges_nothing_twice() {
    const OPERATIONS: u64 = 24;
    let mut stores = 0;
    loop {
        let place = Place::new();
        let ledger = place.open();
        let mut held = Vec::new();
        let mut done = 0;
        STORES.set(stores);
        while done < OPERATIONS {
            step(&ledger, &mut held, done);
            if STORES.get() == 0 {
                break;
            }
            done += 1;
        }
        STORES.set(u64::MAX);
        drop(ledger);
        let again = place.open();
        let cost = spent(&again, NOW)[2];
        assert!(again.recovery().warning.is_none());
        // The operation that died has happened, or not; what it released may not be charged on top.
        let candidates = [script_cost(done), script_cost(done + 1)];
        assert!(
            candidates.contains(&cost),
            "after {stores} stores and {done} operations: {cost} not in {candidates:?}"
        );
        if done == OPERATIONS {
            break;
        }
        stores += 1;
    }
    assert!(stores > 150, "the script makes many stores, not {stores}");
}

/// Runs the script in a process that is killed; does nothing in a normal run of the tests.
#[test]
fn child_that_is_killed() {
    let Ok(path) = std::env::var("KARS_TEST_LEDGER") else { return };
    let ledger = Ledger::open(Some(path.as_ref()), "s").unwrap();
    let mut held = Vec::new();
    for n in 0.. {
        step(&ledger, &mut held, n);
        let mut out = std::io::stdout().lock();
        out.write_all(format!("did {}\n", n + 1).as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn kill_9_loses_nothing_that_returned() {
    let place = Place::new();
    let mut base = 0;
    for round in 0..4_u64 {
        let mut child = Command::new("/proc/self/exe")
            .args(["--exact", "gate::ledger::tests::child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env("KARS_TEST_LEDGER", &place.path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut done = 0;
        let mut line = String::new();
        let mut read = |done: &mut u64| {
            line.clear();
            let more = out.read_line(&mut line).unwrap() > 0;
            if let Some(n) = line.strip_suffix('\n').and_then(|line| line.strip_prefix("did ")) {
                *done = n.parse().unwrap();
            }
            more
        };
        while done < 500 + 333 * round {
            assert!(read(&mut done), "the child ended early");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while read(&mut done) {}
        let ledger = place.open();
        assert!(ledger.recovery().warning.is_none());
        let cost = spent(&ledger, NOW)[2] - base;
        let candidates = [script_cost(done), script_cost(done + 1)];
        assert!(candidates.contains(&cost), "round {round}: {cost} not in {candidates:?} after {done}");
        base += cost;
    }
}

#[test]
fn threads_together_never_pass_the_limit() {
    const LIMIT: u64 = 200_000;
    let place = Place::new();
    let ledger = place.open();
    let limits = Limits { daily: LIMIT, ..Limits::default() };
    std::thread::scope(|scope| {
        for seed in 0..16_u64 {
            let ledger = &ledger;
            scope.spawn(move || {
                for n in 0..10_000_u64 {
                    let Ok(grant) = ledger.reserve(&ask(1, 1 + (seed * 31 + n * 7) % 90), &limits, NOW)
                    else {
                        continue;
                    };
                    let day = ledger.standing(NOW).day;
                    assert!(day.spent + day.reserved <= LIMIT);
                    ledger.settle(grant.id, grant.tokens * (n % 4) / 3, NOW);
                }
            });
        }
    });
    let day = ledger.standing(NOW).day;
    assert_eq!(day.reserved, 0);
    assert!(day.spent <= LIMIT);
    assert!(ledger.reserve(&ask(LIMIT - day.spent + 1, 0), &limits, NOW).is_err());
    drop(ledger);
    assert_eq!(place.open().standing(NOW).day.spent, day.spent);
}

#[derive(Debug, Clone)]
enum Op {
    Reserve { min: u64, max: u64, share: bool },
    Settle { which: prop::sample::Index, actual: u64 },
    Wait(u64),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0_u64..200, 0_u64..2000, any::<bool>()).prop_map(|(min, max, share)| Op::Reserve { min, max, share }),
        4 => (any::<prop::sample::Index>(), 0_u64..2000).prop_map(|(which, actual)| Op::Settle { which, actual }),
        1 => (0_u64..40 * DAY).prop_map(Op::Wait),
        2 => (0_u64..2 * HOUR).prop_map(Op::Wait),
        1 => Just(Op::Reopen),
    ]
}

/// The ledger as one would write it without caring for speed or crashes: a list of calls.
#[derive(Default)]
struct Model {
    calls: Vec<Entry>,
}

struct Entry {
    at: u64,
    id: Option<ReservationId>,
    held: u64,
    spent: u64,
}

impl Model {
    fn of(&self, window: Window, now: u64) -> Spent {
        let same = |at: u64| window.resets_at(at) == window.resets_at(now);
        let mut sum = Spent::default();
        for call in self.calls.iter().filter(|call| same(call.at)) {
            if call.id.is_some() { sum.reserved += call.held } else { sum.spent += call.spent }
        }
        sum
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_list_of_calls(
        hourly in prop_oneof![Just(0), 1_u64..5000],
        daily in prop_oneof![Just(0), 1_u64..20_000],
        monthly in prop_oneof![Just(0), 1_u64..50_000],
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let limits = Limits { hourly, daily, monthly };
        let place = Place::new();
        let mut ledger = place.open();
        let mut model = Model::default();
        let mut now = NOW;
        for op in ops {
            match op {
                Op::Wait(secs) => now += secs,
                Op::Reserve { min, max, share } => {
                    let left = Window::ALL.into_iter().filter(|w| limits.of(*w) > 0).map(|w| {
                        let sum = model.of(w, now);
                        limits.of(w).saturating_sub(sum.spent + sum.reserved)
                    }).min().unwrap_or(u64::MAX);
                    match ledger.reserve(&Ask { min, max, share }, &limits, now) {
                        Ok(grant) => {
                            prop_assert!(left >= min);
                            let cap = if share { (left / 8).max(min).max(1024).min(left) } else { left };
                            prop_assert_eq!(grant.tokens, max.max(min).min(cap));
                            model.calls.push(Entry { at: now, id: Some(grant.id), held: grant.tokens, spent: 0 });
                        }
                        Err(short) => {
                            prop_assert!(left < min);
                            let sum = model.of(short.window, now);
                            prop_assert_eq!(Spent { spent: short.spent, reserved: short.reserved }, sum);
                            prop_assert!(short.limit - short.limit.min(sum.spent + sum.reserved) < min);
                            let fits = Window::ALL.into_iter().filter(|w| limits.of(*w) > 0)
                                .all(|w| limits.of(w).saturating_sub(model.of(w, now).spent) >= min);
                            prop_assert_eq!(short.in_flight, fits);
                        }
                    }
                }
                Op::Settle { which, actual } => {
                    if !model.calls.is_empty() {
                        let index = which.index(model.calls.len());
                        let call = &mut model.calls[index];
                        if let Some(id) = call.id.take() {
                            call.spent = actual;
                            ledger.settle(id, actual, now);
                        }
                    }
                }
                Op::Reopen => {
                    drop(ledger);
                    ledger = place.open();
                    let mut recovered = 0;
                    for call in model.calls.iter_mut().filter(|call| call.id.is_some()) {
                        call.id = None;
                        call.spent = call.held;
                        recovered += 1;
                    }
                    prop_assert_eq!(ledger.recovery().recovered, recovered);
                    prop_assert!(ledger.recovery().warning.is_none());
                }
            }
            let standing = ledger.standing(now);
            for window in Window::ALL {
                prop_assert_eq!(standing.of(window), model.of(window, now), "{}", window.name());
            }
        }
    }
}
