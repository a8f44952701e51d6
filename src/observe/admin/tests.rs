//! The endpoints over a real loopback socket, and the server's bounds.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::http::{self, CONNECTIONS_MAX};
use super::*;

struct Server {
    address: SocketAddr,
    readiness: Readiness,
    stop: CancellationToken,
    task: tokio::task::JoinSet<()>,
}

async fn server() -> Server {
    let listener = http::bind("admin.listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (readiness, stop) = (Readiness::new(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let routes = routes("relay", Arc::new(Metrics::new()), readiness.clone());
    let mut task = tokio::task::JoinSet::new();
    task.spawn(http::serve(listener, routes, stop.clone()));
    Server { address, readiness, stop, task }
}

impl Server {
    /// Sends `request` and returns everything up to the end of the connection.
    async fn ask(&self, request: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(20), socket.read_to_string(&mut answer))
            .await
            .expect("the server ends the connection")
            .unwrap();
        answer
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
    }
}

#[tokio::test]
async fn ready_says_who_objects_and_why() {
    let server = server().await;
    let answer = server.get("/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nready\n"));
    let postgres = server.readiness.condition("postgres", "connection refused");
    let _kafka = server.readiness.condition("kafka", "no broker answers");
    let answer = server.get("/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\npostgres: connection refused\nkafka: no broker answers\n"));
    postgres.ready();
    assert!(server.get("/ready").await.ends_with("\r\n\r\nkafka: no broker answers\n"));
    assert!(server.get("/live").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn metrics_come_with_their_media_type() {
    let answer = server().await.get("/metrics").await;
    assert!(answer.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{answer}");
    assert!(answer.contains("\npostrider_build_info{"), "{answer}");
}

#[tokio::test]
async fn a_wrong_path_or_method_is_told_what_there_is() {
    let server = server().await;
    let index = server.get("/").await;
    assert!(index.contains("\r\n\r\nrelay 0.") && index.contains("GET /metrics"), "{index}");
    let lost = server.get("/healthz").await;
    assert!(lost.starts_with("HTTP/1.1 404 ") && lost.contains("nothing at /healthz"), "{lost}");
    assert!(lost.contains("GET /live"), "{lost}");
    let post = server.ask("POST /ready HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nallow: GET,HEAD\r\n"));
    assert!(post.ends_with("/ready answers GET and HEAD, not POST\n"), "{post}");
    let head = server.ask("HEAD /ready HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn a_header_too_long_is_refused_and_nonsense_does_no_harm() {
    let server = server().await;
    let long = "x".repeat(20 * 1024);
    let answer = server.ask(&format!("GET / HTTP/1.1\r\nhost: x\r\na: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(server.ask("\u{1}\u{2}\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    assert!(server.get("/live").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn silent_connections_are_ended_so_that_others_get_their_turn() {
    let server = server().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    // The clock can only be paused once the sockets are there; from then on every wait that
    // nothing else ends is over at once.
    tokio::time::pause();
    assert!(server.get("/live").await.starts_with("HTTP/1.1 200 "));
    for mut socket in silent {
        let mut rest = Vec::new();
        assert_eq!(socket.read_to_end(&mut rest).await.unwrap(), 0, "{rest:?}");
    }
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_refuses_new_ones() {
    let mut server = server().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    // The answered request proves that the idle connection before it has been accepted.
    server.get("/live").await;
    server.stop.cancel();
    server.task.join_next().await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_way_out() {
    let server = server().await;
    let refused = http::bind("admin.listen", server.address).await.unwrap_err().to_string();
    assert!(
        refused.starts_with(&format!("admin.listen: cannot listen on {}: ", server.address)),
        "{refused}"
    );
    assert!(refused.contains("in use") && refused.contains("or set admin.listen to"), "{refused}");
}

#[test]
fn listen_is_an_address_or_off() {
    assert_eq!("off".parse(), Ok(AdminConfig { listen: None }));
    assert_eq!("127.0.0.1:9464".parse(), Ok(AdminConfig::default()));
    assert!("[::1]:0".parse::<AdminConfig>().is_ok());
    for text in ["localhost:9464", "9464", "", "127.0.0.1", "OFF"] {
        assert_eq!(text.parse::<AdminConfig>(), Err(ListenError), "{text}");
    }
}
