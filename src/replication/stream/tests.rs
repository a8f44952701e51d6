//! The stream against a scripted server: cuts in the middle of anything, and what no real server
//! does on command.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::connection::Settings;
use super::super::endpoint::{Encryption, Endpoint, Login};
use super::*;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, body].concat()
}

fn data(at: u64, payload: &[u8]) -> Vec<u8> {
    let position = at.to_be_bytes();
    message(b'd', &[&b"w"[..], &position, &position, &[0; 8], payload].concat())
}

fn keepalive(at: u64, reply: u8) -> Vec<u8> {
    message(b'd', &[&b"k"[..], &at.to_be_bytes(), &[0; 8], &[reply]].concat())
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// Reads one message of the client.
async fn heard(server: &mut TcpStream, tag: usize) -> Vec<u8> {
    let mut head = vec![0; tag + 4];
    server.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes(head[tag..].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    server.read_exact(&mut body).await.unwrap();
    [head, body].concat()
}

/// Logs a client in and answers its first question.
async fn welcome(server: &mut TcpStream) {
    heard(server, 0).await;
    let hello = [
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0017.2\0"),
        message(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]),
        ready(),
    ];
    server.write_all(&hello.concat()).await.unwrap();
    heard(server, 1).await;
    let column = [&b"\0\x01backend_start\0"[..], &[0; 18]].concat();
    let row = [&b"\0\x01\0\0\0\x04"[..], b"then"].concat();
    let answer =
        [message(b'T', &column), message(b'D', &row), message(b'C', b"SELECT 1\0"), ready()];
    server.write_all(&answer.concat()).await.unwrap();
}

async fn connected(settings: Settings) -> (TcpStream, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), address: None, port };
    let login = Login::new(endpoint, Encryption::Disable, "relay", "app");
    let serve = async {
        let (mut server, _) = listener.accept().await.unwrap();
        welcome(&mut server).await;
        server
    };
    let (server, connection) = tokio::join!(serve, Connection::open(login, settings));
    (server, connection.unwrap())
}

async fn streaming(settings: Settings) -> (TcpStream, Stream) {
    let (mut server, connection) = connected(settings).await;
    let start = Start::new("s", Lsn(16), "p");
    let serve = async {
        let command = heard(&mut server, 1).await;
        assert!(command.starts_with(b"Q") && command.windows(8).any(|part| part == b"LOGICAL "));
        server.write_all(&message(b'W', b"\0\0\0")).await.unwrap();
    };
    let (stream, ()) = tokio::join!(connection.start(&start), serve);
    (server, stream.unwrap())
}

#[tokio::test]
async fn a_future_dropped_at_any_byte_loses_nothing() {
    let (mut server, mut stream) = streaming(Settings::default()).await;
    server.set_nodelay(true).unwrap();
    let script: Vec<u8> = (1..=20_u64)
        .flat_map(|at| [data(at, b"payload"), keepalive(at, 0)].concat())
        .chain(message(b'C', b"COPY 0\0"))
        .collect();
    let mut cuts = 0;
    let mut positions = Vec::new();
    let serve = async {
        for byte in script {
            server.write_all(&[byte]).await.unwrap();
            // The reader runs in between, and so is cut inside each frame.
            tokio::task::yield_now().await;
        }
        server
    };
    let read = async {
        loop {
            let polled = tokio::select! {
                biased;
                event = stream.next() => Some(event.unwrap()),
                () = tokio::task::yield_now() => None,
            };
            match polled {
                None => {
                    cuts += 1;
                    tokio::task::yield_now().await;
                }
                Some(Event::End) => return,
                Some(Event::Data { at, payload, .. }) => {
                    assert_eq!(payload.bytes, "payload");
                    positions.push(at.0);
                }
                Some(Event::Keepalive { wal_end, .. }) => positions.push(wal_end.0),
                Some(other) => panic!("{other:?}"),
            }
        }
    };
    let (_server, ()) = tokio::join!(serve, read);
    let expected: Vec<u64> = (1..=20).flat_map(|at| [at, at]).collect();
    assert_eq!(positions, expected);
    assert!(cuts > 100, "{cuts} cuts: the test must cut to prove anything");
}

#[tokio::test]
async fn notices_and_parameters_are_events_and_a_skipped_publication_is_the_end() {
    let (mut server, mut stream) = streaming(Settings::default()).await;
    let fatal = b"SWARNING\0VWARNING\0C55000\0Mskipped loading publication \"p\"\0\
        DThe publication does not exist at this point in the WAL.\0Fpgoutput.c\0\0";
    let script = [
        message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0"),
        message(b'S', b"in_hot_standby\0off\0"),
        message(b'N', fatal),
        data(99, b"a row after the gap"),
    ];
    server.write_all(&script.concat()).await.unwrap();
    let Event::Notice(notice) = stream.next().await.unwrap() else { panic!("not a notice") };
    assert_eq!(notice.message, "hello");
    let changed = Event::Parameter { name: "in_hot_standby".into(), value: "off".into() };
    assert_eq!(stream.next().await.unwrap(), changed);
    assert_eq!(stream.connection().parameter("in_hot_standby"), Some("off"));
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, Error::PublicationSkipped { .. }), "{error}");
    assert_eq!(error.sqlstate(), Some("55000"));
    assert!(error.to_string().contains("before the slot"), "{error}");
    // Nothing comes after it, however often one asks.
    assert!(matches!(stream.next().await, Err(Error::Abandoned { .. })));
    assert!(matches!(stream.take(), Err(Error::Abandoned { .. })));
}

