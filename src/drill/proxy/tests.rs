//! The proxy between plain sockets and made-up Kafka messages: every fault, without a broker.
//!
//! Each wait has a deadline; nothing is proved by a pause, except that a frozen or held byte does
//! *not* arrive, which no fact can show: there the event log says that it was held.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::{Instant, timeout};

use super::frames::tests::{request, response};
use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

/// A client, the peer it reached through the proxy, and the proxy.
struct Pair {
    proxy: Proxy,
    client: TcpStream,
    peer: TcpStream,
    listener: TcpListener,
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it happens before the deadline")
}

async fn pair(protocol: Protocol) -> Pair {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::bind(protocol).unwrap();
    proxy.forward_to(Target::Tcp(listener.local_addr().unwrap()));
    let (client, peer) = connect(&proxy, &listener).await;
    Pair { proxy, client, peer, listener }
}

async fn connect(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = soon(TcpStream::connect(proxy.address())).await.unwrap();
    let (peer, _) = soon(listener.accept()).await.unwrap();
    // Both ends can be there before the proxy knows: a cut in between would spare the peer.
    let opened = proxy.counts().opened;
    let reached = move |script: &Script| {
        let is_it = |event: &&Event| matches!(event, Event::Reached { .. });
        (script.events.iter().filter(is_it).count() as u64 >= opened).then_some(())
    };
    proxy.stage.wait(DEADLINE, reached).await.unwrap();
    client.set_nodelay(true).unwrap();
    peer.set_nodelay(true).unwrap();
    (client, peer)
}

async fn arrives(at: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    soon(at.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, bytes);
}

/// The end of a stream: `Ok(rest)` after FIN, an error after RST.
async fn end(at: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    soon(at.read_to_end(&mut rest)).await.map(|_| rest)
}

async fn nothing_arrives(at: &mut TcpStream) {
    let mut one = [0; 1];
    let read = timeout(Duration::from_millis(30), at.read(&mut one)).await;
    assert!(read.is_err(), "something arrived: {read:?}");
}

#[tokio::test]
async fn bytes_pass_both_ways_and_so_do_the_ends() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Opaque).await;
    client.write_all(b"question").await.unwrap();
    arrives(&mut peer, b"question").await;
    client.shutdown().await.unwrap();
    assert!(end(&mut peer).await.unwrap().is_empty());
    // A half-closed connection still carries the answer.
    peer.write_all(b"answer").await.unwrap();
    drop(peer);
    assert_eq!(end(&mut client).await.unwrap(), b"answer");
    soon(proxy.wait_for(DEADLINE, "the close", |e| matches!(e, Event::Closed { .. })))
        .await
        .unwrap();
    let counts = proxy.counts();
    assert_eq!((counts.opened, counts.cut), (1, 0));
    assert_eq!((counts.bytes_to_target, counts.bytes_to_client), (8, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_megabyte_arrives_unchanged_in_kafka_mode_too() {
    for protocol in [Protocol::Opaque, Protocol::Kafka] {
        let Pair { proxy: _proxy, client, mut peer, listener: _ } = pair(protocol).await;
        let mut sent: Vec<u8> = Vec::new();
        for at in 0..200 {
            sent.extend(request(0, at, 8_000 + at as usize));
        }
        let (_read, mut write) = client.into_split();
        let expected = sent.clone();
        let writing = async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let (got, ()) = tokio::join!(end(&mut peer), writing);
        assert!(got.unwrap() == expected);
    }
}

#[tokio::test]
async fn a_reset_reaches_both_sides() {
    let Pair { proxy, mut client, mut peer, listener } = pair(Protocol::Opaque).await;
    assert_eq!(proxy.cut(Cut::Reset), 1);
    assert_eq!(end(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(end(&mut peer).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.counts().cut, 1);
    // The next connection is a good one.
    let (mut client, mut peer) = connect(&proxy, &listener).await;
    client.write_all(b"again").await.unwrap();
    arrives(&mut peer, b"again").await;
}

#[tokio::test]
async fn a_finish_lets_both_sides_read_to_the_end() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Opaque).await;
    client.write_all(b"last").await.unwrap();
    arrives(&mut peer, b"last").await;
    assert_eq!(proxy.cut(Cut::Finish), 1);
    assert!(end(&mut client).await.unwrap().is_empty());
    assert!(end(&mut peer).await.unwrap().is_empty());
    assert_eq!(proxy.cut(Cut::Finish), 0);
}

#[tokio::test]
async fn a_refused_port_is_closed_and_stays_ours() {
    let Pair { proxy, mut client, mut peer, listener } = pair(Protocol::Opaque).await;
    for _ in 0..20 {
        proxy.refuse().await.unwrap();
        let refused = soon(TcpStream::connect(proxy.address())).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // Nobody is given the port meanwhile.
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        assert_ne!(other.local_addr().unwrap(), proxy.address());
        proxy.accept().await.unwrap();
        connect(&proxy, &listener).await;
    }
    // The first connection never noticed.
    client.write_all(b"still here").await.unwrap();
    arrives(&mut peer, b"still here").await;
}

#[tokio::test]
async fn frozen_bytes_wait_and_then_arrive() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Opaque).await;
    proxy.freeze();
    client.write_all(b"waiting").await.unwrap();
    peer.write_all(b"too").await.unwrap();
    for direction in [Direction::ToTarget, Direction::ToClient] {
        let is_it = |e: &Event| matches!(e, Event::Stalled { direction: d, .. } if *d == direction);
        proxy.wait_for(DEADLINE, "bytes that wait", is_it).await.unwrap();
    }
    nothing_arrives(&mut peer).await;
    assert_eq!(proxy.counts().bytes_to_target, 0);
    proxy.thaw();
    arrives(&mut peer, b"waiting").await;
    arrives(&mut client, b"too").await;
}

