//! From a [`Login`] to a transport on which we are logged in: the order in which `sslmode` tries.
//!
//! | mode | first | then, if the server will not |
//! |---|---|---|
//! | disable | plain | — |
//! | allow | plain | TLS, if refused before a password was asked for |
//! | prefer | TLS | plain, if there is no TLS, its handshake fails, or as above |
//! | require, verify-ca, verify-full | TLS | — |
//!
//! A second try never follows a password: what `allow` and `prefer` promise is little, but it is not
//! that a password refused once is sent again in the clear.

use std::sync::Arc;

use rustls::ClientConfig;

use super::authentication::{Channel, Failed, Greeting, log_in};
use super::endpoint::{Encryption, Endpoint, Login};
use super::error::Error;
use super::transport::{Negotiated, Transport};
use super::wire::Wire;

/// `invalid_authorization_specification`: no line of pg_hba.conf fits, which TLS may change.
const NO_HBA_LINE: &str = "28000";

/// A transport that is logged in.
pub(super) struct LoggedIn {
    pub(super) wire: Wire<Transport>,
    pub(super) greeting: Greeting,
}

/// Connects and logs in, within the login's time.
pub(super) async fn connect(login: &Login) -> Result<LoggedIn, Error> {
    match tokio::time::timeout(login.connect_timeout, tries(login)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::ConnectTimeout {
            endpoint: login.endpoint.to_string(),
            after: login.connect_timeout,
        }),
    }
}

async fn tries(login: &Login) -> Result<LoggedIn, Error> {
    let unix = matches!(login.endpoint, Endpoint::Unix { .. });
    match &login.encryption {
        // A unix socket is not encrypted under any mode, as with every Postgres client.
        Encryption::Disable => plain(login).await.map_err(|failed| failed.error),
        _ if unix => plain(login).await.map_err(|failed| failed.error),
        Encryption::Require(config) => {
            encrypted(login, config).await.map_err(|failed| failed.error)
        }
        Encryption::Allow(config) => match plain(login).await {
            Err(failed) if may_try_again(&failed) => {
                encrypted(login, config).await.map_err(|failed| failed.error)
            }
            outcome => outcome.map_err(|failed| failed.error),
        },
        Encryption::Prefer(config) => match encrypted(login, config).await {
            Err(failed) if may_try_again(&failed) || no_tls(&failed.error) => {
                plain(login).await.map_err(|failed| failed.error)
            }
            outcome => outcome.map_err(|failed| failed.error),
        },
    }
}

fn may_try_again(failed: &Failed) -> bool {
    failed.before_password && failed.error.sqlstate() == Some(NO_HBA_LINE)
}

fn no_tls(error: &Error) -> bool {
    matches!(error, Error::TlsRefused { .. } | Error::Tls { .. })
}

async fn plain(login: &Login) -> Result<LoggedIn, Failed> {
    let transport = Transport::connect(&login.endpoint).await.map_err(early)?;
    finish(login, transport).await
}

async fn encrypted(login: &Login, config: &Arc<ClientConfig>) -> Result<LoggedIn, Failed> {
    let transport = reach_encrypted(login, config).await.map_err(early)?;
    finish(login, transport).await
}

/// A transport with TLS, or an error.
pub(super) async fn reach_encrypted(
    login: &Login,
    config: &Arc<ClientConfig>,
) -> Result<Transport, Error> {
    let endpoint = &login.endpoint;
    // Only a mode that takes nothing but TLS can begin with it: there is no answer to go back on.
    let direct = login.direct_tls && matches!(login.encryption, Encryption::Require(_));
    match Transport::connect(endpoint).await?.encrypt(endpoint, config, direct).await? {
        Negotiated::Encrypted(transport) => Ok(transport),
        Negotiated::Refused(_plain) => Err(Error::TlsRefused { endpoint: endpoint.to_string() }),
    }
}

fn early(error: Error) -> Failed {
    Failed { error, before_password: true }
}

async fn finish(login: &Login, transport: Transport) -> Result<LoggedIn, Failed> {
    let (encrypted, end_point) = (transport.encrypted(), transport.end_point());
    let mut wire = Wire::new(transport);
    let greeting = log_in(&mut wire, login, Channel { encrypted, end_point }).await?;
    Ok(LoggedIn { wire, greeting })
}
