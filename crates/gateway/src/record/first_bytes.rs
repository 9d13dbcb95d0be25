//! What a connection is going to be, from the first bytes that the build sends.

use std::io;
use tokio::net::TcpStream;

/// Enough for any method of HTTP and the space after it.
const LONGEST_METHOD: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Tls,
    Http,
    /// Neither.
    Other,
    /// The build said nothing, and nothing will come.
    Nothing,
}

/// Waits for the first bytes and leaves them where they are.
pub(super) async fn listen(stream: &TcpStream) -> io::Result<Speech> {
    let mut buffer = [0; LONGEST_METHOD];
    let length = stream.peek(&mut buffer).await?;
    Ok(classify(&buffer[..length]))
}

fn classify(bytes: &[u8]) -> Speech {
    /// Of a TLS record with a handshake.
    const HANDSHAKE: u8 = 0x16;
    let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    match bytes.first() {
        None => Speech::Nothing,
        Some(&HANDSHAKE) => Speech::Tls,
        Some(_) if !method.is_empty() && method.iter().all(u8::is_ascii_uppercase) => Speech::Http,
        Some(_) => Speech::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_apart() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1"[..], Speech::Http),
            (b"PRI * HTTP/2", Speech::Http),
            (b"PROPFIND /x ", Speech::Http),
            (b"G", Speech::Http),
            (b"\x16\x03\x01\x02\x00", Speech::Tls),
            (b"SSH-2.0-Open", Speech::Other),
            (b"0032git-uplo", Speech::Other),
            (b"@RSYNCD: 31.", Speech::Other),
            (b" ", Speech::Other),
            (b"", Speech::Nothing),
        ] {
            assert_eq!(classify(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
