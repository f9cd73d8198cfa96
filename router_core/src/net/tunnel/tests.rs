use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::*;

const FREE: Limits = Limits { idle: Duration::from_secs(5), until: None, bytes: 0 };
const COPY: Tuning = Tuning { bulk: usize::MAX, lone: u32::MAX };
const SPLICE: Tuning = Tuning { bulk: 0, lone: u32::MAX };

/// A connection; small socket buffers of `room` bytes each if given.
async fn connection(room: Option<u32>) -> (TcpStream, TcpStream) {
    let socket = || {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(room) = room {
            socket.set_recv_buffer_size(room).unwrap();
            socket.set_send_buffer_size(room).unwrap();
        }
        socket
    };
    let listener = socket();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = listener.listen(1).unwrap();
    let near = socket().connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// A tunnel to be run between two peers.
struct Rig {
    limits: Limits,
    tuning: Tuning,
    early: Vec<u8>,
    buffer: usize,
    room: Option<u32>,
    /// Send buffers of the tunnel's own sockets, so that they take less than was read.
    strait: Option<usize>,
    stop: Rc<Cell<bool>>,
}

impl Default for Rig {
    fn default() -> Self {
        let tuning = Tuning::default();
        let (buffer, stop) = (BUFFER_BYTES, Rc::default());
        Self { limits: FREE, tuning, early: Vec::new(), buffer, room: None, strait: None, stop }
    }
}

impl Rig {
    fn limited(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Runs the tunnel while `peers` has the client's and the destination's socket.
    async fn run<T>(self, peers: impl AsyncFnOnce(TcpStream, TcpStream) -> T) -> (Moved, T) {
        let (client, inner) = connection(self.room).await;
        let (outer, server) = connection(self.room).await;
        if let Some(strait) = self.strait {
            SockRef::from(&inner).set_send_buffer_size(strait).unwrap();
            SockRef::from(&outer).set_send_buffer_size(strait).unwrap();
        }
        let buffer = RefCell::new(vec![0; self.buffer]);
        let scratch = |use_it: &mut dyn FnMut(&mut [u8])| use_it(&mut buffer.borrow_mut());
        let tunnel = async move {
            let (early, limits, tuning) = (self.early, self.limits, self.tuning);
            carry(&inner, &outer, early, limits, tuning, &scratch, || self.stop.get()).await
        };
        let both = async { tokio::join!(tunnel, peers(client, server)) };
        timeout(Duration::from_secs(20), both).await.expect("the tunnel hangs")
    }
}

/// Bytes that repeat nowhere near a page, a pipe or a buffer.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(len.div_ceil(8))
    .flatten()
    .take(len)
    .collect()
}

/// Sends `noise` again and again up to `total` bytes, and ends.
async fn send(mut to: WriteHalf<'_>, noise: &[u8], total: usize) {
    let mut sent = 0;
    while sent < total {
        let at = sent % noise.len();
        let n = to.write(&noise[at..noise.len().min(at + total - sent)]).await.unwrap();
        sent += n;
    }
    to.shutdown().await.unwrap();
}

/// Reads to the end what [`send`] sends; fails at the first byte that differs.
async fn check(mut from: ReadHalf<'_>, noise: &[u8], total: usize) {
    let mut buffer = vec![0; 300_000];
    let mut got = 0;
    loop {
        let n = from.read(&mut buffer).await.unwrap();
        if n == 0 {
            break;
        }
        let mut part = &buffer[..n];
        while !part.is_empty() {
            let at = got % noise.len();
            let len = part.len().min(noise.len() - at);
            assert!(part[..len] == noise[at..at + len], "bytes differ after {got}");
            part = &part[len..];
            got += len;
        }
    }
    assert_eq!(got, total);
}

async fn kind_of_end(tcp: &mut TcpStream) -> Option<ErrorKind> {
    let mut sink = vec![0; 65536];
    loop {
        match tcp.read(&mut sink).await {
            Ok(0) => return None,
            Ok(_) => {}
            Err(e) => return Some(e.kind()),
        }
    }
}

fn reset(tcp: TcpStream) {
    reset_on_drop(&tcp);
    drop(tcp);
}

fn ended(sent: u64, received: u64, end: End) -> Moved {
    Moved { sent, received, end }
}

#[tokio::test]
async fn a_client_that_has_said_all_still_hears_the_answer() {
    let (moved, ()) = Rig::default()
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"question");
            server.write_all(b"an answer").await.unwrap();
            drop(server);
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"an answer");
        })
        .await;
    assert_eq!(moved, ended(8, 9, End::Complete));
}

