use proptest::prelude::*;

use super::*;

/// What a client sees of a stream: each event's bytes, told byte by byte from the definition.
fn oracle(stream: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut done, mut open, mut line, mut i) = (Vec::new(), Vec::new(), 0, 0);
    while i < stream.len() {
        let byte = stream[i];
        open.push(byte);
        i += 1;
        if !is_eol(byte) {
            line += 1;
            continue;
        }
        if byte == b'\r' && i < stream.len() && stream[i] == b'\n' {
            open.push(b'\n');
            i += 1;
        }
        if std::mem::take(&mut line) == 0 {
            done.push(std::mem::take(&mut open));
        }
    }
    (done, open)
}

/// Feeds `parts`; gives the bytes of all whole events, those of the last unfinished one, and the blocks.
fn split(parts: &[&[u8]]) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    let (mut splitter, mut done, mut blocks) = (Splitter::new(), Vec::new(), Vec::new());
    for part in parts {
        let fed = splitter.feed(part);
        assert!(!fed.overflow);
        let whole = part.len() - fed.carried_used - fed.rest.len();
        assert_eq!(fed.whole, &part[fed.carried_used..][..whole]);
        assert!(part.ends_with(fed.rest));
        done.extend_from_slice(fed.carried);
        done.extend_from_slice(fed.whole);
        blocks.extend(events(fed.carried).chain(events(fed.whole)).map(<[u8]>::to_vec));
        let (unfinished, between) = (splitter.pending().len(), splitter.at_boundary());
        assert_eq!(between, unfinished == 0);
    }
    done.extend_from_slice(splitter.last());
    blocks.extend(events(splitter.last()).map(<[u8]>::to_vec));
    let open = if splitter.last().is_empty() { splitter.pending().to_vec() } else { Vec::new() };
    (done, open, blocks)
}

#[test]
fn passes_a_feed_of_whole_events_untouched() {
    let mut splitter = Splitter::new();
    let content = b"data: 1\n\ndata: 2\n\n";
    let fed = splitter.feed(content);
    assert_eq!(
        fed,
        Split { carried: b"", carried_used: 0, whole: content, rest: b"", overflow: false, spilled: b"" }
    );
    assert!(splitter.at_boundary() && splitter.pending().is_empty() && splitter.carry.capacity() == 0);
}

#[test]
fn gives_a_split_event_in_one_piece() {
    let mut splitter = Splitter::new();
    assert_eq!(splitter.feed(b"data: 1\n\nda").rest, b"da");
    assert!(!splitter.at_boundary());
    assert_eq!(splitter.feed(b"ta: ").rest, b"ta: ");
    let fed = splitter.feed(b"2\n\ndata: 3\n\nd");
    assert_eq!((fed.carried, fed.carried_used), (&b"data: 2\n\n"[..], 3));
    assert_eq!((fed.whole, fed.rest), (&b"data: 3\n\n"[..], &b"d"[..]));
    assert_eq!(splitter.pending(), b"d");
}

#[test]
fn holds_a_final_cr_until_the_next_byte() {
    for (next, used) in [(&b"\n"[..], 1), (b"data: 2", 0), (b"\r", 0)] {
        let mut splitter = Splitter::new();
        assert_eq!(splitter.feed(b"data: 1\r\n\r").whole, b"");
        assert!(!splitter.at_boundary());
        assert_eq!(splitter.last(), b"data: 1\r\n\r");
        let fed = splitter.feed(next);
        assert_eq!(fed.carried_used, used);
        assert_eq!(fed.carried, [b"data: 1\r\n\r", &next[..used]].concat());
    }
}

#[test]
fn lets_an_event_above_the_bound_go_and_recovers() {
    let mut splitter = Splitter::new();
    let half = vec![b'x'; limits::EVENT_BYTES / 2 + 1];
    assert!(!splitter.feed(&half).overflow);
    let fed = splitter.feed(&half);
    assert_eq!((fed.overflow, fed.spilled, fed.rest), (true, &half[..], &half[..]));
    assert!(splitter.is_torn() && splitter.pending().is_empty() && !splitter.at_boundary());
    let fed = splitter.feed(b"x");
    assert_eq!((fed.overflow, fed.spilled, fed.rest), (true, &b""[..], &b"x"[..]));
    let fed = splitter.feed(b"\n\ndata: 1\n\ndata");
    assert_eq!((fed.carried, fed.carried_used), (&b""[..], 2));
    assert_eq!((fed.whole, fed.rest, fed.overflow), (&b"data: 1\n\n"[..], &b"data"[..], false));
    assert_eq!(splitter.feed(b": 2\n\n").carried, b"data: 2\n\n");
    splitter.feed(&half);
    let end = [&half[..], b"\n\n"].concat();
    let fed = splitter.feed(&end);
    assert_eq!((fed.carried.len(), fed.overflow), (half.len() + end.len(), false));
    assert!(splitter.at_boundary());
}

