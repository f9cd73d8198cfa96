use proptest::prelude::*;

use super::*;

fn list(text: &str) -> Blocklist {
    let mut builder = Builder::default();
    builder.add(text.as_bytes());
    builder.build()
}

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

fn listed<'l>(list: &'l Blocklist, name: &str) -> Option<&'l str> {
    match list.check(&host(name))? {
        Block::Listed(found) => Some(found),
        other => panic!("{name}: {other:?}"),
    }
}

/// Names of 20 bytes on average with three labels, as feeds have them.
fn generated(n: u64) -> String {
    let word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
    format!(
        "{word:010x}.site{:03}.{}",
        n % 997,
        ["example", "test", "com", "io"][usize::try_from(n % 4).unwrap()]
    )
}

#[test]
fn blocks_what_is_listed_and_what_lies_below_and_nothing_else() {
    let list = list("evil.com\nads.tracker.net\n");
    assert_eq!(list.len(), 2);
    for (name, found) in [
        ("evil.com", Some("evil.com")),
        ("a.b.evil.com", Some("evil.com")),
        ("x.ads.tracker.net", Some("ads.tracker.net")),
        ("tracker.net", None),
        ("notevil.com", None),
        ("evil.com.au", None),
        ("com", None),
        ("evil", None),
        ("il.com", None),
        ("ads.tracker.ne", None),
    ] {
        assert_eq!(listed(&list, name), found, "{name}");
    }
}

#[test]
fn case_and_a_dot_at_the_end_do_not_get_around_it() {
    let list = list("Evil.COM.\n");
    for name in ["EVIL.com", "evil.com.", "A.Evil.Com."] {
        assert_eq!(listed(&list, name), Some("evil.com"), "{name}");
    }
    for name in ["free.tk.", "FREE.TK", "x.Onion."] {
        assert!(matches!(list.check(&host(name)), Some(Block::TopLevel(_))), "{name}");
    }
}

#[test]
fn an_empty_list_blocks_addresses_and_some_top_level_domains() {
    let list = Blocklist::default();
    assert!(list.is_empty());
    for literal in ["1.2.3.4", "[::1]", "[::ffff:1.2.3.4]"] {
        assert_eq!(list.check(&host(literal)), Some(Block::IpLiteral), "{literal}");
    }
    // Held as a name, it is an address all the same.
    assert_eq!(list.check(&Host::Name("1.2.3.4".into())), Some(Block::IpLiteral));
    for domain in ["tk", "ml", "ga", "cf", "gq", "top", "buzz", "surf", "rest", "onion"] {
        assert_eq!(list.check(&host(&format!("a.b.{domain}"))), Some(Block::TopLevel(domain)));
        assert_eq!(list.check(&host(domain)), Some(Block::TopLevel(domain)));
        assert_eq!(list.check(&host(&format!("{domain}.com"))), None);
        assert_eq!(list.check(&host(&format!("desk{domain}"))), None);
    }
}

#[test]
fn reads_every_form_whatever_the_line_ends() {
    let lines = [
        "! comment",
        "# comment",
        "#",
        "##### heading",
        "[Adblock Plus 2.0]",
        "",
        "  \t",
        "plain.example",
        "*.star.example",
        ".dot.example",
        "  spaces.example\t",
        "comment.example # why",
        "tight.example#why",
        "bang.example ! why",
        "127.0.0.1 localhost localhost.localdomain",
        "::1 ip6-localhost ip6-loopback",
        "0.0.0.0 0.0.0.0",
        "0.0.0.0 hosts.example",
        "127.0.0.1\ttabs.example\tmore.example # both",
        ":: six.example",
        "::1 one.example#why",
        "||adblock.example^",
        "||party.example^$third-party",
        "||options.example^$important,doc",
        "||mark.example^|",
    ];
    for end in ["\n", "\r\n", "\r"] {
        let mut builder = Builder::default();
        let text = format!("\u{feff}{}{end}", lines.join(end));
        assert_eq!(builder.add(text.as_bytes()), (16, 0));
        let list = builder.build();
        for name in [
            "plain", "star", "dot", "spaces", "comment", "tight", "bang", "hosts", "tabs", "more", "six",
            "one", "adblock", "party", "options",
        ] {
            let name = format!("{name}.example");
            assert_eq!(listed(&list, &name), Some(&*name));
        }
        assert_eq!(listed(&list, "mark.example"), Some("mark.example"));
    }
}

#[test]
fn passes_over_what_a_set_of_names_cannot_say_and_counts_it() {
    let lines = [
        "##.banner",
        "#@#.banner",
        "site.example##.banner",
        "site.example#@#.banner",
        "site.example#?#div:has(a)",
        "/banner[0-9]+/",
        "||site.example/ads",
        "||site.example^/ads",
        "||site.example",
        "||ads*.example^",
        "||site.example^$domain=other.example",
        "||site.example^$script",
        "||site.example^$badfilter",
        "|https://site.example/",
        "@@/banner/",
        "http://site.example/x",
        "site.example other.example",
        "10.0.0.1 intern.example",
        "1.2.3.4",
        "0.0.0.0",
        "münchen.example",
        "-a.example",
        "a..example",
        "a.0x1f",
        "1.2.3",
        "<html>",
        "com",
    ];
    let mut builder = Builder::default();
    assert_eq!(builder.add(lines.join("\n").as_bytes()), (0, lines.len()));
    assert_eq!(builder.add(&[0xff, 0xfe, 0, b'a', b'\n', 0x80]), (0, 2));
    let long = format!("{}.example", "a".repeat(64));
    assert_eq!(builder.add(long.as_bytes()), (0, 1));
    assert!(builder.build().is_empty());
}

