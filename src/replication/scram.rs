//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: which of the offered mechanisms, and the three messages.
//!
//! The arithmetic is `postgres-protocol`'s; what is here is the choice (never weaker than what both
//! sides can do) and the order: a proof is accepted only after the server has proved that it knows
//! the password too.

use bytes::Bytes;
use postgres_protocol::authentication::sasl::{
    self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};

use super::cursor::{Cursor, Fault};
use super::endpoint::ChannelBinding;

/// Why the exchange cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ScramError {
    /// The server offers nothing that we speak.
    #[error("the server offers {offered}; SCRAM-SHA-256 and SCRAM-SHA-256-PLUS are supported")]
    Mechanisms {
        /// By name.
        offered: String,
    },
    /// The list of mechanisms breaks its layout.
    #[error("the list of mechanisms is malformed {0}")]
    Malformed(Fault),
    /// The server's part of the exchange is wrong. More than 100,000 iterations are refused too,
    /// because they are work that the other side orders before it has proved anything.
    #[error(
        "the server's {step} message is refused: {source} (scram_iterations above 100000 are not \
         supported)"
    )]
    Exchange {
        /// Which message.
        step: &'static str,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The server is content before it has proved itself.
    #[error("the server accepted the login without proving that it knows the password")]
    Unproved,
    /// The channel must be bound and cannot be.
    #[error("channel_binding = require, but {0}")]
    ChannelBinding(&'static str),
}

/// One exchange.
pub struct Scram {
    mechanism: &'static str,
    exchange: ScramSha256,
    stage: Stage,
}

/// How far the exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Messages go back and forth.
    Open,
    /// Both sides know that the other knows the password.
    Proved,
    /// It failed: there is nothing more to send.
    Failed,
}

