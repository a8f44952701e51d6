//! A socket to the server: TCP or unix, encrypted or not.
//!
//! TLS is asked for with one message and answered with one byte; that byte is read alone, so that
//! nothing sent before the encryption can be taken for something sent inside it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate;
use super::endpoint::Endpoint;
use super::error::Error;

/// One way to the server.
pub(super) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How the request for TLS ended.
pub(super) enum Negotiated {
    Encrypted(Transport),
    /// The server has no TLS; the connection is still good.
    Refused(Transport),
}

impl Transport {
    /// Connects without encryption. A name with several addresses is tried address by address.
    pub(super) async fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let failed = |source| Error::Connect { endpoint: endpoint.to_string(), source };
        match endpoint {
            Endpoint::Tcp { host, address, port } => {
                let stream = match address {
                    Some(address) => TcpStream::connect((*address, *port)).await,
                    None => TcpStream::connect((host.as_str(), *port)).await,
                };
                let stream = stream.map_err(failed)?;
                // A status update is small and must not wait for the next.
                stream.set_nodelay(true).map_err(failed)?;
                Ok(Self::Tcp(stream))
            }
            Endpoint::Unix { path } => {
                UnixStream::connect(path).await.map(Self::Unix).map_err(failed)
            }
        }
    }

    /// Asks for TLS, unless it is to begin `direct`ly, and begins it if the server agrees.
    pub(super) async fn encrypt(
        self,
        endpoint: &Endpoint,
        config: &Arc<ClientConfig>,
        direct: bool,
    ) -> Result<Negotiated, Error> {
        let (Self::Tcp(mut stream), Endpoint::Tcp { host, .. }) = (self, endpoint) else {
            return Err(Error::TlsRefused { endpoint: endpoint.to_string() });
        };
        if !direct && !ask(&mut stream, endpoint).await? {
            return Ok(Negotiated::Refused(Self::Tcp(stream)));
        }
        let failed = |source| Error::Tls { endpoint: endpoint.to_string(), source };
        let name = ServerName::try_from(host.clone())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await.map_err(failed)?;
        Ok(Negotiated::Encrypted(Self::Tls(Box::new(stream))))
    }

    /// Whether there is TLS.
    pub(super) fn encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What SCRAM can be bound to.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        let Self::Tls(stream) = self else { return None };
        let (_, session) = stream.get_ref();
        certificate::end_point(session.peer_certificates()?.first()?)
    }
}

/// Asks whether the server speaks TLS.
async fn ask(stream: &mut TcpStream, endpoint: &Endpoint) -> Result<bool, Error> {
    let broken = |source| Error::Broken { doing: "ask for TLS", source };
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(broken)?;
    // Room for one byte more than the answer has: what comes with it was written by somebody
    // before the encryption, and must never be read as if it came from inside.
    let mut answer = [0_u8; 2];
    match stream.read(&mut answer).await.map_err(broken)? {
        0 => return Err(Error::Closed { doing: "ask for TLS" }),
        1 => {}
        _ => return Err(Error::TlsInjected { endpoint: endpoint.to_string() }),
    }
    match answer {
        [b'S', _] => Ok(true),
        [b'N', _] => Ok(false),
        // An error here is from a server of the last century, or not from Postgres at all; its
        // text is not authenticated and is not shown.
        [tag, _] => Err(Error::Unexpected { doing: "ask for TLS", tag }),
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers the request for TLS with these bytes.
    async fn answered(answer: &'static [u8]) -> Result<Negotiated, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), address: None, port };
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
            stream.write_all(answer).await.unwrap();
            stream
        };
        let client = async {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            let transport = Transport::connect(&endpoint).await.unwrap();
            transport.encrypt(&endpoint, &Arc::new(config), false).await
        };
        tokio::join!(server, client).1
    }

    #[tokio::test]
    async fn only_one_byte_may_come_before_tls() {
        assert!(matches!(answered(b"N").await, Ok(Negotiated::Refused(_))));
        let injected = answered(b"SE\0\0\0\x08evil").await;
        assert!(matches!(injected, Err(Error::TlsInjected { .. })));
        let injected = answered(b"NR\0\0\0\x08\0\0\0\0").await;
        assert!(matches!(injected, Err(Error::TlsInjected { .. })));
        let old = answered(b"E").await;
        assert!(matches!(old, Err(Error::Unexpected { tag: b'E', .. })));
    }
}