#[tokio::test]
async fn one_direction_freezes_alone() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Opaque).await;
    proxy.freeze_one(Direction::ToClient);
    client.write_all(b"commit").await.unwrap();
    arrives(&mut peer, b"commit").await;
    peer.write_all(b"done").await.unwrap();
    proxy.wait_for(DEADLINE, "a stall", |e| matches!(e, Event::Stalled { .. })).await.unwrap();
    nothing_arrives(&mut client).await;
    // Cutting a frozen connection works, and loses what waited: the doubtful commit.
    proxy.cut(Cut::Reset);
    assert!(end(&mut client).await.is_err());
}

#[tokio::test]
async fn a_freeze_holds_back_the_end_of_a_connection() {
    let Pair { proxy, client, mut peer, listener: _ } = pair(Protocol::Opaque).await;
    proxy.freeze();
    drop(client);
    proxy.wait_for(DEADLINE, "a stall", |e| matches!(e, Event::Stalled { .. })).await.unwrap();
    nothing_arrives(&mut peer).await;
    proxy.thaw();
    assert!(end(&mut peer).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_frozen_proxy_pushes_back() {
    let Pair { proxy, client, peer: _peer, listener: _ } = pair(Protocol::Opaque).await;
    proxy.freeze();
    let chunk = vec![7; 256 * 1024];
    let mut sent = 0;
    // Fills the kernel's buffers until they take no more; a proxy that read would take it all.
    let full = timeout(DEADLINE, async {
        loop {
            match client.try_write(&chunk) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    });
    full.await.unwrap();
    assert!(sent < 64 * 1024 * 1024, "{sent}");
    assert_eq!(proxy.counts().bytes_to_target, 0);
}

#[tokio::test]
async fn a_delay_keeps_order_and_only_slows_its_direction() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Opaque).await;
    let delay = Duration::from_millis(60);
    proxy.delay(Direction::ToTarget, delay);
    let sent = Instant::now();
    client.write_all(b"slow ").await.unwrap();
    peer.write_all(b"fast").await.unwrap();
    arrives(&mut client, b"fast").await;
    client.write_all(b"stream").await.unwrap();
    // What follows the end of the delay does not overtake what is under way.
    arrives(&mut peer, b"slow stream").await;
    assert!(sent.elapsed() >= delay);
    proxy.delay(Direction::ToTarget, Duration::ZERO);
    client.write_all(b"!").await.unwrap();
    arrives(&mut peer, b"!").await;
    assert_eq!(proxy.counts().bytes_delayed, 11);
}

#[tokio::test]
async fn exactly_that_many_bytes_arrive() {
    for bytes in [1, 2, 7, 8] {
        let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Opaque).await;
        client.write_all(b"before").await.unwrap();
        arrives(&mut peer, b"before").await;
        proxy.drop_after(Direction::ToTarget, bytes);
        client.write_all(b"12345678").await.unwrap();
        let got = end(&mut peer).await.unwrap();
        assert_eq!(got, b"12345678"[..bytes as usize]);
        let is_it = |e: &Event| matches!(e, Event::FuseBlown { .. });
        proxy.wait_for(DEADLINE, "the last byte", is_it).await.unwrap();
        assert_eq!(proxy.counts().cut, 1);
    }
}

