//! From the first message to "ready": who we are, proved in a way that does not give it away.
//!
//! ```text
//!   startup ─▶ asked for nothing, SCRAM, md5 or a password ─▶ OK ─▶ parameters, key ─▶ ready
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::{self, ServerError};
use super::cursor::{Cursor, Fault};
use super::endpoint::{ChannelBinding, Login};
use super::error::Error;
use super::frame::Frame;
use super::scram::{Scram, ScramError};
use super::wire::Wire;

const LOG_IN: &str = "log in";

/// A server reports about 15 parameters, and hardly ever a notice; a peer that goes on for ever must
/// not fill our memory before the timeout ends it.
const PARAMETERS_MAX: usize = 256;
const NOTICES_MAX: usize = 64;

/// The methods that the protocol knows and we do not have.
const UNSUPPORTED: [(u32, &str); 6] = [
    (2, "Kerberos V5"),
    (4, "crypt"),
    (6, "SCM credential"),
    (7, "GSSAPI"),
    (8, "GSSAPI"),
    (9, "SSPI"),
];

/// What the server said of itself while we logged in.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) pid: i32,
    pub(super) secret: i32,
    pub(super) notices: Vec<ServerError>,
}

/// What the transport can offer a login.
pub(super) struct Channel {
    pub(super) encrypted: bool,
    /// What SCRAM can be bound to.
    pub(super) end_point: Option<Vec<u8>>,
}

/// What the server asks for in an `R` message.
#[derive(Debug)]
enum Asked {
    Nothing,
    Cleartext,
    Md5 { salt: [u8; 4] },
    Sasl { mechanisms: Bytes },
    SaslContinue { message: Bytes },
    SaslFinal { message: Bytes },
    Unsupported { method: String },
}

/// One login on its way.
struct Attempt<'a, S> {
    wire: &'a mut Wire<S>,
    login: &'a Login,
    channel: Channel,
    scram: Option<Scram>,
    /// Set once the password, or a proof of it, has left us.
    gave: bool,
}

/// Why a login failed, and whether another try without (or with) TLS makes sense.
pub(super) struct Failed {
    pub(super) error: Error,
    /// The server refused us before it asked for anything.
    pub(super) before_password: bool,
}