impl Scram {
    /// Chooses from the body of the server's list. `end_point` is the hash to bind to, `None` for a
    /// certificate that has none; `encrypted` says whether there is TLS at all.
    ///
    /// # Errors
    ///
    /// [`ScramError`].
    pub fn choose(
        offered: &Bytes,
        password: &str,
        binding: ChannelBinding,
        encrypted: bool,
        end_point: Option<Vec<u8>>,
    ) -> Result<Self, ScramError> {
        let names = mechanisms(offered).map_err(ScramError::Malformed)?;
        let has = |name: &str| names.iter().any(|offered| offered == name);
        let plus = has(SCRAM_SHA_256_PLUS);
        let (mechanism, channel) = match (binding, end_point) {
            (ChannelBinding::Prefer | ChannelBinding::Require, Some(hash)) if plus => {
                (SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            (ChannelBinding::Require, Some(_)) => {
                return Err(ScramError::ChannelBinding(
                    "the server does not offer SCRAM-SHA-256-PLUS",
                ));
            }
            (ChannelBinding::Require, None) if encrypted => {
                let why = "the server's certificate is signed with an algorithm that has no hash, \
                           such as Ed25519";
                return Err(ScramError::ChannelBinding(why));
            }
            (ChannelBinding::Require, None) => {
                return Err(ScramError::ChannelBinding("the connection is not encrypted"));
            }
            // "We could have bound": tells the server of a list that was shortened on its way.
            (ChannelBinding::Prefer, Some(_)) => {
                (SCRAM_SHA_256, sasl::ChannelBinding::unrequested())
            }
            (ChannelBinding::Prefer | ChannelBinding::Disable, _) => {
                (SCRAM_SHA_256, sasl::ChannelBinding::unsupported())
            }
        };
        if !has(mechanism) {
            return Err(ScramError::Mechanisms { offered: names.join(", ") });
        }
        let exchange = ScramSha256::new(password.as_bytes(), channel);
        Ok(Self { mechanism, exchange, stage: Stage::Open })
    }

    /// The name of the chosen mechanism.
    pub fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// The next message to send: before the first answer, and after it. Empty once it is over.
    pub fn message(&self) -> &[u8] {
        match self.stage {
            Stage::Open => self.exchange.message(),
            Stage::Proved | Stage::Failed => &[],
        }
    }

    /// Takes the server's first message.
    ///
    /// # Errors
    ///
    /// [`ScramError::Exchange`]: the login has failed.
    pub fn update(&mut self, message: &[u8]) -> Result<(), ScramError> {
        let outcome = self.exchange.update(message);
        self.after("first", outcome, Stage::Open)
    }

    /// Takes the server's last message, with its proof.
    ///
    /// # Errors
    ///
    /// [`ScramError::Exchange`]: it is not the server that it says it is.
    pub fn finish(&mut self, message: &[u8]) -> Result<(), ScramError> {
        let outcome = self.exchange.finish(message);
        self.after("last", outcome, Stage::Proved)
    }

    fn after(
        &mut self,
        step: &'static str,
        outcome: std::io::Result<()>,
        next: Stage,
    ) -> Result<(), ScramError> {
        self.stage = if outcome.is_ok() { next } else { Stage::Failed };
        outcome.map_err(|source| ScramError::Exchange { step, source })
    }

    /// The server has proved that it knows the password.
    pub fn proved(&self) -> bool {
        self.stage == Stage::Proved
    }
}

/// Zero-terminated names, ended by an empty one.
fn mechanisms(body: &Bytes) -> Result<Vec<String>, Fault> {
    let mut cursor = Cursor::new(body);
    let mut names = Vec::new();
    loop {
        match cursor.text("mechanism")? {
            "" => return cursor.finish().map(|()| names),
            name => names.push(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    const PLAIN: &[u8] = b"SCRAM-SHA-256\0\0";

    fn choose(
        offered: &'static [u8],
        binding: ChannelBinding,
        hash: Option<&[u8]>,
    ) -> Result<(&'static str, String), ScramError> {
        let hash = hash.map(<[u8]>::to_vec);
        let scram = Scram::choose(&Bytes::from_static(offered), "pw", binding, true, hash)?;
        let first = String::from_utf8(scram.message().to_vec()).unwrap();
        Ok((scram.mechanism(), first.split("n=").next().unwrap().to_owned()))
    }

    #[test]
    fn the_strongest_that_both_can_do_is_chosen() {
        use ChannelBinding::{Disable, Prefer, Require};
        let hash = Some(&b"hash"[..]);
        let plus = (SCRAM_SHA_256_PLUS, "p=tls-server-end-point,,".to_owned());
        assert_eq!(choose(BOTH, Prefer, hash).unwrap(), plus);
        assert_eq!(choose(BOTH, Require, hash).unwrap(), plus);
        assert_eq!(choose(BOTH, Disable, hash).unwrap(), (SCRAM_SHA_256, "n,,".to_owned()));
        assert_eq!(choose(BOTH, Prefer, None).unwrap(), (SCRAM_SHA_256, "n,,".to_owned()));
        // A list without PLUS under TLS may have been shortened: `y` lets the server see that.
        assert_eq!(choose(PLAIN, Prefer, hash).unwrap(), (SCRAM_SHA_256, "y,,".to_owned()));
        assert!(matches!(choose(PLAIN, Require, hash), Err(ScramError::ChannelBinding(_))));
        assert!(matches!(choose(BOTH, Require, None), Err(ScramError::ChannelBinding(_))));
    }

    #[test]
    fn unknown_mechanisms_are_named() {
        let error = choose(b"OAUTHBEARER\0X\0\0", ChannelBinding::Prefer, None).unwrap_err();
        assert!(error.to_string().contains("OAUTHBEARER, X"), "{error}");
        for cut in 0..PLAIN.len() {
            let cut = Bytes::from_static(&PLAIN[..cut]);
            let chosen = Scram::choose(&cut, "pw", ChannelBinding::Prefer, false, None);
            assert!(matches!(chosen, Err(ScramError::Malformed(_))));
        }
    }

    #[test]
    fn an_impostor_and_an_expensive_server_are_refused() {
        let new = || {
            let offered = Bytes::from_static(PLAIN);
            Scram::choose(&offered, "pw", ChannelBinding::Prefer, false, None).unwrap()
        };
        let nonce = |scram: &Scram| {
            let first = String::from_utf8(scram.message().to_vec()).unwrap();
            first.split("r=").nth(1).unwrap().to_owned()
        };
        let mut scram = new();
        assert!(scram.update(b"r=other,s=c2FsdA==,i=4096").is_err());
        let mut scram = new();
        let costly = format!("r={}x,s=c2FsdA==,i=100001", nonce(&scram));
        assert!(scram.update(costly.as_bytes()).unwrap_err().to_string().contains("100000"));
        let mut scram = new();
        let first = format!("r={}x,s=c2FsdA==,i=1", nonce(&scram));
        scram.update(first.as_bytes()).unwrap();
        assert!(scram.finish(b"v=AAAA").is_err());
        assert!(!scram.proved());
    }
}