#[tokio::test]
async fn a_destination_that_has_said_all_still_hears_the_client() {
    let (moved, ()) = Rig::default()
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            server.write_all(b"greeting").await.unwrap();
            server.shutdown().await.unwrap();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"greeting");
            client.write_all(b"thanks").await.unwrap();
            drop(client);
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"thanks");
        })
        .await;
    assert_eq!(moved, ended(6, 8, End::Complete));
}

#[tokio::test]
async fn early_bytes_come_first_and_count() {
    let rig = Rig { early: b"early ".to_vec(), ..Rig::default() };
    let (moved, ()) = rig
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            client.write_all(b"late").await.unwrap();
            drop(client);
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"early late");
        })
        .await;
    assert_eq!(moved, ended(10, 0, End::Complete));
}

#[tokio::test]
async fn a_reset_by_the_client_resets_the_destination() {
    let (moved, ()) = Rig::default()
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            client.write_all(b"half a quest").await.unwrap();
            server.read_exact(&mut [0; 12]).await.unwrap();
            reset(client);
            assert_eq!(kind_of_end(&mut server).await, Some(ErrorKind::ConnectionReset));
        })
        .await;
    assert_eq!(moved, ended(12, 0, End::ClientReset));
}

#[tokio::test]
async fn a_reset_by_the_destination_resets_the_client() {
    let (moved, ()) = Rig::default()
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            server.write_all(b"half an answ").await.unwrap();
            client.read_exact(&mut [0; 12]).await.unwrap();
            reset(server);
            assert_eq!(kind_of_end(&mut client).await, Some(ErrorKind::ConnectionReset));
        })
        .await;
    assert_eq!(moved, ended(0, 12, End::UpstreamReset));
}

#[tokio::test]
async fn a_reset_is_seen_while_the_other_side_does_not_read() {
    for tuning in [COPY, SPLICE] {
        let rig = Rig { tuning, room: Some(8192), ..Rig::default() };
        let (moved, ()) = rig
            .run(async |mut client: TcpStream, server: TcpStream| {
                let block = noise(1 << 20);
                while timeout(Duration::from_millis(60), client.write_all(&block)).await.is_ok() {}
                reset(client);
                // Reading would let the tunnel go on and meet the reset on its way.
                server.ready(Interest::ERROR).await.unwrap();
            })
            .await;
        assert_eq!(moved.end, End::ClientReset);
    }
    assert_eq!(pipes::count().0, 0);
}

#[tokio::test]
async fn what_a_destination_says_before_it_resets_is_heard() {
    for tuning in [COPY, SPLICE] {
        let rig = Rig { tuning, room: Some(8192), ..Rig::default() };
        let (moved, ()) = rig
            .run(async |mut client: TcpStream, mut server: TcpStream| {
                let block = noise(1 << 20);
                while timeout(Duration::from_millis(60), client.write_all(&block)).await.is_ok() {}
                server.write_all(b"too much").await.unwrap();
                reset(server);
                client.read_exact(&mut [0; 8]).await.unwrap();
                assert_eq!(kind_of_end(&mut client).await, Some(ErrorKind::ConnectionReset));
            })
            .await;
        assert_eq!((moved.received, moved.end), (8, End::UpstreamReset));
    }
}