#[test]
fn gives_back_the_memory_of_large_events() {
    let mut splitter = Splitter::new();
    splitter.feed(&vec![b'x'; limits::EVENT_BYTES / 2]);
    splitter.feed(b"\n\n");
    splitter.feed(b"data: 1\n\n");
    assert!(splitter.carry.capacity() + splitter.ended.capacity() <= 2 * KEPT_BYTES);
}

#[test]
fn parses_fields_as_the_standard_says() {
    let parsed = event(
        b"\xef\xbb\xbf: hi\nevent: a\rid: 7\r\ndata:1\ndata\ndata:  2\nevent:b\nretry: 3\ndatax: 4\n\n",
    );
    assert_eq!((parsed.name, &*parsed.data), (Some(&b"b"[..]), &b"1\n\n 2"[..]));
    assert!(matches!(event(b"data: {}\n\n").data, Cow::Borrowed(b"{}")));
    assert_eq!(event(b": keepalive\n\n"), Event::default());
    assert_eq!(event(b"data: a:b"), Event { name: None, data: Cow::Borrowed(b"a:b") });
}

#[test]
fn tells_events_apart_without_losing_a_byte() {
    let run = b"\n\r\ndata: 1\n\n\n\r: x\r\r\nevent: a\r\ndata: 2\r\n\r\n";
    let blocks: Vec<_> = events(run).collect();
    assert_eq!(blocks, [&b"\n\r\n"[..], b"data: 1\n\n\n\r", b": x\r\r\n", b"event: a\r\ndata: 2\r\n\r\n"]);
    assert_eq!(count(run), 3);
    assert_eq!((count(b""), count(b"\n"), count(b"data: 1\n\ndata: 2\n\n")), (0, 0, 2));
}

#[test]
fn gives_only_the_events_that_were_hit() {
    let run = b"\n\ndata: 1\n\ndata: 2\r\ndata: 3\r\n\r\ndata: 4\r\rx: 5\n\n\nxx";
    let hits = |needles: &[u8]| {
        let at = run.iter().enumerate().filter(|(_, b)| needles.contains(b)).map(|(at, _)| at);
        around(run, at).map(|range| &run[range]).collect::<Vec<_>>()
    };
    assert_eq!(hits(b"23"), [b"data: 2\r\ndata: 3\r\n\r\n"], "two hits in one event");
    assert_eq!(hits(b"14"), [&b"data: 1\n\n"[..], b"data: 4\r\r"]);
    assert_eq!(hits(b"x"), [&b"x: 5\n\n\n"[..], b"xx"]);
    assert_eq!(around(run, [1000].into_iter()).count(), 0);
}

proptest! {
    #[test]
    fn splits_like_the_definition_at_any_split(
        picks in prop::collection::vec(0_usize..PARTS.len(), 0..16),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let stream: Vec<u8> = picks.iter().flat_map(|i| PARTS[*i].bytes()).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let parts: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
        let (blocks, open) = oracle(&stream);
        let (done, left, seen) = split(&parts);
        prop_assert_eq!(&done, &blocks.concat());
        prop_assert_eq!(left, open);
        let full = |blocks: &[Vec<u8>]| -> Vec<Event<'static>> {
            let parsed = blocks.iter().map(|b| event(b)).filter(|e| e != &Event::default());
            parsed.map(|e| Event { name: e.name.map(|n| &*n.to_vec().leak()), data: e.data.into_owned().into() }).collect()
        };
        prop_assert_eq!(full(&seen), full(&blocks));
        let hits = || done.iter().enumerate().filter(|(_, b)| **b == b'x').map(|(at, _)| at);
        let found: Vec<_> = around(&done, hits()).map(|range| &done[range]).collect();
        let holding: Vec<_> = events(&done).filter(|block| block.contains(&b'x')).collect();
        prop_assert_eq!(found, holding);
        prop_assert_eq!(count(&done), blocks.iter().filter(|b| !is_eol(b[0])).count() as u64);
    }

    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::wire::checks::sse(&bytes);
    }
}

const PARTS: &[&str] =
    &["\n", "\r", "\r\n", "\n\n", "x", "data: 1", "data:2", "event: a", ":", "\r\r", "\u{feff}"];
