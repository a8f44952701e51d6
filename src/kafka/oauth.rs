//! Tokens for SASL OAUTHBEARER: from a command's output or from a file.
//!
//! librdkafka asks for a new one at four fifths of the old one's life, on the thread that also
//! takes the delivery reports; so a command has few seconds, and is killed after them. No token is
//! ever printed: a failure names the command or the file, and what was wrong with it.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::client::OAuthToken;
use serde::Deserialize;

/// How long a command may take. Delivery reports wait for it, and with them a commit, which still
/// has to fit into the transaction's timeout of 15 s.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest token. Brokers take no more in one handshake than this by far.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// How long a token is taken to live that does not say so itself.
const OPAQUE_LIFETIME: Duration = Duration::from_mins(5);

/// Where OAUTHBEARER tokens come from.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A program and its arguments; the token is what it prints.
    Command {
        /// The program.
        program: PathBuf,
        /// Its arguments. They are not shown anywhere.
        arguments: Vec<String>,
    },
    /// A file, read anew for each token, as a sidecar or the kubelet writes it.
    File(PathBuf),
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.name())
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token {source_name} cannot be read: {error}")]
    Unreadable { source_name: String, error: std::io::Error },
    #[error("the token {source_name} did not end within {COMMAND_TIMEOUT:?} and was killed")]
    Slow { source_name: String },
    #[error(
        "the token {source_name} failed with {status}: what it wrote to standard error is in our log"
    )]
    Failed { source_name: String, status: ExitStatus },
    #[error("the token {source_name} gave more than {TOKEN_BYTES_MAX} bytes")]
    TooLarge { source_name: String },
    #[error("the token {source_name} gave {what}, one line of printable ASCII is a token")]
    NotAToken { source_name: String, what: &'static str },
    #[error("the token {source_name} gave one that has expired")]
    Expired { source_name: String },
}

impl TokenSource {
    fn name(&self) -> String {
        match self {
            Self::Command { program, .. } => format!("command {}", program.display()),
            Self::File(path) => format!("file {}", path.display()),
        }
    }

    /// Gets a token. Blocks for as long as the command may take.
    pub(super) fn token(&self) -> Result<OAuthToken, TokenError> {
        let bytes = match self {
            Self::Command { program, arguments } => {
                self.run(Command::new(program).args(arguments))?
            }
            Self::File(path) => {
                let read = std::fs::File::open(path).and_then(read_bounded);
                read.map_err(|error| self.unreadable(error))?
            }
        };
        self.parse(bytes, now())
    }

    fn unreadable(&self, error: std::io::Error) -> TokenError {
        TokenError::Unreadable { source_name: self.name(), error }
    }

    fn run(&self, command: &mut Command) -> Result<Vec<u8>, TokenError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let mut child = command.spawn().map_err(|error| self.unreadable(error))?;
        let output = read_until(&mut child, deadline);
        let ended = wait_until(&mut child, deadline);
        if output.is_none() || !matches!(ended, Ok(Some(_))) {
            child.kill().ok();
            child.wait().ok();
        }
        let slow = || TokenError::Slow { source_name: self.name() };
        let output = output.ok_or_else(slow)?.map_err(|error| self.unreadable(error))?;
        let status = ended.map_err(|error| self.unreadable(error))?.ok_or_else(slow)?;
        if !status.success() && output.len() as u64 <= TOKEN_BYTES_MAX {
            return Err(TokenError::Failed { source_name: self.name(), status });
        }
        Ok(output)
    }

    fn parse(&self, bytes: Vec<u8>, now: Duration) -> Result<OAuthToken, TokenError> {
        let not = |what| TokenError::NotAToken { source_name: self.name(), what };
        if bytes.len() as u64 > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLarge { source_name: self.name() });
        }
        let text = String::from_utf8(bytes).map_err(|_| not("bytes that are not text"))?;
        let token = text.trim();
        if token.is_empty() {
            return Err(not("nothing"));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(not("several words or lines"));
        }
        let claims = claims(token);
        let expires = match claims.exp {
            Some(seconds) => Duration::from_secs_f64(seconds.clamp(0.0, 1e11)),
            None => now + OPAQUE_LIFETIME,
        };
        if expires <= now {
            return Err(TokenError::Expired { source_name: self.name() });
        }
        Ok(OAuthToken {
            principal_name: claims.sub.unwrap_or_else(|| "postrider".to_owned()),
            lifetime_ms: i64::try_from(expires.as_millis()).unwrap_or(i64::MAX),
            token: token.to_owned(),
        })
    }
}

/// What a command printed; none if it did not close its output in time.
fn read_until(child: &mut Child, deadline: Instant) -> Option<std::io::Result<Vec<u8>>> {
    let stdout = child.stdout.take()?;
    let (send, receive) = mpsc::channel();
    let reader = std::thread::Builder::new().name("kafka-token".to_owned());
    // It ends with the pipe, whose other end is closed when the command is killed.
    let started = reader.spawn(move || send.send(read_bounded(stdout)));
    match started {
        Ok(_) => receive.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
        Err(error) => Some(Err(error)),
    }
}

/// How a command ended; none if it did not in time. One that has closed its output is about to.
fn wait_until(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn read_bounded(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(TOKEN_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What a JSON web token says of itself. It is the broker that verifies it.
#[derive(Default, Deserialize)]
struct Claims {
    exp: Option<f64>,
    sub: Option<String>,
}

/// The claims of a token; none of a token that is no JWT.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).and_then(from_base64url);
    payload.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
}

fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for symbol in text.trim_end_matches('=').bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// {"sub":"relay","exp":4102444800}
    const JWT: &str = "e30.eyJzdWIiOiJyZWxheSIsImV4cCI6NDEwMjQ0NDgwMH0.c2ln";

    fn shell(script: &str) -> TokenSource {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        TokenSource::Command { program: "/bin/sh".into(), arguments }
    }

    #[test]
    fn a_web_token_says_who_it_is_for_and_how_long() {
        let token = shell(&format!("echo {JWT}")).token().unwrap();
        assert_eq!(token.token, JWT);
        assert_eq!(token.principal_name, "relay");
        assert_eq!(token.lifetime_ms, 4_102_444_800_000);
    }

    #[test]
    fn an_opaque_token_lives_five_minutes() {
        let source = TokenSource::File("/token".into());
        let token = source.parse(b"opaque\n".to_vec(), Duration::from_secs(1000)).unwrap();
        assert_eq!((token.token.as_str(), token.lifetime_ms), ("opaque", 1_300_000));
    }

    #[test]
    fn failures_name_the_source_and_show_nothing_else() {
        let expired = format!("echo {}", JWT.replace("ImV4cCI6NDEwMjQ0NDgwMH0", "ImV4cCI6MX0"));
        for (script, text) in [
            ("echo hunter2; exit 3", "exit status: 3"),
            ("echo hunter2 hunter2", "several words"),
            ("true", "gave nothing"),
            ("yes hunter2", "more than 65536 bytes"),
            (expired.as_str(), "has expired"),
        ] {
            let message = shell(script).token().err().unwrap().to_string();
            assert!(message.contains("command /bin/sh") && message.contains(text), "{message}");
            assert!(!message.contains("hunter2") && !message.contains("e30"), "{message}");
        }
        let message = TokenSource::File("/no/such".into()).token().err().unwrap().to_string();
        assert!(message.contains("file /no/such"), "{message}");
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let begun = Instant::now();
        let error = shell("exec sleep 60").token().err().unwrap();
        assert!(matches!(error, TokenError::Slow { .. }), "{error}");
        assert!(begun.elapsed() < COMMAND_TIMEOUT * 2);
    }
}
