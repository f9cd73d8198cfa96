use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::error::Kind;
use crate::wire::checks;

/// OpenSSL 3.0 for `legacy.example.org`, at most TLS 1.2.
const OPENSSL_TLS12: &str = "16030100b8010000b40303c236d57ea17ffcee71d54404a99544cb61a2e09885d0fad0b44af9d27e36abf200\
    001ec02cc030c02bc02fcca9cca8c024c028c023c027009f009e006b006700ff0100006d0000001700150000126c65676163792e6578616d\
    706c652e6f7267000b000403000102000a000c000a001d0017001e00190018002300000016000000170000000d002a002804030506030708\
    0708080809080a080b080408050806040105010601030303010302040205020602";

/// OpenSSL 3.0 for `api.example.com` with `h2` and `http/1.1`, padded to 512 bytes.
const OPENSSL_TLS13: &str = "1603010200010001fc03039acf76380d5581b8131d616aa1d01a7e9c368068763612e44025ebc02f9b01a120\
    f22be0eb925d6fc67d5402f515a217b9d74bb3712ed4ef5246daf0fc85a9c3940024130213031301c02cc030c02bc02fcca9cca8c024c028\
    c023c027009f009e006b006700ff0100018f00000014001200000f6170692e6578616d706c652e636f6d000b000403000102000a00160014\
    001d0017001e0019001801000101010201030104002300000010000e000c02683208687474702f312e310016000000170000000d002a0028\
    040305030603080708080809080a080b080408050806040105010601030303010302040205020602002b00050403040303002d0002010100\
    3300260024001d0020b1c67e4bf3b1059e07524994ed3fe385053977c61d138139c93fa165d82ff40d001500cc";

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn openssl_tls13() -> Vec<u8> {
    let mut bytes = unhex(OPENSSL_TLS13);
    bytes.resize(517, 0);
    bytes
}

fn rustls_hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A hello made by hand, each part of which can be spoilt.
#[derive(Clone)]
struct Made {
    version: u16,
    session: Vec<u8>,
    suites: Vec<u8>,
    compressions: Vec<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
    /// What stands behind the extensions, and behind the message in its record.
    garbage: [&'static [u8]; 2],
}

impl Made {
    fn new(extensions: Vec<(u16, Vec<u8>)>) -> Self {
        Self {
            version: 0x0303,
            session: vec![],
            suites: vec![0x13, 1],
            compressions: vec![0],
            extensions,
            garbage: [&[], &[]],
        }
    }

    fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(u8::try_from(self.session.len()).unwrap());
        body.extend(&self.session);
        body.extend(sized(&self.suites));
        body.push(u8::try_from(self.compressions.len()).unwrap());
        body.extend(&self.compressions);
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), sized(data)].concat())
            .collect();
        body.extend(sized(&extensions));
        body.extend(self.garbage[0]);
        let mut message = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        message[0] = 1;
        message.extend(body);
        message.extend(self.garbage[1]);
        message
    }

    fn bytes(&self) -> Vec<u8> {
        record(&self.message())
    }
}

fn sized(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat()
}

fn record(part: &[u8]) -> Vec<u8> {
    [&[0x16, 3, 1][..], &sized(part)].concat()
}

fn name(name: &[u8]) -> (u16, Vec<u8>) {
    (0, sized(&[&[0][..], &sized(name)].concat()))
}

fn read(bytes: &[u8]) -> ClientHello {
    client_hello(bytes).unwrap().unwrap()
}

fn host(hello: &ClientHello) -> String {
    hello.server_name.as_ref().map_or("-".to_owned(), ToString::to_string)
}

fn fault(bytes: &[u8]) -> String {
    client_hello(bytes).unwrap_err().detail().to_owned()
}

#[test]
fn reads_the_hellos_of_real_clients() {
    for (bytes, expected) in [
        (openssl_tls13(), "api.example.com"),
        (unhex(OPENSSL_TLS12), "legacy.example.org"),
        (rustls_hello("huggingface.example", &[b"h2"]), "huggingface.example"),
        (rustls_hello("a.b.c.d.example", &[]), "a.b.c.d.example"),
        (rustls_hello("127.0.0.1", &[]), "-"),
        (rustls_hello("::1", &[]), "-"),
    ] {
        let hello = read(&bytes);
        assert_eq!((host(&hello).as_str(), hello.encrypted), (expected, false));
        for end in 0..bytes.len() {
            assert_eq!(client_hello(&bytes[..end]).unwrap(), None, "{end} bytes are not all");
        }
        assert_eq!(
            read(&[&bytes[..], b"\x14\x03\x03\x00\x01\x01\x17"].concat()),
            hello,
            "early data is not looked at"
        );
    }
}

