//! Finds the borders of Kafka messages in a stream of bytes.
//!
//! Promises that the bytes come out as they went in, cut so that each message begins a piece of its
//! own, whatever the chunks they arrived in. Keeps back only the few bytes of a head that is not
//! complete yet; the body of a large message streams through. Refuses to guess: a stream that
//! cannot be Kafka's (TLS, say) is passed through uncut from then on.
//!
//! Guarantee: the pieces, joined, are the input.
//! Bounded by: [`REQUEST_HEAD`] bytes are kept.
//! Tested by: this module's tests.

use bytes::{Buf as _, Bytes, BytesMut};

/// Length, api key, api version, correlation id.
pub(super) const REQUEST_HEAD: usize = 12;
/// Length, correlation id.
pub(super) const RESPONSE_HEAD: usize = 8;
/// Kafka's brokers take 100 MiB by default (`socket.request.max.bytes`); a length beyond this is no
/// length. TLS begins with 0x16 0x03, which reads as 369 million.
const MESSAGE_BYTES_MAX: i32 = 256 * 1024 * 1024;

/// Which way the messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Only requests say what they are; a response is known by its correlation id.
    pub(super) api_key: Option<i16>,
    pub(super) correlation_id: i32,
}

/// A run of bytes of one message, or of a stream without messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Set on the piece that begins a message.
    pub(super) head: Option<Head>,
    pub(super) bytes: Bytes,
}

#[derive(Debug)]
enum State {
    /// Between messages, or inside a head.
    Head,
    /// This many bytes of the body are still to come.
    Body(usize),
    /// Not Kafka's protocol.
    Opaque,
}

/// The parser of one direction of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    side: Side,
    state: State,
    kept: BytesMut,
}

impl Frames {
    pub(super) fn new(side: Side) -> Self {
        Self { side, state: State::Head, kept: BytesMut::new() }
    }

    /// A parser that looks for nothing.
    pub(super) fn opaque() -> Self {
        Self { side: Side::Request, state: State::Opaque, kept: BytesMut::new() }
    }

    pub(super) fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// Cuts a chunk into pieces; an incomplete head waits for the next chunk.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Vec<Piece> {
        self.kept.extend_from_slice(chunk);
        let mut pieces = Vec::new();
        while !self.kept.is_empty() {
            match self.state {
                State::Opaque => {
                    pieces.push(Piece { head: None, bytes: self.kept.split().freeze() });
                }
                State::Body(left) => {
                    let bytes = self.kept.split_to(left.min(self.kept.len())).freeze();
                    self.inside(left - bytes.len());
                    pieces.push(Piece { head: None, bytes });
                }
                State::Head => match self.head() {
                    Some(Some((head, length))) => {
                        let whole = 4 + length;
                        let bytes = self.kept.split_to(whole.min(self.kept.len())).freeze();
                        self.inside(whole - bytes.len());
                        pieces.push(Piece { head: Some(head), bytes });
                    }
                    Some(None) => self.state = State::Opaque,
                    None => break,
                },
            }
        }
        pieces
    }

    /// What is kept when the stream ends inside a head.
    pub(super) fn rest(&mut self) -> Bytes {
        self.kept.split().freeze()
    }

    fn inside(&mut self, left: usize) {
        self.state = if left == 0 { State::Head } else { State::Body(left) };
    }

    /// `None`: incomplete. `Some(None)`: not Kafka's.
    fn head(&self) -> Option<Option<(Head, usize)>> {
        let mut bytes = &self.kept[..];
        if bytes.len() < 4 {
            return None;
        }
        let length = bytes.get_i32();
        let needed = match self.side {
            Side::Request => REQUEST_HEAD,
            Side::Response => RESPONSE_HEAD,
        } - 4;
        let length = match usize::try_from(length) {
            Ok(long_enough) if long_enough >= needed && length <= MESSAGE_BYTES_MAX => long_enough,
            Ok(_) | Err(_) => return Some(None),
        };
        if bytes.len() < needed {
            return None;
        }
        let api_key = match self.side {
            Side::Request => {
                let api_key = bytes.get_i16();
                let _version = bytes.get_i16();
                Some(api_key)
            }
            Side::Response => None,
        };
        Some(Some((Head { api_key, correlation_id: bytes.get_i32() }, length)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A request with a body of this many bytes.
    pub(in crate::drill::proxy) fn request(
        api_key: i16,
        correlation_id: i32,
        body: usize,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((8 + body as i32).to_be_bytes());
        bytes.extend(api_key.to_be_bytes());
        bytes.extend(9_i16.to_be_bytes());
        bytes.extend(correlation_id.to_be_bytes());
        bytes.extend((0..body).map(|at| at as u8));
        bytes
    }

    /// A response with a body of this many bytes.
    pub(in crate::drill::proxy) fn response(correlation_id: i32, body: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((4 + body as i32).to_be_bytes());
        bytes.extend(correlation_id.to_be_bytes());
        bytes.extend((0..body).map(|at| at as u8));
        bytes
    }

    fn heads(pieces: &[Piece]) -> Vec<(Option<i16>, i32)> {
        pieces
            .iter()
            .filter_map(|piece| piece.head)
            .map(|head| (head.api_key, head.correlation_id))
            .collect()
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let stream: Vec<u8> = [request(26, 1, 0), request(0, 2, 40), request(3, 3, 1)].concat();
        for size in 1..=stream.len() {
            let mut frames = Frames::new(Side::Request);
            let pieces: Vec<Piece> =
                stream.chunks(size).flat_map(|chunk| frames.push(chunk)).collect();
            assert_eq!(heads(&pieces), [(Some(26), 1), (Some(0), 2), (Some(3), 3)], "{size}");
            let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
            assert_eq!(joined, stream, "{size}");
            assert!(frames.rest().is_empty());
        }
    }

    #[test]
    fn responses_are_known_by_their_correlation_id() {
        let stream = [response(7, 0), response(8, 3)].concat();
        let mut frames = Frames::new(Side::Response);
        let pieces: Vec<Piece> = stream.chunks(3).flat_map(|chunk| frames.push(chunk)).collect();
        assert_eq!(heads(&pieces), [(None, 7), (None, 8)]);
    }

    #[test]
    fn an_incomplete_head_is_kept_and_given_back_at_the_end() {
        let mut frames = Frames::new(Side::Request);
        assert!(frames.push(&request(26, 1, 5)[..11]).is_empty());
        assert_eq!(frames.rest().len(), 11);
    }

    #[test]
    fn what_is_not_kafka_passes_uncut() {
        let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00];
        let negative = [0xff, 0xff, 0xff, 0xff, 1];
        let too_short = [0, 0, 0, 7, 1];
        for bytes in [&hello[..], &negative, &too_short] {
            let mut frames = Frames::new(Side::Request);
            let pieces = frames.push(bytes);
            assert!(frames.is_opaque());
            assert_eq!(pieces, [Piece { head: None, bytes: Bytes::copy_from_slice(bytes) }]);
        }
    }
}
