use std::path::Path;

use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::servers::Servers;
use super::testing::{A, AAAA, Dns, NXDOMAIN, Query, REFUSED, Reply, SERVFAIL, found, held};
use super::*;
use crate::net::dial;

const WAIT: Duration = Duration::from_secs(5);

fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn over(dns: &Dns) -> Resolver {
    Resolver::new(&[dns.address], WAIT)
}

/// A resolver over one server with a search list, as a pod has it.
fn searching(dns: &Dns, search: &[&str]) -> Resolver {
    let resolver = over(dns);
    let mut system = System::of(&[dns.address], WAIT).unwrap();
    system.search = search.iter().map(|base| base.parse().unwrap()).collect();
    *resolver.system.borrow_mut() = Some(Rc::new(system));
    resolver
}

async fn answers(reply: Reply) -> Dns {
    Dns::start(move |_| reply.clone()).await
}

async fn error_of(reply: Reply) -> Error {
    let dns = answers(reply).await;
    over(&dns).lookup(&host("api.example.com")).await.unwrap_err()
}

fn names(dns: &Dns) -> Vec<String> {
    let mut names: Vec<String> = dns.asked().into_iter().map(|query| query.name).collect();
    names.dedup();
    names
}

#[test]
fn a_resolver_reads_and_connects_nothing_until_it_is_asked() {
    let resolver = Resolver::new(&[], WAIT);
    assert!(resolver.system.borrow().is_none());
    assert_eq!(resolver.flights.borrow().capacity(), 0);
}

#[tokio::test]
async fn an_address_is_its_own_answer_and_nobody_is_asked() {
    let dns = answers(found(&["192.0.2.1"])).await;
    let resolver = over(&dns);
    for address in ["203.0.113.9", "2001:db8::9", "127.0.0.1"] {
        assert_eq!(resolver.lookup(&host(address)).await.unwrap(), ips(&[address]));
    }
    assert_eq!(dns.asked(), []);
}

#[tokio::test]
async fn localhost_is_loopback_whatever_a_server_says() {
    let dns = answers(found(&["192.0.2.1"])).await;
    let resolver = over(&dns);
    for name in ["localhost", "LOCALHOST.", "a.localhost", "a.b.localhost"] {
        assert_eq!(resolver.lookup(&host(name)).await.unwrap(), ips(&["::1", "127.0.0.1"]));
    }
    assert_eq!(dns.asked(), []);
    assert_eq!(resolver.lookup(&host("my.notlocalhost")).await.unwrap(), ips(&["192.0.2.1"]));
}