#[tokio::test]
async fn what_a_destination_says_before_it_resets_is_heard_before_an_event_tells_of_it() {
    for tuning in [COPY, SPLICE] {
        let (mut client, inner) = connection(None).await;
        let (outer, server) = connection(None).await;
        let mut tunnel = Tunnel::new(&inner, &outer, b"question".to_vec(), FREE, tuning);
        // Nothing is awaited, so that the runtime does not learn of what arrives.
        let mut server = server.into_std().unwrap();
        io::Write::write_all(&mut server, b"why").unwrap();
        reset(TcpStream::from_std(server).unwrap());
        while outer.peer_addr().is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        let buffer = RefCell::new(&mut buffer);
        let end =
            poll_fn(|cx| Poll::Ready(tunnel.poll(cx, &|use_it| use_it(&mut buffer.borrow_mut())))).await;
        assert_eq!(end, Poll::Ready(End::UpstreamReset));
        let mut said = [0; 3];
        let read = timeout(Duration::from_secs(5), client.read_exact(&mut said)).await;
        assert_eq!((read.expect("nothing came").unwrap(), &said), (3, b"why"));
    }
}

#[tokio::test]
async fn a_reset_is_seen_after_a_half_close() {
    let (moved, ()) = Rig::default()
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            client.shutdown().await.unwrap();
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
            reset(client);
            // It has read the end already; the reset shows as an error of the socket.
            server.ready(Interest::ERROR).await.unwrap();
        })
        .await;
    assert_eq!(moved.end, End::ClientReset);
}

#[tokio::test]
async fn dropping_it_resets_both() {
    let (mut client, inner) = connection(None).await;
    let (outer, mut server) = connection(None).await;
    let tunnel = async move {
        run(&inner, &outer, Vec::new(), FREE, |use_it| use_it(&mut [0; 64]), || false).await;
    };
    assert!(timeout(Duration::from_millis(5), tunnel).await.is_err());
    assert_eq!(kind_of_end(&mut client).await, Some(ErrorKind::ConnectionReset));
    assert_eq!(kind_of_end(&mut server).await, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn silence_ends_it() {
    let rig = Rig::limited(Limits { idle: Duration::from_millis(30), ..FREE });
    let (moved, ()) = rig
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            client.write_all(b"hello").await.unwrap();
            let both = (kind_of_end(&mut client).await, kind_of_end(&mut server).await);
            assert_eq!(both, (Some(ErrorKind::ConnectionReset), Some(ErrorKind::ConnectionReset)));
        })
        .await;
    assert_eq!(moved, ended(5, 0, End::Idle));
}

#[tokio::test]
async fn traffic_one_way_is_not_silence() {
    let rig = Rig::limited(Limits { idle: Duration::from_millis(250), ..FREE });
    let (moved, took) = rig
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            let start = Instant::now();
            for _ in 0..20 {
                server.write_all(b".").await.unwrap();
                client.read_exact(&mut [0; 1]).await.unwrap();
                sleep(Duration::from_millis(20)).await;
            }
            drop((server, client));
            start.elapsed()
        })
        .await;
    assert!(took >= Duration::from_millis(400));
    assert_eq!(moved, ended(0, 20, End::Complete));
}

#[tokio::test]
async fn a_life_ends_amid_traffic() {
    let limits = Limits { until: Some(Instant::now() + Duration::from_millis(50)), ..FREE };
    let (moved, ()) = Rig::limited(limits)
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            while server.write_all(b"..").await.is_ok() && client.read_exact(&mut [0; 2]).await.is_ok() {
                sleep(Duration::from_millis(3)).await;
            }
        })
        .await;
    assert_eq!(moved.end, End::Lifetime);
    assert!(moved.received >= 2);
}