#[test]
fn a_top_level_domain_is_blocked_only_where_a_line_says_domain() {
    let list = list("zip\n*.mov\n||click^\n0.0.0.0 com\n");
    assert_eq!((listed(&list, "a.mov"), listed(&list, "click")), (Some("mov"), Some("click")));
    assert_eq!((listed(&list, "a.zip"), listed(&list, "a.com")), (None, None));
}

#[test]
fn an_exception_takes_a_name_off_every_list_wherever_it_stands() {
    let mut builder = Builder::default();
    builder.add(b"@@||good.example^\n@@||late.example^$important\n");
    assert_eq!(builder.add(b"good.example\nlate.example\nwww.good.example\n"), (3, 0));
    let list = builder.build();
    assert_eq!((listed(&list, "good.example"), listed(&list, "late.example")), (None, None));
    // Only the name itself: what another line says of a name below it stands.
    assert_eq!(listed(&list, "www.good.example"), Some("www.good.example"));
    assert_eq!(list.len(), 1);
}

#[test]
fn a_feed_of_a_million_names_takes_at_most_40_megabytes_gives_no_more_and_is_found_in_few_looks() {
    let mut builder = Builder::default();
    let million = limits::FEED_NAMES as u64;
    let text: String = (0..million + 3).map(|n| generated(n) + "\n").collect();
    assert_eq!(builder.add(text.as_bytes()), (limits::FEED_NAMES, 3));
    // While it is built: at most a quarter more of text, and the table at its next size.
    assert!(builder.names.bytes() <= 45_000_000, "{}", builder.names.bytes());
    let again = format!("{}\n0.0.0.0 {}\nother.example\n", generated(0), generated(1));
    assert_eq!(
        builder.add(again.as_bytes()),
        (1, 0),
        "repeats count once, and the next feed has room of its own"
    );
    let list = builder.build();
    assert_eq!(list.len(), limits::FEED_NAMES + 1);
    assert!(list.bytes() <= 40_000_000, "{}", list.bytes());
    for n in (0..million).step_by(9973) {
        let name = generated(n);
        assert_eq!(listed(&list, &name), Some(&*name));
        assert_eq!(listed(&list, &format!("a.b.{name}")), Some(&*name));
        assert_eq!(listed(&list, &format!("x{name}")), None);
    }
    // Two looks however deep the name is: no other depths are in the set.
    let deep = "a.".repeat(120) + "b.example";
    assert_eq!(list.names.candidates(&deep).count(), 2);
}

#[test]
fn names_of_all_depths_are_found() {
    let names: Vec<String> = (1..127).map(|depth| "a.".repeat(depth) + "b").collect();
    for name in &names {
        let list = list(&format!("{name}\n"));
        assert_eq!(listed(&list, name), Some(&**name));
        if name.len() + 2 <= 253 {
            assert_eq!(listed(&list, &format!("a.{name}")), Some(&**name));
        }
    }
}

/// One name in one of the forms.
fn written(name: &str, form: usize) -> String {
    match form {
        0 => name.to_owned(),
        1 => format!("*.{name}."),
        2 => format!("0.0.0.0 {name}"),
        3 => format!("::1\t{} # why", name.to_ascii_uppercase()),
        _ => format!("||{name}^$third-party"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_order_and_form_of_lists_make_no_difference(
        names in prop::collection::vec(("[a-c]{1,2}(\\.[a-c]{1,2}){1,3}", 0..5_usize, any::<u32>(), any::<bool>()), 1..40),
        asked in prop::collection::vec("[a-c]{1,2}(\\.[a-c]{1,2}){1,4}", 20),
    ) {
        let plain = list(&names.iter().flat_map(|(name, ..)| [name, "\n"]).collect::<String>());
        let mut shuffled = names.clone();
        shuffled.sort_by_key(|(_, _, key, _)| *key);
        let mut builder = Builder::default();
        let mut text = String::new();
        for (name, form, _, cut) in &shuffled {
            text += &(written(name, *form) + "\n");
            if *cut {
                builder.add(std::mem::take(&mut text).as_bytes());
            }
        }
        builder.add(text.as_bytes());
        let other = builder.build();
        prop_assert_eq!(plain.len(), other.len());
        for name in &asked {
            prop_assert_eq!(listed(&plain, name), listed(&other, name), "{}", name);
        }
    }

    #[test]
    fn any_bytes_make_a_sound_list(text in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[a-bA-B01.^|@$#*! \r\n-]{0,200}".prop_map(String::into_bytes),
        "((@@)?\\|\\||\\*\\.|0.0.0.0 |)[a-b]{1,2}\\.[a-b0x]{1,3}[\\^.]?(\n|\r\n| |#c\n)".prop_map(String::into_bytes),
        prop::collection::vec("((@@)?\\|\\||\\*\\.|0.0.0.0 |)[a-b]{1,2}(\\.[a-b0x]{1,2})?[\\^.]?(\n|\r\n| |#c\n)", 0..20)
            .prop_map(|lines| lines.concat().into_bytes()),
    ]) {
        checks::blocklist(&text);
    }
}
