//! A stream with its first bytes put back.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Bytes of the connection preface: RFC 9113, section 3.4.
const PREFACE_BYTES: usize = 24;

/// A stream that is read from its beginning, though some of it has been read.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    read: [u8; PREFACE_BYTES],
    /// How many of these have been read again.
    again: usize,
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Rewound<S> {
    /// Waits for the bytes that every HTTP/2 connection begins with, and gives
    /// the connection back as it was before them. The HTTP library would wait for
    /// them without end.
    pub(super) async fn after_preface(mut stream: S) -> io::Result<Self> {
        let mut read = [0; PREFACE_BYTES];
        stream.read_exact(&mut read).await?;
        Ok(Self { read, again: 0, stream })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.read.get(self.again..).unwrap_or_default();
        let fitting = rest.get(..buffer.remaining()).unwrap_or(rest);
        if fitting.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        buffer.put_slice(fitting);
        self.again += fitting.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn what_was_read_is_read_again_in_pieces_of_any_size() {
        for piece in [1, 5, 24, 25, 100] {
            let (mut client, server) = tokio::io::duplex(256);
            let sent: Vec<u8> = (0..60).collect();
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut stream = Rewound::after_preface(server).await.unwrap();
            let mut received: Vec<u8> = Vec::new();
            loop {
                let mut bytes = vec![0; piece];
                match stream.read(&mut bytes).await.unwrap() {
                    0 => break,
                    count => received.extend(&bytes[..count]),
                }
            }
            assert_eq!(received, sent, "{piece}");
        }
    }
}