#[test]
fn reads_a_name_as_hosts_are_read() {
    let read = |text: &[u8]| host(&read(&Made::new(vec![name(text)]).bytes()));
    assert_eq!(read(b"Example.COM"), "example.com");
    assert_eq!(read(b"example.com."), "example.com");
    assert_eq!(read(b"xn--bcher-kva.example"), "xn--bcher-kva.example");
    assert_eq!(host(&self::read(&Made::new(vec![]).bytes())), "-");
}

#[test]
fn sees_hidden_hellos() {
    let encrypted = |kind: u16, data: &[u8]| {
        let hello = read(&Made::new(vec![name(b"front.example"), (kind, data.to_vec())]).bytes());
        assert_eq!(host(&hello), "front.example");
        hello.encrypted
    };
    assert!(
        encrypted(0xfe0d, b"\0\0\x01\0\x01\x07\0\x01a\0\x01b")
            && encrypted(0xfe0d, &[1])
            && encrypted(0xfe0d, b"")
    );
    assert!(encrypted(0xffce, b"x") && encrypted(0xfe08, b"x"));
    assert!(!encrypted(0xfe0e, b"") && !encrypted(0xfe07, b"") && !encrypted(0x0a0a, b""));
}

#[test]
fn refuses_names_that_are_none() {
    for (text, expected) in [
        (&b""[..], "is empty"),
        (b"127.0.0.1", "an IP address for a server name"),
        (b"::1", "an IP address for a server name"),
        (b"[::1]", "an IP address for a server name"),
        (b"127.1", "four decimal parts"),
        (b"a\0.example", "control character"),
        (b"a b", "white space"),
        ("b\u{fc}cher.example".as_bytes(), "xn-- form"),
        (b"\xff", "xn-- form"),
        (b"a..b", "empty label"),
        (b"a:443", "write the port apart"),
        (b"*.example", "has a *"),
    ] {
        let fault = fault(&Made::new(vec![name(text)]).bytes());
        assert!(fault.contains("client hello") && fault.contains(expected), "{text:?}: {fault}");
    }
}

#[test]
fn refuses_server_name_lists_that_are_not_one_name() {
    let entry = |kind: u8, name: &[u8]| [&[kind][..], &sized(name)].concat();
    let (a, b) = (entry(0, b"a.example"), entry(0, b"b.example"));
    for data in [
        vec![],
        sized(&[]),
        sized(&[0]),
        sized(&entry(1, b"a.example")),
        sized(&[&a[..], &b].concat()),
        sized(&[&a[..], &a].concat()),
        sized(&[&a[..], &entry(1, b"x")].concat()),
        sized(&[&a[..], &[0]].concat()),
        [&sized(&a)[..], b"x"].concat(),
        [&[0, 60][..], &a].concat(),
        a.clone(),
    ] {
        assert!(client_hello(&Made::new(vec![(0, data.clone())]).bytes()).is_err(), "{data:?}");
    }
    assert!(client_hello(&Made::new(vec![name(b"a"), name(b"a")]).bytes()).is_err());
}

#[test]
fn refuses_hellos_that_break_their_grammar() {
    let made = Made::new(vec![name(b"a.example")]);
    let spoilt = |spoil: fn(&mut Made), expected: &str| {
        let mut made = made.clone();
        spoil(&mut made);
        let fault = fault(&made.bytes());
        assert!(fault.contains(expected), "{expected}: {fault}");
    };
    spoilt(|m| m.version = 0x0304, "version");
    spoilt(|m| m.version = 0x0200, "version");
    spoilt(|m| m.session = vec![0; 33], "session id");
    spoilt(|m| m.suites = vec![], "cipher suites");
    spoilt(|m| m.suites = vec![1, 2, 3], "cipher suites");
    spoilt(|m| m.compressions = vec![], "null compression");
    spoilt(|m| m.compressions = vec![1], "null compression");
    spoilt(|m| m.extensions.push((0, vec![])), "two extensions of one kind");
    spoilt(|m| m.extensions.extend([(10, vec![]), (10, vec![1])]), "two extensions of one kind");
    spoilt(|m| m.extensions.extend((1000..1130).map(|kind| (kind, vec![]))), "more extensions");
    spoilt(|m| m.garbage[0] = b"x", "bytes behind its extensions");
    spoilt(|m| m.garbage[1] = b"x", "bytes follow the client hello");
    spoilt(|m| m.garbage[1] = b"\x14\0\0\0", "bytes follow the client hello");

    let message = made.message();
    for end in 4..message.len() {
        let mut short = message[..end].to_vec();
        short[1..4].copy_from_slice(&u32::try_from(end - 4).unwrap().to_be_bytes()[1..]);
        let verdict = client_hello(&record(&short));
        // A hello may end before its extensions, as old ones do.
        let old = end == 4 + 2 + 32 + 1 + 4 + 2;
        assert_eq!(verdict.is_ok(), old, "{end}: {verdict:?}");
    }
    let mut most = made.clone();
    most.extensions.extend((1000..1127).map(|kind| (kind, vec![])));
    assert!(client_hello(&most.bytes()).is_ok());
}