#[tokio::test]
async fn an_unreachable_target_resets_the_client() {
    let proxy = Proxy::bind(Protocol::Opaque).unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(end(&mut client).await.is_err());
    // Not a TCP port that was just closed: another test may be given it.
    let dir = tempfile::tempdir().unwrap();
    proxy.forward_to(Target::Unix(dir.path().join("nobody")));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(end(&mut client).await.is_err());
    let unreachable = |e: &Event| matches!(e, Event::Unreachable { .. });
    proxy.wait_for(DEADLINE, "a refusal", unreachable).await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_can_be_the_target() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("target");
    let listener = UnixListener::bind(&path).unwrap();
    let proxy = Proxy::bind(Protocol::Opaque).unwrap();
    proxy.forward_to(Target::Unix(path));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut peer, _) = soon(listener.accept()).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    soon(peer.read_exact(&mut got)).await.unwrap();
    peer.write_all(&got).await.unwrap();
    drop(peer);
    assert_eq!(end(&mut client).await.unwrap(), b"hello");
}

#[tokio::test]
async fn dropping_the_proxy_ends_everything() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Opaque).await;
    drop(proxy);
    assert!(end(&mut client).await.is_ok_and(|rest| rest.is_empty()));
    assert!(end(&mut peer).await.is_ok_and(|rest| rest.is_empty()));
}

#[tokio::test]
async fn one_request_is_held_and_what_follows_waits_behind_it() {
    let first = request(0, 1, 20);
    let held = [request(26, 2, 9), request(3, 3, 4)].concat();
    let stream = [first.clone(), held.clone()].concat();
    // Cut at every byte: the request is found however it arrives.
    for cut in 1..stream.len() {
        let Pair { proxy, mut client, mut peer, listener } = pair(Protocol::Kafka).await;
        let fault = proxy.hold(RequestKind::END_TXN);
        client.write_all(&stream[..cut]).await.unwrap();
        if cut > first.len() + 12 {
            fault.caught(DEADLINE).await.unwrap();
        }
        client.write_all(&stream[cut..]).await.unwrap();
        fault.caught(DEADLINE).await.unwrap();
        arrives(&mut peer, &first).await;
        assert_eq!(proxy.counts().held, 1);
        assert_eq!(proxy.counts().bytes_to_target, first.len() as u64);
        if cut == 1 {
            nothing_arrives(&mut peer).await;
            // Other connections are not concerned, not even by the same kind.
            let (mut other, mut other_peer) = connect(&proxy, &listener).await;
            other.write_all(&request(26, 2, 1)).await.unwrap();
            arrives(&mut other_peer, &request(26, 2, 1)).await;
            // Responses go on.
            peer.write_all(&response(1, 3)).await.unwrap();
            arrives(&mut client, &response(1, 3)).await;
        }
        fault.release();
        arrives(&mut peer, &held).await;
        fault.decided(DEADLINE).await.unwrap();
    }
}

#[tokio::test]
async fn a_held_request_outlives_its_sender() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Kafka).await;
    let fault = proxy.hold(RequestKind::END_TXN);
    client.write_all(&request(26, 2, 9)).await.unwrap();
    fault.caught(DEADLINE).await.unwrap();
    drop(client);
    nothing_arrives(&mut peer).await;
    fault.release();
    assert_eq!(end(&mut peer).await.unwrap(), request(26, 2, 9));
}

#[tokio::test]
async fn dropping_the_fault_lets_the_request_pass() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Kafka).await;
    let fault = proxy.hold(RequestKind::METADATA);
    client.write_all(&request(3, 1, 5)).await.unwrap();
    fault.caught(DEADLINE).await.unwrap();
    drop(fault);
    arrives(&mut peer, &request(3, 1, 5)).await;
}

#[tokio::test]
async fn a_discarded_request_never_happened() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Kafka).await;
    let fault = proxy.discard(RequestKind::END_TXN);
    client.write_all(&request(0, 1, 5)).await.unwrap();
    arrives(&mut peer, &request(0, 1, 5)).await;
    client.write_all(&request(26, 2, 5)).await.unwrap();
    fault.decided(DEADLINE).await.unwrap();
    assert!(end(&mut client).await.is_err());
    assert!(end(&mut peer).await.is_err());
    assert_eq!(proxy.counts().bytes_to_target, request(0, 1, 5).len() as u64);
}

