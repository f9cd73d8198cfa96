use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Option<String> {
    Host::parse(text).ok()?.name().map(str::to_owned)
}

fn ip(text: &str) -> Option<IpAddr> {
    Host::parse(text).ok()?.ip()
}

fn fault(text: &str) -> String {
    Host::parse(text).unwrap_err().detail().to_owned()
}

/// What `inet_aton` and with it most resolvers take for an IPv4 address: one to four parts, each decimal, octal with a
/// leading 0 or hexadecimal with a leading 0x, the last of which fills all bytes that are left.
fn aton(text: &str) -> bool {
    let part = |part: &str| {
        let (digits, radix) = match part.as_bytes() {
            [b'0', b'x' | b'X', ..] => (&part[2..], 16),
            [b'0', _, ..] => (&part[1..], 8),
            _ => (part, 10),
        };
        if digits.starts_with('+') {
            return None;
        }
        u64::from_str_radix(digits, radix).ok()
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    let parts: Option<Vec<u64>> = text.split('.').map(part).collect();
    let Some(parts) = parts.filter(|parts| parts.len() <= 4) else { return false };
    let (last, first) = parts.split_last().unwrap();
    first.iter().all(|n| *n < 256) && *last < 1 << (8 * (4 - first.len()))
}

#[test]
fn reads_names_in_lower_case_without_the_dot_at_the_end() {
    for (text, expected) in [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("localhost", "localhost"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("vllm_server", "vllm_server"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("r3---sn-4g5e6nz7.example.net", "r3---sn-4g5e6nz7.example.net"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("1password.com", "1password.com"),
        ("0xyz", "0xyz"),
        ("a.0xg", "a.0xg"),
        ("123.co", "123.co"),
        ("e", "e"),
    ] {
        assert_eq!(name(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn keeps_the_bounds_of_dns() {
    let label = "a".repeat(63);
    let longest = [&label[..], &label, &label, &label[..61]].join(".");
    assert_eq!(longest.len(), 253);
    assert!(name(&longest).is_some() && name(&format!("{longest}.")).is_some());
    assert!(fault(&format!("a{label}")).contains("63 characters"));
    assert!(fault(&format!("b.{longest}")).contains("253 characters"));
    assert!(name(&format!("{label}.b")).is_some() && name(&format!("a{label}.b")).is_none());
}

#[test]
fn refuses_what_is_no_name_and_says_what_to_write() {
    for (text, expected) in [
        ("", "is empty: write a name or an address"),
        (".", "is empty"),
        ("..", "an empty label"),
        ("a..", "an empty label"),
        ("a..b", "an empty label"),
        (".a", "an empty label"),
        ("häuser.example", "write it in its xn-- form"),
        ("example。com", "write it in its xn-- form"),
        ("１２７.0.0.1", "write it in its xn-- form"),
        ("a%2eb", "has a %"),
        ("user@host", "leave out the user"),
        ("*.example.com", "the name that all of them end in"),
        ("a b", "white space or a control character"),
        ("a\0", "white space or a control character"),
        ("a\r\nb", "white space or a control character"),
        ("-a", "no DNS name"),
        ("a-", "no DNS name"),
        ("xn--", "no DNS name"),
        ("a-.b", "no DNS name"),
        ("a/b", "no DNS name"),
        ("a,b", "no DNS name"),
        ("a~b", "no DNS name"),
        ("a:443", "write the port apart"),
        ("[::1", "[ without ]"),
        ("[::1]x", "text after its ]"),
        ("[::1]:1", "text after its ]"),
        ("[]", "no IPv6 address between"),
        ("[127.0.0.1]", "no IPv6 address between"),
        ("[v1.x]", "no IPv6 address between"),
        ("[[::1]]", "no IPv6 address between"),
        ("[fe80::1%25eth0]", "zone"),
        ("fe80::1%eth0", "zone"),
        ("::1.", "no IPv6 address"),
        (":::", "no IPv6 address"),
        ("1:2:3:4:5:6:7:8:9", "no IPv6 address"),
    ] {
        let fault = fault(text);
        assert!(fault.starts_with("the host ") && fault.contains(expected), "{text:?}: {fault}");
    }
}

#[test]
fn reads_addresses_in_their_one_form() {
    for (text, expected) in [
        ("127.0.0.1", "127.0.0.1"),
        ("255.255.255.255", "255.255.255.255"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[2001:DB8::A]", "2001:db8::a"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        ("[::ffff:102:304]", "::ffff:1.2.3.4"),
    ] {
        let expected: IpAddr = expected.parse().unwrap();
        assert_eq!(ip(text), Some(expected), "{text}");
    }
    assert!(ip("::ffff:1.2.3.4").unwrap().is_ipv6(), "a mapped address is not taken apart");
}

#[test]
fn refuses_addresses_of_a_resolvers_own_making() {
    for text in [
        "127.1",
        "127.0.1",
        "2130706433",
        "0",
        "0x7f000001",
        "0X7F.1",
        "0x7f.0x0.0x0.0x1",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.01",
        "00.0.0.0",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.256",
        "4294967296",
        "a.1",
        "example.com.443",
        "0x",
        "a.0x",
        "1.2.3.0x4",
        "08.1.1.1",
        "127.0.0.1.",
        "127.1.",
    ] {
        assert!(fault(text).contains("IPv4"), "{text}: {}", fault(text));
    }
    assert!(fault("127.0.0.1.").contains("leave the dot out"));
}

#[test]
fn prints_a_destination_as_an_authority() {
    let at = |host: &str| Destination { host: Host::parse(host).unwrap(), port: 443 }.to_string();
    assert_eq!(at("A.b."), "a.b:443");
    assert_eq!(at("1.2.3.4"), "1.2.3.4:443");
    assert_eq!(at("2001:db8::1"), "[2001:db8::1]:443");
}

/// Texts near the line between what is accepted and what is not.
fn hosts() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "0",
        "1",
        "01",
        "0x",
        "0x7f",
        "0Xa",
        "127",
        "255",
        "256",
        "2130706433",
        "a",
        "A",
        "xn--a",
        "-",
        "_",
        "",
        "com",
        "089",
        "%",
        " ",
        "\0",
        "é",
        "。",
        "+1",
    ]);
    let joined = prop::collection::vec(part, 0..6).prop_map(|parts| parts.join("."));
    prop_oneof![
        joined,
        "[0-9a-fx.]{1,14}",
        "\\[?[0-9a-f:.%]{1,20}\\]?",
        any::<[u8; 16]>().prop_map(|ip| Ipv6Addr::from(ip).to_string()),
        any::<[u8; 4]>().prop_map(|ip| Ipv4Addr::from(ip).to_string()),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn prints_what_it_reads_again_as_the_same(text in hosts()) {
        if let Ok(host) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(&host.to_string()).unwrap(), host.clone());
            if let Some(ip) = host.ip() {
                prop_assert_eq!(Host::parse(&ip.to_string()).unwrap(), host, "without brackets");
            }
        }
    }

    #[test]
    fn no_name_is_an_address_to_anybody(text in hosts()) {
        if let Ok(Host::Name(name)) = Host::parse(&text) {
            prop_assert!(!aton(&name) && name.parse::<IpAddr>().is_err(), "{}", name);
            prop_assert!(!name.ends_with('.') && !name.bytes().any(|b| b.is_ascii_uppercase()));
        }
    }

    #[test]
    fn an_ipv4_text_is_its_only_text(text in hosts()) {
        if let Ok(Host::Ip(IpAddr::V4(ip))) = Host::parse(&text) {
            prop_assert_eq!(ip.to_string(), text);
        }
    }

    #[test]
    fn checking_is_reading(text in hosts()) {
        prop_assert_eq!(Host::check(text.as_bytes()).is_ok(), Host::read(text.as_bytes()).is_ok());
    }
}
