use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::error::Kind;

fn to(host: &str, port: u16) -> Destination {
    Destination { host: Host::parse(host).unwrap(), port }
}

fn seen(destination: &Destination, now: u64) -> Seen<'_> {
    Seen { destination, door: EgressDoor::Connect, request: None, listed: false, now }
}

fn row(host: &str, count: u64, first_seen: u64, last_seen: u64) -> LearnedRow {
    let (door, method, path) = ("connect".into(), String::new(), String::new());
    LearnedRow {
        host: host.into(),
        port: 443,
        door,
        method,
        path,
        count,
        first_seen,
        last_seen,
        listed: false,
    }
}

fn file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/learned.jsonl");
    (dir, path)
}

fn open(path: &Path) -> Learned {
    Learned::open(Some(path)).unwrap()
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn keeps_one_row_for_each_destination_door_method_and_path() {
    let learned = Learned::open(None).unwrap();
    let (web, ip) = (to("API.example.", 80), to("::1", 443));
    let request =
        |method, path| Seen { door: EgressDoor::Http, request: Some((method, path)), ..seen(&web, 5) };
    learned.observe(&request("GET", "/v1/items/17?key=secret"));
    learned.observe(&Seen { now: 9, listed: true, ..request("GET", "/v1/items/18") });
    learned.observe(&request("POST", "/v1/items/18"));
    learned.observe(&seen(&ip, 7));
    learned.observe(&Seen { door: EgressDoor::Tls, ..seen(&ip, 7) });
    let rows = learned.rows();
    let told: Vec<_> =
        rows.iter().map(|r| (&*r.host, r.port, &*r.door, &*r.method, &*r.path, r.count)).collect();
    assert_eq!(
        told,
        [
            ("[::1]", 443, "connect", "", "", 1),
            ("[::1]", 443, "tls", "", "", 1),
            ("api.example", 80, "http", "GET", "/v1/items/*", 2),
            ("api.example", 80, "http", "POST", "/v1/items/*", 1),
        ]
    );
    assert_eq!((rows[2].first_seen, rows[2].last_seen, rows[2].listed), (5, 9, true));
    assert_eq!((learned.len(), learned.is_empty()), (4, false));
    learned.sync().unwrap();
}

#[test]
fn a_row_survives_a_kill_and_its_count_a_sync() {
    let (_dir, path) = file();
    let (a, b) = (to("a.example", 443), to("b.example", 443));
    let learned = open(&path);
    learned.observe(&seen(&a, 1));
    learned.observe(&seen(&b, 2));
    learned.observe(&seen(&a, 3));
    // Dropping writes nothing, as a kill does.
    drop(learned);
    let learned = open(&path);
    assert_eq!(learned.rows(), [row("a.example", 1, 1, 1), row("b.example", 1, 2, 2)]);
    learned.observe(&seen(&a, 4));
    learned.sync().unwrap();
    let before = lines(&path);
    learned.sync().unwrap();
    assert_eq!(lines(&path), before, "nothing changed, nothing is written");
    drop(learned);
    let learned = open(&path);
    assert_eq!(learned.rows(), [row("a.example", 2, 1, 4), row("b.example", 1, 2, 2)]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn a_torn_last_line_is_cut_off_wherever_it_ends() {
    let (_dir, path) = file();
    let learned = open(&path);
    learned.observe(&seen(&to("a.example", 443), 1));
    learned.observe(&seen(&to("b.example", 443), 2));
    drop(learned);
    let whole = fs::read(&path).unwrap();
    let ends: Vec<usize> =
        whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let learned = open(&path);
        let kept = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
        assert_eq!(learned.len(), kept, "cut at {cut}");
        learned.observe(&seen(&to("c.example", 443), 3));
        drop(learned);
        assert_eq!(open(&path).len(), kept + 1, "cut at {cut}");
    }
}

#[test]
fn a_file_that_is_not_its_own_is_refused_and_left_as_it_is() {
    let (_dir, path) = file();
    fs::create_dir(path.parent().unwrap()).unwrap();
    for (text, what) in [
        ("{\"host\":\"a\"}\n", "something else"),
        ("root:x:0:0\n", "something else"),
        ("no end of line", "something else"),
        ("\0\0\0\0", "something else"),
        ("{\"kars\":\"egress-learned\",\"version\":2}\n{}\n", "another version"),
    ] {
        fs::write(&path, text).unwrap();
        let refused = Learned::open(Some(&path)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Config);
        assert!(refused.detail().contains(what), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_line_that_is_no_row_costs_itself() {
    let (_dir, path) = file();
    let learned = open(&path);
    learned.observe(&seen(&to("a.example", 443), 1));
    drop(learned);
    let mut text = fs::read_to_string(&path).unwrap();
    text += &["nonsense", &"x".repeat(100_000), "{}\n"].join("\n");
    text +=
        "{\"host\":\"b.example\",\"port\":443,\"door\":\"tls\",\"method\":\"\",\"path\":\"\",\"count\":3,";
    text += "\"first_seen\":1,\"last_seen\":2,\"new\":true}\n";
    fs::write(&path, text).unwrap();
    let rows = open(&path).rows();
    assert_eq!(rows.len(), 2);
    assert_eq!((&*rows[1].host, rows[1].count, rows[1].listed), ("b.example", 3, false));
}

#[test]
fn a_second_process_is_refused_also_after_the_file_was_written_anew() {
    let (_dir, path) = file();
    let learned = open(&path);
    for _ in 0..2 {
        let refused = Learned::open(Some(&path)).unwrap_err();
        assert!(
            refused.kind() == Kind::Config && refused.detail().contains("in use by another process"),
            "{refused}"
        );
        write_anew(&learned, &path);
    }
}

/// Changes a row until the file has been replaced.
fn write_anew(learned: &Learned, path: &Path) {
    let a = to("a.example", 443);
    let mut most = 0;
    for _ in 0..10_000 {
        learned.observe(&seen(&a, 1));
        learned.sync().unwrap();
        let lines = lines(path);
        if lines < most {
            return;
        }
        most = lines;
    }
    panic!("the file grows without end");
}

#[test]
fn the_file_is_written_anew_before_it_grows_large_and_loses_nothing() {
    let (_dir, path) = file();
    let learned = open(&path);
    for n in 0..50 {
        learned.observe(&seen(&to(&format!("h{n}.example"), 443), n));
    }
    write_anew(&learned, &path);
    assert_eq!(lines(&path), 52, "the first line and one for each row");
    learned.observe(&seen(&to("late.example", 443), 99));
    let rows = learned.rows();
    assert_eq!(rows.len(), 52);
    drop(learned);
    assert_eq!(open(&path).rows(), rows);
}

#[test]
fn rows_that_come_while_the_file_is_written_anew_are_in_it() {
    let (_dir, path) = file();
    let learned = open(&path);
    let a = to("a.example", 443);
    let draft = loop {
        learned.observe(&seen(&a, 1));
        if let Some(draft) = learned.table().write_changes().unwrap() {
            break draft;
        }
    };
    learned.observe(&seen(&to("b.example", 443), 2));
    let fresh = draft.write().unwrap();
    learned.observe(&seen(&to("c.example", 443), 3));
    learned.observe(&seen(&a, 4));
    learned.table().adopt(fresh).unwrap();
    learned.observe(&seen(&to("d.example", 443), 5));
    drop(learned);
    let hosts: Vec<String> = open(&path).rows().into_iter().map(|row| row.host).collect();
    assert_eq!(hosts, ["a.example", "b.example", "c.example", "d.example"]);
}

#[test]
fn rows_past_the_bound_are_dropped_and_counted_and_clearing_makes_room() {
    let (_dir, path) = file();
    let learned = open(&path);
    let extra = 10;
    for n in 0..limits::LEARNED_ROWS + extra {
        learned.observe(&seen(&to(&format!("h{n}.example"), 443), 1));
    }
    let known = to("h0.example", 443);
    learned.observe(&seen(&known, 2));
    assert_eq!((learned.len(), learned.dropped()), (limits::LEARNED_ROWS, extra as u64));
    learned.sync().unwrap();
    drop(learned);
    let learned = open(&path);
    assert_eq!((learned.len(), learned.dropped()), (limits::LEARNED_ROWS, 0));
    learned.clear().unwrap();
    assert!(learned.is_empty() && learned.rows().is_empty() && learned.dropped() == 0);
    learned.observe(&seen(&known, 3));
    drop(learned);
    assert_eq!(open(&path).rows(), [row("h0.example", 1, 3, 3)]);
}

#[test]
fn what_the_disk_refused_is_written_by_the_next_sync() {
    let (_dir, path) = file();
    let learned = open(&path);
    let good = learned.table().journal.as_mut().unwrap().refuse_writes();
    learned.observe(&seen(&to("a.example", 443), 1));
    assert_eq!(learned.sync().unwrap_err().kind(), Kind::Io);
    assert_eq!(learned.len(), 1);
    learned.table().journal.as_mut().unwrap().accept_writes(good);
    learned.sync().unwrap();
    drop(learned);
    assert_eq!(open(&path).rows(), [row("a.example", 1, 1, 1)]);
}

#[test]
fn threads_lose_no_count_while_the_keeper_writes() {
    let (_dir, path) = file();
    let learned = open(&path);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let learned = &learned;
                scope.spawn(move || {
                    for n in 0..3000_u64 {
                        learned.observe(&seen(&to(&format!("h{}.example", n % 100), 443), n));
                        learned.observe(&seen(&to(&format!("w{worker}-{}.example", n / 10), 443), n));
                    }
                })
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            learned.sync().unwrap();
        }
    });
    learned.sync().unwrap();
    let rows = learned.rows();
    assert_eq!((rows.len(), rows.iter().map(|row| row.count).sum::<u64>()), (700, 12_000));
    drop(learned);
    assert_eq!(open(&path).rows(), rows);
}

#[test]
fn paths_keep_their_words_and_lose_ids_and_secrets() {
    for (path, shape) in [
        ("/", "/"),
        ("", "/"),
        ("?q=1", "/"),
        ("*", "/*"),
        ("/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models/"),
        ("//a", "//a"),
        ("/simple/requests/", "/simple/requests/"),
        ("/@types/node", "/@types/node"),
        ("/a%20b/c", "/a%20b/c"),
        ("/users/42/posts/2024-05-01", "/users/*/posts/*"),
        ("/r/1.2.3/x", "/r/*/x"),
        ("/c/deadbeef/added/facade0", "/c/*/added/facade0"),
        ("/o/123e4567-e89b-12d3-a456-426614174000", "/o/*"),
        ("/u/ann@example.com/u/ann%40example.com", "/u/*/u/*"),
        ("/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/sendMessage", "/*/sendMessage"),
        ("/services/T0000/B0000/XxXxXxXxXxXxXxXxXxXxXxXx", "/services/T0000/B0000/*"),
        ("/t/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "/t/*"),
        ("/k/sk-live-4eC39HqLyjWDarjtT1", "/k/*"),
        ("/k/abcdefghijklmnopqrstuvwxyzabcdefgh", "/k/*"),
        ("/s;jsessionid=1/token=x/a&b", "/*/*/*"),
        ("/%31%32%33/%zz", "/*/*"),
        ("/münchen/a\u{7f}", "/*/*"),
        ("/release-notes-of-the-day", "/release-notes-of-the-day"),
        ("/a/b/c/d/e/f", "/a/b/c/d/e/f"),
        ("/a/b/c/d/e/f/", "/a/b/c/d/e/f/**"),
        ("/a/b/c/d/e/f/g/h?x", "/a/b/c/d/e/f/**"),
    ] {
        assert_eq!(Shape::of(path).as_str(), shape, "{path}");
    }
    let long = format!("/{}/{}", "ab-".repeat(22), "ab-".repeat(21));
    assert_eq!(Shape::of(&long).as_str(), format!("/*/{}", "ab-".repeat(21)));
    let methods = [("GET", "GET"), ("M-SEARCH", "M-SEARCH"), ("get", "*"), ("", "*"), ("SECRET0", "*")];
    assert!(methods.into_iter().all(|(text, kept)| shape::method(text) == kept));
    assert_eq!(shape::method(&"A".repeat(25)), "*");
}

proptest! {
    #[test]
    fn a_shape_is_bounded_and_its_own_shape(path in prop_oneof![any::<String>(), "(/[a-zA-Z0-9%@.*=-]{0,70}){0,9}"]) {
        let shape = Shape::of(&path);
        let text = shape.as_str();
        prop_assert!(text.starts_with('/') && text.len() <= 400 && text.split('/').count() <= 8);
        let again = Shape::of(text);
        prop_assert_eq!(again.as_str(), text);
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?'));
    }

    #[test]
    fn no_token_is_kept(token in prop_oneof![
        "[0-9]{1,20}",
        "[0-9a-f]{8,64}",
        "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[A-Za-z0-9_-]{15,60}[0-9]",
        "[a-z]{10}[A-Za-z]{12,40}[A-Z]",
        "[a-z]{1,9}@[a-z]{1,9}\\.[a-z]{2}",
        "eyJ[A-Za-z0-9]{20,40}\\.[A-Za-z0-9_-]{10,200}",
    ]) {
        let path = format!("/before/{token}/after");
        let shape = Shape::of(&path);
        prop_assert_eq!(shape.as_str(), "/before/*/after");
    }

    /// Whatever was observed and wherever the file is cut, what is read back is a prefix of it.
    #[test]
    fn a_file_cut_anywhere_gives_the_rows_before_the_cut(
        hosts in prop::collection::vec("[a-c]{1,2}\\.example", 1..12),
        cut in 0.0..1.0_f64,
    ) {
        let (_dir, path) = file();
        let learned = open(&path);
        let mut order = Vec::new();
        for host in &hosts {
            learned.observe(&seen(&to(host, 443), 1));
            learned.sync().unwrap();
            if !order.contains(host) {
                order.push(host.clone());
            }
        }
        drop(learned);
        let whole = fs::read(&path).unwrap();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any cut")]
        let cut = (whole.len() as f64 * cut) as usize;
        fs::write(&path, &whole[..cut]).unwrap();
        let learned = open(&path);
        let table = learned.table();
        let kept: Vec<String> = table.rows.iter().map(|entry| entry.row.host.clone()).collect();
        prop_assert!(order.starts_with(&kept), "{:?} of {:?}", kept, order);
        let counts: u64 = table.rows.iter().map(|entry| entry.row.count).sum();
        prop_assert!(counts <= hosts.len() as u64);
    }
}