#[test]
fn refuses_what_is_no_client_hello() {
    for (bytes, expected) in [
        (&b"\x80\x2e\x01\x00\x02"[..], "SSLv2"),
        (b"\x80", "SSLv2"),
        (b"GET / HTTP/1.1", "no TLS"),
        (b"\x00", "no TLS"),
        (b"\x14\x03\x03\x00\x01\x01", "another type"),
        (b"\x15\x03\x03\x00\x02\x02\x00", "another type"),
        (b"\x17", "another type"),
        (b"\x16\x02", "version"),
        (b"\x16\x03\x04", "version"),
        (b"\x16\x03\x03\x00\x00", "empty"),
        (b"\x16\x03\x03\x41\x01", "longer than TLS allows"),
        (b"\x16\x03\x03\xff\xff", "longer than TLS allows"),
        (b"\x16\x03\x03\x00\x01\x02", "no client hello"),
        (b"\x16\x03\x03\x00\x04\x00\x00\x00\x00", "no client hello"),
        (b"\x16\x03\x01\x00\x02\x01\x00\x15", "another type"),
        (b"\x16\x03\x01\x00\x02\x01\x00\x16\x03\x01\x00\x00", "empty"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x00", "bytes follow"),
    ] {
        let fault = fault(bytes);
        assert!(fault.contains(expected), "{bytes:?}: {fault}");
    }
}

#[test]
fn bounds_a_hello_as_soon_as_its_length_is_announced() {
    let large =
        |bytes: &[u8]| matches!(client_hello(bytes), Err(e) if matches!(e.kind(), Kind::TooLarge { .. }));
    assert!(large(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff") && large(b"\x16\x03\x01\x00\x04\x01\x01\x00\x00"));
    assert_eq!(client_hello(b"\x16\x03\x01\x00\x04\x01\x00\xff\x00").unwrap(), None);

    let padded = |len: usize| {
        let message = Made::new(vec![name(b"a.example"), (21, vec![0; len])]).message();
        message.chunks(16_384).flat_map(record).collect::<Vec<u8>>()
    };
    let spare = limits::CLIENT_HELLO_BYTES - padded(65_000).len();
    let most = padded(65_000 + spare);
    assert_eq!((most.len(), host(&read(&most)).as_str()), (limits::CLIENT_HELLO_BYTES, "a.example"));
    assert!(large(&padded(65_001 + spare)), "one byte more");

    // Tiny records make even a small message large on the wire.
    let tiny: Vec<u8> = padded(12_000).iter().skip(5).flat_map(|b| record(&[*b])).collect();
    assert!(large(&tiny) && large(&tiny[..limits::CLIENT_HELLO_BYTES]));
    assert_eq!(client_hello(&tiny[..limits::CLIENT_HELLO_BYTES - 6]).unwrap(), None);
}

#[test]
fn refuses_in_the_clear() {
    assert_eq!(alert(112), [0x15, 3, 3, 0, 2, 2, 112]);
    let mut client = rustls::client::ClientConnection::new(
        Arc::new(
            rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
        ),
        "a.example".try_into().unwrap(),
    )
    .unwrap();
    client.read_tls(&mut &alert(49)[..]).unwrap();
    let error = client.process_new_packets().unwrap_err();
    assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied));
}

proptest! {
    /// Records may split anywhere, the message's own header included, and reads too.
    #[test]
    fn reads_the_same_however_it_is_split(
        sizes in prop::collection::vec(1_usize..200, 1..8), rustls in any::<bool>(), cut in any::<prop::sample::Index>(),
    ) {
        let whole = if rustls { rustls_hello("split.example", &[]) } else { openssl_tls13() };
        let mut rest = &whole[5..];
        let mut bytes = Vec::new();
        for size in sizes.iter().cycle() {
            let (part, after) = rest.split_at(rest.len().min(*size));
            bytes.extend(record(part));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(read(&bytes), read(&whole));
        prop_assert_eq!(client_hello(&bytes[..cut.index(bytes.len())]).unwrap(), None);
    }

    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        checks::client_hello(&bytes);
    }

    #[test]
    fn survives_spoilt_hellos(
        choice in any::<u8>(), spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        extensions in prop::collection::vec((0_u16..4, prop::collection::vec(any::<u8>(), 0..6)), 0..4),
    ) {
        let mut bytes = Made::new([vec![name(b"a.example")], extensions].concat()).bytes();
        for (at, byte) in spoil {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        checks::client_hello(&[&[choice][..], &bytes].concat());
    }
}
