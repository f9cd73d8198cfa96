use std::net::Ipv4Addr;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use super::*;

const WAIT: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(100);

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nobody listens: its port stays taken, so that nobody will.
fn refusing() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// An address that never answers: a listener whose queue is full drops what comes (tcp(7), `listen(2)`).
struct Hole {
    address: SocketAddr,
    listener: Socket,
    _queued: Vec<TcpStream>,
}

async fn hole() -> Hole {
    let (listener, address) = refusing();
    listener.listen(0).unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 10, "the queue has no end");
    }
    Hole { address, listener, _queued: queued }
}

#[tokio::test]
async fn one_address_is_dialled_and_tuned() {
    let (listener, address) = listener().await;
    let (stream, got) = race(&[address], WAIT).await.unwrap();
    assert_eq!((got, stream.peer_addr().unwrap()), (address, address));
    listener.accept().await.unwrap();
    let socket = SockRef::from(&stream);
    assert!(stream.nodelay().unwrap() && !socket.keepalive().unwrap());
    keep_alive(&stream);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
}

#[tokio::test]
async fn the_winner_among_many_is_tuned_too() {
    let (_listener, address) = listener().await;
    let (_socket, refused) = refusing();
    let (stream, got) = race(&[refused, address], WAIT).await.unwrap();
    assert_eq!(got, address);
    assert!(stream.nodelay().unwrap());
}

#[tokio::test]
async fn a_refusal_names_the_address_and_the_cause() {
    let (_socket, refused) = refusing();
    let error = race(&[refused], WAIT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Upstream(Step::Connect));
    assert!(error.detail().starts_with(&format!("connect to {refused}: Connection refused")), "{error}");
}

#[tokio::test]
async fn an_address_that_never_answers_has_its_deadline() {
    let hole = hole().await;
    for addresses in [&[hole.address][..], &[hole.address, hole.address]] {
        let error = timeout(WAIT, race(addresses, SOON)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout(Step::Connect));
        assert!(error.detail().starts_with(&format!("connect to {} timed out", hole.address)), "{error}");
    }
}

#[tokio::test]
async fn no_address_is_an_error() {
    let error = race(&[], WAIT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Upstream(Step::Connect));
}

#[tokio::test]
async fn a_slow_address_does_not_hold_up_the_next() {
    let hole = hole().await;
    let (_listener, address) = listener().await;
    let far = Duration::from_secs(3600);
    let (_, got) = timeout(WAIT, race(&[hole.address, address], far)).await.unwrap().unwrap();
    assert_eq!(got, address);
}

#[tokio::test]
async fn a_failed_address_is_followed_at_once() {
    let (_socket, refused) = refusing();
    let (_listener, address) = listener().await;
    let addresses = [&[refused; limits::ADDRESSES - 1][..], &[address]].concat();
    // One after another at the pace of slow ones they would take almost four seconds.
    let (_, got) = timeout(Duration::from_secs(2), race(&addresses, WAIT)).await.unwrap().unwrap();
    assert_eq!(got, address);
}

#[tokio::test]
async fn a_slow_address_may_still_win_while_others_fail() {
    let hole = hole().await;
    let (_socket, refused) = refusing();
    let address = hole.address;
    let addresses = [address, refused];
    let wins = race(&addresses, WAIT);
    let frees = async {
        // Once the second has failed there is nobody left but the first.
        tokio::time::sleep(ATTEMPT_DELAY + SOON).await;
        hole.listener.accept().unwrap();
    };
    let (won, ()) = tokio::join!(wins, frees);
    assert_eq!(won.unwrap().1, address);
}

#[tokio::test]
async fn every_address_is_tried_before_giving_up() {
    let mut sockets = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..5 {
        let (socket, address) = refusing();
        sockets.push(socket);
        addresses.push(address);
    }
    let error = race(&addresses, WAIT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Upstream(Step::Connect));
    assert!(error.detail().starts_with(&format!("connect to {}: ", addresses[0])), "{error}");
    assert!(error.detail().ends_with("(5 addresses tried)"), "{error}");
    let (_listener, address) = listener().await;
    addresses.push(address);
    assert_eq!(race(&addresses, WAIT).await.unwrap().1, address);
}

#[tokio::test]
async fn no_more_than_the_most_addresses_are_tried() {
    let (_socket, refused) = refusing();
    let (_listener, address) = listener().await;
    let addresses = [&[refused; limits::ADDRESSES][..], &[address]].concat();
    let error = race(&addresses, WAIT).await.unwrap_err();
    assert!(error.detail().contains(&format!("{} addresses tried", limits::ADDRESSES)), "{error}");
}

#[tokio::test]
async fn the_failure_that_tells_most_is_told() {
    let hole = hole().await;
    let (_socket, refused) = refusing();
    for addresses in [[hole.address, refused], [refused, hole.address]] {
        let error = race(&addresses, SOON).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Upstream(Step::Connect), "{error}");
        assert!(error.detail().contains(&format!("{refused}: Connection refused")), "{error}");
    }
    let failure = |kind: ErrorKind| Failure { address: refused, cause: kind.into() }.weight();
    assert!(failure(ErrorKind::NetworkUnreachable) < failure(ErrorKind::TimedOut));
    assert!(failure(ErrorKind::TimedOut) < failure(ErrorKind::ConnectionRefused));
}

#[tokio::test]
async fn a_race_that_is_dropped_connects_no_more() {
    let hole = hole().await;
    let (listener, address) = listener().await;
    assert!(timeout(SOON, race(&[hole.address, address], WAIT)).await.is_err());
    assert!(timeout(ATTEMPT_DELAY + SOON, listener.accept()).await.is_err());
}

#[tokio::test]
async fn a_configured_origin_may_be_private_and_is_named_when_it_fails() {
    let (_listener, address) = listener().await;
    for host in ["127.0.0.1", "localhost"] {
        let stream = connect(host, address.port(), WAIT).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
    }
    let (_socket, refused) = refusing();
    let error = connect("localhost", refused.port(), WAIT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Upstream(Step::Connect));
    assert!(error.detail().starts_with("localhost: connect to "), "{error}");
}
