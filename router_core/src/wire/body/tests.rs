use proptest::prelude::*;

use super::*;
use crate::error::Kind;
use crate::limits;

/// Walks `input` cut at `cuts`; gives the content, the bytes used and whether the body ended.
fn walk(framing: Framing, input: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize, bool)> {
    let (mut walker, mut content, mut used) = (Walker::new(framing), Vec::new(), 0);
    let mut bounds: Vec<usize> = cuts.iter().map(|c| c % (input.len() + 1)).chain([0, input.len()]).collect();
    bounds.sort_unstable();
    for pair in bounds.windows(2) {
        let fed = walker.feed(&input[pair[0]..pair[1]], |run| {
            assert!(!run.is_empty());
            content.extend_from_slice(run);
        })?;
        used += fed.used;
        assert_eq!(fed.done, walker.done());
        if fed.done {
            break;
        }
        assert_eq!(fed.used, pair[1] - pair[0]);
    }
    Ok((content, used, walker.done()))
}

fn chunked(input: &str) -> Result<(Vec<u8>, usize, bool)> {
    walk(Framing::Chunked, input.as_bytes(), &[])
}

#[test]
fn ends_an_empty_body_before_the_first_byte() {
    for framing in [Framing::Empty, Framing::Length(0)] {
        let walker = Walker::new(framing);
        assert!(walker.done() && walker.may_end());
        assert_eq!(walk(framing, b"next", &[]).unwrap(), (vec![], 0, true));
    }
}

#[test]
fn ends_a_length_at_its_last_byte() {
    assert_eq!(walk(Framing::Length(5), b"hellonext", &[2]).unwrap(), (b"hello".to_vec(), 5, true));
    assert_eq!(walk(Framing::Length(u64::MAX), b"hello", &[]).unwrap(), (b"hello".to_vec(), 5, false));
    let mut walker = Walker::new(Framing::Length(5));
    walker.feed(b"he", |_| {}).unwrap();
    assert!(!walker.may_end());
}

#[test]
fn reads_until_close() {
    assert_eq!(walk(Framing::UntilClose, b"hello", &[2]).unwrap(), (b"hello".to_vec(), 5, false));
    assert!(Walker::new(Framing::UntilClose).may_end());
}

#[test]
fn yields_chunk_content_without_copying() {
    let input = b"5\r\nhello\r\nA;x=\"y z\"\r\n, world!!!\r\n00\r\nDigest: x\r\n\r\nGET /";
    let (mut walker, mut runs) = (Walker::new(Framing::Chunked), Vec::new());
    let fed = walker.feed(input, |run| runs.push(run)).unwrap();
    assert_eq!(fed, Fed { used: input.len() - 5, done: true });
    assert_eq!(runs, [&input[3..8], &input[21..31]]);
    assert_eq!(walker.feed(b"GET", |_| {}).unwrap(), Fed { used: 0, done: true });
}

#[test]
fn refuses_broken_chunks() {
    for input in [
        "\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1 \r\n",
        "1 ;a\r\n",
        "1_0\r\n",
        "1\n",
        "1\r\r\n",
        "1\rx",
        "1;a\nb\r\n",
        "1;a\rb\r\n",
        "1;a\0\r\n",
        "1;a\x7f\r\n",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rb",
        ";a\r\n",
        "0\r\n\n",
        "0\r\na\r\n",
        "0\r\n: b\r\n",
        "0\r\n a: b\r\n",
        "0\r\na : b\r\n",
        "0\r\na: b\n\r\n",
        "0\r\na: b\r\r\n",
        "0\r\na: b\r\n c\r\n",
        "0\r\na: \0\r\n",
        "0\r\n\rx",
        "10000000000000000\r\n",
        "00000000000000001\r\n",
    ] {
        assert!(chunked(input).is_err(), "{input:?}");
    }
}

#[test]
fn keeps_failing_after_an_error() {
    let mut walker = Walker::new(Framing::Chunked);
    assert!(walker.feed(b"x", |_| {}).is_err());
    assert!(walker.feed(b"5\r\nhello", |_| panic!("content after an error")).is_err());
    assert!(!walker.done() && !walker.may_end());
}

#[test]
fn takes_sizes_up_to_sixteen_digits() {
    assert_eq!(chunked("0000000000000003\r\nabc\r\n0\r\n\r\n").unwrap(), (b"abc".to_vec(), 28, true));
    assert_eq!(chunked("ffffFFFFffffFFFF\r\nabc").unwrap(), (b"abc".to_vec(), 21, false));
}

#[test]
fn bounds_chunk_lines_and_trailers() {
    let long = |n: usize| "x".repeat(n);
    assert!(chunked(&format!("1;{}\r\na", long(limits::CHUNK_LINE_BYTES - 4))).is_ok());
    let line = chunked(&format!("1;{}\r\na", long(limits::CHUNK_LINE_BYTES))).unwrap_err();
    assert!(matches!(line.kind(), Kind::TooLarge { max: 4096, .. }));
    let one = chunked(&format!("0\r\na: {}", long(limits::TRAILER_BYTES))).unwrap_err();
    let many = chunked(&format!("0\r\n{}", "a: b\r\n".repeat(limits::TRAILER_BYTES / 6 + 1))).unwrap_err();
    for error in [one, many] {
        assert!(matches!(error.kind(), Kind::TooLarge { max: 16_384, .. }));
    }
}

#[test]
fn bounds_framing_that_outgrows_its_content() {
    assert!(chunked(&format!("1;{}\r\na\r\n", "x".repeat(2000)).repeat(64)).is_err());
    assert!(chunked(&format!("1;{}\r\na\r\n", "x".repeat(20)).repeat(10_000)).is_ok());
    assert!(chunked(&format!("fff;{}\r\n{}\r\n", "x".repeat(2000), "a".repeat(0xfff)).repeat(64)).is_ok());
}

proptest! {
    #[test]
    fn gives_the_same_result_at_any_split(
        picks in prop::collection::vec(0_usize..PARTS.len(), 0..12),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let input: Vec<u8> = picks.iter().flat_map(|i| PARTS[*i].as_bytes()).copied().collect();
        prop_assert_eq!(
            walk(Framing::Chunked, &input, &cuts).ok(), walk(Framing::Chunked, &input, &[]).ok()
        );
    }

    #[test]
    fn gives_back_what_was_chunked(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut wire: Vec<u8> = Vec::new();
        for chunk in &chunks {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        let end = wire.len();
        wire.extend_from_slice(b"GET / HTTP/1.1");
        prop_assert_eq!(walk(Framing::Chunked, &wire, &cuts).unwrap(), (chunks.concat(), end, true));
    }

    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::wire::checks::body(&bytes);
    }
}

const PARTS: &[&str] = &[
    "0\r\n",
    "1\r\na\r\n",
    "5\r\nhello\r\n",
    "2;x=y\r\nab\r\n",
    "\r\n",
    "\r",
    "\n",
    "a: b\r\n",
    "A",
    "3\r\n",
    "abc",
    " ",
    ";",
];