#[tokio::test]
async fn both_families_are_asked_and_take_turns() {
    let dns = answers(found(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"])).await;
    let order = ips(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(over(&dns).lookup(&host("api.example.com")).await.unwrap(), order);
    assert_eq!((dns.count(A), dns.count(AAAA)), (1, 1));
}

#[test]
fn each_address_has_one_turn_and_no_more_than_the_most_are_kept() {
    assert_eq!(
        *in_turn(&ips(&["192.0.2.1", "192.0.2.1", "2001:db8::1"])),
        ips(&["2001:db8::1", "192.0.2.1"])
    );
    for families in [1_usize, 2] {
        let four = (0..100).map(|i| IpAddr::from(Ipv4Addr::new(192, 0, 2, i)));
        let six = (0..100).map(|i| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, i)));
        let all: Vec<IpAddr> = four.chain(six).take(100 * families).collect();
        let order = in_turn(&all);
        assert_eq!(order.len(), limits::ADDRESSES);
        let sixes = order.iter().filter(|ip| ip.is_ipv6()).count();
        assert_eq!(sixes, if families == 1 { 0 } else { limits::ADDRESSES / 2 });
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_a_datagram_is_fetched_over_tcp() {
    let hundred: Vec<String> = (0..100).map(|i| format!("192.0.2.{i}")).collect();
    let hundred: Vec<&str> = hundred.iter().map(String::as_str).collect();
    let dns = answers(found(&hundred)).await;
    let addresses = over(&dns).lookup(&host("many.example.com")).await.unwrap();
    assert_eq!(addresses, ips(&hundred[..limits::ADDRESSES]));
    assert!(dns.asked().iter().any(|query| query.tcp && query.kind == A));
}

#[tokio::test]
async fn a_truncated_answer_is_not_taken_for_an_empty_one() {
    let dns = answers(Reply::Truncated(Box::new(found(&["192.0.2.1", "2001:db8::1"])))).await;
    let addresses = over(&dns).lookup(&host("api.example.com")).await.unwrap();
    assert_eq!(addresses, ips(&["2001:db8::1", "192.0.2.1"]));
}

#[tokio::test]
async fn what_is_wrong_with_a_name_is_told_apart() {
    let upstream = Kind::Upstream(Step::Resolve);
    for (reply, text) in [
        (Reply::Code(NXDOMAIN, Some(60)), "does not exist (NXDOMAIN)"),
        (Reply::Code(0, Some(60)), "exists, but has no address"),
        (found(&[]), "exists, but has no address"),
        (Reply::Code(SERVFAIL, None), "(SERVFAIL)"),
        (Reply::Code(REFUSED, None), "(REFUSED)"),
        (Reply::Code(4, None), "answered with an error"),
    ] {
        let error = error_of(reply).await;
        assert_eq!(error.kind(), upstream, "{error}");
        assert!(error.detail().starts_with("resolve api.example.com: "), "{error}");
        assert!(error.detail().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_that_says_so() {
    let gone = answers(Reply::Silent).await.address;
    let error =
        Resolver::new(&[gone], Duration::from_millis(100)).lookup(&host("a.example")).await.unwrap_err();
    assert!(
        matches!(error.kind(), Kind::Upstream(Step::Resolve) | Kind::Timeout(Step::Resolve)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_silent_server_is_waited_for_until_the_deadline_and_no_longer() {
    let dns = answers(Reply::Silent).await;
    let resolver = Resolver::new(&[dns.address], Duration::from_millis(100));
    let error = timeout(WAIT, resolver.lookup(&host("a.example"))).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout(Step::Resolve));
    assert_eq!(error.detail(), "resolve a.example: no name server answered within 100ms");
    assert!(resolver.flights.borrow().is_empty());
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    let mut lost = Vec::new();
    let dns = Dns::start(move |query| {
        if lost.contains(&query.kind) {
            return found(&["192.0.2.1", "2001:db8::1"]);
        }
        lost.push(query.kind);
        Reply::Silent
    });
    let dns = dns.await;
    let addresses = over(&dns).lookup(&host("api.example.com")).await.unwrap();
    assert!(addresses.contains(&ips(&["192.0.2.1"])[0]));
}

#[tokio::test]
async fn one_family_is_enough_when_the_other_fails_or_stays_silent() {
    for wrong in
        [Reply::Code(SERVFAIL, None), Reply::Code(NXDOMAIN, None), Reply::Code(0, None), Reply::Silent]
    {
        let dns = Dns::start({
            let wrong = wrong.clone();
            move |query| if query.kind == A { found(&["192.0.2.1"]) } else { wrong.clone() }
        });
        let dns = dns.await;
        assert_eq!(over(&dns).lookup(&host("a.example")).await.unwrap(), ips(&["192.0.2.1"]), "{wrong:?}");
    }
    for wrong in [Reply::Code(SERVFAIL, None), Reply::Code(NXDOMAIN, None), Reply::Code(0, None)] {
        let dns = Dns::start({
            let wrong = wrong.clone();
            move |query| if query.kind == AAAA { found(&["2001:db8::1"]) } else { wrong.clone() }
        });
        let dns = dns.await;
        assert_eq!(over(&dns).lookup(&host("a.example")).await.unwrap(), ips(&["2001:db8::1"]), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_family_that_failed_makes_no_missing_name_of_the_other() {
    let dns = Dns::start(|query| match query.kind {
        A => Reply::Code(SERVFAIL, None),
        _ => Reply::Code(0, Some(60)),
    });
    let error = over(&dns.await).lookup(&host("a.example")).await.unwrap_err();
    assert!(error.detail().contains("SERVFAIL"), "{error}");
}

#[tokio::test]
async fn an_answer_to_another_question_is_not_taken() {
    let forged = vec!["192.0.2.66".parse().unwrap(), "2001:db8::66".parse().unwrap()];
    let dns = answers(Reply::Forged(forged, Box::new(found(&["192.0.2.1"])))).await;
    assert_eq!(over(&dns).lookup(&host("a.example")).await.unwrap(), ips(&["192.0.2.1"]));
}

#[tokio::test]
async fn aliases_are_followed_in_one_message_or_in_many() {
    let whole =
        Reply::Found { ttl: 60, aliases: vec!["b.example", "c.example"], addresses: ips(&["192.0.2.3"]) };
    let dns = answers(whole).await;
    assert_eq!(over(&dns).lookup(&host("a.example")).await.unwrap(), ips(&["192.0.2.3"]));

    let alias = |to| Reply::Found { ttl: 60, aliases: vec![to], addresses: Vec::new() };
    let dns = Dns::start(move |query| match query.name.as_str() {
        "a.example" => alias("b.example"),
        "b.example" => alias("c.example"),
        "c.example" => found(&["192.0.2.3"]),
        _ => Reply::Code(NXDOMAIN, None),
    });
    let dns = dns.await;
    assert_eq!(over(&dns).lookup(&host("a.example")).await.unwrap(), ips(&["192.0.2.3"]));
    assert!(dns.asked().iter().any(|query| query.name == "c.example"));
}

#[tokio::test]
async fn aliases_that_lead_nowhere_or_in_a_circle_are_an_error() {
    let alias = |to| Reply::Found { ttl: 60, aliases: vec![to], addresses: Vec::new() };
    let dns = Dns::start(move |query| match query.name.as_str() {
        "a.example" => alias("b.example"),
        "b.example" => alias("a.example"),
        "far.example" => alias("gone.example"),
        _ => Reply::Code(NXDOMAIN, None),
    });
    let dns = dns.await;
    let resolver = over(&dns);
    let circle = resolver.lookup(&host("a.example")).await.unwrap_err();
    assert_eq!(circle.kind(), Kind::Upstream(Step::Resolve));
    assert!(dns.asked().len() < 40, "{} queries", dns.asked().len());
    let gone = resolver.lookup(&host("far.example")).await.unwrap_err();
    assert!(gone.detail().contains("NXDOMAIN"), "{gone}");
}

#[tokio::test]
async fn a_name_is_remembered_for_as_long_as_its_records_hold_within_bounds() {
    for (ttl, seconds) in [(0, 1), (60, 60), (86_400, 300)] {
        let dns = answers(held(ttl, &["192.0.2.1"])).await;
        let resolver = over(&dns);
        for _ in 0..3 {
            assert_eq!(resolver.lookup(&host("a.example")).await.unwrap(), ips(&["192.0.2.1"]));
        }
        assert_eq!((dns.count(A), dns.count(AAAA)), (1, 1));
        let now = Instant::now();
        let known = |after| resolver.cache.borrow().find("a.example", now + after).is_some();
        let (end, margin) = (Duration::from_secs(seconds), Duration::from_millis(900));
        assert!(!known(end) && known(end.saturating_sub(margin)), "ttl {ttl}");
    }
}

#[tokio::test]
async fn a_missing_name_and_a_failure_are_remembered_for_a_moment() {
    for (reply, seconds) in [
        (Reply::Code(NXDOMAIN, Some(3600)), 5),
        (Reply::Code(0, Some(3)), 3),
        (Reply::Code(NXDOMAIN, None), 1),
        (Reply::Code(SERVFAIL, None), 1),
    ] {
        let dns = answers(reply.clone()).await;
        let resolver = over(&dns);
        let first = resolver.lookup(&host("a.example")).await.unwrap_err();
        let queries = dns.asked().len();
        assert_eq!(resolver.lookup(&host("a.example")).await.unwrap_err(), first);
        assert_eq!(dns.asked().len(), queries);
        let now = Instant::now();
        let known = |after| resolver.cache.borrow().find("a.example", now + after).is_some();
        let (end, margin) = (Duration::from_secs(seconds), Duration::from_millis(900));
        assert!(!known(end) && known(end.saturating_sub(margin)), "{reply:?}");
    }
}

#[tokio::test]
async fn a_herd_on_one_name_is_one_query() {
    let late = Reply::Late(Duration::from_millis(20), Box::new(found(&["192.0.2.1", "2001:db8::1"])));
    let dns = answers(late).await;
    let resolver = Rc::new(over(&dns));
    let work = LocalSet::new();
    let herd: Vec<_> = (0..500)
        .map(|_| {
            let resolver = resolver.clone();
            work.spawn_local(async move { resolver.lookup(&host("a.example")).await })
        })
        .collect();
    work.await;
    for one in herd {
        assert_eq!(one.await.unwrap().unwrap(), ips(&["2001:db8::1", "192.0.2.1"]));
    }
    assert_eq!((dns.count(A), dns.count(AAAA)), (1, 1));
    assert!(resolver.flights.borrow().is_empty());
}

#[tokio::test]
async fn a_herd_on_a_dead_server_fails_as_one() {
    let dns = answers(Reply::Silent).await;
    let resolver = Rc::new(Resolver::new(&[dns.address], Duration::from_millis(100)));
    let work = LocalSet::new();
    let herd: Vec<_> = (0..50)
        .map(|_| {
            let resolver = resolver.clone();
            work.spawn_local(async move { resolver.lookup(&host("a.example")).await })
        })
        .collect();
    work.await;
    for one in herd {
        assert_eq!(one.await.unwrap().unwrap_err().kind(), Kind::Timeout(Step::Resolve));
    }
    assert!(dns.count(A) <= 2, "{} queries", dns.count(A));
}

#[tokio::test]
async fn another_caller_takes_over_when_the_one_that_asks_leaves() {
    let mut first = true;
    let dns = Dns::start(move |query| {
        let silent = query.kind == A && std::mem::replace(&mut first, false);
        if silent { Reply::Silent } else { found(&["192.0.2.1"]) }
    });
    let dns = dns.await;
    let resolver = over(&dns);
    let name = host("a.example");
    let leaves = timeout(Duration::from_millis(30), resolver.lookup(&name));
    let (left, stays) = tokio::join!(leaves, resolver.lookup(&name));
    assert!(left.is_err());
    assert_eq!(stays.unwrap(), ips(&["192.0.2.1"]));
    assert!(resolver.flights.borrow().is_empty());
}

#[tokio::test]
async fn names_that_are_asked_for_at_one_time_have_a_bound() {
    let dns = answers(Reply::Silent).await;
    let resolver = Rc::new(over(&dns));
    let work = LocalSet::new();
    let under_way: Vec<_> = (0..limits::LOOKUPS)
        .map(|i| {
            let resolver = resolver.clone();
            work.spawn_local(async move { resolver.lookup(&host(&format!("{i}.example"))).await })
        })
        .collect();
    work.run_until(async {
        while resolver.flights.borrow().len() < limits::LOOKUPS {
            tokio::task::yield_now().await;
        }
        let error = resolver.lookup(&host("one.more.example")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Upstream(Step::Resolve));
        assert!(
            error.detail().contains("65 names are being resolved at one time, the most is 64"),
            "{error}"
        );
        // A name that is under way already takes no place.
        assert!(timeout(Duration::from_millis(10), resolver.lookup(&host("7.example"))).await.is_err());
        // Addresses and what is known need none either.
        assert!(resolver.lookup(&host("192.0.2.1")).await.is_ok());
        for one in &under_way {
            one.abort();
        }
        while !resolver.flights.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_with_a_dot_is_asked_for_as_it_is_before_the_search_list() {
    let dns = Dns::start(|query| match query.name.as_str() {
        "redis.cache.svc.cluster.local" => found(&["10.96.0.7"]),
        "api.example.com" => found(&["192.0.2.1"]),
        _ => Reply::Code(NXDOMAIN, Some(60)),
    });
    let dns = dns.await;
    let resolver = searching(&dns, &["ns.svc.cluster.local.", "svc.cluster.local.", "cluster.local."]);
    assert_eq!(resolver.lookup(&host("redis.cache")).await.unwrap(), ips(&["10.96.0.7"]));
    let order = ["redis.cache", "redis.cache.ns.svc.cluster.local", "redis.cache.svc.cluster.local"];
    assert_eq!(names(&dns), order);
    assert_eq!(resolver.lookup(&host("api.example.com")).await.unwrap(), ips(&["192.0.2.1"]));
    assert_eq!(names(&dns).last().unwrap(), "api.example.com");
    let error = resolver.lookup(&host("nowhere.example")).await.unwrap_err();
    assert!(error.detail().contains("nor along the search list"), "{error}");
}

#[tokio::test]
async fn a_name_without_a_dot_is_asked_for_along_the_search_list_alone() {
    let dns = Dns::start(|query| match query.name.as_str() {
        "redis.ns.svc.cluster.local" => found(&["10.96.0.7"]),
        _ => Reply::Code(NXDOMAIN, None),
    });
    let dns = dns.await;
    let resolver = searching(&dns, &["cluster.local.", "ns.svc.cluster.local."]);
    assert_eq!(resolver.lookup(&host("redis")).await.unwrap(), ips(&["10.96.0.7"]));
    assert_eq!(names(&dns), ["redis.cluster.local", "redis.ns.svc.cluster.local"]);

    let error = over(&dns).lookup(&host("other")).await.unwrap_err();
    assert!(error.detail().contains("needs a search list"), "{error}");
    assert!(!names(&dns).contains(&"other".to_owned()));
}

#[tokio::test]
async fn a_name_that_could_not_be_asked_for_is_not_taken_for_an_abbreviation() {
    let dns = Dns::start(|query: &Query| match query.name.as_str() {
        "api.example.com" => Reply::Code(SERVFAIL, None),
        _ => found(&["192.0.2.66"]),
    });
    let dns = dns.await;
    let error = searching(&dns, &["evil.example."]).lookup(&host("api.example.com")).await.unwrap_err();
    assert!(error.detail().contains("SERVFAIL"), "{error}");
    assert_eq!(names(&dns), ["api.example.com"]);
}

#[tokio::test]
async fn a_name_too_long_for_a_search_list_is_asked_for_as_it_is() {
    let dns = answers(Reply::Code(NXDOMAIN, None)).await;
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(50)].join(".");
    let error = searching(&dns, &["svc.cluster.local."]).lookup(&host(&long)).await.unwrap_err();
    assert!(error.detail().contains("NXDOMAIN"), "{error}");
    assert_eq!(names(&dns), [long]);
}

/// A resolver over files of its own in place of the machine's.
fn configured(folder: &Path, resolv: Option<&str>, hosts: &str) -> Resolver {
    let at = |name, text: Option<&str>| -> &'static Path {
        let path = folder.join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        Box::leak(path.into_boxed_path())
    };
    let files = Files { resolv: at("resolv.conf", resolv), hosts: at("hosts", Some(hosts)) };
    Resolver { files, ..Resolver::new(&[], Duration::from_millis(200)) }
}

#[tokio::test]
async fn the_hosts_file_comes_before_any_server_and_is_not_mixed_with_its_answers() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = configured(folder.path(), None, "10.0.0.5 api.example.com db\n");
    assert_eq!(resolver.lookup(&host("api.example.com")).await.unwrap(), ips(&["10.0.0.5"]));
    assert_eq!(resolver.lookup(&host("db")).await.unwrap(), ips(&["10.0.0.5"]));
}

#[tokio::test]
async fn servers_of_the_settings_replace_the_hosts_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let dns = answers(found(&["192.0.2.1"])).await;
    let files = configured(folder.path(), None, "10.0.0.5 api.example.com\n").files;
    let resolver = Resolver { files, ..over(&dns) };
    assert_eq!(resolver.lookup(&host("api.example.com")).await.unwrap(), ips(&["192.0.2.1"]));
}

#[tokio::test]
async fn a_machine_without_a_name_server_is_an_error_that_names_the_file() {
    for resolv in [None, Some("search example.com\n")] {
        let folder = tempfile::tempdir().unwrap();
        let resolver = configured(folder.path(), resolv, "");
        let error = resolver.lookup(&host("api.example.com")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Upstream(Step::Resolve));
        assert!(error.detail().contains("no name server is known") && error.detail().contains("resolv.conf"));
    }
}

#[tokio::test]
async fn the_configuration_is_read_again_when_its_file_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = configured(folder.path(), Some("nameserver 127.0.0.1\nsearch a.example\n"), "");
    let first = resolver.system().unwrap();
    assert!(Rc::ptr_eq(&first, &resolver.system().unwrap()));
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.0.0.1\nsearch b.example\n").unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(10);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert!(Rc::ptr_eq(&first, &resolver.system().unwrap()), "its age is looked at every few seconds only");
    first.checked.set(None);
    let second = resolver.system().unwrap();
    assert_eq!(second.search, ["b.example.".parse().unwrap()]);
    assert!(Rc::ptr_eq(&second, &resolver.system().unwrap()));
}

#[tokio::test]
async fn a_dead_server_beside_a_live_one_costs_nobody_an_answer() {
    let dead = answers(Reply::Silent).await;
    let live = answers(found(&["192.0.2.1"])).await;
    let resolver = Resolver::new(&[dead.address, live.address], Duration::from_secs(2));
    assert_eq!(resolver.lookup(&host("a.example")).await.unwrap(), ips(&["192.0.2.1"]));
    assert!(Servers::new(&[], WAIT).is_ok());
}

fn destination(name: &str, port: u16) -> Destination {
    Destination { host: host(name), port }
}

fn blocks(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| Cidr::parse(text).unwrap()).collect()
}

fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn of_mixed_answers_only_the_global_ones_are_kept() {
    let found = ips(&["10.0.0.5", "93.184.216.34", "169.254.169.254", "2606:2800:220:1::1", "::1"]);
    let kept = screen(&found, &destination("a.example", 443), &[]).unwrap();
    assert_eq!(kept, sockets(&["93.184.216.34:443", "[2606:2800:220:1::1]:443"]));
}

#[test]
fn without_a_global_answer_the_first_is_named() {
    let barred = |list: &[&str]| screen(&ips(list), &destination("a.example", 443), &[]).unwrap_err();
    let first = barred(&["169.254.7.7", "10.0.0.5"]);
    assert_eq!((first.address, first.class), ("169.254.7.7".parse().unwrap(), Class::LinkLocal));
    for (address, class) in [
        ("127.0.0.1", Class::Loopback),
        ("::1", Class::Loopback),
        ("::ffff:127.0.0.1", Class::Loopback),
        ("10.0.0.5", Class::Private),
        ("::ffff:10.0.0.5", Class::Private),
        ("64:ff9b::a00:5", Class::Private),
        ("fd00::5", Class::Private),
        ("fe80::5", Class::LinkLocal),
    ] {
        assert_eq!(barred(&[address]), Barred { address: address.parse().unwrap(), class }, "{address}");
    }
}

#[test]
fn a_grant_lets_exactly_its_block_through() {
    let found = ips(&["10.0.0.4", "10.0.0.5", "10.0.1.5", "192.168.0.5", "127.0.0.1"]);
    let to = destination("db.internal", 5432);
    assert_eq!(screen(&found, &to, &blocks(&["10.0.0.5"])).unwrap(), sockets(&["10.0.0.5:5432"]));
    let two = screen(&found, &to, &blocks(&["10.0.0.0/24"])).unwrap();
    assert_eq!(two, sockets(&["10.0.0.4:5432", "10.0.0.5:5432"]));
    let both = screen(&found, &to, &blocks(&["192.168.0.0/16", "127.0.0.1"])).unwrap();
    assert_eq!(both, sockets(&["192.168.0.5:5432", "127.0.0.1:5432"]));
    assert_eq!(screen(&found, &to, &blocks(&["172.16.0.0/12"])).unwrap_err().address, found[0]);
}

#[test]
fn a_wide_grant_does_not_open_a_metadata_service() {
    let found = ips(&["169.254.169.254"]);
    let to = destination("metadata.internal", 80);
    assert!(screen(&found, &to, &blocks(&["169.254.0.0/16", "0.0.0.0/0"])).is_err());
    assert_eq!(screen(&found, &to, &blocks(&["169.254.169.254"])).unwrap(), sockets(&["169.254.169.254:80"]));
}

#[test]
fn no_answer_at_all_bars_nothing_and_leaves_nothing_to_dial() {
    assert_eq!(screen(&[], &destination("a.example", 443), &[]), Ok(Vec::new()));
}

#[tokio::test]
async fn the_address_that_was_screened_is_the_one_that_is_dialled() {
    let granted = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = granted.local_addr().unwrap().port();
    let rebound = TcpListener::bind(("127.0.0.3", port)).await.unwrap();
    // The name moves to another address as soon as it has been asked for.
    let mut turn = 0;
    let dns = Dns::start(move |query| {
        turn += usize::from(query.kind == A);
        held(0, if turn < 2 { &["127.0.0.2"] } else { &["127.0.0.3"] })
    });
    let dns = dns.await;
    let to = destination("rebind.example", port);
    let found = over(&dns).lookup(&to.host).await.unwrap();
    let allowed = screen(&found, &to, &[Cidr::one("127.0.0.2".parse().unwrap())]).unwrap();
    let (stream, address) = dial::race(&allowed, WAIT).await.unwrap();
    assert_eq!(address, granted.local_addr().unwrap());
    assert_eq!(stream.peer_addr().unwrap(), address);
    assert_eq!(dns.count(A), 1, "one connection asks once");
    assert!(timeout(Duration::from_millis(20), rebound.accept()).await.is_err());
}