#[tokio::test]
async fn a_held_request_can_be_discarded_after_all() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Kafka).await;
    let fault = proxy.hold(RequestKind::PRODUCE);
    client.write_all(&request(0, 1, 5)).await.unwrap();
    fault.caught(DEADLINE).await.unwrap();
    fault.discard();
    fault.decided(DEADLINE).await.unwrap();
    assert!(end(&mut client).await.is_err());
    assert!(end(&mut peer).await.is_err());
    assert_eq!(proxy.counts().bytes_to_target, 0);
}

#[tokio::test]
async fn a_request_that_worked_can_fail_for_its_sender() {
    let answers = [response(1, 4), response(2, 4)].concat();
    // The responses are cut at every byte, too.
    for cut in 1..answers.len() {
        let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Kafka).await;
        let fault = proxy.deliver_and_cut(RequestKind::END_TXN);
        client.write_all(&request(0, 1, 5)).await.unwrap();
        client.write_all(&request(26, 2, 5)).await.unwrap();
        arrives(&mut peer, &[request(0, 1, 5), request(26, 2, 5)].concat()).await;
        peer.write_all(&answers[..cut.min(12)]).await.unwrap();
        if cut >= 12 {
            // The earlier response passes whole.
            arrives(&mut client, &response(1, 4)).await;
            peer.write_all(&answers[12..cut]).await.ok();
        }
        // Once the head of the second response is in, the connection is gone.
        peer.write_all(&answers[cut..]).await.ok();
        fault.withheld(DEADLINE).await.unwrap();
        assert!(end(&mut client).await.is_err());
        assert_eq!(proxy.counts().bytes_to_client, 12);
    }
}

#[tokio::test]
async fn the_first_of_two_withheld_responses_ends_the_connection() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Kafka).await;
    let first = proxy.deliver_and_cut(RequestKind::END_TXN);
    let second = proxy.deliver_and_cut(RequestKind::PRODUCE);
    let both = [request(26, 1, 5), request(0, 2, 5)].concat();
    client.write_all(&both).await.unwrap();
    arrives(&mut peer, &both).await;
    second.decided(DEADLINE).await.unwrap();
    peer.write_all(&response(1, 4)).await.unwrap();
    first.withheld(DEADLINE).await.unwrap();
    assert!(end(&mut client).await.is_err());
    assert_eq!(proxy.counts().bytes_to_client, 0);
}

#[tokio::test]
async fn dropping_a_fault_that_caught_nothing_disarms_it() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Kafka).await;
    drop(proxy.discard(RequestKind::END_TXN));
    drop(proxy.deliver_and_cut(RequestKind::END_TXN));
    client.write_all(&request(26, 1, 5)).await.unwrap();
    arrives(&mut peer, &request(26, 1, 5)).await;
    peer.write_all(&response(1, 4)).await.unwrap();
    arrives(&mut client, &response(1, 4)).await;
    assert_eq!(proxy.counts().cut, 0);
}

#[tokio::test]
async fn finishing_is_no_reset_where_bytes_were_not_read() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Opaque).await;
    peer.write_all(b"answer").await.unwrap();
    arrives(&mut client, b"answer").await;
    proxy.freeze();
    client.write_all(b"more").await.unwrap();
    peer.write_all(b"more").await.unwrap();
    for direction in [Direction::ToTarget, Direction::ToClient] {
        let waits =
            move |e: &Event| matches!(e, Event::Stalled { direction: of, .. } if *of == direction);
        proxy.wait_for(DEADLINE, "bytes that wait", waits).await.unwrap();
    }
    assert_eq!(proxy.cut(Cut::Finish), 1);
    assert_eq!(end(&mut client).await.unwrap(), b"");
    assert_eq!(end(&mut peer).await.unwrap(), b"");
}

#[tokio::test]
async fn a_stream_that_is_not_kafka_is_named() {
    let Pair { proxy, mut client, mut peer, listener: _ } = pair(Protocol::Kafka).await;
    let fault = proxy.hold(RequestKind::END_TXN);
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];
    client.write_all(&hello).await.unwrap();
    arrives(&mut peer, &hello).await;
    let error = fault.caught(Duration::from_millis(20)).await.unwrap_err().to_string();
    assert!(error.contains("api key 26") && error.contains("NotKafka"), "{error}");
}
