//! Granting rights, in the few bytes of Kafka's protocol that it takes.
//!
//! Promises that a grant is accepted or an error. librdkafka's Rust binding has no call for it and
//! Kafka's own tool is a JVM a grant, so two old, fixed-width request versions are written here:
//! CreateAcls v1 and DescribeAcls v1. It comes in by plaintext, as the super user without a name.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const CREATE_ACLS: i16 = 30;
const DESCRIBE_ACLS: i16 = 29;
/// The last version without tagged fields and compact lengths; every 4.x broker speaks it.
const VERSION: i16 = 1;
/// Loopback; a broker that applies a grant answers in milliseconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// An answer about one grant has a hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ALLOW: u8 = 3;

/// One right of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant<'a> {
    /// `User:relay`, or `User:CN=relay` by a client certificate.
    pub principal: &'a str,
    /// On what.
    pub resource: Resource<'a>,
    /// To do what.
    pub operation: Operation,
}

/// What a right is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource<'a> {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its name, or the beginning of it.
    pub name: &'a str,
    /// Whether the name is only a beginning.
    pub prefixed: bool,
}

/// Kinds of resources; the numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceKind {
    /// A topic.
    Topic = 2,
    /// A consumer group.
    Group = 3,
    /// The whole cluster; its name is `kafka-cluster`.
    Cluster = 4,
    /// A producer's transactional id.
    TransactionalId = 5,
}

/// What one may do; the numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Everything.
    All = 2,
    /// Read records, join a group.
    Read = 3,
    /// Write records, use a transactional id.
    Write = 4,
    /// Make topics.
    Create = 5,
    /// Delete records, topics, groups.
    Delete = 6,
    /// See that it exists.
    Describe = 8,
    /// See its settings.
    DescribeConfigs = 10,
}

/// Adds a grant.
pub(super) fn create(broker: SocketAddr, grant: &Grant<'_>) -> Result<()> {
    let mut body = 1i32.to_be_bytes().to_vec();
    body.push(grant.resource.kind as u8);
    put_text(&mut body, grant.resource.name)?;
    body.push(pattern(grant.resource.prefixed));
    put_text(&mut body, grant.principal)?;
    put_text(&mut body, "*")?;
    body.extend([grant.operation as u8, ALLOW]);
    let answer = ask(broker, CREATE_ACLS, &body).with_context(|| format!("{grant:?}"))?;
    // Throttle time, then how many results, then the first one's error.
    match code_at(&answer, 8)? {
        0 => Ok(()),
        code => bail!("{grant:?} was refused with Kafka's error {code}: {}", words(&answer)),
    }
}

/// Whether a broker enforces a grant; each learns it on its own a moment after the controller.
pub(super) fn known(broker: SocketAddr, grant: &Grant<'_>) -> Result<bool> {
    let mut body = vec![grant.resource.kind as u8];
    put_text(&mut body, grant.resource.name)?;
    body.push(pattern(grant.resource.prefixed));
    put_text(&mut body, grant.principal)?;
    put_text(&mut body, "*")?;
    body.extend([grant.operation as u8, ALLOW]);
    let answer = ask(broker, DESCRIBE_ACLS, &body).with_context(|| format!("{grant:?}"))?;
    // Throttle time, error, words for the error, how many resources have such a grant.
    match code_at(&answer, 4)? {
        0 => Ok(answer.get(8..12).is_some_and(|count| count != [0; 4])),
        code => bail!("grants are not shown, Kafka's error {code}: {}", words(&answer)),
    }
}

/// One request and its answer without the header.
fn ask(broker: SocketAddr, api: i16, body: &[u8]) -> Result<Vec<u8>> {
    const CORRELATION: i32 = 1;
    let mut request = api.to_be_bytes().to_vec();
    request.extend(VERSION.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    put_text(&mut request, "postrider-drill")?;
    request.extend(body);

    let mut stream = TcpStream::connect_timeout(&broker, ANSWER_DEADLINE)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
    stream.write_all(&i32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("the broker closed instead of answering")?;
    let length = usize::try_from(i32::from_be_bytes(length))?;
    ensure!((4..=ANSWER_BYTES_MAX).contains(&length), "an answer of {length} bytes");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    ensure!(answer[..4] == CORRELATION.to_be_bytes(), "an answer to another request");
    Ok(answer.split_off(4))
}

fn pattern(prefixed: bool) -> u8 {
    if prefixed { 4 } else { 3 }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) -> Result<()> {
    bytes.extend(i16::try_from(text.len())?.to_be_bytes());
    bytes.extend(text.as_bytes());
    Ok(())
}

fn code_at(answer: &[u8], place: usize) -> Result<i16> {
    let bytes = answer.get(place..place + 2).context("the answer is too short")?;
    Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
}

/// What can be read of an answer, for an error.
fn words(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).chars().filter(|c| !c.is_control()).collect()
}
