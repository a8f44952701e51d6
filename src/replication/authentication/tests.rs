//! Logins against a scripted server: what is refused, and that it is refused before anything is
//! given away.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::endpoint::{Encryption, Endpoint};
use super::*;

fn login() -> Login {
    let endpoint = Endpoint::Tcp { host: "db".to_owned(), address: None, port: 5432 };
    let mut login = Login::new(endpoint, Encryption::Disable, "relay", "app");
    login.password = Some("hunter2".to_owned());
    login
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, body].concat()
}

fn ask(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], rest].concat())
}

fn greeting() -> Vec<u8> {
    let parts = [
        message(b'S', b"server_version\x0017.2\0"),
        message(b'N', b"SNOTICE\0C00000\0Mhello\0\0"),
        message(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]),
        message(b'Z', b"I"),
    ];
    parts.concat()
}

/// What the client says after the server's script, and how the login ends.
async fn log_in_to(login: &Login, script: Vec<u8>) -> (Vec<u8>, Result<Greeting, Failed>) {
    let (client, mut server) = duplex(1 << 16);
    let mut wire = Wire::new(client);
    let serve = async {
        let startup = read_message(&mut server, 0).await;
        assert!(startup.windows(20).any(|part| part == b"replication\0database"));
        server.write_all(&script).await.unwrap();
        server.shutdown().await.unwrap();
        let mut said = Vec::new();
        server.read_to_end(&mut said).await.unwrap();
        said
    };
    let connect = async {
        let outcome = log_in(&mut wire, login, Channel { encrypted: false, end_point: None }).await;
        drop(wire);
        outcome
    };
    tokio::join!(serve, connect)
}

async fn read_message(server: &mut DuplexStream, tag: usize) -> Vec<u8> {
    let mut head = vec![0; tag + 4];
    server.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes(head[tag..].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    server.read_exact(&mut body).await.unwrap();
    body
}

#[tokio::test]
async fn trust_needs_nothing_and_keeps_what_the_server_said() {
    let script = [ask(0, b""), greeting()].concat();
    let (said, outcome) = log_in_to(&login(), script).await;
    let greeting = outcome.map_err(|failed| failed.error).unwrap();
    assert_eq!(said, b"");
    assert_eq!((greeting.pid, greeting.secret), (7, 9));
    assert_eq!(greeting.parameters["server_version"], "17.2");
    assert_eq!(greeting.notices.len(), 1);
}

#[tokio::test]
async fn weak_methods_get_nothing_unless_allowed_by_name() {
    for (request, name) in [(ask(5, b"salt"), "md5"), (ask(3, b""), "password")] {
        let (said, outcome) = log_in_to(&login(), request.clone()).await;
        assert_eq!(said, b"", "{name}");
        let failed = outcome.err().unwrap();
        assert!(failed.before_password);
        let text = failed.error.to_string();
        assert!(text.contains(name) && text.contains("scram-sha-256"), "{text}");

        let mut allowing = login();
        allowing.weak = super::super::Weak { md5: name == "md5", cleartext: name == "password" };
        let script = [request, ask(0, b""), greeting()].concat();
        let (said, outcome) = log_in_to(&allowing, script).await;
        assert!(outcome.is_ok());
        assert_eq!(said[0], b'p');
        assert_eq!(said.ends_with(b"hunter2\0"), name == "password");
    }
}

#[tokio::test]
async fn unsupported_methods_are_named() {
    for (code, name) in [(7, "GSSAPI"), (9, "SSPI"), (77, "number 77")] {
        let (said, outcome) = log_in_to(&login(), ask(code, b"whatever")).await;
        assert_eq!(said, b"");
        let text = outcome.err().unwrap().error.to_string();
        assert!(text.contains(name), "{text}");
    }
    let (_, outcome) = log_in_to(&login(), ask(10, b"OAUTHBEARER\0\0")).await;
    let Some(Error::Scram { source, .. }) = outcome.err().map(|failed| failed.error) else {
        panic!("not refused")
    };
    assert!(source.to_string().contains("OAUTHBEARER"), "{source}");
}

#[tokio::test]
async fn a_server_that_skips_its_proof_is_refused() {
    let script = [ask(10, b"SCRAM-SHA-256\0\0"), ask(0, b""), greeting()].concat();
    let (_, outcome) = log_in_to(&login(), script).await;
    let error = outcome.err().unwrap().error;
    assert!(matches!(error, Error::Scram { source: ScramError::Unproved, .. }), "{error}");
}

#[tokio::test]
async fn required_channel_binding_is_not_talked_away() {
    let mut login = login();
    login.channel_binding = ChannelBinding::Require;
    login.weak = super::super::Weak { md5: true, cleartext: true };
    for request in [ask(0, b""), ask(3, b""), ask(5, b"salt")] {
        let (said, outcome) = log_in_to(&login, request).await;
        assert_eq!(said, b"");
        assert!(matches!(outcome.err().unwrap().error, Error::ChannelBinding { .. }));
    }
}

#[tokio::test]
async fn no_password_an_error_and_an_early_end_are_told_apart() {
    let mut bare = login();
    bare.password = None;
    let (_, outcome) = log_in_to(&bare, ask(10, b"SCRAM-SHA-256\0\0")).await;
    assert!(matches!(outcome.err().unwrap().error, Error::PasswordMissing { .. }));

    let refusal = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry\0\0";
    let (_, outcome) = log_in_to(&login(), message(b'E', refusal)).await;
    let failed = outcome.err().unwrap();
    assert!(failed.before_password);
    assert_eq!(failed.error.sqlstate(), Some("28000"));

    let (_, outcome) = log_in_to(&login(), Vec::new()).await;
    assert!(matches!(outcome.err().unwrap().error, Error::Closed { .. }));
}

#[tokio::test]
async fn every_cut_of_a_login_is_an_error() {
    let script = [ask(0, b""), greeting()].concat();
    for cut in 0..script.len() {
        let (_, outcome) = log_in_to(&login(), script[..cut].to_vec()).await;
        assert!(outcome.is_err(), "cut at {cut}");
    }
}