/// Runs the login to "ready for query".
pub(super) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    login: &Login,
    channel: Channel,
) -> Result<Greeting, Failed> {
    let mut attempt = Attempt { wire, login, channel, scram: None, gave: false };
    match attempt.run().await {
        Ok(greeting) => Ok(greeting),
        Err(error) => Err(Failed { error, before_password: !attempt.gave }),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Attempt<'_, S> {
    async fn run(&mut self) -> Result<Greeting, Error> {
        let parameters = self.login.parameters();
        frontend::startup_message(parameters, &mut self.wire.out)
            .map_err(|_| Error::ZeroByte { what: "a startup parameter" })?;
        self.wire.flush(LOG_IN).await?;
        self.authenticate().await?;
        self.greeting().await
    }

    async fn authenticate(&mut self) -> Result<(), Error> {
        loop {
            let frame = self.wire.frame(LOG_IN).await?;
            match frame.tag {
                b'R' => {
                    let asked = asked(&frame.body).map_err(|fault| malformed(&frame, fault))?;
                    if matches!(asked, Asked::Nothing) {
                        return self.accepted();
                    }
                    self.answer(asked)?;
                }
                b'E' => return Err(refused(&frame)),
                // Notices may come at any time, and none matters before we are in.
                b'N' => {}
                tag => return Err(Error::Unexpected { doing: LOG_IN, tag }),
            }
            self.wire.flush(LOG_IN).await?;
        }
    }

    /// The server is content: it must have proved itself if there was a password to prove.
    fn accepted(&self) -> Result<(), Error> {
        match &self.scram {
            Some(scram) if !scram.proved() => Err(self.scram_failed(ScramError::Unproved)),
            None if self.login.channel_binding == ChannelBinding::Require => {
                Err(Error::ChannelBinding { why: "the server let us in without SCRAM" })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn answer(&mut self, asked: Asked) -> Result<(), Error> {
        let user = || self.login.user.clone();
        match asked {
            Asked::Nothing => Ok(()),
            Asked::Cleartext => {
                let password = self.password("password", self.login.weak.cleartext)?.to_owned();
                self.send_password(password.as_bytes())
            }
            Asked::Md5 { salt } => {
                let password = self.password("md5", self.login.weak.md5)?;
                let hash = md5_hash(self.login.user.as_bytes(), password.as_bytes(), salt);
                self.send_password(hash.as_bytes())
            }
            Asked::Sasl { mechanisms } => self.choose(&mechanisms),
            Asked::SaslContinue { message } => {
                let scram =
                    self.scram.as_mut().ok_or(Error::Unexpected { doing: LOG_IN, tag: b'R' })?;
                if let Err(error) = scram.update(&message) {
                    return Err(self.scram_failed(error));
                }
                self.gave = true;
                frontend::sasl_response(scram.message(), &mut self.wire.out)
                    .map_err(|source| Error::Broken { doing: LOG_IN, source })
            }
            Asked::SaslFinal { message } => {
                let scram =
                    self.scram.as_mut().ok_or(Error::Unexpected { doing: LOG_IN, tag: b'R' })?;
                scram.finish(&message).map_err(|error| self.scram_failed(error))
            }
            Asked::Unsupported { method } => {
                Err(Error::AuthenticationUnsupported { user: user(), method })
            }
        }
    }

    fn choose(&mut self, mechanisms: &Bytes) -> Result<(), Error> {
        let password = self.password("scram-sha-256", true)?;
        let end_point = self.channel.end_point.clone();
        let (binding, encrypted) = (self.login.channel_binding, self.channel.encrypted);
        let scram = Scram::choose(mechanisms, password, binding, encrypted, end_point)
            .map_err(|error| self.scram_failed(error))?;
        frontend::sasl_initial_response(scram.mechanism(), scram.message(), &mut self.wire.out)
            .map_err(|source| Error::Broken { doing: LOG_IN, source })?;
        self.scram = Some(scram);
        Ok(())
    }

    /// The password, if it may be shown in this way.
    fn password(&self, method: &'static str, allowed: bool) -> Result<&str, Error> {
        let user = self.login.user.clone();
        if self.login.channel_binding == ChannelBinding::Require && method != "scram-sha-256" {
            return Err(Error::ChannelBinding {
                why: "the server asks for a password without SCRAM",
            });
        }
        if !allowed {
            return Err(Error::PasswordWeak { user, method });
        }
        self.login.password.as_deref().ok_or(Error::PasswordMissing { user, method })
    }

    fn send_password(&mut self, password: &[u8]) -> Result<(), Error> {
        self.gave = true;
        frontend::password_message(password, &mut self.wire.out)
            .map_err(|_| Error::ZeroByte { what: "the password" })
    }

    fn scram_failed(&self, source: ScramError) -> Error {
        Error::Scram { user: self.login.user.clone(), source }
    }

    async fn greeting(&mut self) -> Result<Greeting, Error> {
        let mut greeting = Greeting::default();
        loop {
            let frame = self.wire.frame(LOG_IN).await?;
            let fault = |fault| malformed(&frame, fault);
            match frame.tag {
                b'S' => {
                    let (name, value) = answer::parameter(&frame.body).map_err(fault)?;
                    if greeting.parameters.len() < PARAMETERS_MAX {
                        greeting.parameters.insert(name, value);
                    }
                }
                b'K' => {
                    (greeting.pid, greeting.secret) =
                        answer::backend_key(&frame.body).map_err(fault)?;
                }
                b'N' if greeting.notices.len() < NOTICES_MAX => {
                    greeting.notices.push(ServerError::parse(&frame.body).map_err(fault)?);
                }
                b'N' => {}
                b'Z' => return Ok(greeting),
                b'E' => return Err(refused(&frame)),
                tag => return Err(Error::Unexpected { doing: LOG_IN, tag }),
            }
        }
    }
}

fn malformed(frame: &Frame, fault: Fault) -> Error {
    Error::Malformed { doing: LOG_IN, tag: frame.tag, fault }
}

fn refused(frame: &Frame) -> Error {
    match ServerError::parse(&frame.body) {
        Ok(error) => Error::Server { doing: LOG_IN, error: Box::new(error) },
        Err(fault) => malformed(frame, fault),
    }
}

fn asked(body: &Bytes) -> Result<Asked, Fault> {
    let mut cursor = Cursor::new(body);
    let code = cursor.u32("authentication method")?;
    let asked = match code {
        0 => Asked::Nothing,
        3 => Asked::Cleartext,
        5 => Asked::Md5 { salt: cursor.u32("salt")?.to_be_bytes() },
        10 => Asked::Sasl { mechanisms: body.slice(cursor.take_rest()) },
        11 => Asked::SaslContinue { message: body.slice(cursor.take_rest()) },
        12 => Asked::SaslFinal { message: body.slice(cursor.take_rest()) },
        code => {
            cursor.take_rest();
            let known = UNSUPPORTED.iter().find(|(known, _)| *known == code);
            let method =
                known.map_or_else(|| format!("number {code}"), |(_, name)| (*name).to_owned());
            Asked::Unsupported { method }
        }
    };
    cursor.finish().map(|()| asked)
}

#[cfg(test)]
mod tests;
