//! The admin endpoints: `GET /live`, `GET /ready`, `GET /metrics`.
//!
//! They read and change nothing, and say nothing secret; yet they listen on loopback unless the
//! configuration names another address, because they ask nobody who he is.
//!
//! - `/live`: 200 while the process answers at all. Also while it drains.
//! - `/ready`: 200 `ready`, or 503 and one line `condition: reason` for each that objects.
//! - `/metrics`: Prometheus' text format.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::metrics::CONTENT_TYPE;
use super::{Metrics, Readiness};
use crate::config::{Key, Kind, Reader, Section};

/// The port Prometheus' list of exporters leaves to nobody else we would meet on one machine.
const PORT: u16 = 9464;

/// Where the admin endpoints listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// `None` means off.
    pub listen: Option<SocketAddr>,
}

/// A text that is no address to listen on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no IP address with a port (a host's name is not taken)")]
pub struct ListenError;

/// What an address must look like, as a refusal says it.
const LISTEN_RULE: &str = "must be ip:port like 127.0.0.1:9464 or [::1]:9464, or off";

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: Some((Ipv4Addr::LOCALHOST, PORT).into()) }
    }
}

impl FromStr for AdminConfig {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if text == "off" {
            return Ok(Self { listen: None });
        }
        // Names are refused: one that means two addresses would bind either.
        text.parse().map(|listen| Self { listen: Some(listen) }).map_err(|_| ListenError)
    }
}

impl Section for AdminConfig {
    const KEYS: &'static [Key] = &[Key {
        path: "admin.listen",
        kind: Kind::Text,
        default: Some("127.0.0.1:9464"),
        help: "Address of `GET /live`, `/ready` and `/metrics`, or `off`. They ask nobody who he \
               is: give another address than loopback only in a network you trust. Port 0 takes a \
               free one.",
    }];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        let listen = raw.text("admin.listen")?;
        let refuse = |why: ListenError| {
            raw.problem("admin.listen", LISTEN_RULE, why.to_string());
        };
        listen.parse().map_err(refuse).ok()
    }
}

/// The endpoints of the process called `name`.
pub fn routes(name: &'static str, metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    Router::new()
        .route("/", get(move || async move { index(name) }))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready).with_state(readiness))
        .route("/metrics", get(exposition).with_state(metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(only_get)
}

const ENDPOINTS: &str = "\
GET /live     200 while the process runs
GET /ready    200 when it does its work, else 503 and why not
GET /metrics  figures in Prometheus' text format
";

fn index(name: &str) -> String {
    format!("{name} {}\n\n{ENDPOINTS}", env!("CARGO_PKG_VERSION"))
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let objections = readiness.objections();
    if objections.is_empty() {
        return "ready\n".into_response();
    }
    let lines: String = objections.iter().map(|objection| format!("{objection}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

async fn exposition(State(metrics): State<Arc<Metrics>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.text()).into_response()
}

async fn not_found(uri: Uri) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("nothing at {}; there is\n{ENDPOINTS}", uri.path()))
}

async fn only_get(method: Method, uri: Uri) -> (StatusCode, String) {
    let text = format!("{} answers GET and HEAD, not {method}\n", uri.path());
    (StatusCode::METHOD_NOT_ALLOWED, text)
}

#[cfg(test)]
mod tests;