#[tokio::test]
async fn a_byte_limit_is_met_exactly() {
    for tuning in [COPY, SPLICE, Tuning::default()] {
        let limits = Limits { bytes: 3_000_001, ..FREE };
        let rig = Rig { tuning, ..Rig::limited(limits) };
        let (moved, heard) = rig
            .run(async |mut client: TcpStream, mut server: TcpStream| {
                client.write_all(b"1").await.unwrap();
                server.read_exact(&mut [0; 1]).await.unwrap();
                let block = noise(4_000_000);
                let mut heard = vec![0; 3_000_000];
                // The last of it is still on its way when the tunnel ends; what does arrive is as it was.
                let (_, read) = tokio::join!(server.write_all(&block), client.read_exact(&mut heard));
                read.is_err() || heard == block[..3_000_000]
            })
            .await;
        assert!(heard);
        assert_eq!(moved, ended(1, 3_000_000, End::Bytes));
    }
}

#[tokio::test]
async fn moving_just_the_limit_is_complete() {
    let rig = Rig::limited(Limits { bytes: 5, ..FREE });
    let (moved, ()) = rig
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            client.write_all(b"12345").await.unwrap();
            drop(client);
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"12345");
        })
        .await;
    assert_eq!(moved, ended(5, 0, End::Complete));
}

#[tokio::test]
async fn early_bytes_are_bounded_too() {
    let rig = Rig { early: b"12345678".to_vec(), ..Rig::limited(Limits { bytes: 5, ..FREE }) };
    let (moved, heard) = rig
        .run(async |_client: TcpStream, mut server: TcpStream| {
            let mut heard = vec![0; 8];
            let n = server.read(&mut heard).await.unwrap();
            heard.truncate(n);
            heard
        })
        .await;
    assert_eq!(heard, b"12345");
    assert_eq!(moved, ended(5, 0, End::Bytes));
}

#[tokio::test]
async fn a_stop_ends_it() {
    let rig = Rig::default();
    let stop = Rc::clone(&rig.stop);
    let (moved, ()) = rig
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            client.write_all(b"hello").await.unwrap();
            server.read_exact(&mut [0; 5]).await.unwrap();
            stop.set(true);
            client.write_all(b"again").await.unwrap();
            assert_eq!(kind_of_end(&mut server).await, Some(ErrorKind::ConnectionReset));
        })
        .await;
    assert_eq!(moved, ended(5, 0, End::Drained));
}

#[tokio::test]
async fn a_peer_that_never_reads_stops_its_own_direction_only() {
    for (tuning, bound) in [(COPY, 64 * 1024), (SPLICE, crate::limits::PIPE_BYTES)] {
        let room = 16 * 1024;
        let rig = Rig { tuning, buffer: 64 * 1024, room: Some(room), ..Rig::default() };
        let (_, ()) = rig
            .run(async |mut client: TcpStream, server: TcpStream| {
                let block = noise(1 << 16);
                let mut taken = 0;
                while let Ok(n) = timeout(Duration::from_millis(60), client.write(&block)).await {
                    taken += n.unwrap();
                }
                // Four socket buffers, which Linux doubles, and what one direction may hold.
                let most = 4 * 2 * usize::try_from(room).unwrap() + bound;
                assert!(taken <= most, "{taken} bytes were taken in, {most} expected");
                let (mut from_server, mut to_server) = (client, server);
                for _ in 0..100 {
                    to_server.write_all(&block).await.unwrap();
                    from_server.read_exact(&mut vec![0; block.len()]).await.unwrap();
                }
            })
            .await;
    }
    assert_eq!(pipes::count().0, 0);
}

#[tokio::test]
async fn bulk_both_ways_at_once_arrives_as_it_was() {
    const TOTAL: usize = 64 << 20;
    let noise = noise(1_048_573);
    let adaptive = Tuning::default();
    for (tuning, strait) in
        [(COPY, None), (COPY, Some(65536)), (SPLICE, None), (SPLICE, Some(65536)), (adaptive, None)]
    {
        let rig = Rig { tuning, strait, ..Rig::default() };
        let (moved, _) = rig
            .run(async |mut client: TcpStream, mut server: TcpStream| {
                let ((near_in, near_out), (far_in, far_out)) = (client.split(), server.split());
                tokio::join!(
                    send(near_out, &noise, TOTAL),
                    check(far_in, &noise, TOTAL),
                    send(far_out, &noise[5..], TOTAL),
                    check(near_in, &noise[5..], TOTAL),
                )
            })
            .await;
        assert_eq!(moved, ended(TOTAL as u64, TOTAL as u64, End::Complete));
    }
    assert_eq!(pipes::count().0, 0);
}