#[tokio::test]
async fn a_status_says_what_was_received_and_what_is_durable() {
    let (mut server, mut stream) = streaming(Settings::default()).await;
    server.write_all(&keepalive(40, 1)).await.unwrap();
    stream.next().await.unwrap();
    let status = |flush| Status { flush: Lsn(flush), reply_requested: false };
    let beyond = stream.status(status(41)).unwrap_err();
    assert!(matches!(beyond, Error::ConfirmBeyond { .. }), "{beyond}");
    stream.status(Status { flush: Lsn(20), reply_requested: true }).unwrap();
    // The newest replaces what has not left; the wish for an answer stays; flush does not go back.
    stream.status(status(30)).unwrap();
    stream.status(status(25)).unwrap();
    stream.flush().await.unwrap();
    let said = heard(&mut server, 1).await;
    let numbers: Vec<u8> = said[6..30].to_vec();
    assert_eq!(said[..6], [b'd', 0, 0, 0, 38, b'r']);
    let expected = [40_u64, 30, 30].map(u64::to_be_bytes).concat();
    assert_eq!((numbers, said[38]), (expected, 1));
    // And with nothing queued nothing is sent: the next is the CopyDone.
    let finish = stream.finish(Duration::from_secs(5));
    let serve = async {
        assert_eq!(heard(&mut server, 1).await, message(b'c', b""));
        let rest = [data(50, b"late"), message(b'c', b""), message(b'C', b"COPY 0\0"), ready()];
        server.write_all(&rest.concat()).await.unwrap();
    };
    let (connection, ()) = tokio::join!(finish, serve);
    assert_eq!(connection.unwrap().backend().pid, 7);
}

#[tokio::test]
async fn a_status_is_not_held_up_by_events_that_are_here_and_empty_messages_are_none() {
    let (mut server, mut stream) = streaming(Settings::default()).await;
    let script = [data(20, b"x"), data(20, b""), keepalive(21, 0), keepalive(22, 0)];
    server.write_all(&script.concat()).await.unwrap();
    assert!(matches!(stream.next().await, Ok(Event::Data { .. })));
    stream.status(Status { flush: Lsn(20), reply_requested: false }).unwrap();
    // All of it came with one read, so this one needs none.
    let event = stream.next().await.unwrap();
    assert!(matches!(event, Event::Keepalive { wal_end: Lsn(21), .. }), "{event:?}");
    assert_eq!(heard(&mut server, 1).await[5], b'r');
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_one_status_and_is_not_waited_for() {
    let (mut server, mut stream) = streaming(Settings::default()).await;
    for at in 17..200_000 {
        server.write_all(&keepalive(at, 0)).await.unwrap();
        stream.next().await.unwrap();
        stream.status(Status { flush: Lsn(at), reply_requested: false }).unwrap();
        assert!(stream.connection.wire.out.len() <= 39);
    }
}

#[tokio::test]
async fn silence_is_noticed_but_not_our_own_absence() {
    let silence_max = Duration::from_millis(150);
    let settings = Settings { silence_max, ..Settings::default() };
    let (mut server, mut stream) = streaming(settings).await;
    // Polled once, so the clock of silence could run; then away for longer than the limit, while
    // a row comes.
    let cut = tokio::time::timeout(Duration::ZERO, stream.next()).await;
    assert!(cut.is_err());
    server.write_all(&data(20, b"x")).await.unwrap();
    tokio::time::sleep(silence_max * 2).await;
    assert!(matches!(stream.next().await, Ok(Event::Data { .. })));
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_leaves_a_connection_that_works() {
    let (mut server, connection) = connected(Settings::default()).await;
    let serve = async {
        let refusal = b"SERROR\0VERROR\0C55006\0Mreplication slot \"s\" is active for PID 9\0\0";
        heard(&mut server, 1).await;
        server.write_all(&[message(b'E', refusal), ready()].concat()).await.unwrap();
        heard(&mut server, 1).await;
        server.write_all(&message(b'W', b"\0\0\0")).await.unwrap();
    };
    let tries = async {
        let start = Start::new("s", Lsn::ZERO, "p");
        let refused = connection.start(&start).await.err().unwrap();
        assert_eq!(refused.error.sqlstate(), Some("55006"));
        refused.connection.unwrap().start(&start).await.unwrap()
    };
    tokio::join!(serve, tries);
}

#[tokio::test]
async fn a_command_given_up_half_way_is_not_followed_by_another() {
    let (_server, mut connection) = connected(Settings::default()).await;
    let cut = tokio::time::timeout(Duration::ZERO, connection.identify_system()).await;
    assert!(cut.is_err());
    let error = connection.identify_system().await.unwrap_err();
    assert!(matches!(error, Error::Abandoned { .. }), "{error}");

    let command_timeout = Duration::from_millis(50);
    let settings = Settings { command_timeout, ..Settings::default() };
    let (server, connection) = connected(settings).await;
    let refused = connection.start(&Start::new("s", Lsn::ZERO, "p")).await.err().unwrap();
    assert!(matches!(refused.error, Error::Timeout { .. }) && refused.connection.is_none());
    drop(server);
}

#[tokio::test]
async fn what_has_no_place_in_the_stream_ends_it() {
    for (script, expected) in [
        (message(b'd', b"x"), "expected one of w k"),
        (message(b'd', b"k\0"), "malformed at byte 1"),
        (message(b'T', b"\0\0"), "unexpected message 'T'"),
        (b"d\xff\xff\xff\xff".to_vec(), "out of step"),
        (message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating\0\0"), "57P01: terminating"),
        (Vec::new(), "closed the connection without a message"),
    ] {
        let (mut server, mut stream) = streaming(Settings::default()).await;
        server.write_all(&script).await.unwrap();
        server.shutdown().await.unwrap();
        let error = stream.next().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
