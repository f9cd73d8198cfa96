use proptest::prelude::*;

use super::*;

fn class(text: &str) -> Class {
    classify(text.parse().unwrap())
}

fn all(expected: Class, texts: &[&str]) {
    for text in texts {
        assert_eq!(class(text), expected, "{text}");
    }
}

#[test]
fn knows_what_is_global() {
    all(
        Class::Global,
        &[
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "168.63.129.15",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.31.195.255",
            "192.31.197.0",
            "192.52.192.255",
            "192.52.194.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "192.175.47.255",
            "192.175.49.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7:ffff::",
            "2001:db9::",
            "2003::1",
            "2606:4700::1111",
            "2620:4f:7fff::",
            "2620:4f:8001::",
            "2a00:1450::1",
            "3fff:1000::1",
            "3ffe::1",
        ],
    );
}

#[test]
fn knows_each_special_block_from_its_first_to_its_last_address() {
    all(Class::Unspecified, &["0.0.0.0", "0.0.0.1", "0.255.255.255", "::"]);
    all(Class::Loopback, &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"]);
    all(Class::Private, &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0"]);
    all(Class::Private, &["192.168.255.255", "fc00::", "fdff:ffff::1", "fec0::", "feff:ffff::1"]);
    all(Class::Shared, &["100.64.0.0", "100.127.255.255"]);
    all(Class::LinkLocal, &["169.254.0.0", "169.254.255.255", "169.254.169.253", "fe80::1", "febf::1"]);
    all(Class::Multicast, &["224.0.0.1", "239.255.255.255", "ff00::", "ff02::1", "ffff::1"]);
    all(
        Class::Documentation,
        &["192.0.2.0", "198.51.100.255", "203.0.113.7", "2001:db8::", "2001:db8:ffff::1"],
    );
    all(Class::Documentation, &["3fff::", "3fff:fff:ffff::1"]);
    all(Class::Benchmarking, &["198.18.0.0", "198.19.255.255", "2001:2::", "2001:2:0:ffff::1"]);
    let special_v4 = ["192.0.0.0", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.0.255", "192.31.196.1"];
    all(Class::Special, &special_v4);
    all(Class::Special, &["192.52.193.1", "192.88.99.1", "192.175.48.1", "240.0.0.0", "255.255.255.255"]);
    let protocol =
        ["2001:1::1", "2001:1::2", "2001:1::3", "2001:2:1::", "2001:3::1", "2001:4:112::1", "2001:10::1"];
    all(Class::Special, &protocol);
    all(Class::Special, &["2001:20::1", "2001:30::1", "2001:1ff:ffff::1", "2620:4f:8000::1", "5f00::1"]);
    all(
        Class::Special,
        &["100::", "100::1", "100:0:0:1::1", "4000::1", "1fff::1", "fbff::1", "fe00::1", "200::1"],
    );
}

#[test]
fn knows_where_credentials_are_handed_out() {
    all(
        Class::Metadata,
        &[
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fe80::a9fe:a9fe",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::a83f:8110",
            "::ffff:168.63.129.16",
            "2002:a9fe:a9fe::1",
            "2002:a83f:8110::",
            "2001:0:1234::5601:5601",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2600::5efe:a9fe:a9fe",
            "fe80::5efe:169.254.169.254",
        ],
    );
}

#[test]
fn an_address_inside_another_decides() {
    all(
        Class::Global,
        &["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2600::5efe:8.8.8.8", "2600::200:5efe:8.8.8.8"],
    );
    all(
        Class::Private,
        &["::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "::10.0.0.1", "::ffff:0:10.0.0.1", "2002:a00:1::"],
    );
    all(Class::Private, &["2600::5efe:10.0.0.1", "2600::200:5efe:10.0.0.1", "2001:0:1::f5ff:fffe"]);
    all(Class::Loopback, &["::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "::127.0.0.1"]);
    all(Class::Unspecified, &["::ffff:0.0.0.0", "64:ff9b::", "::2"]);
    all(Class::Shared, &["::ffff:100.64.0.1", "64:ff9b::100.64.0.1"]);
    all(Class::Transition, &["2002:808:808::1", "2001::f7f7:f7f7", "::8.8.8.8", "::ffff:0:8.8.8.8"]);
    all(Class::Transition, &["64:ff9b:1:808:8:800::"]);
    // A link's own address stays one, whatever interface id it has.
    all(Class::LinkLocal, &["fe80::5efe:10.0.0.1", "fe80::5efe:8.8.8.8"]);
}

#[test]
fn every_class_has_a_name_of_its_own() {
    let names = [
        Class::Global,
        Class::Loopback,
        Class::Unspecified,
        Class::Private,
        Class::Shared,
        Class::LinkLocal,
        Class::Metadata,
        Class::Multicast,
        Class::Documentation,
        Class::Benchmarking,
        Class::Transition,
        Class::Special,
    ]
    .map(Class::name);
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}

/// The registries as prefixes, read one by one: slow, and easy to hold against the tables of IANA.
const NOT_GLOBAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16",
];
const NOT_GLOBAL_V6: &[&str] = &["2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"];

fn blocks(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| Cidr::parse(text).unwrap()).collect()
}

fn slowly_global(ip: IpAddr) -> bool {
    let within = |blocks: &[Cidr]| blocks.iter().any(|block| block.contains(ip));
    match ip {
        IpAddr::V4(_) => !within(&blocks(NOT_GLOBAL)),
        IpAddr::V6(_) => Cidr::parse("2000::/3").unwrap().contains(ip) && !within(&blocks(NOT_GLOBAL_V6)),
    }
}

/// Addresses of which many lie at the edges of blocks.
fn addresses() -> impl Strategy<Value = IpAddr> {
    let near = prop::sample::select(
        NOT_GLOBAL.iter().chain(NOT_GLOBAL_V6).map(|text| Cidr::parse(text).unwrap()).collect::<Vec<_>>(),
    );
    let near = (near, any::<bool>(), 0_u32..3).prop_map(|(block, high, off)| match block.first() {
        IpAddr::V4(first) => {
            let last = first.to_bits() | u32::MAX.checked_shr(block.bits().into()).unwrap_or(0);
            let edge = if high { last.wrapping_add(off) } else { first.to_bits().wrapping_sub(off) };
            IpAddr::V4(Ipv4Addr::from_bits(edge))
        }
        IpAddr::V6(first) => {
            let last = first.to_bits() | u128::MAX.checked_shr(block.bits().into()).unwrap_or(0);
            let off = u128::from(off);
            let edge = if high { last.wrapping_add(off) } else { first.to_bits().wrapping_sub(off) };
            IpAddr::V6(Ipv6Addr::from_bits(edge))
        }
    });
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits >> 3 | 1 << 125)));
    prop_oneof![near, v4, v6]
}

proptest! {
    #[test]
    fn agrees_with_the_registries_read_one_by_one(ip in addresses()) {
        let isatap = matches!(ip, IpAddr::V6(ip) if ip.segments()[5] == 0x5efe);
        prop_assert!(isatap || classify(ip).is_global() == slowly_global(ip), "{} is {:?}", ip, classify(ip));
    }

    #[test]
    fn no_clothes_make_an_address_global(bits in any::<u32>(), prefix in any::<u64>()) {
        let ip = Ipv4Addr::from_bits(bits);
        let inside = classify(ip.into()).is_global();
        let low = u128::from(bits);
        let worn = |high: u128| classify(Ipv6Addr::from_bits(high | low).into()).is_global();
        prop_assert_eq!(worn(0xffff << 32), inside);
        prop_assert_eq!(worn(0x64_ff9b << 96), inside);
        prop_assert!(!worn(0) && !worn(0xffff << 48) && !worn(0x64_ff9b_0001 << 80));
        prop_assert!(inside || !worn(u128::from(prefix) << 64 | 0x5efe << 32));
        prop_assert!(!classify(Ipv6Addr::from_bits(0x2002 << 112 | low << 80 | u128::from(prefix)).into()).is_global());
    }

    #[test]
    fn a_block_prints_what_it_reads_again_as_the_same(ip in addresses(), bits in 0_u8..=128) {
        let text = format!("{ip}/{}", bits % if ip.is_ipv4() { 33 } else { 129 });
        match Cidr::parse(&text) {
            Ok(block) => {
                prop_assert_eq!(Cidr::parse(&block.to_string()).unwrap(), block);
                prop_assert!(block.contains(ip));
            }
            Err(error) => {
                let meant = error.detail().rsplit(' ').next().unwrap();
                prop_assert!(Cidr::parse(meant).unwrap().contains(ip), "{}: {}", text, error);
            }
        }
    }
}

#[test]
fn a_block_holds_its_addresses_and_no_others() {
    let holds = |block: &str, ip: &str| Cidr::parse(block).unwrap().contains(ip.parse().unwrap());
    assert!(holds("10.0.0.0/8", "10.0.0.0") && holds("10.0.0.0/8", "10.255.255.255"));
    assert!(!holds("10.0.0.0/8", "9.255.255.255") && !holds("10.0.0.0/8", "11.0.0.0"));
    assert!(holds("0.0.0.0/0", "1.2.3.4") && holds("::/0", "fe80::1"));
    assert!(holds("1.2.3.4", "1.2.3.4") && !holds("1.2.3.4/32", "1.2.3.5"));
    assert!(holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe00::1"));
    assert!(holds("::1", "::1") && !holds("::1/128", "::2"));
    // A mapped address is dialled as IPv4, so it is IPv4's to grant.
    assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3") && !holds("10.0.0.0/8", "64:ff9b::10.1.2.3"));
    assert!(!holds("::/0", "10.1.2.3") && !holds("::/0", "::ffff:10.1.2.3") && !holds("0.0.0.0/0", "::1"));
    let one = Cidr::one("::ffff:10.0.0.1".parse().unwrap());
    assert!(one.contains("10.0.0.1".parse().unwrap()) && one.is_one() && one.to_string() == "10.0.0.1");
}

#[test]
fn refuses_blocks_that_are_not_what_they_say() {
    for (text, expected) in [
        ("10.0.0.1/8", "bits are set behind the prefix: write 10.0.0.0/8"),
        ("10.128.0.0/8", "write 10.0.0.0/8"),
        ("2001:db8::1/32", "write 2001:db8::/32"),
        ("1.2.3.4/0", "write 0.0.0.0/0"),
        ("::ffff:10.0.0.0/104", "write 10.0.0.0/8"),
        ("::ffff:10.0.0.1", "write 10.0.0.1"),
        ("::ffff:0:0/96", "write 0.0.0.0/0"),
        ("10.0.0.0/33", "0 to 32 in decimal"),
        ("::/129", "0 to 128 in decimal"),
        ("10.0.0.0/", "0 to 32 in decimal"),
        ("10.0.0.0/+8", "0 to 32 in decimal"),
        ("10.0.0.0/08", "0 to 32 in decimal"),
        ("10.0.0.0/8/8", "0 to 32 in decimal"),
        ("10.0.0.0/255.0.0.0", "0 to 32 in decimal"),
        ("10.0.0/8", "no IP address"),
        ("010.0.0.0/8", "no IP address"),
        ("fe80::1%eth0", "no IP address"),
        ("[::1]", "no IP address"),
        ("/8", "no IP address"),
        ("", "no IP address"),
        (" 10.0.0.0/8", "no IP address"),
        ("localhost", "no IP address"),
    ] {
        let error = Cidr::parse(text).unwrap_err();
        assert!(error.detail().contains(expected), "{text}: {error}");
    }
}