#[tokio::test]
async fn bulk_is_copied_when_there_are_no_pipes() {
    let all: Vec<_> = std::iter::from_fn(pipes::Pipe::lend).collect();
    let noise = noise(1_048_573);
    let rig = Rig { tuning: SPLICE, ..Rig::default() };
    let (moved, _) = rig
        .run(async |mut client: TcpStream, mut server: TcpStream| {
            let (up, down) = (client.split(), server.split());
            tokio::join!(send(up.1, &noise, 8 << 20), check(down.0, &noise, 8 << 20), send(down.1, &noise, 0))
        })
        .await;
    assert_eq!(moved, ended(8 << 20, 0, End::Complete));
    drop(all);
}

#[tokio::test]
async fn hundreds_share_a_thread() {
    const TOTAL: usize = 200_000;
    let noise = noise(65_521);
    let local = tokio::task::LocalSet::new();
    let noise = Rc::new(noise);
    for k in 0..200 {
        let noise = Rc::clone(&noise);
        local.spawn_local(async move {
            let tuning = if k % 2 == 0 { Tuning { bulk: 65536, lone: 2 } } else { SPLICE };
            let rig = Rig { tuning, buffer: 65536, ..Rig::default() };
            let (moved, _) = rig
                .run(async |mut client: TcpStream, mut server: TcpStream| {
                    let (up, down) = (client.split(), server.split());
                    tokio::join!(
                        send(up.1, &noise, TOTAL),
                        check(down.0, &noise, TOTAL),
                        send(down.1, &noise, TOTAL),
                        check(up.0, &noise, TOTAL)
                    )
                })
                .await;
            assert_eq!(moved, ended(TOTAL as u64, TOTAL as u64, End::Complete));
        });
    }
    local.await;
    assert_eq!(pipes::count().0, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_pattern_of_chunks_arrives_as_it_was(
        up in proptest::collection::vec(1_usize..100_000, 0..12),
        down in proptest::collection::vec(1_usize..100_000, 0..12),
        bulk in prop::sample::select(vec![0, 40_000, 200_000, usize::MAX]),
        lone in prop::sample::select(vec![0, 2, u32::MAX]),
        buffer in prop::sample::select(vec![1_000, 65_536, BUFFER_BYTES]),
        early in 0_usize..5_000,
        strait in prop::sample::select(vec![None, Some(65_536)]),
        pause in any::<bool>(),
    ) {
        let noise = noise(1_300_000);
        let (tuning, early_bytes) = (Tuning { bulk, lone }, noise[..early].to_vec());
        let rig = Rig { tuning, early: early_bytes, buffer, strait, ..Rig::default() };
        let talk = async |from: WriteHalf<'_>, mut at: usize, chunks: &[usize]| {
            let mut from = from;
            for &len in chunks {
                from.write_all(&noise[at..at + len]).await.unwrap();
                at += len;
                if pause {
                    tokio::task::yield_now().await;
                }
            }
            from.shutdown().await.unwrap();
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (moved, _) = runtime.block_on(rig.run(async |mut client: TcpStream, mut server: TcpStream| {
            let (near, far) = (client.split(), server.split());
            tokio::join!(
                talk(near.1, early, &up),
                talk(far.1, 0, &down),
                check(far.0, &noise, early + up.iter().sum::<usize>()),
                check(near.0, &noise, down.iter().sum()),
            )
        }));
        let (sent, received) = (early + up.iter().sum::<usize>(), down.iter().sum::<usize>());
        prop_assert_eq!(moved, ended(sent as u64, received as u64, End::Complete));
    }
}
